// Feeds arbitrary bytes to what reads files of rows: CSV is the same rows or the same error however
// it is cut into pieces, and a field without quotes that is a number is one that JSON could hold.
#include <cstdint>
#include <cstdio>
#include <string>

#include "base/assert.h"
#include "database/bare_number.h"
#include "server/csv_reader.h"
#include "server/row_file.h"

namespace {

using namespace offprint;          // NOLINT: the whole program is about it
using namespace offprint::server;  // NOLINT

constexpr std::size_t kRowBytesMax = 200;

std::string rows_in_pieces(std::string_view text, std::size_t piece_bytes, char delimiter) {
  CsvReader reader(delimiter, kRowBytesMax);
  std::string result;
  auto add_row = [&] {
    result += std::to_string(reader.line());
    for (std::size_t i = 0; i < reader.field_count(); ++i) {
      CsvReader::Field field = reader.field(i);
      result += field.quoted ? 'q' : 'b';
      result += std::to_string(field.text.size()) + ":" + std::string(field.text);
      if (!field.quoted) (void)database::bare_number(field.text);
    }
  };
  while (!text.empty()) {
    std::string piece(text.substr(0, piece_bytes));
    text.remove_prefix(piece.size());
    std::string_view rest = piece;
    for (;;) {
      Result<bool> row = reader.take(rest);
      if (!row) return result + row.error().message();
      if (!*row) break;
      add_row();
    }
  }
  for (;;) {
    Result<bool> row = reader.finish();
    if (!row) return result + row.error().message();
    if (!*row) return result;
    add_row();
  }
}

void read_rows(const std::uint8_t* data, std::size_t size, const RowFile& form,
               std::size_t column_count) {
  std::FILE* file = ::fmemopen(const_cast<std::uint8_t*>(data), size, "r");
  if (file == nullptr) return;
  auto reader = form.open(file);
  if (reader->begin(column_count)) {
    database::FileRow row;
    std::uint64_t line = 0;
    for (;;) {
      Result<bool> more = reader->next(row);
      if (!more || !*more) break;
      OFFPRINT_ASSERT(row.line > line);
      OFFPRINT_ASSERT(row.by_position || row.columns.size() == row.cells.size());
      line = row.line;
    }
  }
  std::fclose(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  RowFile form;
  form.csv.header = (data[0] & 1) != 0;
  form.csv.delimiter = (data[0] & 2) != 0 ? ',' : '\t';
  std::string whole = rows_in_pieces(text, size, form.csv.delimiter);
  for (std::size_t piece : {1U, 3U})
    OFFPRINT_ASSERT(rows_in_pieces(text, piece, form.csv.delimiter) == whole);
  read_rows(data, size, form, data[0] >> 6);
  form.is_csv = false;
  read_rows(data, size, form, 0);
  return 0;
}
