#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "base/result.h"
#include "database/request.h"
#include "database/sql_policy.h"
#include "database/statement_meter.h"
#include "database/store.h"
#include "database/watchdog.h"
#include "sqlite/connection.h"

namespace offprint::database {

// A statement of a user, ready to run, with what the policy learnt about it.
struct PreparedStatement {
  sqlite::Statement statement;
  StatementKind kind = StatementKind::kPlain;
  std::string savepoint;
  bool sets_defer_foreign_keys = false;
  std::optional<bool> sets_foreign_keys;
  bool sets_pragma = false;
  bool reads_change_counters = false;
  bool may_take_long = false;  // in one step, which no time slice ends
  bool read_only = false;
  Verbs needs;
  // Set when what it reaches was checked: it must not be compiled again before it has run.
  std::optional<int> compiled;  // how often it was
  bool is_changed() const;
};

// A connection on which user SQL runs: policy, statement cache, deadline. Thread: one at a time.
class UserConnection final : private Watchdog::Watched {
 public:
  struct Options {
    const char* vfs = nullptr;
    bool foreign_keys = true;
    // Of the database while it has no tables; SQLite keeps it in the connection until then.
    std::string encoding = "UTF-8";
    bool reads_only = false;  // what would write fails with SQLITE_READONLY
    int busy_timeout_ms = 5'000;
    Watchdog* watchdog = nullptr;           // must outlive the connection
    std::shared_ptr<StatementMeter> meter;  // null: nothing is gathered
  };
  static Result<std::unique_ptr<UserConnection>> open(const std::string& path,
                                                      const Options& options);
  UserConnection(const UserConnection&) = delete;
  UserConnection& operator=(const UserConnection&) = delete;
  ~UserConnection();

  // Gives a statement back to its connection when it goes: reset, bindings cleared, kept if its
  // text came before.
  class Lease {
   public:
    Lease(UserConnection& owner, std::unique_ptr<PreparedStatement> prepared, std::string key)
        : owner_(&owner), prepared_(std::move(prepared)), key_(std::move(key)) {}
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (prepared_) owner_->give_back(std::move(prepared_), std::move(key_));
    }
    PreparedStatement* operator->() const { return prepared_.get(); }

   private:
    UserConnection* owner_;
    std::unique_ptr<PreparedStatement> prepared_;
    std::string key_;  // empty: not to be kept
  };

  // Prepares the first statement of `sql`. `rest`, when given, becomes what follows it; a zero byte
  // must then follow the text, as it does in a std::string. Without
  // `rest` a second statement is refused ("SQL_MANY_STATEMENTS"). No statement at all:
  // "SQL_NO_STATEMENT", or, with `rest`, a lease with an empty statement.
  // What goes beyond `rights` (null: everything), which must outlive its run, is kForbidden.
  Result<Lease> prepare(std::string_view sql, std::string_view* rest = nullptr,
                        const SqlRights* rights = nullptr);

  // A statement of ours, outside the policy.
  Result<> run_internal(const char* sql);
  Result<sqlite::Statement> prepare_internal(const char* sql);
  // Statements of ours.
  template <class Work>
  Result<> internally(Work work) {
    policy_.set_internal(true);
    auto result = work(connection_);
    policy_.set_internal(false);
    return result;
  }

  // Statements are interrupted after this; the error is kTimeout. max(): never.
  void set_deadline(Deadline deadline);
  // The deadline passed while the last statement ran.
  bool timed_out() const { return timed_out_.load(std::memory_order_relaxed); }
  void clear_timed_out() { timed_out_ = false; }

  // A new request begins: changes(), total_changes() and last_insert_rowid() tell of its own rows
  // only. changes() needs a statement to be reset, which reset_changes() runs, for those who ask.
  void forget_changes();
  void reset_changes();
  // Rows changed since forget_changes().
  std::int64_t changed_rows() const;

  // The database's limits: statement time, rows of a result, blocked writes, and of a writer its
  // size.
  void set_limits(const DatabaseLimits& limits, std::uint32_t page_size, std::uint64_t version);
  std::uint64_t limits_version() const { return limits_version_; }
  const DatabaseLimits& limits() const { return limits_; }
  Deadline deadline();
  StatementMeter* meter() const { return meter_.get(); }

  // Whether foreign keys are enforced here, and as the database's options say it. A change counts
  // from the next statement on; inside a transaction nothing may be changed.
  bool foreign_keys() const { return foreign_keys_; }
  void set_foreign_keys(bool enforced);
  void reset_foreign_keys() { set_foreign_keys(foreign_keys_option_); }

  // The error that `code` means here: refused by policy, deadline, or SQLite's own.
  Error error(int code) const;

  SqlPolicy& policy() { return policy_; }
  sqlite::Connection& connection() { return connection_; }
  sqlite3* handle() const { return connection_.handle(); }
  bool autocommit() const { return connection_.autocommit(); }

 private:
  explicit UserConnection(sqlite::Connection connection) : connection_(std::move(connection)) {}
  void give_back(std::unique_ptr<PreparedStatement> prepared, std::string key);
  Result<Lease> prepare_text(std::string_view sql, std::string_view* rest, bool keep);
  std::unique_ptr<PreparedStatement> take_cached(std::string_view sql);
  bool came_before(std::string_view sql);
  Result<> step_internal(const char* sql);
  static int on_progress(void* self);
  void look(Deadline now) override;
  static void total_changes(sqlite3_context* context, int, sqlite3_value**);

  using Cached = std::pair<std::string, std::unique_ptr<PreparedStatement>>;
  static constexpr std::size_t kCacheMax = 128;
  static constexpr std::size_t kCachedTextMax = 16 << 10;

  SqlPolicy policy_;  // before connection_: SQLite calls it until the connection is closed
  sqlite::Connection connection_;
  std::unordered_map<std::string, sqlite::Statement> control_;  // transaction control of ours
  std::list<Cached> cache_;                                     // most recent first
  std::unordered_map<std::string_view, std::list<Cached>::iterator> by_text_;
  std::array<std::size_t, 512> seen_{};  // hashes of texts that came lately
  Watchdog* watchdog_ = nullptr;
  std::mutex deadline_mutex_;  // the user's thread changes it, the watchdog looks at it
  Deadline deadline_ = Deadline::max();
  std::atomic<bool> timed_out_{false};
  std::shared_ptr<StatementMeter> meter_;
  DatabaseLimits limits_;
  std::uint64_t limits_version_ = 0;
  bool reads_only_ = false;
  bool foreign_keys_option_ = true;
  bool foreign_keys_ = true;
  std::int64_t changes_before_ = 0;  // the connection's total when the request began
};

// DATABASE_BLOCKED, with the reason if there is one.
Error blocked_error(const std::string& reason, std::string_view what);

// Binds the arguments of a statement. kInvalid "ARGS_INVALID…" when they don't match its parameters
// exactly.
Result<> bind_arguments(sqlite::Statement& statement, const SqlStatement& source);

}  // namespace offprint::database
