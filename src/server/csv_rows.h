#pragma once

#include <cstdio>
#include <memory>

#include "database/row_export.h"
#include "database/row_import.h"

// Rows as CSV (RFC 4180), both ways. What an export writes an import reads as the same values:
// docs/protocol/http.md, "CSV".
namespace offprint::server {

struct CsvOptions {
  bool header = true;  // the first row is the columns' names
  char delimiter = ',';
};

std::unique_ptr<database::RowFormat> make_csv_format(const CsvOptions& options);
// `file` must outlive it.
std::unique_ptr<database::RowReader> make_csv_rows(std::FILE* file, const CsvOptions& options);

}  // namespace offprint::server
