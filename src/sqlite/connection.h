#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <sqlite3.h>

#include "base/bytes.h"
#include "base/result.h"

// Thin RAII over sqlite3: the only code that sees raw handles. One connection belongs to one thread
// at a time (SQLITE_THREADSAFE=2: it may move between threads, with a lock or queue between).
namespace offprint::sqlite {

using Value = std::variant<std::monostate, std::int64_t, double, std::string, Bytes>;

// An SQLite result code as an Error of Code::kSql (kCorrupt, kIo, kFull, kBusy where that is what
// it means), with the connection's message when `db` is given. SQLITE_MISUSE is a bug and ends the
// process.
Error sqlite_error(int code, sqlite3* db = nullptr);
// "SQLITE_CONSTRAINT_UNIQUE" for 2067; base_name: "SQLITE_CONSTRAINT".
std::string_view extended_name(int code);
std::string_view base_name(int code);

// A prepared statement. Movable. Text and blobs that a column method returns are valid until the
// next step or reset.
class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* handle) : handle_(handle) {}

  sqlite3_stmt* handle() const { return handle_.get(); }
  explicit operator bool() const { return handle_ != nullptr; }

  // Binds by 1-based index; text and blobs are copied unless the _borrowed form is used (then
  // `value` must live until reset or the next bind).
  void bind(int index, std::int64_t value) { sqlite3_bind_int64(handle(), index, value); }
  void bind_text(int index, std::string_view value);
  void bind_blob_borrowed(int index, ByteView value);
  void bind_null(int index) { sqlite3_bind_null(handle(), index); }
  Result<> bind_value(int index, const Value& value);

  // True: a row is there. False: done.
  Result<bool> step();
  // Steps to the end, dropping rows, and resets.
  Result<> run();
  void reset() { sqlite3_reset(handle()); }

  int column_count() const { return sqlite3_column_count(handle()); }
  int column_type(int column) const { return sqlite3_column_type(handle(), column); }
  std::int64_t column_int(int column) const { return sqlite3_column_int64(handle(), column); }
  double column_double(int column) const { return sqlite3_column_double(handle(), column); }
  std::string_view column_text(int column) const;
  ByteView column_blob(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

// A connection. Movable.
class Connection {
 public:
  struct Options {
    bool read_only = false;
    bool create = false;
    // Nobody writes to the file meanwhile: no locks, nothing is made beside it.
    bool immutable = false;
    // What is attached may be named by a URI, such as file:a.db?mode=ro; `path` must be absolute.
    bool attach_uris = false;
    const char* vfs = nullptr;  // nullptr: the default VFS
    int busy_timeout_ms = 0;
  };
  static Result<Connection> open(const std::string& path, const Options& options);

  sqlite3* handle() const { return handle_.get(); }
  // One or more statements of ours; rows are dropped.
  Result<> execute(const char* sql);
  Result<Statement> prepare(std::string_view sql, unsigned flags = 0);
  // First column of the first row of a statement of ours; kNotFound without a row.
  Result<std::int64_t> query_int(const char* sql);
  Result<std::string> query_text(const char* sql);
  bool autocommit() const { return sqlite3_get_autocommit(handle()) != 0; }

 private:
  struct Close {
    void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
  };
  explicit Connection(sqlite3* handle) : handle_(handle) {}
  std::unique_ptr<sqlite3, Close> handle_;
};

// Ends the process with a message when the linked SQLite is older than 3.51.3 (the WAL-reset race),
// and sets what is per process. Call once, before the first connection.
void initialize();

}  // namespace offprint::sqlite
