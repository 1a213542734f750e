#include "server/row_file.h"

namespace offprint::server {

Result<RowFile> RowFile::parse(const Address& address) {
  std::string_view format = address.parameter("format").value_or("");
  if (!is_format(format)) return fail(Code::kInvalid, "'format' must be csv or jsonl");
  RowFile file;
  file.is_csv = format == "csv";
  OFFPRINT_TRY_ASSIGN(file.csv.header, address.flag("header", true));
  std::string_view delimiter = address.parameter("delimiter").value_or(",");
  if (delimiter == "tab") delimiter = "\t";
  // None that can be a part of a number or of x'00'.
  bool is_known =
      delimiter.size() == 1 && std::string_view(",;|:\t").find(delimiter) != std::string_view::npos;
  if (!is_known) return fail(Code::kInvalid, "'delimiter' must be one of , ; | : or tab");
  file.csv.delimiter = delimiter[0];
  return file;
}

}  // namespace offprint::server
