#include "server/csv_rows.h"

#include <cerrno>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "database/bare_number.h"
#include "server/csv_reader.h"
#include "server/file_pieces.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

using database::Cell;
using database::FileRow;

// x'00ff' (upper case, too); nothing for everything else.
std::optional<Bytes> bare_blob(std::string_view text) {
  if (text.size() < 3 || !text.starts_with("x'") || !text.ends_with('\'')) return std::nullopt;
  std::string digits(text.substr(2, text.size() - 3));
  for (char& c : digits) c = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  return from_hex(digits);
}

class CsvFormat final : public database::RowFormat {
 public:
  explicit CsvFormat(const CsvOptions& options) : options_(options) {}

  Result<> begin(const sqlite::Statement& rows, std::string& to) override {
    if (!options_.header) return {};
    for (int i = 0; i < rows.column_count(); ++i) {
      if (i > 0) to += options_.delimiter;
      const char* name = sqlite3_column_name(rows.handle(), i);
      append_text(to, name == nullptr ? "" : name, false);
    }
    to += "\r\n";
    return {};
  }

  Result<> row(const sqlite::Statement& row, std::string& to) override {
    for (int i = 0; i < row.column_count(); ++i) {
      if (i > 0) to += options_.delimiter;
      append_value(to, row, i);
    }
    to += "\r\n";
    return {};
  }

 private:
  void append_value(std::string& to, const sqlite::Statement& row, int column) const {
    switch (row.column_type(column)) {
      case SQLITE_INTEGER:
        return append_integer(to, row.column_int(column));
      case SQLITE_FLOAT: {
        double value = row.column_double(column);
        if (std::isinf(value)) {
          to += value > 0 ? "9e999" : "-9e999";
        } else {
          append_double(to, value);
        }
        return;
      }
      case SQLITE_TEXT:
        return append_text(to, row.column_text(column), true);
      case SQLITE_BLOB:
        to += "x'";
        to += to_hex(row.column_blob(column));
        to += '\'';
        return;
      default:
        return;
    }
  }

  // `typed`: what would be read as another value without quotes gets them.
  void append_text(std::string& to, std::string_view text, bool typed) const {
    bool reads_otherwise = typed && (database::bare_number(text) || bare_blob(text));
    if (!reads_otherwise && !has_special(text)) {
      to += text;
      return;
    }
    to += '"';
    for (std::size_t at = 0;;) {
      std::size_t quote = text.find('"', at);
      to += text.substr(at, quote - at);
      if (quote == std::string_view::npos) break;
      to += "\"\"";
      at = quote + 1;
    }
    to += '"';
  }

  bool has_special(std::string_view text) const {
    if (text.empty() || text.front() == ' ' || text.back() == ' ') return true;
    // As a file may begin: with a byte order mark of UTF-8 or UTF-16.
    if (static_cast<unsigned char>(text.front()) >= 0xEF) return true;
    for (char c : text) {
      if (c == options_.delimiter || c == '"' || c == '\r' || c == '\n') return true;
    }
    return false;
  }

  const CsvOptions options_;
};

class CsvRows final : public database::RowReader {
 public:
  CsvRows(std::FILE* file, const CsvOptions& options)
      : pieces_(file), options_(options), reader_(options.delimiter, database::kFileRowBytesMax) {}

  Result<> begin(std::size_t column_count) override {
    width_ = column_count;
    if (!options_.header && column_count > 0) return {};
    OFFPRINT_TRY_ASSIGN(bool row, read_row());
    if (!row) return fail(Code::kInvalid, "there is nothing in this file");
    width_ = reader_.field_count();
    for (std::size_t i = 0; i < width_; ++i) {
      std::string name =
          options_.header ? std::string(reader_.field(i).text) : fmt::format("c{}", i + 1);
      if (name.empty() && !reader_.field(i).quoted) {
        return fail(Code::kInvalid,
                    fmt::format("line {}: column {} has no name", reader_.line(), i + 1));
      }
      columns_.push_back(std::move(name));
    }
    row_is_read_ = !options_.header;
    return {};
  }

  const std::vector<std::string>& columns() const override { return columns_; }

  Result<bool> next(FileRow& row) override {
    bool there = std::exchange(row_is_read_, false);
    if (!there) {
      OFFPRINT_TRY_ASSIGN(there, read_row());
    }
    if (!there) return false;
    row.line = reader_.line();
    row.by_position = columns_.empty();
    row.columns = columns_;
    if (reader_.field_count() != width_) {
      return fail(Code::kInvalid, fmt::format("line {}: {} fields, but {} columns", row.line,
                                              reader_.field_count(), width_));
    }
    row.cells.resize(width_);
    for (std::size_t i = 0; i < width_; ++i) read_cell(reader_.field(i), row.cells[i]);
    return true;
  }

 private:
  static void read_cell(const CsvReader::Field& field, Cell& cell) {
    cell.bare = false;
    if (!field.quoted && field.text.empty()) {
      cell.value = sqlite::Value();
    } else if (auto blob = field.quoted ? std::nullopt : bare_blob(field.text)) {
      cell.value = *std::move(blob);
    } else {
      cell.value = std::string(field.text);
      cell.bare = !field.quoted;
    }
  }

  // The next row; empty lines are none, where rows have several fields.
  Result<bool> read_row() {
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, read_line());
      if (!row) return false;
      if (width_ == 1 || !reader_.is_blank()) return true;
    }
  }
  Result<bool> read_line() {
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, reader_.take(rest_));
      if (row) return true;
      OFFPRINT_TRY_ASSIGN(rest_, pieces_.next());
      if (rest_.empty()) return reader_.finish();
    }
  }

  FilePieces pieces_;
  const CsvOptions options_;
  CsvReader reader_;
  std::string_view rest_;     // of the current piece
  std::size_t width_ = 0;     // fields of a row; 0: not known
  bool row_is_read_ = false;  // begin() has read the first one
  std::vector<std::string> columns_;
};

}  // namespace

std::unique_ptr<database::RowFormat> make_csv_format(const CsvOptions& options) {
  return std::make_unique<CsvFormat>(options);
}

std::unique_ptr<database::RowReader> make_csv_rows(std::FILE* file, const CsvOptions& options) {
  return std::make_unique<CsvRows>(file, options);
}

}  // namespace offprint::server
