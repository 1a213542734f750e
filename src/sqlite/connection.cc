#include "sqlite/connection.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>

#include <fmt/format.h>

#include "base/assert.h"
#include "sqlite/moment_watch.h"

namespace offprint::sqlite {
namespace {

constexpr int kOldestVersion =
    3'051'003;  // older ones can corrupt a file when a checkpoint races with a commit

Code code_of(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Code::kCorrupt;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      return Code::kIo;
    case SQLITE_FULL:
      return Code::kFull;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Code::kBusy;
    default:
      return Code::kSql;
  }
}

std::string immutable_uri(const std::string& path) {
  std::string uri = "file:";
  for (char c : path) {
    const bool is_special = c == '%' || c == '?' || c == '#';
    uri += is_special ? fmt::format("%{:02X}", static_cast<unsigned char>(c)) : std::string(1, c);
  }
  return uri + "?immutable=1";
}

}  // namespace

Error sqlite_error(int code, sqlite3* db) {
  OFFPRINT_ASSERT((code & 0xff) != SQLITE_MISUSE);
  const char* text = sqlite3_errstr(code);
  // The connection's message belongs to its last failure; use it only if that is this one.
  if (db != nullptr && (sqlite3_errcode(db) & 0xff) == (code & 0xff)) text = sqlite3_errmsg(db);
  Code kind = code_of(code);
  if (kind == Code::kSql) return Error(kind, text, code);
  return Error(kind, fmt::format("{} ({})", text, extended_name(code)), code);
}

void Statement::bind_text(int index, std::string_view value) {
  // A null pointer would bind NULL, not ''.
  const char* data = value.data() == nullptr ? "" : value.data();
  sqlite3_bind_text64(handle(), index, data, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

void Statement::bind_blob_borrowed(int index, ByteView value) {
  if (value.empty()) {
    sqlite3_bind_zeroblob(handle(), index, 0);  // a null pointer would bind NULL
  } else {
    sqlite3_bind_blob64(handle(), index, value.data(), value.size(), SQLITE_STATIC);
  }
}

Result<> Statement::bind_value(int index, const Value& value) {
  sqlite3_stmt* to = handle();
  int code = SQLITE_OK;
  if (std::holds_alternative<std::monostate>(value)) {
    code = sqlite3_bind_null(to, index);
  } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    code = sqlite3_bind_int64(to, index, *integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    code = sqlite3_bind_double(to, index, *real);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    code =
        sqlite3_bind_text64(to, index, text->data(), text->size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  } else if (const auto* blob = std::get_if<Bytes>(&value)) {
    code = blob->empty()
               ? sqlite3_bind_zeroblob(to, index, 0)
               : sqlite3_bind_blob64(to, index, blob->data(), blob->size(), SQLITE_TRANSIENT);
  }
  if (code != SQLITE_OK) return fail(sqlite_error(code, sqlite3_db_handle(to)));
  return {};
}

Result<bool> Statement::step() {
  int code = sqlite3_step(handle());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return fail(sqlite_error(code, sqlite3_db_handle(handle())));
}

Result<> Statement::run() {
  while (true) {
    Result<bool> row = step();
    if (!row) {
      reset();
      return fail(std::move(row).error());
    }
    if (!*row) break;
  }
  reset();
  return {};
}

std::string_view Statement::column_text(int column) const {
  const unsigned char* text =
      sqlite3_column_text(handle(), column);  // before _bytes: it may convert
  if (text == nullptr) return {};
  return {reinterpret_cast<const char*>(text),
          static_cast<std::size_t>(sqlite3_column_bytes(handle(), column))};
}

ByteView Statement::column_blob(int column) const {
  const void* blob = sqlite3_column_blob(handle(), column);
  if (blob == nullptr) return {};
  return {static_cast<const std::uint8_t*>(blob),
          static_cast<std::size_t>(sqlite3_column_bytes(handle(), column))};
}

Result<Connection> Connection::open(const std::string& path, const Options& options) {
  int flags = SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_NOMUTEX;
  flags |= options.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
  if (options.create) flags |= SQLITE_OPEN_CREATE;
  if (options.immutable || options.attach_uris) flags |= SQLITE_OPEN_URI;
  const std::string name = options.immutable ? immutable_uri(path) : path;
  sqlite3* handle = nullptr;
  int code = sqlite3_open_v2(name.c_str(), &handle, flags, options.vfs);
  Connection connection(handle);  // first of all: a failed open returns a handle too
  if (code != SQLITE_OK) return fail(sqlite_error(code, handle).with_context("open " + path));
  sqlite3_busy_timeout(handle, options.busy_timeout_ms);
  return connection;
}

Result<> Connection::execute(const char* sql) {
  int code = sqlite3_exec(handle(), sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return fail(sqlite_error(code, handle()));
  return {};
}

Result<Statement> Connection::prepare(std::string_view sql, unsigned flags) {
  if (sql.size() > INT32_MAX) return fail(sqlite_error(SQLITE_TOOBIG));
  sqlite3_stmt* handle = nullptr;
  const char* text = sql.data() == nullptr ? "" : sql.data();
  int code = sqlite3_prepare_v3(this->handle(), text, static_cast<int>(sql.size()), flags, &handle,
                                nullptr);
  Statement statement(handle);
  if (code != SQLITE_OK) return fail(sqlite_error(code, this->handle()));
  return statement;
}

// What a statement does may fail at its very end only: PRAGMA journal_mode=WAL commits there.
static Result<> end_statement(Statement& statement) {
  int code = sqlite3_reset(statement.handle());
  if (code != SQLITE_OK) return fail(sqlite_error(code, sqlite3_db_handle(statement.handle())));
  return {};
}

Result<std::int64_t> Connection::query_int(const char* sql) {
  OFFPRINT_TRY_ASSIGN(Statement statement, prepare(sql));
  OFFPRINT_TRY_ASSIGN(bool row, statement.step());
  if (!row) return fail(Code::kNotFound, fmt::format("no row: {}", sql));
  std::int64_t value = statement.column_int(0);
  OFFPRINT_TRY(end_statement(statement));
  return value;
}

Result<std::string> Connection::query_text(const char* sql) {
  OFFPRINT_TRY_ASSIGN(Statement statement, prepare(sql));
  OFFPRINT_TRY_ASSIGN(bool row, statement.step());
  if (!row) return fail(Code::kNotFound, fmt::format("no row: {}", sql));
  std::string value(statement.column_text(0));
  OFFPRINT_TRY(end_statement(statement));
  return value;
}

void initialize() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (sqlite3_libversion_number() < kOldestVersion) {
      std::fprintf(stderr,
                   "SQLite %s is too old: 3.51.3 is needed (older ones can corrupt a database)\n",
                   sqlite3_libversion());
      std::exit(1);
    }
    sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
    OFFPRINT_ASSERT(sqlite3_initialize() == SQLITE_OK);
    MomentWatch::install();
  });
}

}  // namespace offprint::sqlite
