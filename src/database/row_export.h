#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/result.h"
#include "database/rights.h"
#include "database/text_export.h"

// Rows of one table or query as text, out of one state.
namespace offprint::database {

// How rows are written. Thread: one at a time.
class RowFormat {
 public:
  virtual ~RowFormat() = default;
  // Once, before the first row. An error refuses the export.
  virtual Result<> begin(const sqlite::Statement& rows, std::string& to) = 0;
  virtual Result<> row(const sqlite::Statement& row, std::string& to) = 0;
};

struct RowExportOptions {
  // One of these two. A table's rows come in its own order, without generated and hidden columns.
  std::string table;
  std::string query;                                 // one reading statement, without parameters
  std::shared_ptr<const SqlRights> rights = {};      // of the one who asks; empty: everything
  std::chrono::milliseconds piece_time_max{30'000};  // what one piece may take
};

// Refusals (before the first byte): kNotFound: no such database or table; kInvalid: a table that
// only SQLite or a virtual table uses, a query that does not read; kForbidden: beyond `rights`. The
// database's limits count: a statement's time for each piece, rows for a query. Blocks.
Result<std::unique_ptr<TextExport>> export_rows(Store& store, const DatabaseName& name,
                                                RowExportOptions options,
                                                std::unique_ptr<RowFormat> format);

}  // namespace offprint::database
