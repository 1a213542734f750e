#include "server/feed_lines.h"

#include <cmath>

#include <fmt/format.h>

#include "feed/changeset.h"
#include "server/errors.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

using feed::RowChange;
using feed::TableChanges;
using feed::TableShape;
using feed::Transaction;

constexpr std::int64_t kExactMax = std::int64_t{1} << 53;

void append_named(std::string& to, const TableShape& shape, const feed::Row& row) {
  to += '{';
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (i > 0) to += ',';
    append_json_string(to, shape.columns[i]);
    to += ':';
    append_feed_value(to, row[i]);
  }
  to += '}';
}

void append_key(std::string& to, const TableShape& shape, const feed::Row& row,
                std::int64_t rowid) {
  to += '{';
  bool is_unique = !shape.key.empty();
  for (std::size_t column : shape.key) {
    if (to.back() != '{') to += ',';
    append_json_string(to, shape.columns[column]);
    to += ':';
    append_feed_value(to, row[column]);
    if (std::holds_alternative<std::monostate>(row[column])) is_unique = false;
  }
  if (!is_unique) {
    if (to.back() != '{') to += ',';
    append_json_string(to, shape.rowid_name);
    to += ':';
    append_feed_value(to, sqlite::Value(rowid));
  }
  to += '}';
}

void append_names(std::string& to, const std::vector<std::string>& names) {
  to += '[';
  for (const std::string& name : names) {
    if (to.back() != '[') to += ',';
    append_json_string(to, name);
  }
  to += ']';
}

// How a table looks from now on; of one that is gone only its name.
void append_shape(std::string& to, const TableChanges& changes) {
  to += "{\"t\":";
  append_json_string(to, changes.name());
  if (!changes.after) {
    to += ",\"dropped\":true}";
    return;
  }
  to += ",\"columns\":";
  append_names(to, changes.after->columns);
  to += ",\"key\":";
  std::vector<std::string> key;
  for (std::size_t column : changes.after->key) key.push_back(changes.after->columns[column]);
  if (key.empty()) key.push_back(changes.after->rowid_name);
  append_names(to, key);
  to += ",\"sql\":";
  append_json_string(to, changes.after->sql);
  to += '}';
}

// What all formats begin with.
class LineWriter : public ChangeWriter {
 public:
  LineWriter(ChangeFilter filter, LineFrame frame) : filter_(std::move(filter)), frame_(frame) {}

  bool begin(std::string& to, const Transaction& transaction) override {
    bool wanted = transaction.schema_changed || transaction.is_too_large;
    for (const TableChanges& changes : transaction.tables) wanted |= filter_.wants(changes);
    if (!wanted && !filter_.tables.empty()) return false;
    frame_.open(to, &transaction.at);
    to += fmt::format(R"({{"at":"{}","prev":"{}","ts":{})", transaction.at.text(),
                      transaction.previous.text(), transaction.timestamp_ms);
    if (transaction.schema_changed) {
      to += ",\"schema\":true,\"tables\":[";
      for (const TableChanges& changes : transaction.tables) {
        if (!changes.is_reshaped() || !filter_.wants(changes)) continue;
        if (to.back() != '[') to += ',';
        append_shape(to, changes);
      }
      to += ']';
    }
    if (transaction.is_too_large) to += ",\"too_large\":true";
    table_ = row_ = 0;
    begin_changes(to);
    return true;
  }

 protected:
  virtual void begin_changes(std::string& to) = 0;
  // The next row that is wanted; nothing: there is none.
  struct Place {
    const TableChanges* table;
    const RowChange* row;
    bool is_first;  // of its table
  };
  std::optional<Place> next(const Transaction& transaction) {
    for (; table_ < transaction.tables.size(); ++table_, row_ = 0) {
      const TableChanges& changes = transaction.tables[table_];
      if (row_ >= changes.rows.size() || !filter_.wants(changes)) continue;
      const bool is_first = row_ == 0;
      return Place{&changes, &changes.rows[row_++], is_first};
    }
    return std::nullopt;
  }
  void finish(std::string& to) const {
    to += '}';
    frame_.close(to);
  }
  const ChangeFilter& filter() const { return filter_; }

 private:
  const ChangeFilter filter_;
  const LineFrame frame_;
  std::size_t table_ = 0, row_ = 0;
};

class RowsWriter final : public LineWriter {
 public:
  using LineWriter::LineWriter;

  bool append(std::string& to, const Transaction& transaction, std::size_t limit) override {
    while (to.size() < limit) {
      auto place = next(transaction);
      if (!place) {
        to += ']';
        finish(to);
        return true;
      }
      if (!std::exchange(is_first_, false)) to += ',';
      append_change(to, *place->table, *place->row);
    }
    return false;
  }

 protected:
  void begin_changes(std::string& to) override {
    to += ",\"changes\":[";
    is_first_ = true;
  }

 private:
  static void append_change(std::string& to, const TableChanges& table, const RowChange& row) {
    const bool is_insert = row.op == RowChange::Op::kInsert;
    const TableShape& keyed = is_insert ? *table.after : *table.before;
    to += "{\"t\":";
    append_json_string(to, keyed.name);
    to += fmt::format(",\"op\":\"{}\",\"k\":", static_cast<char>(row.op));
    append_key(to, keyed, is_insert ? row.after : row.before, row.rowid);
    if (!is_insert) {
      to += ",\"b\":";
      append_named(to, *table.before, row.before);
    }
    if (row.op != RowChange::Op::kDelete) {
      to += ",\"a\":";
      append_named(to, *table.after, row.after);
    }
    to += '}';
  }

  bool is_first_ = true;
};

class ChangesetWriter final : public LineWriter {
 public:
  using LineWriter::LineWriter;

  bool append(std::string& to, const Transaction& transaction, std::size_t limit) override {
    while (to.size() < limit) {
      auto place = next(transaction);
      if (!place) {
        append_base64(to, bytes_, Base64Padding::kPadded);
        bytes_.clear();
        to += '"';
        append_uncovered(to, transaction);
        finish(to);
        return true;
      }
      if (!feed::has_changeset(*place->table)) continue;
      if (place->is_first) has_head_ = false;
      feed::append_changeset_row(bytes_, *place->table->after, *place->row, has_head_);
      const std::size_t whole = bytes_.size() / 3 * 3;  // bytes that need no padding
      append_base64(to, ByteView(bytes_).first(whole));
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(whole));
    }
    return false;
  }

 protected:
  void begin_changes(std::string& to) override {
    to += ",\"changeset\":\"";
    bytes_.clear();
  }

 private:
  // Tables whose rows have to be read anew.
  void append_uncovered(std::string& to, const Transaction& transaction) const {
    std::vector<std::string> names;
    for (const TableChanges& changes : transaction.tables) {
      if (filter().wants(changes) && !changes.rows.empty() && !feed::has_changeset(changes))
        names.push_back(changes.name());
    }
    if (names.empty()) return;
    to += ",\"uncovered\":";
    append_names(to, names);
  }

  Bytes bytes_;
  bool has_head_ = false;  // of the table at hand
};

// Which tables changed, and no more.
class TablesWriter final : public LineWriter {
 public:
  using LineWriter::LineWriter;

  bool append(std::string& to, const Transaction& transaction, std::size_t) override {
    std::vector<std::string> names;
    for (const TableChanges& changes : transaction.tables) {
      if (filter().wants(changes)) names.push_back(changes.name());
    }
    append_names(to, names);
    finish(to);
    return true;
  }

 protected:
  void begin_changes(std::string& to) override { to += ",\"changed\":"; }
};

}  // namespace

void append_feed_value(std::string& to, const sqlite::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    if (*integer >= -kExactMax && *integer <= kExactMax) return append_integer(to, *integer);
    to += fmt::format(R"({{"$i":"{}"}})", *integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    if (std::isfinite(*real)) return append_double(to, *real);
    to += std::isnan(*real) ? "null" : *real > 0 ? R"({"$r":"inf"})" : R"({"$r":"-inf"})";
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    append_json_string(to, *text);
  } else if (const auto* blob = std::get_if<Bytes>(&value)) {
    to += R"({"$b":")";
    append_base64(to, *blob, Base64Padding::kPadded);
    to += "\"}";
  } else {
    to += "null";
  }
}

void LineFrame::open(std::string& to, const Bookmark* at, std::string_view event) const {
  if (!is_events_) return;
  if (at != nullptr) to += "id: " + at->text() + "\n";
  if (!event.empty()) to += "event: " + std::string(event) + "\n";
  to += "data: ";
}

void LineFrame::watermark(std::string& to, const Bookmark& at) const {
  open(to, &at, "watermark");
  to += R"({"watermark":")" + at.text() + "\"}";
  close(to);
}

void LineFrame::error(std::string& to, const Error& error, std::string_view more) const {
  open(to, nullptr, "error");
  const ErrorText text = error_text(error);
  to += "{\"error\":{\"code\":";
  append_json_string(to, text.code);
  to += ",\"message\":";
  append_json_string(to, text.message);
  to += '}';
  to += more;
  to += '}';
  close(to);
}

std::unique_ptr<ChangeWriter> make_change_writer(ChangeFormat format, ChangeFilter filter,
                                                 LineFrame frame) {
  if (format == ChangeFormat::kChangeset)
    return std::make_unique<ChangesetWriter>(std::move(filter), frame);
  if (format == ChangeFormat::kTables)
    return std::make_unique<TablesWriter>(std::move(filter), frame);
  return std::make_unique<RowsWriter>(std::move(filter), frame);
}

namespace {

void append_row(std::string& to, const feed::Row& row) {
  to += '[';
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (i > 0) to += ',';
    append_feed_value(to, row[i]);
  }
  to += ']';
}

}  // namespace

void append_live_columns(std::string& to, const LineFrame& frame, const feed::LiveResult& result) {
  frame.open(to, nullptr);
  to += "{\"columns\":";
  append_names(to, result.columns);
  to += '}';
  frame.close(to);
}

void append_live_row(std::string& to, const LineFrame& frame, const feed::Row& row) {
  frame.open(to, nullptr);
  to += "{\"row\":";
  append_row(to, row);
  to += '}';
  frame.close(to);
}

void append_live_at(std::string& to, const LineFrame& frame, const Bookmark& at, std::size_t rows) {
  frame.open(to, &at);
  to += fmt::format(R"({{"at":"{}","rows":{}}})", at.text(), rows);
  frame.close(to);
}

void append_live_difference(std::string& to, const LineFrame& frame, const Bookmark& at,
                            const feed::LiveDifference& difference, std::size_t rows) {
  frame.open(to, &at);
  to += fmt::format(R"({{"at":"{}","del":[)", at.text());
  for (const feed::Row& key : difference.removed) {
    if (to.back() != '[') to += ',';
    append_row(to, key);
  }
  to += "],\"put\":[";
  for (const auto& row : difference.put) {
    if (to.back() != '[') to += ',';
    append_row(to, *row);
  }
  to += fmt::format("],\"rows\":{}}}", rows);
  frame.close(to);
}

}  // namespace offprint::server
