#include "database/user_connection.h"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "database/sql_text.h"
#include "database/statement_rights.h"

namespace offprint::database {
namespace {

constexpr int kProgressSteps =
    2'000;  // virtual machine steps between two looks at the clock: some tens of µs

constexpr std::uint64_t kPageCountMax = 4'294'967'294;  // SQLite's own
constexpr int kValueSizeMax = 256 << 20;                // bytes of a text, blob or row
// A pattern is compared with the text in one step, in the worst case length by length.
constexpr int kPatternLengthMax = 1'000;

int parameter_by_name(sqlite3_stmt* statement, const std::string& name) {
  if (int index = sqlite3_bind_parameter_index(statement, name.c_str()); index > 0) return index;
  for (char prefix : {':', '@', '$'}) {
    if (int index = sqlite3_bind_parameter_index(statement, (prefix + name).c_str()); index > 0)
      return index;
  }
  return 0;
}

// One statement whose effect is in its steps alone (a PRAGMA's may be in its preparation).
bool is_transaction_control(std::string_view sql) {
  if (sql.find(';') != std::string_view::npos) return false;
  std::string_view word = sql.substr(0, sql.find(' '));
  return word == "BEGIN" || word == "COMMIT" || word == "ROLLBACK" || word == "SAVEPOINT" ||
         word == "RELEASE";
}

}  // namespace

Result<> bind_arguments(sqlite::Statement& statement, const SqlStatement& source) {
  int count = sqlite3_bind_parameter_count(statement.handle());
  if (!source.args.empty() && !source.named_args.empty()) {
    return fail(Code::kInvalid,
                "ARGS_BOTH_POSITIONAL_AND_NAMED: arguments are either positional or named");
  }
  if (source.named_args.empty()) {
    if (static_cast<std::size_t>(count) != source.args.size()) {
      return fail(
          Code::kInvalid,
          fmt::format("ARGS_INVALID: the statement has {} parameters, {} arguments were given",
                      count, source.args.size()));
    }
    for (int i = 0; i < count; ++i) {
      OFFPRINT_TRY(statement.bind_value(i + 1, source.args[static_cast<std::size_t>(i)]));
    }
    return {};
  }
  int bound = 0;
  std::vector<bool> is_bound(static_cast<std::size_t>(count) + 1);
  for (const NamedValue& argument : source.named_args) {
    int index = parameter_by_name(statement.handle(), argument.name);
    if (index == 0)
      return fail(Code::kInvalid, fmt::format("ARGS_INVALID: no parameter '{}'", argument.name));
    OFFPRINT_TRY(statement.bind_value(index, argument.value));
    if (!is_bound[static_cast<std::size_t>(index)]) ++bound;
    is_bound[static_cast<std::size_t>(index)] = true;
  }
  if (bound != count) {
    return fail(Code::kInvalid, fmt::format("ARGS_INVALID: {} of {} parameters have no argument",
                                            count - bound, count));
  }
  return {};
}

Result<std::unique_ptr<UserConnection>> UserConnection::open(const std::string& path,
                                                             const Options& options) {
  sqlite::Connection::Options raw;
  raw.vfs = options.vfs;
  raw.busy_timeout_ms = options.busy_timeout_ms;
  OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(path, raw));
  std::unique_ptr<UserConnection> user(new UserConnection(std::move(connection)));
  sqlite3* db = user->handle();
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
  sqlite3_progress_handler(db, kProgressSteps, &UserConnection::on_progress, user.get());
  user->reads_only_ = options.reads_only;
  user->meter_ = options.meter;
  user->foreign_keys_option_ = options.foreign_keys;
  user->foreign_keys_ = !options.foreign_keys;
  user->reset_foreign_keys();
  sqlite3_limit(db, SQLITE_LIMIT_LENGTH, kValueSizeMax);
  sqlite3_limit(db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, kPatternLengthMax);
  user->policy_.attach(db);
  OFFPRINT_TRY(user->run_internal(fmt::format("PRAGMA encoding='{}'", options.encoding).c_str()));
  OFFPRINT_TRY(user->run_internal(
      "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-2000"));
  if (options.reads_only) OFFPRINT_TRY(user->run_internal("PRAGMA query_only=ON"));
  // SQLite's own counts since the connection was opened, whoever used it.
  sqlite3_create_function_v2(db, "total_changes", 0, SQLITE_UTF8 | SQLITE_INNOCUOUS, user.get(),
                             &UserConnection::total_changes, nullptr, nullptr, nullptr);
  if (options.watchdog != nullptr) {
    user->watchdog_ = options.watchdog;
    options.watchdog->add(*user);
  }
  return user;
}

UserConnection::~UserConnection() {
  if (watchdog_ != nullptr) watchdog_->remove(*this);
}

void UserConnection::set_foreign_keys(bool enforced) {
  if (enforced == foreign_keys_) return;
  sqlite3_db_config(handle(), SQLITE_DBCONFIG_ENABLE_FKEY, enforced ? 1 : 0, nullptr);
  foreign_keys_ = enforced;
}

void UserConnection::total_changes(sqlite3_context* context, int, sqlite3_value**) {
  auto* user = static_cast<UserConnection*>(sqlite3_user_data(context));
  sqlite3_result_int64(context, user->changed_rows());
}

void UserConnection::forget_changes() {
  changes_before_ = sqlite3_total_changes64(handle());
  sqlite3_set_last_insert_rowid(handle(), 0);
}

// A statement that changes rows and finds none; this table is there in every database.
void UserConnection::reset_changes() { (void)run_internal("DELETE FROM sqlite_dbpage WHERE 0"); }

std::int64_t UserConnection::changed_rows() const {
  return sqlite3_total_changes64(handle()) - changes_before_;
}

Error blocked_error(const std::string& reason, std::string_view what) {
  return Error(Code::kForbidden, fmt::format("DATABASE_BLOCKED: this database can be {} now{}{}",
                                             what, reason.empty() ? "" : ": ", reason));
}

void UserConnection::set_limits(const DatabaseLimits& limits, std::uint32_t page_size,
                                std::uint64_t version) {
  limits_ = limits;
  limits_version_ = version;
  if (reads_only_) return;
  std::uint64_t pages =
      limits.size_bytes_max == 0 ? kPageCountMax : limits.size_bytes_max / std::max(page_size, 1U);
  pages = std::clamp<std::uint64_t>(pages, 1, kPageCountMax);
  (void)run_internal(fmt::format("PRAGMA max_page_count={}", pages).c_str());
}

Deadline UserConnection::deadline() {
  std::lock_guard lock(deadline_mutex_);
  return deadline_;
}

void UserConnection::set_deadline(Deadline deadline) {
  std::lock_guard lock(deadline_mutex_);
  deadline_ = deadline;
}

// On the watchdog's thread: what on_progress() is never asked about. The statement answers
// SQLITE_INTERRUPT; between two statements it means nothing.
void UserConnection::look(Deadline now) {
  std::lock_guard lock(deadline_mutex_);
  if (now < deadline_) return;
  timed_out_ = true;
  sqlite3_interrupt(handle());
}

int UserConnection::on_progress(void* self) {
  auto* user = static_cast<UserConnection*>(self);
  if (user->deadline_ == Deadline::max() || SteadyClock::now() < user->deadline_) return 0;
  user->timed_out_ = true;
  return 1;
}

bool UserConnection::came_before(std::string_view sql) {
  std::size_t hash = std::hash<std::string_view>{}(sql);
  std::size_t& slot = seen_[hash % seen_.size()];
  bool before = slot == hash;
  slot = hash;
  return before;
}

bool PreparedStatement::is_changed() const {
  return compiled &&
         sqlite3_stmt_status(statement.handle(), SQLITE_STMTSTATUS_REPREPARE, 0) != *compiled;
}

std::unique_ptr<PreparedStatement> UserConnection::take_cached(std::string_view sql) {
  auto found = by_text_.find(sql);
  if (found == by_text_.end()) return nullptr;
  Cached cached = std::move(*found->second);
  cache_.erase(found->second);
  by_text_.erase(found);
  return std::move(cached.second);
}

Result<UserConnection::Lease> UserConnection::prepare(std::string_view sql, std::string_view* rest,
                                                      const SqlRights* rights) {
  bool limited = rights != nullptr && !rights->is_everything();
  policy_.set_rights(limited ? rights : nullptr);
  bool whole = rest == nullptr;
  // What a text that writes does may have changed with the schema since it was compiled, and what a
  // text reads is only sure for the one it is compiled for.
  bool cacheable = whole && !(limited && rights->needs_reach());
  if (cacheable) {
    if (auto cached = take_cached(sql)) {
      if (!limited || (cached->read_only && rights->everywhere.has(cached->needs)))
        return Lease(*this, std::move(cached), std::string(sql));
    }
  }
  // Of a longer text SQLite reads the first statement in place, up to the zero byte at its end;
  // without that it would copy all of the text for each of its statements.
  if (whole && sql.find('\0') != std::string_view::npos)
    return fail(Code::kInvalid, "SQL_HAS_NUL: the SQL text contains a zero byte");
  bool keep = cacheable && sql.size() <= kCachedTextMax && came_before(sql);
  if (!limited) return prepare_text(sql, rest, keep);
  if (rights->needs_reach()) OFFPRINT_TRY(load_schema(*this));
  for (bool again = false;; again = true) {
    OFFPRINT_TRY_ASSIGN(Lease lease, prepare_text(sql, rest, keep));
    if (!lease->statement) return lease;
    Result<> allowed = check_statement(*rights, *this, *lease.operator->());
    if (allowed) return lease;
    // Opening a virtual table for the first time, SQLite reads tables of its own: not a second
    // time.
    if (again) return fail(std::move(allowed).error());
  }
}

// The first statement of a text, as SQLite compiles it, with what the policy learnt.
Result<UserConnection::Lease> UserConnection::prepare_text(std::string_view sql,
                                                           std::string_view* rest, bool keep) {
  policy_.reset();
  auto prepared = std::make_unique<PreparedStatement>();
  bool vacuum = equals_ignoring_case(first_word(sql), "VACUUM");
  bool readonly_begin = is_begin_readonly(sql);
  std::string_view text = readonly_begin ? std::string_view("BEGIN") : sql;
  sqlite3_stmt* raw = nullptr;
  const char* tail = nullptr;
  int code =
      sqlite3_prepare_v3(handle(), text.data(), static_cast<int>(text.size()) + (rest != nullptr),
                         keep ? SQLITE_PREPARE_PERSISTENT : 0, &raw, &tail);
  prepared->statement = sqlite::Statement(raw);
  if (code != SQLITE_OK) return fail(error(code));
  std::string_view left =
      readonly_begin ? std::string_view() : sql.substr(static_cast<std::size_t>(tail - sql.data()));
  if (rest != nullptr) {
    if (left.starts_with('\0'))
      return fail(Code::kInvalid, "SQL_HAS_NUL: the SQL text contains a zero byte");
    *rest = left;
  } else if (raw == nullptr) {
    return fail(Code::kInvalid, "SQL_NO_STATEMENT: the SQL text contains no statement");
  } else if (!skip_blanks(left).empty()) {
    return fail(Code::kInvalid,
                "SQL_MANY_STATEMENTS: the SQL text contains more than one statement");
  }
  if (raw != nullptr) {
    const SqlPolicy::Observation& seen = policy_.observed();
    bool explain = sqlite3_stmt_isexplain(raw) != 0;
    prepared->kind = explain ? StatementKind::kPlain : vacuum ? StatementKind::kVacuum : seen.kind;
    prepared->savepoint = seen.savepoint;
    prepared->sets_defer_foreign_keys = seen.sets_defer_foreign_keys && !explain;
    if (!explain) prepared->sets_foreign_keys = seen.sets_foreign_keys;
    prepared->sets_pragma = seen.sets_pragma && !explain;
    prepared->reads_change_counters = seen.reads_change_counters;
    prepared->may_take_long = seen.may_take_long && !explain;
    prepared->read_only = sqlite3_stmt_readonly(raw) != 0;
    prepared->needs = seen.needs();
  }
  return Lease(*this, std::move(prepared), keep ? std::string(sql) : std::string());
}

void UserConnection::give_back(std::unique_ptr<PreparedStatement> prepared, std::string key) {
  if (key.empty() || !prepared->statement) return;
  prepared->statement.reset();
  sqlite3_clear_bindings(prepared->statement.handle());
  if (by_text_.contains(key)) return;
  cache_.emplace_front(std::move(key), std::move(prepared));
  by_text_.emplace(cache_.front().first, cache_.begin());
  if (cache_.size() > kCacheMax) {
    by_text_.erase(cache_.back().first);
    cache_.pop_back();
  }
}

Result<> UserConnection::run_internal(const char* sql) {
  policy_.set_internal(true);
  auto result = is_transaction_control(sql) ? step_internal(sql) : connection_.execute(sql);
  policy_.set_internal(false);
  return result;
}

// Transaction control comes with every request: it is prepared once.
Result<> UserConnection::step_internal(const char* sql) {
  auto found = control_.find(sql);
  if (found == control_.end()) {
    OFFPRINT_TRY_ASSIGN(auto statement, connection_.prepare(sql, SQLITE_PREPARE_PERSISTENT));
    found = control_.emplace(sql, std::move(statement)).first;
  }
  return found->second.run();
}

Result<sqlite::Statement> UserConnection::prepare_internal(const char* sql) {
  policy_.set_internal(true);
  auto result = connection_.prepare(sql, SQLITE_PREPARE_PERSISTENT);
  policy_.set_internal(false);
  return result;
}

Error UserConnection::error(int code) const {
  if (timed_out())
    return Error(Code::kTimeout, "the statement took longer than its time limit", SQLITE_INTERRUPT);
  if ((code & 0xff) == SQLITE_AUTH) {
    const std::string& reason = policy_.observed().refusal;
    return Error(Code::kForbidden, reason.empty() ? "not authorized" : reason, SQLITE_AUTH);
  }
  return sqlite::sqlite_error(code, handle());
}

}  // namespace offprint::database
