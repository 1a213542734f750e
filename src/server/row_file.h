#pragma once

#include "server/address.h"
#include "server/csv_rows.h"
#include "server/json_lines.h"

namespace offprint::server {

// The form of a file of rows, as parameters say it: format=csv or jsonl, and for CSV header=0|1 and
// delimiter=.
struct RowFile {
  bool is_csv = true;  // else JSON lines
  CsvOptions csv;

  // kInvalid: another format or delimiter.
  static Result<RowFile> parse(const Address& address);
  // `format` is one of these.
  static bool is_format(std::string_view format) { return format == "csv" || format == "jsonl"; }
  std::unique_ptr<database::RowReader> open(std::FILE* file) const {
    return is_csv ? make_csv_rows(file, csv) : make_json_line_rows(file);
  }
};

}  // namespace offprint::server
