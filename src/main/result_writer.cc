#include "main/result_writer.h"

#include <algorithm>
#include <clocale>
#include <cwchar>
#include <map>

#include <fmt/format.h>

#include "server/json_writer.h"

namespace offprint {
namespace {

// A BLOB in a table is cut beyond this; the other formats show all of it.
constexpr std::size_t kTableBlobBytes = 32;

// The shortest text that reads back as the same double; as SQLite's own shell writes infinities.
std::string real_text(double value) {
  if (value != value) return {};
  if (value > 1.7976931348623157e308) return "Inf";
  if (value < -1.7976931348623157e308) return "-Inf";
  std::string text;
  server::append_double(text, value);
  return text;
}

std::string blob_text(const Bytes& bytes) { return "x'" + to_hex(bytes) + "'"; }

// NULL is the empty text.
std::string plain_text(const sqlite::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
  if (const auto* real = std::get_if<double>(&value)) return real_text(*real);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* blob = std::get_if<Bytes>(&value)) return blob_text(*blob);
  return {};
}

// Decodes one code point; an invalid byte is one of its own.
char32_t next_code_point(std::string_view text, std::size_t& at) {
  auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned char first = byte(at);
  std::size_t length = first < 0x80   ? 1
                       : first < 0xc2 ? 0
                       : first < 0xe0 ? 2
                       : first < 0xf0 ? 3
                       : first < 0xf5 ? 4
                                      : 0;
  if (length == 0 || at + length > text.size()) {
    ++at;
    return 0xfffd;
  }
  char32_t code = length == 1 ? first : first & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) {
      ++at;
      return 0xfffd;
    }
    code = code << 6 | (byte(at + i) & 0x3fU);
  }
  at += length;
  return code;
}

bool is_control(char32_t code) { return code < 0x20 || (code >= 0x7f && code < 0xa0); }

// Nothing that would move the cursor or the terminal's settings.
std::string printable(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t start = at;
    char32_t code = next_code_point(text, at);
    if (code == '\n') {
      result += "\\n";
    } else if (code == '\t') {
      result += "\\t";
    } else if (is_control(code)) {
      result += fmt::format("\\x{:02x}", static_cast<unsigned>(code));
    } else if (code == 0xfffd) {
      result += "\ufffd";
    } else {
      result += text.substr(start, at - start);
    }
  }
  return result;
}

std::string table_text(const sqlite::Value& value) {
  if (std::holds_alternative<std::monostate>(value)) return "NULL";
  if (const auto* blob = std::get_if<Bytes>(&value); blob && blob->size() > kTableBlobBytes) {
    Bytes head(blob->begin(), blob->begin() + kTableBlobBytes);
    return fmt::format("x'{}… ({} bytes)", to_hex(head), blob->size());
  }
  if (std::holds_alternative<std::string>(value)) return printable(std::get<std::string>(value));
  return plain_text(value);
}

bool is_number(const sqlite::Value& value) {
  return std::holds_alternative<std::int64_t>(value) || std::holds_alternative<double>(value);
}

void append_cell(std::string& to, std::string_view text, std::size_t width, bool right, bool last) {
  std::size_t fill = width - display_width(text);
  if (right) to.append(fill, ' ');
  to += text;
  if (!right && !last) to.append(fill, ' ');
}

std::string plural(std::int64_t count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::string format_table(const ResultSet& result) {
  if (result.columns.empty()) {
    return result.changes == 0 ? "ok\n" : plural(result.changes, "row") + " changed\n";
  }
  std::size_t columns = result.columns.size();
  std::vector<std::size_t> widths(columns);
  std::vector<bool> right(columns, !result.rows.empty());
  std::vector<std::vector<std::string>> cells(1);
  for (std::size_t i = 0; i < columns; ++i) {
    cells[0].push_back(printable(result.columns[i]));
    widths[i] = display_width(cells[0][i]);
  }
  for (const auto& row : result.rows) {
    std::vector<std::string>& texts = cells.emplace_back();
    for (std::size_t i = 0; i < columns; ++i) {
      texts.push_back(table_text(row[i]));
      widths[i] = std::max(widths[i], display_width(texts[i]));
      right[i] = right[i] && (is_number(row[i]) || std::holds_alternative<std::monostate>(row[i]));
    }
  }
  std::string text;
  for (std::size_t line = 0; line < cells.size(); ++line) {
    for (std::size_t i = 0; i < columns; ++i) {
      text += i == 0 ? " " : " | ";
      append_cell(text, cells[line][i], widths[i], line > 0 && right[i], i + 1 == columns);
    }
    text += '\n';
    if (line > 0) continue;
    for (std::size_t i = 0; i < columns; ++i) {
      if (i > 0) text += '+';
      text.append(widths[i] + 2, '-');
    }
    text += '\n';
  }
  text += "(" + plural(static_cast<std::int64_t>(result.rows.size()), "row") + ")\n";
  return text;
}

std::string format_plain(const ResultSet& result) {
  std::string text;
  for (const auto& row : result.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) text += '\t';
      text += plain_text(row[i]);
    }
    text += '\n';
  }
  return text;
}

void append_csv_field(std::string& to, std::string_view text, bool quoted) {
  if (!quoted && text.find_first_of(",\"\r\n") == std::string_view::npos) {
    to += text;
    return;
  }
  to += '"';
  for (char c : text) {
    if (c == '"') to += '"';
    to += c;
  }
  to += '"';
}

std::string format_csv(const ResultSet& result) {
  if (result.columns.empty()) return {};
  std::string text;
  for (std::size_t i = 0; i < result.columns.size(); ++i) {
    if (i > 0) text += ',';
    append_csv_field(text, result.columns[i], false);
  }
  text += "\r\n";
  for (const auto& row : result.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) text += ',';
      // An empty text is "", so that it can be told from NULL.
      const auto* string = std::get_if<std::string>(&row[i]);
      append_csv_field(text, plain_text(row[i]), string != nullptr && string->empty());
    }
    text += "\r\n";
  }
  return text;
}

void append_json_value(std::string& to, const sqlite::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    server::append_integer(to, *integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    server::append_double(to, *real);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    server::append_json_string(to, *text);
  } else if (const auto* blob = std::get_if<Bytes>(&value)) {
    to += "{\"base64\":\"";
    server::append_base64(to, *blob);
    to += "\"}";
  } else {
    to += "null";
  }
}

std::string format_json(const ResultSet& result) {
  std::vector<std::string> names;
  std::map<std::string, int> seen;
  for (const std::string& column : result.columns) {
    int count = seen[column]++;
    std::string name = count == 0 ? column : fmt::format("{}:{}", column, count);
    names.emplace_back();
    server::append_json_string(names.back(), name);
  }
  std::string text;
  for (const auto& row : result.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += i == 0 ? '{' : ',';
      text += names[i];
      text += ':';
      append_json_value(text, row[i]);
    }
    text += "}\n";
  }
  return text;
}

}  // namespace

std::size_t display_width(std::string_view text) {
  static const bool kKnowsUnicode = std::setlocale(LC_CTYPE, "C.UTF-8") != nullptr;  // for wcwidth
  if (!kKnowsUnicode) return text.size();
  std::size_t width = 0;
  for (std::size_t at = 0; at < text.size();) {
    char32_t code = next_code_point(text, at);
    int columns = ::wcwidth(static_cast<wchar_t>(code));
    width += columns < 0 ? 1 : static_cast<std::size_t>(columns);
  }
  return width;
}

std::string format_result(const ResultSet& result, ResultFormat format) {
  switch (format) {
    case ResultFormat::kTable:
      return format_table(result);
    case ResultFormat::kPlain:
      return format_plain(result);
    case ResultFormat::kCsv:
      return format_csv(result);
    case ResultFormat::kJson:
      return format_json(result);
  }
  return {};
}

}  // namespace offprint
