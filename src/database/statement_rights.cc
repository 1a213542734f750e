#include "database/statement_rights.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include <fmt/format.h>

#include "database/sql_text.h"
#include "database/user_connection.h"

namespace offprint::database {
namespace {

constexpr std::string_view kSchemaTable = "sqlite_schema";
constexpr std::string_view kSequenceTable = "sqlite_sequence";
// Functions in the place of a table that show nothing but their arguments.
constexpr std::array<std::string_view, 2> kPureFunctions = {"json_each", "json_tree"};
constexpr int kRootInRegister = 0x10;  // p5 of OpenWrite: of what the statement itself made

bool is_pure_function(std::string_view name) {
  return std::find(kPureFunctions.begin(), kPureFunctions.end(), name) != kPureFunctions.end();
}

std::unexpected<Error> refuse(Verbs missing, std::string_view table) {
  std::vector<std::string_view> names = missing.names();
  std::string_view verb = names.empty() ? "a right" : names.front();
  std::string what = table.empty()
                         ? fmt::format("the token does not allow {} on the whole database", verb)
                         : fmt::format("the token does not allow {} on table '{}'", verb, table);
  return fail(Code::kForbidden, "TOKEN_FORBIDS: " + what);
}

// The end of what cannot be code: a string, a quoted name, a comment. The same place when there is
// none of these.
std::size_t skip_quoted(std::string_view sql, std::size_t at) {
  char c = sql[at];
  std::string_view rest = sql.substr(at);
  auto after = [&](std::string_view end, std::size_t from) {
    std::size_t found = rest.find(end, from);
    return found == std::string_view::npos ? sql.size() : at + found + end.size();
  };
  if (c == '\'' || c == '"' || c == '`') return after(std::string_view(&c, 1), 1);
  if (c == '[') return after("]", 1);
  if (rest.starts_with("--")) return after("\n", 2);
  if (rest.starts_with("/*")) return after("*/", 2);
  return at;
}

bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

// Looks for a word of the language; `is_meant` gets what follows it, after blanks and comments.
template <class IsMeant>
bool says(std::string_view sql, std::string_view upper_case, IsMeant is_meant) {
  for (std::size_t at = 0; at < sql.size();) {
    if (std::size_t next = skip_quoted(sql, at); next != at) {
      at = next;
      continue;
    }
    if (!is_word_char(sql[at])) {
      ++at;
      continue;
    }
    std::size_t end = at;
    while (end < sql.size() && is_word_char(sql[end])) ++end;
    std::string_view word = sql.substr(at, end - at);
    at = end;
    if (equals_ignoring_case(word, upper_case) && is_meant(skip_blanks(sql.substr(end))))
      return true;
  }
  return false;
}

// It deletes rows, and SQLite reports that to nobody. The word as a name counts, too; as a function
// it does not.
bool says_replace(std::string_view sql) {
  return says(sql, "REPLACE", [](std::string_view rest) { return !rest.starts_with('('); });
}

// A table gets another name, which SQLite does not report: somebody else's, perhaps.
bool says_rename_table(std::string_view sql) {
  return says(sql, "RENAME",
              [](std::string_view rest) { return equals_ignoring_case(first_word(rest), "TO"); });
}

// What belongs to which table, by the page it begins on.
class SchemaMap {
 public:
  static Result<SchemaMap> read(UserConnection& connection) {
    OFFPRINT_TRY_ASSIGN(auto rows, connection.prepare_internal(
                                       "SELECT rootpage, lower(tbl_name), type = 'table', "
                                       "sql LIKE 'create virtual table%' FROM main.sqlite_schema"));
    SchemaMap map;
    map.roots_[1] = kSchemaTable;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool more, rows.step());
      if (!more) break;
      if (rows.column_int(0) > 0) map.roots_[rows.column_int(0)] = rows.column_text(1);
      if (rows.column_int(2) != 0 && rows.column_int(3) != 0)
        map.virtual_tables_.insert(std::string(rows.column_text(1)));
    }
    return map;
  }
  const std::string* table_at(std::int64_t root) const {
    auto found = roots_.find(root);
    return found == roots_.end() ? nullptr : &found->second;
  }
  const std::set<std::string>& virtual_tables() const { return virtual_tables_; }

  // A virtual table's own tables (docs_content of docs) go with it, unless they are named.
  Verbs verbs_on(const SqlRights& rights, const std::string& table) const {
    if (rights.tables.contains(table)) return rights.on_table(table);
    for (std::size_t end = table.rfind('_'); end != std::string::npos && end > 0;
         end = table.rfind('_', end - 1)) {
      std::string owner = table.substr(0, end);
      if (virtual_tables_.contains(owner)) return rights.on_table(owner);
    }
    return rights.on_table(table);
  }

 private:
  std::map<std::int64_t, std::string> roots_;
  std::set<std::string> virtual_tables_;
};

// One statement's program, as EXPLAIN shows it, with those of the triggers that it runs.
struct Instruction {
  std::string name;
  std::int64_t p1, p2, p3, p5;
  std::string p4;
};

Result<std::vector<Instruction>> program_of(sqlite3_stmt* statement, UserConnection& connection) {
  int mode = sqlite3_stmt_isexplain(statement);
  if (int code = sqlite3_stmt_explain(statement, 1); code != SQLITE_OK)
    return fail(connection.error(code));
  std::vector<Instruction> program;
  int code;
  while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
    auto text = [&](int column) {
      const unsigned char* value = sqlite3_column_text(statement, column);
      return value == nullptr ? std::string() : reinterpret_cast<const char*>(value);
    };
    auto number = [&](int column) { return sqlite3_column_int64(statement, column); };
    program.push_back({text(1), number(2), number(3), number(4), number(6), text(5)});
  }
  sqlite3_reset(statement);
  if (code != SQLITE_DONE) return fail(connection.error(code));
  if (code = sqlite3_stmt_explain(statement, mode); code != SQLITE_OK)
    return fail(connection.error(code));
  return program;
}

bool is_any_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Compares what a program opens with what is granted.
class ReachCheck {
 public:
  ReachCheck(const SqlRights& rights, UserConnection& connection, const SchemaMap& schema,
             bool is_schema_change)
      : rights_(rights),
        connection_(connection),
        schema_(schema),
        is_schema_change_(is_schema_change) {}

  Result<> check(const std::vector<Instruction>& program) {
    for (const Instruction& one : program) OFFPRINT_TRY(check_one(one));
    // An AUTOINCREMENT reads and writes the sequence once; whoever reads it besides is a query.
    if (sequence_reads_ > sequence_writes_) return refuse(Verb::kDataRead, kSequenceTable);
    return {};
  }

 private:
  Result<> check_one(const Instruction& one) {
    if (one.name == "OpenRead" || one.name == "ReopenIdx")
      return check_root(one.p2, one.p3, Verb::kDataRead, false);
    if (one.name == "OpenWrite") {
      if ((one.p5 & kRootInRegister) != 0) return only_schema_change(one);
      return check_root(one.p2, one.p3, kDataWrites, true);
    }
    if (one.name == "Clear") return check_root(one.p1, one.p2, kDataWrites, true);
    if (one.name.starts_with('V') && one.p4.starts_with("vtab:")) return check_virtual(one);
    if (is_any_of(one.name, {"Destroy", "CreateBtree", "ParseSchema", "VCreate", "VDestroy",
                             "DropTable", "DropIndex", "DropTrigger", "LoadAnalysis"})) {
      return only_schema_change(one);
    }
    // Whatever these do, no table's name is in it.
    if (is_any_of(one.name, {"SqlExec", "IntegrityCk", "IncrVacuum", "Vacuum", "JournalMode",
                             "Checkpoint"}) &&
        !is_schema_change_) {
      return refuse(Verb::kDataRead, "");
    }
    return {};
  }

  Result<> only_schema_change(const Instruction&) {
    if (is_schema_change_) return {};
    return refuse(Verb::kSchemaUpdate, "");
  }

  // `some`: one of them is enough.
  Result<> check_root(std::int64_t root, std::int64_t database, Verbs some, bool writes) {
    if (database != 0)
      return is_schema_change_ ? Result<>() : refuse(Verb::kDataRead, "sqlite_temp_schema");
    const std::string* table = schema_.table_at(root);
    if (table == nullptr) return is_schema_change_ ? Result<>() : refuse(some, "");
    if (*table == kSequenceTable && !is_schema_change_) {
      ++(writes ? sequence_writes_ : sequence_reads_);
      return {};
    }
    if (table->starts_with("sqlite_")) return is_schema_change_ ? Result<>() : refuse(some, *table);
    // A schema change opens tables on its own account and shows nothing of them.
    if (is_schema_change_) some = kSqlVerbs;
    if (!schema_.verbs_on(rights_, *table).has_any(some)) return refuse(some, *table);
    return {};
  }

  Result<> check_virtual(const Instruction& one) {
    if (is_schema_change_) return {};
    OFFPRINT_TRY(name_virtual_tables());
    auto found = virtual_names_.find(one.p4);
    if (found == virtual_names_.end()) return refuse(Verb::kDataRead, "");
    if (is_pure_function(found->second)) return {};
    Verbs some = one.name == "VOpen" ? Verbs(Verb::kDataRead) : kDataWrites | Verb::kDataRead;
    if (!rights_.on_table(found->second).has_any(some)) return refuse(some, found->second);
    return {};
  }

  // A program shows a virtual table's address only: those of the ones that have a name.
  Result<> name_virtual_tables() {
    if (names_known_) return {};
    names_known_ = true;
    std::vector<std::string> names(schema_.virtual_tables().begin(),
                                   schema_.virtual_tables().end());
    names.insert(names.end(), kPureFunctions.begin(), kPureFunctions.end());
    for (const std::string& name : names) {
      std::string quoted;
      for (char c : name) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
      auto probe =
          connection_.prepare_internal(fmt::format("SELECT 1 FROM \"{}\"", quoted).c_str());
      if (!probe) continue;  // its module is not here: nobody can open it either
      OFFPRINT_TRY_ASSIGN(auto program, program_of(probe->handle(), connection_));
      for (const Instruction& one : program) {
        if (one.name == "VOpen") virtual_names_.emplace(one.p4, name);
      }
    }
    return {};
  }

  const SqlRights& rights_;
  UserConnection& connection_;
  const SchemaMap& schema_;
  const bool is_schema_change_;
  int sequence_reads_ = 0;
  int sequence_writes_ = 0;
  bool names_known_ = false;
  std::map<std::string, std::string> virtual_names_;  // by address
};

// What the authorizer does not tell.
void add_unreported(SqlPolicy::Observation& seen, sqlite3_stmt* statement, Verbs& needs) {
  if (seen.schema.has(Verb::kSchemaUpdate) && says_rename_table(sqlite3_sql(statement)))
    seen.uses.push_back({Verb::kSchemaUpdate, ""});
  if (seen.is_schema_change() || !needs.has_any(kDataWrites)) return;
  Verbs more;
  if (needs.has_any(Verb::kDataAdd | Verb::kDataUpdate) && says_replace(sqlite3_sql(statement)))
    more |= Verb::kDataDelete;
  if (sqlite3_column_count(statement) > 0) more |= Verb::kDataRead;  // RETURNING
  if (more.empty()) return;
  needs |= more;
  std::set<std::string> written;
  for (const auto& use : seen.uses) {
    if (kDataWrites.has(use.verb)) written.insert(use.table);
  }
  for (const std::string& table : written) seen.uses.push_back({more, table});
}

Result<> check_uses(const SqlRights& rights, const SqlPolicy::Observation& seen,
                    const SchemaMap& schema) {
  for (const auto& use : seen.uses) {
    bool is_schema_verb = kSchemaWrites.has(use.verb);
    if (seen.is_schema_change() && !is_schema_verb) continue;
    if (rights.everywhere.has(use.verb) || is_pure_function(use.table)) continue;
    bool is_own = !use.table.empty() && !use.table.starts_with("sqlite_");
    if (!is_own || !schema.verbs_on(rights, use.table).has(use.verb))
      return refuse(use.verb, use.table);
  }
  // A table that is made from a query: its sources cannot be told apart from what CREATE opens.
  bool from_query = seen.is_schema_change() && seen.creates_table && seen.selects;
  if (from_query && !rights.everywhere.has(Verb::kDataRead)) return refuse(Verb::kDataRead, "");
  return {};
}

}  // namespace

Result<> load_schema(UserConnection& connection) {
  return connection.run_internal("SELECT 1 FROM main.sqlite_schema LIMIT 1");
}

Result<> check_statement(const SqlRights& rights, UserConnection& connection,
                         PreparedStatement& prepared) {
  sqlite3_stmt* statement = prepared.statement.handle();
  SqlPolicy::Observation seen = connection.policy().observed();
  if (prepared.kind == StatementKind::kVacuum) {
    if (rights.everywhere.has(Verb::kSchemaUpdate)) return {};
    return refuse(Verb::kSchemaUpdate, "");
  }
  Verbs needs = prepared.needs;
  add_unreported(seen, statement, needs);
  if (!rights.needs_reach() && rights.everywhere.has(needs)) return {};
  if (!rights.needs_reach() && !rights.has_table_rules())
    return refuse(needs.without(rights.everywhere), "");
  OFFPRINT_TRY_ASSIGN(SchemaMap schema, SchemaMap::read(connection));
  OFFPRINT_TRY(check_uses(rights, seen, schema));
  if (!rights.needs_reach()) return {};
  OFFPRINT_TRY_ASSIGN(auto program, program_of(statement, connection));
  OFFPRINT_TRY(ReachCheck(rights, connection, schema, seen.is_schema_change()).check(program));
  prepared.compiled = sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_REPREPARE, 0);
  return {};
}

}  // namespace offprint::database
