#include "server/json_lines.h"

#include <set>

#include <fmt/format.h>

#include "server/file_pieces.h"
#include "server/json_reader.h"
#include "server/json_scalar.h"
#include "server/json_writer.h"
#include "server/rows_json.h"

namespace offprint::server {
namespace {

namespace dom = simdjson::dom;
using database::FileRow;

class JsonLinesFormat final : public database::RowFormat {
 public:
  Result<> begin(const sqlite::Statement& rows, std::string&) override {
    std::set<std::string> seen;
    for (int i = 0; i < rows.column_count(); ++i) {
      const char* text = sqlite3_column_name(rows.handle(), i);
      std::string name = text == nullptr ? "" : text;
      if (!seen.insert(name).second) {
        return fail(
            Code::kInvalid,
            fmt::format("two columns are named '{}'; give one of them another name with AS", name));
      }
      std::string key = i == 0 ? "{" : ",";
      append_json_string(key, name);
      keys_.push_back(key + ":");
    }
    return {};
  }

  Result<> row(const sqlite::Statement& row, std::string& to) override {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      to += keys_[i];
      append_plain_value(to, row, static_cast<int>(i));
    }
    to += "}\n";
    return {};
  }

 private:
  std::vector<std::string> keys_;  // with what stands before and behind them
};

class JsonLineRows final : public database::RowReader {
 public:
  explicit JsonLineRows(std::FILE* file) : pieces_(file) {}

  Result<> begin(std::size_t) override { return {}; }
  const std::vector<std::string>& columns() const override { return columns_; }

  Result<bool> next(FileRow& row) override {
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool there, read_line());
      if (!there) return false;
      if (text_.find_first_not_of(" \t\r") == std::string::npos) continue;
      row.line = line_;
      row.by_position = false;
      if (auto read = read_row(row); !read) {
        return fail(Code::kInvalid, fmt::format("line {}: {}", line_, read.error().message()));
      }
      return true;
    }
  }

 private:
  // Into text_, without its end.
  Result<bool> read_line() {
    text_.clear();
    bool something = false;
    for (;;) {
      if (rest_.empty()) {
        OFFPRINT_TRY_ASSIGN(rest_, pieces_.next());
        if (rest_.empty()) break;
      }
      something = true;
      std::size_t end = rest_.find('\n');
      text_ += rest_.substr(0, end);
      if (text_.size() > database::kFileRowBytesMax) {
        return fail(Code::kTooLarge, fmt::format("line {}: the row is longer than {} bytes",
                                                 line_ + 1, database::kFileRowBytesMax));
      }
      rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
      if (end != std::string_view::npos) break;
    }
    if (something && ++line_ == 1 && text_.starts_with("\xEF\xBB\xBF")) text_.erase(0, 3);
    return something;
  }

  Result<> read_row(FileRow& row) {
    OFFPRINT_TRY_ASSIGN(dom::element root, reader_.parse(text_, "the row"));
    dom::object object;
    if (root.get(object) != simdjson::SUCCESS)
      return fail(Code::kInvalid, "a row is a JSON object on one line");
    std::size_t count = 0;
    for (auto field : object) {
      if (count == row.columns.size()) row.columns.emplace_back();
      if (count == row.cells.size()) row.cells.emplace_back();
      row.columns[count] = field.key;
      OFFPRINT_TRY_ASSIGN(row.cells[count].value, value_of(field.value));
      row.cells[count].bare = false;
      ++count;
    }
    row.columns.resize(count);
    row.cells.resize(count);
    return {};
  }

  static Result<sqlite::Value> value_of(dom::element element) {
    if (auto scalar = json_scalar(element)) return *std::move(scalar);
    dom::object object;
    std::string_view text;
    bool is_blob = element.get(object) == simdjson::SUCCESS && object.size() == 1 &&
                   object["base64"].get(text) == simdjson::SUCCESS;
    if (!is_blob) return sqlite::Value(std::string(simdjson::minify(element)));
    Bytes bytes;
    if (decode_base64(text, bytes)) return sqlite::Value(std::move(bytes));
    return fail(Code::kInvalid, "what stands in {\"base64\":\"…\"} is no base64");
  }

  FilePieces pieces_;
  std::string_view rest_;  // of the current piece
  std::string text_;       // of the current line
  std::uint64_t line_ = 0;
  JsonReader reader_;
  std::vector<std::string> columns_;  // none: each row names its own
};

}  // namespace

std::unique_ptr<database::RowFormat> make_json_lines_format() {
  return std::make_unique<JsonLinesFormat>();
}

std::unique_ptr<database::RowReader> make_json_line_rows(std::FILE* file) {
  return std::make_unique<JsonLineRows>(file);
}

}  // namespace offprint::server
