#pragma once

#include <functional>
#include <memory>

#include "database/replication.h"
#include "journal/journal.h"

namespace offprint::database {

// A CopyWriter that gathers the pages in a large payload of the journal, then calls `finish` with
// it. `journal` must outlive it.
Result<std::unique_ptr<CopyWriter>> make_copy_writer(
    journal::Journal& journal, const CopyTarget& target,
    std::function<Result<>(const NewHistory&)> finish);

}  // namespace offprint::database
