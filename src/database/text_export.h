#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "base/result.h"
#include "database/sql_dump.h"
#include "database/store.h"

// Content of a database as text, out of one consistent state, while writes go on.
namespace offprint::database {

// Thread: one at a time. Blocks: not for I/O threads. Holds a read transaction while it lives, for
// StoreOptions::copy_timeout_ms at most.
class TextExport {
 public:
  virtual ~TextExport() = default;
  virtual Bookmark bookmark() const = 0;
  // Appends at least `bytes` to `to`, and not much more. False: that was all. kTimeout: see above.
  virtual Result<bool> next(std::string& to, std::size_t bytes) = 0;
};

// As a script. kNotFound: no such database, or no such table.
Result<std::unique_ptr<TextExport>> export_sql(Store& store, const DatabaseName& name,
                                               const SqlDumpOptions& options);

// Writes all of it to a file; answers the bytes written.
Result<std::uint64_t> write_all(TextExport& text, std::FILE* to);

}  // namespace offprint::database
