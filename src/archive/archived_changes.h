#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "archive/archived_history.h"
#include "archive/object_store.h"
#include "base/result.h"
#include "database/store.h"

namespace offprint::archive {

using StateAt = std::function<Result<std::unique_ptr<database::Snapshot>>(const Bookmark&)>;

// What the transactions that lead to each of these moments changed together, in the same order:
// newest first, as list_moments() gave them. Pages are compared with the state before, tables are
// those that own them in the state after. Reads each moment's object, and one state, or a further
// one where much has changed or moments are left out: it takes what restoring that takes. Memory:
// some 32 MiB. Blocks. Errors, of each by itself: kNotFound, what was before is not known, or was
// compacted meanwhile; kCorrupt a damaged object; and what the store and `state_at` answer.
std::vector<Result<database::TransactionDetails>> describe_moments(
    ObjectStore& objects, const std::vector<ArchivedMoment>& moments, const StateAt& state_at);

}  // namespace offprint::archive
