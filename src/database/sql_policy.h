#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <sqlite3.h>

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
  };

  void attach(sqlite3* db);
  void reset() { observed_ = {}; }
  const Observation& observed() const { return observed_; }
  // SQL of ours is prepared: everything is allowed.
  void set_internal(bool internal) { internal_ = internal; }
  // VACUUM runs: its own ATTACH '' is allowed.
  void set_vacuuming(bool vacuuming) { vacuuming_ = vacuuming; }

 private:
  static int authorize(void* self, int action, const char* first, const char* second,
                       const char* schema, const char* trigger);
  int check(int action, std::string_view first, const char* second, std::string_view schema);
  int check_pragma(std::string_view name, const char* argument);
  int refuse(std::string reason);

  Observation observed_;
  bool internal_ = false;
  bool vacuuming_ = false;
};

}  // namespace offprint::database
