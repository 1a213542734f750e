#include "feed/row_differences.h"

#include <algorithm>
#include <bit>
#include <limits>

#include <fmt/format.h>

#include "base/log.h"
#include "publication/definition.h"
#include "publication/record.h"
#include "publication/sql_tokens.h"
#include "sqlite/btree_page.h"

namespace offprint::feed {
namespace {

using publication::append_exactly;
using publication::folded;
using publication::PageSource;
using publication::quoted_name;
using publication::TouchedRows;
using publication::TreeMap;

// Beyond this the tables are read anew: the rows of so many pages need not fit the memory.
constexpr std::size_t kPagesMax = 10'000;
constexpr std::size_t kStatementsMax = 1'000;
constexpr std::size_t kSchemaCookieOffset = 40;
constexpr std::size_t kRowOverhead = 64;  // bytes of memory, about

// A name of the rowid that no column has.
std::string free_rowid_name(const std::vector<std::string>& columns) {
  for (const char* name : {"rowid", "_rowid_", "oid"}) {
    if (std::ranges::none_of(columns, [&](const auto& each) { return folded(each) == name; }))
      return name;
  }
  return {};
}

std::size_t size_of(const Row& row) {
  std::size_t size = kRowOverhead + row.size() * sizeof(sqlite::Value);
  for (const sqlite::Value& value : row) {
    if (const auto* text = std::get_if<std::string>(&value)) size += text->size();
    if (const auto* blob = std::get_if<Bytes>(&value)) size += blob->size();
  }
  return size;
}

std::string select_of(const TableShape& shape) {
  std::string sql = "SELECT ";
  for (const std::string& column : shape.columns) sql += quoted_name(column) + ',';
  sql += shape.has_rowid() ? shape.rowid_name : "0";
  return sql + " FROM main." + quoted_name(shape.name);
}

std::string select_by_id(const TableShape& shape) {
  if (shape.has_rowid()) return select_of(shape) + " WHERE " + shape.rowid_name + "=?1";
  std::string sql = select_of(shape);
  for (std::size_t i = 0; i < shape.key.size(); ++i) {
    sql += fmt::format("{}{}=?{}", i == 0 ? " WHERE " : " AND ",
                       quoted_name(shape.columns[shape.key[i]]), i + 1);
  }
  return sql;
}

// Rows of both may be told to be the same by their keys.
bool have_same_keys(const TableShape& a, const TableShape& b) {
  if (a.has_rowid() != b.has_rowid() || a.key.size() != b.key.size()) return false;
  for (std::size_t i = 0; i < a.key.size(); ++i) {
    if (a.columns[a.key[i]] != b.columns[b.key[i]]) return false;
  }
  return true;
}

}  // namespace

// ------------------------------------------------------------------------------------------------
// StateQueries

Result<> StateQueries::changed(std::uint32_t page_size, std::uint32_t page_count) {
  page_count_ = page_count;
  if (database_ && page_size == page_size_) {
    for (auto& [sql, each] : statements_) each.reset();
    database_->changed(page_count);
    return {};
  }
  statements_.clear();
  connection_.reset();
  database_.reset();
  if (page_count == 0) return {};
  page_size_ = page_size;
  sqlite::PageDatabase::Content content;
  content.page_size = page_size;
  content.page_count = page_count;
  content.read = pages_;
  content.changes = true;
  database_ = std::make_unique<sqlite::PageDatabase>(std::move(content));
  sqlite::Connection::Options options;
  options.read_only = true;
  options.vfs = database_->vfs();
  OFFPRINT_TRY_ASSIGN(connection_, sqlite::Connection::open(database_->path(), options));
  return {};
}

Result<sqlite::Statement*> StateQueries::statement(const std::string& sql) {
  auto found = statements_.find(sql);
  if (found == statements_.end()) {
    if (statements_.size() >= kStatementsMax) statements_.clear();
    OFFPRINT_TRY_ASSIGN(auto compiled, connection_->prepare(sql, SQLITE_PREPARE_PERSISTENT));
    found = statements_.emplace(sql, std::move(compiled)).first;
  }
  found->second.reset();
  return &found->second;
}

Result<> StateQueries::rows(const std::string& sql, const Row& arguments, const Visit& visit) {
  if (is_empty()) return {};
  OFFPRINT_TRY_ASSIGN(auto* select, statement(sql));
  for (std::size_t i = 0; i < arguments.size(); ++i)
    OFFPRINT_TRY(select->bind_value(static_cast<int>(i + 1), arguments[i]));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool found, select->step());
    if (!found) break;
    Row row;
    for (int column = 0; column < select->column_count(); ++column)
      row.push_back(publication::value_of(*select, column));
    if (auto visited = visit(std::move(row)); !visited) {
      select->reset();
      return visited;
    }
  }
  select->reset();
  return {};
}

// ------------------------------------------------------------------------------------------------
// tables

RowDifferences::RowDifferences(StateWalk& walk, std::size_t bytes_max, bool is_instance)
    : walk_(walk),
      bytes_max_(bytes_max),
      is_instance_(is_instance),
      before_([this](PageNo page) { return walk_.before(page); }),
      after_([this](PageNo page) { return walk_.after(page); }) {}

Result<> RowDifferences::start() {
  OFFPRINT_TRY(before_.changed(walk_.page_size(), walk_.pages_before()));
  OFFPRINT_TRY_ASSIGN(tables_, read_tables(false));
  return {};
}

Result<RowDifferences::Shape> RowDifferences::read_shape(StateQueries& state, const Row& table) {
  auto shape = std::make_shared<TableShape>();
  shape->name = std::get<std::string>(table[0]);
  shape->root = static_cast<PageNo>(std::get<std::int64_t>(table[1]));
  shape->sql = std::get<std::string>(table[2]);
  std::map<std::int64_t, std::size_t> key;
  OFFPRINT_TRY(
      state.rows("SELECT name, pk, hidden FROM pragma_table_xinfo(?1) WHERE hidden<>1 ORDER BY cid",
                 {sqlite::Value(shape->name)}, [&](Row column) -> Result<> {
                   if (auto place = std::get<std::int64_t>(column[1]); place > 0)
                     key[place] = shape->columns.size();
                   shape->columns.push_back(std::get<std::string>(column[0]));
                   shape->is_generated.push_back(std::get<std::int64_t>(column[2]) != 0);
                   return {};
                 }));
  for (const auto& [place, column] : key) shape->key.push_back(column);
  if (std::get<std::int64_t>(table[3]) == 0) {
    shape->rowid_name = free_rowid_name(shape->columns);
    if (shape->rowid_name.empty()) {
      return fail(Code::kInvalid, fmt::format("CHANGES_UNSUPPORTED: the columns of table '{}' hide "
                                              "its rowid",
                                              shape->name));
    }
  }
  return Shape(std::move(shape));
}

Result<RowDifferences::Shapes> RowDifferences::read_shapes(StateQueries& state) {
  std::vector<Row> tables;
  OFFPRINT_TRY(state.rows(
      "SELECT s.name, s.rootpage, s.sql, l.wr FROM main.sqlite_schema s "
      "JOIN pragma_table_list l ON l.name=s.name AND l.schema='main' "
      "WHERE s.type='table' AND s.rootpage>0 AND l.type='table' AND substr(s.name,1,7)<>'sqlite_'",
      {}, [&](Row row) -> Result<> {
        const std::string& name = std::get<std::string>(row[0]);
        if (!is_instance_ || (name != "_offprint" && name != publication::kSourcesTable))
          tables.push_back(std::move(row));
        return {};
      }));
  Shapes shapes;
  for (const Row& table : tables) {
    OFFPRINT_TRY_ASSIGN(auto shape, read_shape(state, table));
    shapes.emplace(shape->name, shape);
  }
  OFFPRINT_TRY(
      state.rows("SELECT encoding='UTF-8' FROM pragma_encoding", {}, [&](Row row) -> Result<> {
        is_utf8_ = std::get<std::int64_t>(row[0]) != 0;
        return {};
      }));
  return shapes;
}

Result<RowDifferences::Table> RowDifferences::read_table(const Shape& shape, bool at_after) {
  const PageSource pages = [this, at_after](PageNo page) {
    return at_after ? walk_.after(page) : walk_.before(page);
  };
  OFFPRINT_TRY_ASSIGN(ByteView page_one, pages(1));
  const std::uint32_t usable = sqlite::usable_size(page_one);
  OFFPRINT_TRY_ASSIGN(auto map, TreeMap::read(pages, shape->root, usable));
  return Table{shape, std::move(map)};
}

Result<RowDifferences::Tables> RowDifferences::read_tables(bool at_after) {
  OFFPRINT_TRY_ASSIGN(auto shapes, read_shapes(at_after ? after_ : before_));
  Tables tables;
  for (const auto& [name, shape] : shapes) {
    OFFPRINT_TRY_ASSIGN(auto table, read_table(shape, at_after));
    tables.emplace(name, std::move(table));
  }
  return tables;
}

// ------------------------------------------------------------------------------------------------
// what differs

Result<bool> RowDifferences::is_schema_changed() {
  if (walk_.pages_before() == 0 || walk_.pages_after() == 0) return true;
  if (!walk_.written().contains(1)) return false;
  auto cookie = [](ByteView page) {
    return load_be<std::uint32_t>(page.data() + kSchemaCookieOffset);
  };
  OFFPRINT_TRY_ASSIGN(ByteView before, walk_.before(1));
  const std::uint32_t then = cookie(before);
  OFFPRINT_TRY_ASSIGN(ByteView after, walk_.after(1));
  return then != cookie(after);
}

Result<> RowDifferences::compare(Transaction& to) {
  bytes_ = 0;
  OFFPRINT_TRY(before_.changed(walk_.page_size(), walk_.pages_before()));
  OFFPRINT_TRY(after_.changed(walk_.page_size(), walk_.pages_after()));
  OFFPRINT_TRY_ASSIGN(to.schema_changed, is_schema_changed());
  auto compared = [&]() -> Result<> {
    if (walk_.written().size() > kPagesMax) return fail(Code::kTooLarge, "many pages changed");
    return to.schema_changed ? compare_schemas(to) : compare_rows(to);
  }();
  if (!compared && compared.error().code() == Code::kTooLarge) {
    to.is_too_large = true;
    to.tables.clear();
    bytes_ = 0;
    OFFPRINT_TRY_ASSIGN(tables_, read_tables(true));
    compared = {};
  }
  to.bytes += bytes_;
  return compared;
}

Result<> RowDifferences::compare_rows(Transaction& to) {
  for (auto& [name, table] : tables_) OFFPRINT_TRY(compare_table(to, table));
  return {};
}

// Of a table that is in both states, with the same shape.
Result<> RowDifferences::compare_table(Transaction& to, Table& table) {
  const PageSource before = [this](PageNo page) { return walk_.before(page); };
  const PageSource after = [this](PageNo page) { return walk_.after(page); };
  auto touched = table.map.advance(before, after, walk_.written());
  const Shape shape = table.shape;
  if (!touched) {  // pages of another table may be this one's now
    log::debug("table '{}' is compared as a whole: {}", shape->name, touched.error().message());
    OFFPRINT_TRY_ASSIGN(table, read_table(shape, true));
    return compare_whole(to, shape, shape);
  }
  if (touched->rowids.empty() && touched->records.empty()) return {};
  // Keys of records are read as UTF-8.
  if (!is_utf8_ && !touched->records.empty()) return compare_whole(to, shape, shape);
  ByKey rows;
  OFFPRINT_TRY(fetch(*shape, *touched, rows));
  add_changes(to, shape, shape, std::move(rows));
  return {};
}

Result<> RowDifferences::compare_schemas(Transaction& to) {
  OFFPRINT_TRY_ASSIGN(auto shapes, read_shapes(after_));
  Tables next;
  for (auto& [name, table] : tables_) {
    auto now = shapes.find(name);
    if (now == shapes.end()) {
      OFFPRINT_TRY(compare_whole(to, table.shape, nullptr));
    } else if (now->second->sql == table.shape->sql && now->second->root == table.shape->root) {
      OFFPRINT_TRY(compare_table(to, table));
      next.emplace(name, std::move(table));
      shapes.erase(now);
    } else {
      OFFPRINT_TRY(compare_whole(to, table.shape, now->second));
      OFFPRINT_TRY_ASSIGN(auto read, read_table(now->second, true));
      next.emplace(name, std::move(read));
      shapes.erase(now);
    }
  }
  for (const auto& [name, shape] : shapes) {
    OFFPRINT_TRY(compare_whole(to, nullptr, shape));
    OFFPRINT_TRY_ASSIGN(auto read, read_table(shape, true));
    next.emplace(name, std::move(read));
  }
  tables_ = std::move(next);
  return {};
}

Result<> RowDifferences::take(const TableShape& shape, Row row, bool is_after, const char* prefix,
                              ByKey& rows) {
  const std::int64_t rowid = std::get<std::int64_t>(row.back());
  row.pop_back();
  bytes_ += size_of(row);
  if (bytes_ > bytes_max_) return fail(Code::kTooLarge, "many rows changed");
  std::string key = prefix;
  bool is_unique = !shape.key.empty();
  for (std::size_t column : shape.key) {
    append_exactly(key, row[column]);
    if (std::holds_alternative<std::monostate>(row[column])) is_unique = false;
  }
  if (!is_unique) key += fmt::format("#{}", rowid);
  Versions& versions = rows[key];
  (is_after ? versions.after : versions.before) = {std::move(row), rowid};
  return {};
}

Result<> RowDifferences::fetch(const TableShape& shape, const TouchedRows& touched, ByKey& rows) {
  const std::string select = select_by_id(shape);
  auto fetch_one = [&](const Row& id) -> Result<> {
    OFFPRINT_TRY(before_.rows(
        select, id, [&](Row row) { return take(shape, std::move(row), false, "", rows); }));
    return after_.rows(select, id,
                       [&](Row row) { return take(shape, std::move(row), true, "", rows); });
  };
  for (std::int64_t rowid : touched.rowids) OFFPRINT_TRY(fetch_one({sqlite::Value(rowid)}));
  for (const Bytes& record : touched.records) {
    OFFPRINT_TRY_ASSIGN(Row id, publication::record_columns(record, shape.key.size()));
    OFFPRINT_TRY(fetch_one(id));
  }
  return {};
}

Result<> RowDifferences::compare_whole(Transaction& to, const Shape& before, const Shape& after) {
  ByKey rows;
  const bool comparable = before && after && have_same_keys(*before, *after);
  if (before) {
    OFFPRINT_TRY(before_.rows(select_of(*before), {}, [&](Row row) {
      return take(*before, std::move(row), false, comparable ? "" : "-", rows);
    }));
  }
  if (after) {
    OFFPRINT_TRY(after_.rows(select_of(*after), {}, [&](Row row) {
      return take(*after, std::move(row), true, comparable ? "" : "+", rows);
    }));
  }
  add_changes(to, before, after, std::move(rows));
  return {};
}

void RowDifferences::add_changes(Transaction& to, const Shape& before, const Shape& after,
                                 ByKey rows) {
  TableChanges changes{before, after, {}};
  const bool is_reshaped = changes.is_reshaped();
  for (auto& [key, versions] : rows) {
    RowChange change;
    if (versions.before && versions.after) {
      if (!is_reshaped && publication::is_same(versions.before->first, versions.after->first))
        continue;
      change.op = RowChange::Op::kUpdate;
    } else if (versions.before) {
      change.op = RowChange::Op::kDelete;
    }
    if (versions.before) std::tie(change.before, change.rowid) = *std::move(versions.before);
    if (versions.after) std::tie(change.after, change.rowid) = *std::move(versions.after);
    changes.rows.push_back(std::move(change));
  }
  auto rank = [](const RowChange& change) {
    return change.op == RowChange::Op::kDelete ? 0 : change.op == RowChange::Op::kUpdate ? 1 : 2;
  };
  std::ranges::sort(changes.rows, [&](const RowChange& a, const RowChange& b) {
    if (rank(a) != rank(b)) return rank(a) < rank(b);
    return a.rowid < b.rowid;
  });
  if (!changes.rows.empty() || is_reshaped) to.tables.push_back(std::move(changes));
}

}  // namespace offprint::feed
