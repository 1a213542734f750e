#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ltx/types.h"
#include "publication/row.h"

namespace offprint::feed {

using publication::Row;

// How the rows of a table look.
struct TableShape {
  std::string name;
  std::vector<std::string> columns;
  std::vector<bool> is_generated;  // of each column
  std::vector<std::size_t> key;    // the primary key's columns, in its order; empty: the rowid
  std::string rowid_name;          // a name that no column has; empty: without rowids
  std::string sql;                 // that made it
  PageNo root = 0;

  bool has_rowid() const { return !rowid_name.empty(); }
  // Rows of both have the same columns and keys.
  bool looks_like(const TableShape& other) const {
    return columns == other.columns && key == other.key && is_generated == other.is_generated &&
           has_rowid() == other.has_rowid();
  }
};

// What became of a row between two states.
struct RowChange {
  enum class Op : char { kInsert = 'i', kUpdate = 'u', kDelete = 'd' };
  Op op = Op::kInsert;
  std::int64_t rowid = 0;  // of a table whose key is the rowid
  Row before, after;       // empty where there was or is none
};

struct TableChanges {
  std::shared_ptr<const TableShape> before, after;  // null: there was or is no such table
  std::vector<RowChange> rows;                      // deletes first, then updates, then inserts
  const std::string& name() const { return after ? after->name : before->name; }
  bool is_reshaped() const { return !before || !after || !before->looks_like(*after); }
};

// What one transaction of a database changed, as net changes of rows. Immutable once it is shared.
struct Transaction {
  explicit Transaction(std::shared_ptr<std::atomic<std::size_t>> counted = nullptr)
      : counter(std::move(counted)) {}
  ~Transaction() {
    if (counter) counter->fetch_sub(bytes, std::memory_order_relaxed);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  Bookmark at, previous;
  std::int64_t timestamp_ms = 0;
  bool schema_changed = false;
  bool is_too_large = false;  // `tables` have no rows
  std::vector<TableChanges> tables;
  std::size_t bytes = 0;  // of memory, about; in `counter`, too
  std::shared_ptr<std::atomic<std::size_t>> counter;
};

}  // namespace offprint::feed
