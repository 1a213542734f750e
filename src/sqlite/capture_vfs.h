#pragma once

#include <sqlite3.h>

#include "sqlite/capture_state.h"

namespace offprint::sqlite {

// The capture state behind a main database's file object; null when a capture VFS did not open it.
CaptureState* capture_state_of(sqlite3_file* main_database);

}  // namespace offprint::sqlite
