#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sqlite/connection.h"

// What is in a schema, as SQLite tells it: pragmas, and for CHECKs and generated expressions, which
// no pragma tells, the tokens of the CREATE statement.
namespace offprint::publication {

// What SQLite makes of values that are stored in or compared with a column.
enum class Affinity { kBlob, kText, kNumeric, kInteger, kReal };
std::string_view affinity_name(Affinity affinity);
// SQLite's rules for declared types; ANY of a STRICT table is kBlob: nothing is converted.
Affinity affinity_of(std::string_view declared_type, bool strict);

struct Column {
  std::string name;           // as spelled
  std::string declared_type;  // of a view: what SQLite makes of the expression; may be empty
  Affinity affinity = Affinity::kBlob;
  bool not_null = false;      // readers never see NULL: declared so, or the rowid
  bool has_not_null = false;  // declared so
  std::string default_value;  // as written; empty: none
  int key_position = 0;       // in the primary key from 1; 0: no part of it
  bool generated = false, stored = false, hidden = false;
  std::string collation;             // folded
  std::string generated_expression;  // normalized
};

struct Index {
  std::string name;
  bool unique = false, partial = false;
  std::string origin;                  // "c": CREATE INDEX, "u": UNIQUE, "pk"
  std::vector<std::string> keys;       // in order, folded: 'name collate nocase', 'desc' where so
  std::vector<std::string> key_names;  // the columns alone, folded; "" for an expression
  std::string where;                   // of a partial one, normalized
};

struct ForeignKey {
  std::vector<std::string> from, to;  // folded; `to` may be empty: the parent's primary key
  std::string parent;                 // folded
  std::string actions;                // "on update … on delete …"
  std::string text() const;           // "(a, b) references parent(x, y)", without actions
};

// One CHECK, of a column or the table.
struct Check {
  std::string text;                  // normalized, for comparison
  std::string sql;                   // as written, without the parentheses
  std::vector<std::string> columns;  // that it names, folded
};

struct Table {
  enum class Kind { kTable, kView, kVirtual };
  std::string name, sql;
  Kind kind = Kind::kTable;
  bool without_rowid = false, strict = false, autoincrement = false;
  std::vector<Column> columns;
  std::string rowid_alias;  // folded; empty: none
  std::vector<Index> indexes;
  std::vector<ForeignKey> foreign_keys;
  std::vector<Check> checks;

  const Column* column(std::string_view name) const;  // by any spelling
  std::vector<std::string> key() const;               // the primary key's columns, folded
  // Of `SELECT *`, in order.
  std::vector<const Column*> visible() const;
};

struct Trigger {
  std::string name, table, sql;
};

struct Schema {
  std::map<std::string, Table> tables;      // and views, by folded name
  std::map<std::string, Trigger> triggers;  // by folded name

  const Table* table(std::string_view name) const;
};

// The main schema of `db`. Views that do not compile have no columns. Tables of SQLite's own and
// those behind virtual tables are left out.
Result<Schema> read_schema(sqlite::Connection& db);

}  // namespace offprint::publication
