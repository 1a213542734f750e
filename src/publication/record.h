#pragma once

#include <cstddef>

#include "base/bytes.h"
#include "publication/source_state.h"

namespace offprint::publication {

// The first columns of a record, as SQLite's file format has it ("Record Format"). Texts are in the
// database's encoding. kCorrupt.
Result<Row> record_columns(ByteView record, std::size_t count);

}  // namespace offprint::publication
