#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/sql_import.h"

// Rows of files into tables of hosted databases.
namespace offprint::database {

// One value of a row.
struct Cell {
  sqlite::Value value;
  // A text that stands for a number where its column takes numbers: bare_number().
  bool bare = false;
};

struct FileRow {
  std::uint64_t line = 1;            // in the file, counted from 1, where it begins
  bool by_position = false;          // `cells` are of all columns of the table, in its order …
  std::vector<std::string> columns;  // … else of these
  std::vector<Cell> cells;
};

// A row is this long at most, in the file.
inline constexpr std::size_t kFileRowBytesMax = 520 << 20;

// Reads the rows of a file, one after the other. Thread: one. Memory: one row.
class RowReader {
 public:
  virtual ~RowReader() = default;
  // Once, first. `column_count`: of the table, as far as they can be written; 0: there is no table.
  // Afterwards columns() may be known.
  virtual Result<> begin(std::size_t column_count) = 0;
  // The columns that the file itself names, for a table that is to be made; empty: each row does.
  virtual const std::vector<std::string>& columns() const = 0;
  // False: that was all. kInvalid "line N: …". What `row` held is overwritten.
  virtual Result<bool> next(FileRow& row) = 0;
};

struct RowImportOptions {
  enum class OnConflict { kAbort, kIgnore, kReplace };
  std::string table;
  bool create = false;  // the table, when it is absent: its columns have no type
  OnConflict on_conflict = OnConflict::kAbort;
  LoadWatcher watcher;  // may be empty
  // How the file is read, again from its beginning each time.
  std::function<std::unique_ptr<RowReader>(std::FILE*)> reader;
};

// Inserts all rows of a file as one transaction: all of them or none, also when the process dies
// meanwhile. While it runs other writers of the database are refused with kBusy "IMPORT_RUNNING";
// reads go on. Children may come before their parents. ImportResult::statements counts the file's
// rows. Errors: "line N: message"; kNotFound: no such database or table; kConflict "JOB_CANCELLED".
// Blocks, for as long as it takes: not for helper threads of the store.
Result<ImportResult> import_rows(Store& store, const DatabaseName& name, const std::string& path,
                                 const RowImportOptions& options);

}  // namespace offprint::database
