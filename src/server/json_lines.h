#pragma once

#include <cstdio>
#include <memory>

#include "database/row_export.h"
#include "database/row_import.h"

// Rows as JSON lines, one object each, both ways: docs/protocol/http.md, "JSON lines".
namespace offprint::server {

std::unique_ptr<database::RowFormat> make_json_lines_format();
// `file` must outlive it.
std::unique_ptr<database::RowReader> make_json_line_rows(std::FILE* file);

}  // namespace offprint::server
