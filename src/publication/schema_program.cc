#include "publication/schema_program.h"

#include <utility>
#include <vector>

#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

// A b-tree: what stands in its columns.
struct Tree {
  std::string table;                 // folded
  std::vector<std::string> columns;  // folded; "" where it is none of the table
};

Result<std::vector<std::string>> columns_of_index(sqlite::Connection& db, std::string_view index) {
  OFFPRINT_TRY_ASSIGN(auto rows,
                      db.prepare("SELECT name FROM pragma_index_xinfo(?) ORDER BY seqno"));
  rows.bind_text(1, index);
  std::vector<std::string> columns;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, rows.step());
    if (!row) return columns;
    columns.push_back(folded(rows.column_text(0)));
  }
}

// The b-trees of a schema by their root pages.
Result<std::map<std::int64_t, Tree>> trees_of(ScratchDatabase& database) {
  OFFPRINT_TRY_ASSIGN(auto rows, database.db().prepare("SELECT type, name, tbl_name, rootpage FROM"
                                                       " main.sqlite_schema WHERE rootpage > 0"));
  std::map<std::int64_t, Tree> trees;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, rows.step());
    if (!row) return trees;
    Tree tree{folded(rows.column_text(2)), {}};
    const Table* table = database.schema().table(tree.table);
    if (rows.column_text(0) == "index") {
      OFFPRINT_TRY_ASSIGN(tree.columns, columns_of_index(database.db(), rows.column_text(1)));
    } else if (table != nullptr && table->without_rowid) {
      for (const Index& index : table->indexes) {
        if (index.origin != "pk") continue;
        OFFPRINT_TRY_ASSIGN(tree.columns, columns_of_index(database.db(), index.name));
      }
    } else if (table != nullptr) {
      // Virtual generated columns are not stored: they are computed from others.
      for (const Column& column : table->columns) {
        if (!column.generated || column.stored) tree.columns.push_back(folded(column.name));
      }
    }
    trees.emplace(rows.column_int(3), std::move(tree));
  }
}

struct Names {
  NamedColumns list;
};

// `through` names the view or trigger that asks, not the statement itself.
int note_name(void* context, int action, const char* table, const char* column, const char*,
              const char* through) {
  const bool names_column = action == SQLITE_READ || action == SQLITE_UPDATE;
  const bool names_table = names_column || action == SQLITE_INSERT || action == SQLITE_DELETE;
  if (names_table && table != nullptr && through == nullptr) {
    static_cast<Names*>(context)->list.emplace(
        folded(table), names_column && column != nullptr ? folded(column) : "");
  }
  return SQLITE_OK;
}

}  // namespace

Result<std::set<std::string>> columns_of_program(ScratchDatabase& database,
                                                 const std::string& sql) {
  OFFPRINT_TRY_ASSIGN(const auto trees, trees_of(database));
  OFFPRINT_TRY_ASSIGN(auto program, database.prepare("EXPLAIN " + sql, ""));
  std::map<std::int64_t, const Tree*> cursors;
  std::set<std::string> columns;
  auto note = [&](std::int64_t cursor, std::size_t number) {
    auto tree = cursors.find(cursor);
    if (tree == cursors.end() || number >= tree->second->columns.size()) return;
    if (const std::string& name = tree->second->columns[number]; !name.empty())
      columns.insert(tree->second->table + "." + name);
  };
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, program.step());
    if (!row) return columns;
    const std::string_view operation = program.column_text(1);
    const std::int64_t first = program.column_int(2), second = program.column_int(3);
    if (operation == "OpenRead" || operation == "OpenWrite" || operation == "ReopenIdx") {
      auto tree = trees.find(second);
      if (program.column_int(4) == 0 && tree != trees.end()) cursors[first] = &tree->second;
    } else if (operation == "Column") {
      note(first, static_cast<std::size_t>(second));
    } else if (operation == "Rowid" || operation == "IdxRowid" || operation == "SeekRowid" ||
               operation == "NotExists") {
      auto tree = cursors.find(first);
      if (tree == cursors.end()) continue;
      const Table* table = database.schema().table(tree->second->table);
      if (table != nullptr && !table->rowid_alias.empty())
        columns.insert(tree->second->table + "." + table->rowid_alias);
    } else if (operation == "SeekGE" || operation == "SeekGT" || operation == "SeekLE" ||
               operation == "SeekLT" || operation == "Found" || operation == "NotFound") {
      // The key's leading columns are compared without being read.
      for (std::int64_t i = 0; i < program.column_int(5); ++i)
        note(first, static_cast<std::size_t>(i));
    }
  }
}

Result<NamedColumns> names_in_statement(ScratchDatabase& database, const std::string& sql) {
  OFFPRINT_TRY(database.prepare(sql, ""));  // so that what is missing has its stand-in
  Names names;
  sqlite3_set_authorizer(database.db().handle(), note_name, &names);
  Result<sqlite::Statement> statement = database.db().prepare(sql);
  sqlite3_set_authorizer(database.db().handle(), nullptr, nullptr);
  if (!statement) return fail(statement.error());
  std::erase_if(names.list,
                [&](const auto& item) { return database.schema().table(item.first) == nullptr; });
  return std::move(names.list);
}

Result<std::map<std::string, Access>> plan_of(ScratchDatabase& database, const std::string& sql) {
  OFFPRINT_TRY_ASSIGN(auto plan, database.prepare("EXPLAIN QUERY PLAN " + sql, ""));
  std::map<std::string, Access> tables;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, plan.step());
    if (!row) return tables;
    const std::string detail(plan.column_text(3));
    const Tokens words = tokenize(detail);
    if (words.size() < 2 || !words[1].is_name()) continue;
    const bool is_scan = words[0].is_word("SCAN");
    if (!is_scan && !words[0].is_word("SEARCH")) continue;
    const std::string name = folded(words[1].name());
    auto [entry, is_new] = tables.emplace(name, is_scan ? Access::kScan : Access::kSearch);
    if (!is_new && is_scan) entry->second = Access::kScan;
  }
}

}  // namespace offprint::publication
