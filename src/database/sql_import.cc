#include "database/sql_import.h"

#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "database/import_request.h"
#include "database/sql_text.h"

namespace offprint::database {
namespace {

// Gone with this object, and SQLite's companions with it.
class ScratchFile {
 public:
  static Result<std::unique_ptr<ScratchFile>> create(const std::string& directory) {
    std::string path = directory + "/import-XXXXXX";
    int descriptor = ::mkostemp(path.data(), O_CLOEXEC);
    if (descriptor < 0) return fail(io_error("create " + path, errno));
    ::close(descriptor);
    return std::unique_ptr<ScratchFile>(new ScratchFile(std::move(path)));
  }
  ~ScratchFile() {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) ::unlink((path_ + suffix).c_str());
  }
  const std::string& path() const { return path_; }

 private:
  explicit ScratchFile(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

// What dumps say about the file that they make, or about their own transaction.
bool is_read_over(std::string_view word, std::string_view second) {
  for (std::string_view each : {"BEGIN", "COMMIT", "END"}) {
    if (equals_ignoring_case(word, each)) return true;
  }
  if (!equals_ignoring_case(word, "PRAGMA")) return false;
  for (std::string_view each :
       {"FOREIGN_KEYS", "PAGE_SIZE", "ENCODING", "AUTO_VACUUM", "JOURNAL_MODE", "SYNCHRONOUS",
        "CACHE_SIZE", "LOCKING_MODE", "TEMP_STORE"}) {
    if (equals_ignoring_case(second, each)) return true;
  }
  return false;
}

class ScriptRequest final : public ImportRequest {
 public:
  ScriptRequest(std::FILE* script, const LoadWatcher& watcher, Promise& promise)
      : ImportRequest(script, promise), watcher_(watcher) {}

 private:
  Result<> import(Session& session) override {
    begun_ = false;
    foreign_keys_ = true;
    ScriptReader reader(file());
    LoadReporter reporter(file(), watcher_);
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto statement, reader.next());
      if (!statement) break;
      OFFPRINT_TRY_ASSIGN(std::int64_t changes, run_one(session, *statement));
      ++reporter.progress.statements;
      reporter.progress.rows += static_cast<std::uint64_t>(changes);
      if (!reporter.report()) return cancelled();
    }
    result().statements = reporter.progress.statements;
    result().rows = reporter.progress.rows;
    if (!begun_) return {};
    if (!foreign_keys_) OFFPRINT_TRY(count_broken_references(session));
    OFFPRINT_TRY(execute(session, "COMMIT"));
    return {};
  }

  Result<std::int64_t> run_one(Session& session, const ScriptStatement& statement) {
    std::string_view word = first_word(statement.sql);
    std::string_view rest = skip_blanks(statement.sql).substr(word.size());
    if (is_read_over(word, first_word(rest))) {
      if (!begun_ && equals_ignoring_case(first_word(rest), "FOREIGN_KEYS"))
        foreign_keys_ = !turns_off(rest);
      return 0;
    }
    if (!begun_) OFFPRINT_TRY(begin(session));
    if (equals_ignoring_case(word, "ROLLBACK") && !rolls_back_to(rest)) {
      return fail(error_in_script(
          Error(Code::kInvalid, "an import is one transaction, which a script cannot roll back"),
          statement, -1));
    }
    auto ran = execute(session, statement.sql);
    if (!ran) return fail(error_in_script(ran.error(), statement, -1));
    return ran->changes;
  }

  Result<> begin(Session& session) {
    if (!foreign_keys_) OFFPRINT_TRY(execute(session, "PRAGMA foreign_keys=OFF"));
    OFFPRINT_TRY(execute(session, "BEGIN IMMEDIATE"));
    begun_ = true;
    // Children may come before their parents.
    OFFPRINT_TRY(execute(session, "PRAGMA defer_foreign_keys=ON"));
    return {};
  }

  Result<> count_broken_references(Session& session) {
    class Count final : public RowSink {
     public:
      void columns(const sqlite::Statement&) override {}
      Result<> row(const sqlite::Statement& row) override {
        count = static_cast<std::uint64_t>(row.column_int(0));
        return {};
      }
      std::uint64_t count = 0;
    } rows;
    SqlStatement statement;
    statement.sql = "SELECT count(*) FROM pragma_foreign_key_check";
    // Fails where a table refers to one that is not there: no reason to refuse the script.
    if (session.execute(statement, rows)) result().broken_references = rows.count;
    return {};
  }

  // " foreign_keys = OFF"
  static bool turns_off(std::string_view rest) {
    rest = skip_blanks(rest);
    rest.remove_prefix(first_word(rest).size());
    std::size_t value = rest.find_first_not_of(" \t\r\n=('\"");
    if (value == std::string_view::npos) return false;
    std::string_view word = first_word(rest.substr(value));
    for (std::string_view off : {"OFF", "0", "FALSE", "NO"}) {
      if (equals_ignoring_case(word, off)) return true;
    }
    return false;
  }
  static bool rolls_back_to(std::string_view rest) {
    std::string_view next = first_word(rest);
    if (equals_ignoring_case(next, "TRANSACTION"))
      next = first_word(skip_blanks(rest).substr(next.size()));
    return equals_ignoring_case(next, "TO");
  }

  const LoadWatcher& watcher_;
  bool begun_ = false;
  bool foreign_keys_ = true;  // the script has not turned them off
};

Result<ImportResult> import_into_empty(Store& store, const DatabaseName& name, std::FILE* script,
                                       const CreateOptions& settings,
                                       const ImportOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto scratch, ScratchFile::create(options.scratch_directory));
  OFFPRINT_TRY_ASSIGN(auto loaded, load_script(script, scratch->path(), settings, options.watcher));
  struct stat status{};
  if (::stat(scratch->path().c_str(), &status) != 0 || status.st_size == 0)
    return fail(Code::kInvalid, "there is nothing in this script");
  ImportResult result;
  result.statements = loaded.statements;
  result.rows = loaded.rows;
  result.broken_references = loaded.broken_references;
  OFFPRINT_TRY_ASSIGN(result.bookmark, store.import_file(name, scratch->path()));
  return result;
}

}  // namespace

Result<ImportResult> import_sql(Store& store, const DatabaseName& name, const std::string& path,
                                const ImportOptions& options) {
  FileHandle script(std::fopen(path.c_str(), "rbe"));
  if (!script) return fail(io_error("open " + path, errno));
  auto info = store.info(name);
  if (!info && info.error().code() != Code::kNotFound) return fail(std::move(info).error());
  if (!info || info->bookmark.txid.value == 0) {
    CreateOptions settings = info ? info->options : CreateOptions{};
    return import_into_empty(store, name, script.get(), settings, options);
  }
  ImportRequest::Promise promise;
  auto future = promise.get_future();
  store.submit(name, std::make_unique<ScriptRequest>(script.get(), options.watcher, promise));
  return future.get();
}

}  // namespace offprint::database
