#include "feed/changeset.h"

#include <algorithm>
#include <bit>
#include <utility>

#include <sqlite3.h>

namespace offprint::feed {
namespace {

void append_varint(Bytes& to, std::uint64_t value) {
  std::uint8_t raw[10];
  std::size_t size = 0;
  do {
    raw[size++] = static_cast<std::uint8_t>((value & 0x7f) | 0x80);
    value >>= 7;
  } while (value != 0);
  raw[0] &= 0x7f;
  while (size > 0) to.push_back(raw[--size]);
}

constexpr std::uint8_t kUndefined = 0;

void append_value(Bytes& to, const sqlite::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    to.push_back(SQLITE_INTEGER);
    append_be<std::uint64_t>(to, static_cast<std::uint64_t>(*integer));
  } else if (const auto* real = std::get_if<double>(&value)) {
    to.push_back(SQLITE_FLOAT);
    append_be<std::uint64_t>(to, std::bit_cast<std::uint64_t>(*real));
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    to.push_back(SQLITE_TEXT);
    append_varint(to, text->size());
    append(to, as_bytes(*text));
  } else if (const auto* blob = std::get_if<Bytes>(&value)) {
    to.push_back(SQLITE_BLOB);
    append_varint(to, blob->size());
    append(to, *blob);
  } else {
    to.push_back(SQLITE_NULL);
  }
}

bool is_key(const TableShape& shape, std::size_t column) {
  return std::ranges::find(shape.key, column) != shape.key.end();
}

bool same_value(const sqlite::Value& a, const sqlite::Value& b) {
  return publication::is_same(Row{a}, Row{b});
}

void append_row(Bytes& to, const TableShape& shape, const Row& row) {
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (!shape.is_generated[i]) append_value(to, row[i]);
  }
}

void append_head(Bytes& to, const TableShape& shape, bool& has_head) {
  if (std::exchange(has_head, true)) return;
  to.push_back('T');
  append_varint(to, static_cast<std::uint64_t>(std::ranges::count(shape.is_generated, false)));
  for (std::size_t i = 0; i < shape.columns.size(); ++i) {
    if (shape.is_generated[i]) continue;
    auto place = std::ranges::find(shape.key, i);
    to.push_back(
        place == shape.key.end() ? 0 : static_cast<std::uint8_t>(place - shape.key.begin() + 1));
  }
  append(to, as_bytes(shape.name));
  to.push_back(0);
}

}  // namespace

bool has_changeset(const TableChanges& changes) {
  return !changes.is_reshaped() && !changes.after->key.empty();
}

void append_changeset_row(Bytes& to, const TableShape& shape, const RowChange& change,
                          bool& has_head) {
  const Row& key_row = change.op == RowChange::Op::kInsert ? change.after : change.before;
  for (std::size_t column : shape.key) {
    if (std::holds_alternative<std::monostate>(key_row[column])) return;
  }
  constexpr std::uint8_t kDirect = 0;
  if (change.op != RowChange::Op::kUpdate) {
    append_head(to, shape, has_head);
    to.push_back(change.op == RowChange::Op::kInsert ? SQLITE_INSERT : SQLITE_DELETE);
    to.push_back(kDirect);
    return append_row(to, shape, key_row);
  }
  Bytes before, after;
  bool differs = false;
  for (std::size_t i = 0; i < shape.columns.size(); ++i) {
    if (shape.is_generated[i]) continue;
    const bool changed = !same_value(change.before[i], change.after[i]);
    differs = differs || changed;
    if (changed || is_key(shape, i))
      append_value(before, change.before[i]);
    else
      before.push_back(kUndefined);
    if (changed)
      append_value(after, change.after[i]);
    else
      after.push_back(kUndefined);
  }
  if (!differs) return;
  append_head(to, shape, has_head);
  to.push_back(SQLITE_UPDATE);
  to.push_back(kDirect);
  append(to, before);
  append(to, after);
}

Bytes changeset_of(const Transaction& transaction) {
  Bytes all;
  for (const TableChanges& changes : transaction.tables) {
    if (!has_changeset(changes)) continue;
    bool has_head = false;
    for (const RowChange& row : changes.rows)
      append_changeset_row(all, *changes.after, row, has_head);
  }
  return all;
}

}  // namespace offprint::feed
