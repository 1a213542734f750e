#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sqlite3.h>

#include "database/rights.h"

// What user SQL may do, decided by SQLite's authorizer while a statement is prepared (docs/sql.md).
namespace offprint::database {

enum class StatementKind {
  kPlain,
  kBegin,
  kCommit,
  kRollback,
  kSavepoint,
  kRelease,
  kRollbackTo,
  kVacuum
};

// Watches what is prepared on one connection. Its address is the authorizer's context: set it once,
// before the first user statement (each sqlite3_set_authorizer re-prepares every cached statement).
class SqlPolicy {
 public:
  // What the authorizer learnt about the statement prepared since reset().
  struct Observation {
    StatementKind kind = StatementKind::kPlain;
    std::string savepoint;  // its name, unquoted
    bool sets_defer_foreign_keys = false;
    std::optional<bool> sets_foreign_keys;  // it compiles to nothing; the session does it
    bool sets_pragma = false;               // any PRAGMA with an argument that changes something
    bool reads_change_counters = false;  // calls changes(), total_changes() or last_insert_rowid()
    bool may_take_long = false;          // calls a function that can be long in one step
    std::string refusal;                 // why it was refused; empty: it was not

    // What it needs to be allowed. Changes of the schema write and read on their own account, too.
    Verbs data;           // on tables
    Verbs internal_data;  // on SQLite's own (sqlite_…)
    Verbs schema;
    bool selects = false;
    bool creates_table = false;
    struct Use {
      Verbs verb;
      std::string table;  // in lower case; empty: of the database as a whole
    };
    std::vector<Use> uses;  // the same by table, each once; only when set_rights() limits tables

    bool is_schema_change() const { return !schema.empty(); }
    Verbs needs() const;
  };

  void attach(sqlite3* db);
  void reset() {
    observed_ = {};
    dropped_.clear();
  }
  const Observation& observed() const { return observed_; }
  // SQL of ours is prepared: everything is allowed.
  void set_internal(bool internal) { internal_ = internal; }
  // Of the one whose statement comes next; null: everything. What is prepared while that statement
  // runs counts, too.
  void set_rights(const SqlRights* rights) {
    notes_tables_ = rights != nullptr && !rights->is_everything();
    may_work_ = rights == nullptr || rights->everywhere.has(Verb::kSchemaUpdate);
  }
  // VACUUM runs: its own ATTACH '' is allowed.
  void set_vacuuming(bool vacuuming) { vacuuming_ = vacuuming; }

 private:
  static int authorize(void* self, int action, const char* first, const char* second,
                       const char* schema, const char* trigger);
  int check_table(std::string_view name);
  int check(int action, std::string_view first, const char* second, std::string_view schema);
  void note_access(int action, std::string_view first, std::string_view second);
  void note(Verb verb, std::string_view table);
  void note_pragma(std::string_view name, const char* argument);
  int check_pragma(std::string_view name, const char* argument);
  int refuse(std::string reason);

  Observation observed_;
  bool notes_tables_ = false;
  bool may_work_ = true;  // PRAGMA optimize and its like
  std::string dropped_;   // the table of a DROP, which it also empties
  bool internal_ = false;
  bool vacuuming_ = false;
};

}  // namespace offprint::database
