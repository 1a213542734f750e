#include <fmt/format.h>

#include "database/sql_text.h"
#include "main/script_reader.h"
#include "main/sql_file.h"

namespace offprint {
namespace {

// A script may not reach for other files of this machine. VACUUM attaches a nameless one.
int authorize(void*, int action, const char* file, const char*, const char*, const char*) {
  return action == SQLITE_ATTACH && (file == nullptr || *file != '\0') ? SQLITE_DENY : SQLITE_OK;
}

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  for (std::string_view candidate : words) {
    if (database::equals_ignoring_case(word, candidate)) return true;
  }
  return false;
}

class ScriptLoader {
 public:
  explicit ScriptLoader(sqlite::Connection db) : db_(std::move(db)) {}

  Result<LoadedScript> run(std::FILE* script) {
    ScriptReader reader(script);
    LoadedScript loaded;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto statement, reader.next());
      if (!statement) break;
      OFFPRINT_TRY(run_one(*statement));
      ++loaded.statements;
    }
    if (!db_.autocommit() && !ours_) {
      return fail(Code::kInvalid, "the script ends inside a transaction; its COMMIT is missing");
    }
    if (ours_) OFFPRINT_TRY(db_.execute("COMMIT"));
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
    std::string_view word = database::first_word(statement.sql);
    bool stands_alone = is_one_of(
        word, {"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA", "VACUUM"});
    if (stands_alone && ours_ && !is_one_of(word, {"SAVEPOINT", "RELEASE", "ROLLBACK"})) {
      OFFPRINT_TRY(db_.execute("COMMIT"));
      ours_ = false;
    } else if (!stands_alone && db_.autocommit()) {
      OFFPRINT_TRY(db_.execute("BEGIN"));
      ours_ = true;
    }
    auto explain = [&](const Error& error) {
      std::uint64_t line =
          line_of_offset(statement.sql, sqlite3_error_offset(db_.handle()), statement.line);
      return fail(error.with_context(fmt::format("line {}", line)));
    };
    Result<sqlite::Statement> prepared = db_.prepare(statement.sql);
    if (!prepared) return explain(prepared.error());
    if (!*prepared) return {};
    if (Result<> ran = prepared->run(); !ran) return explain(ran.error());
    if (db_.autocommit()) ours_ = false;
    return {};
  }

  sqlite::Connection db_;
  bool ours_ = false;  // the open transaction is not the script's own
};

}  // namespace

Result<LoadedScript> load_script(std::FILE* script, const std::string& database_path,
                                 const NewFileOptions& options) {
  sqlite::Connection::Options open;
  open.create = true;
  OFFPRINT_TRY_ASSIGN(auto db, sqlite::Connection::open(database_path, open));
  // It is thrown away after a failure, so nothing has to be safe on the disk.
  std::string settings = fmt::format(
      "PRAGMA page_size={}; PRAGMA encoding='{}'; PRAGMA auto_vacuum={}; PRAGMA "
      "journal_mode=MEMORY; "
      "PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-65536; PRAGMA "
      "foreign_keys=OFF",
      options.page_size, options.encoding, options.auto_vacuum);
  OFFPRINT_TRY(db.execute(settings.c_str()));
  sqlite3_set_authorizer(db.handle(), authorize, nullptr);
  return ScriptLoader(std::move(db)).run(script);
}

}  // namespace offprint
