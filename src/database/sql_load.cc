#include "database/sql_load.h"

#include <algorithm>

#include <fmt/format.h>

#include "database/sql_text.h"

namespace offprint::database {
namespace {

constexpr int kValueSizeMax = 256 << 20;   // bytes of a text, blob or row, as in hosted databases
constexpr int kProgressSteps = 1'000'000;  // of SQLite's machine between two looks at the watcher
constexpr std::size_t kExcerptMax = 80;    // bytes of a statement in a message
constexpr auto kReportEvery = std::chrono::milliseconds(100);

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view candidate) {
    return equals_ignoring_case(word, candidate);
  });
}

// A script may not reach for other files of this machine (VACUUM attaches a nameless one), nor
// change how SQLite works here; such pragmas do nothing.
int authorize(void*, int action, const char* first, const char* second, const char*, const char*) {
  if (action == SQLITE_ATTACH) return first == nullptr || *first != '\0' ? SQLITE_DENY : SQLITE_OK;
  if (action != SQLITE_PRAGMA || second == nullptr) return SQLITE_OK;
  bool harmless =
      is_one_of(first, {"PAGE_SIZE", "ENCODING", "AUTO_VACUUM", "USER_VERSION", "APPLICATION_ID",
                        "WRITABLE_SCHEMA", "DEFER_FOREIGN_KEYS", "TABLE_INFO", "TABLE_XINFO",
                        "INDEX_LIST", "INDEX_INFO", "INDEX_XINFO", "FOREIGN_KEY_LIST",
                        "FOREIGN_KEY_CHECK", "INTEGRITY_CHECK", "QUICK_CHECK", "TABLE_LIST"});
  return harmless ? SQLITE_OK : SQLITE_IGNORE;
}

class ScriptLoader {
 public:
  ScriptLoader(sqlite::Connection db, std::FILE* script, const LoadWatcher& watcher)
      : db_(std::move(db)), reader_(script), reporter_(script, watcher) {
    sqlite3_progress_handler(
        db_.handle(), kProgressSteps,
        [](void* self) { return static_cast<LoadReporter*>(self)->report() ? 0 : 1; }, &reporter_);
  }

  Result<LoadedScript> run() {
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto statement, reader_.next());
      if (!statement) break;
      OFFPRINT_TRY(run_one(*statement));
      ++reporter_.progress.statements;
      reporter_.progress.rows = static_cast<std::uint64_t>(sqlite3_total_changes64(db_.handle()));
      if (!reporter_.report()) return cancelled();
    }
    if (!db_.autocommit() && !ours_) {
      return fail(Code::kInvalid, "the script ends inside a transaction; its COMMIT is missing");
    }
    if (ours_) OFFPRINT_TRY(db_.execute("COMMIT"));
    LoadedScript loaded;
    loaded.statements = reporter_.progress.statements;
    loaded.rows = reporter_.progress.rows;
    OFFPRINT_TRY_ASSIGN(auto check, db_.prepare("SELECT count(*) FROM pragma_foreign_key_check"));
    // A table that refers to one that is not there cannot be checked; it is no reason to refuse the
    // script.
    if (auto row = check.step(); row && *row) {
      loaded.broken_references = static_cast<std::uint64_t>(check.column_int(0));
    }
    return loaded;
  }

 private:
  Result<> run_one(const ScriptStatement& statement) {
    std::string_view word = first_word(statement.sql);
    bool stands_alone = is_one_of(
        word, {"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA", "VACUUM"});
    if (stands_alone && ours_ && !is_one_of(word, {"SAVEPOINT", "RELEASE", "ROLLBACK"})) {
      OFFPRINT_TRY(db_.execute("COMMIT"));
      ours_ = false;
    } else if (!stands_alone && db_.autocommit()) {
      OFFPRINT_TRY(db_.execute("BEGIN"));
      ours_ = true;
    }
    Result<sqlite::Statement> prepared = db_.prepare(statement.sql);
    Result<> ran;
    if (!prepared) {
      ran = fail(std::move(prepared).error());
    } else if (*prepared) {
      ran = prepared->run();
    }
    if (!ran && ran.error().sqlite_code() == SQLITE_INTERRUPT) return cancelled();
    if (!ran)
      return fail(error_in_script(ran.error(), statement, sqlite3_error_offset(db_.handle())));
    if (db_.autocommit()) ours_ = false;
    return {};
  }

  sqlite::Connection db_;
  ScriptReader reader_;
  LoadReporter reporter_;
  bool ours_ = false;  // the open transaction is not the script's own
};

}  // namespace

std::unexpected<Error> cancelled() {
  return fail(Code::kConflict, "JOB_CANCELLED: it was cancelled; nothing of it was done");
}

Error error_in_script(const Error& error, const ScriptStatement& statement, int offset) {
  std::string excerpt = statement.sql.substr(0, kExcerptMax);
  if (excerpt.size() < statement.sql.size()) {
    // Not in the middle of a character.
    while (!excerpt.empty() && (static_cast<unsigned char>(excerpt.back()) & 0xc0) == 0x80)
      excerpt.pop_back();
    if (!excerpt.empty() && (static_cast<unsigned char>(excerpt.back()) & 0x80) != 0)
      excerpt.pop_back();
    excerpt += "…";
  }
  std::replace_if(
      excerpt.begin(), excerpt.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; },
      ' ');
  return Error(
      error.code(),
      fmt::format("line {}: {}, in: {}", line_of_offset(statement.sql, offset, statement.line),
                  error.message(), excerpt),
      error.sqlite_code());
}

bool LoadReporter::report() {
  if (given_up_) return false;
  if (!watcher_ || SteadyClock::now() < next_) return true;
  progress.bytes_done = static_cast<std::uint64_t>(::ftello(script_));
  next_ = SteadyClock::now() + kReportEvery;
  given_up_ = !watcher_(progress);
  return !given_up_;
}

Result<LoadedScript> load_script(std::FILE* script, const std::string& database_path,
                                 const CreateOptions& options, const LoadWatcher& watcher) {
  sqlite::Connection::Options open;
  open.create = true;
  OFFPRINT_TRY_ASSIGN(auto db, sqlite::Connection::open(database_path, open));
  // It is thrown away after a failure, so nothing has to be safe on the disk.
  std::string settings = fmt::format(
      "PRAGMA page_size={}; PRAGMA encoding='{}'; PRAGMA auto_vacuum={}; PRAGMA "
      "journal_mode=TRUNCATE; "
      "PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-16384; PRAGMA "
      "foreign_keys=OFF",
      options.page_size, options.encoding, options.auto_vacuum);
  OFFPRINT_TRY(db.execute(settings.c_str()));
  sqlite3_limit(db.handle(), SQLITE_LIMIT_LENGTH, kValueSizeMax);
  sqlite3_limit(db.handle(), SQLITE_LIMIT_SQL_LENGTH,
                static_cast<int>(ScriptReader::kStatementBytesMax) + 1);
  sqlite3_set_authorizer(db.handle(), authorize, nullptr);
  return ScriptLoader(std::move(db), script, watcher).run();
}

}  // namespace offprint::database
