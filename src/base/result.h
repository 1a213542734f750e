#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace offprint {

// What a caller can do about a failure. Maps one to one to an HTTP status (docs/errors.md).
enum class Code {
  kInvalid,       // 400: the request is wrong, and stays wrong when repeated
  kSql,           // 400: SQLite refused the statement; sqlite_code says why
  kUnauthorized,  // 401
  kForbidden,     // 403
  kNotFound,      // 404
  kConflict,      // 409: exists already, or was changed meanwhile
  kTooLarge,      // 413: over a limit of ours
  kBusy,          // 503: held by someone else; try again
  kBehind,        // 503: this copy has not reached the asked position in time
  kTimeout,       // 503: a deadline passed
  kUnavailable,   // 503: cannot be served now (shutting down, stopped database)
  kNotPrimary,    // 503: this node has only a copy; the primary can do it
  kFull,          // 507: no space left on the disk
  kUnknown,       // 500: the outcome of a write is not known
  kCorrupt,       // 500: bytes are not what they must be
  kIo,            // 500: the system refused a read or write
  kInternal,      // 500: a bug or something unforeseen
};

// Lower-case name of a code, as it stands in messages and logs: "not_found".
std::string_view code_name(Code code);

// A failure. Value type.
class Error {
 public:
  Error(Code code, std::string message, int sqlite_code = 0)
      : code_(code), sqlite_code_(sqlite_code), message_(std::move(message)) {}

  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // SQLite's extended result code, 0 where SQLite had no part in it.
  int sqlite_code() const { return sqlite_code_; }

  // The same failure, with `context` before its message: "open a.db: no such file".
  Error with_context(std::string_view context) const;

 private:
  Code code_;
  int sqlite_code_;
  std::string message_;
};

// An Error from errno, with what was tried: io_error("open /x/y", ENOENT). ENOSPC and EDQUOT are
// kFull.
Error io_error(std::string_view what, int error_number);

// A value or an Error. Never dropped silently: libstdc++ 12's expected is not [[nodiscard]].
template <class T = void>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

inline std::unexpected<Error> fail(Code code, std::string message, int sqlite_code = 0) {
  return std::unexpected<Error>(Error(code, std::move(message), sqlite_code));
}
inline std::unexpected<Error> fail(Error error) { return std::unexpected<Error>(std::move(error)); }

}  // namespace offprint

#define OFFPRINT_CONCAT_(a, b) a##b
#define OFFPRINT_CONCAT(a, b) OFFPRINT_CONCAT_(a, b)

// OFFPRINT_TRY(expression): returns its Error from the enclosing function.
// OFFPRINT_TRY_ASSIGN(auto value, expression): the same, else `value` is the result's value.
#define OFFPRINT_TRY(expression) \
  OFFPRINT_TRY_(OFFPRINT_CONCAT(offprint_result_, __COUNTER__), expression)
#define OFFPRINT_TRY_(result, expression)                \
  do {                                                   \
    auto result = (expression);                          \
    if (!result) [[unlikely]]                            \
      return std::unexpected(std::move(result).error()); \
  } while (false)
#define OFFPRINT_TRY_ASSIGN(declaration, expression) \
  OFFPRINT_TRY_ASSIGN_(OFFPRINT_CONCAT(offprint_result_, __COUNTER__), declaration, expression)
#define OFFPRINT_TRY_ASSIGN_(result, declaration, expression) \
  auto result = (expression);                                 \
  if (!result) [[unlikely]]                                   \
    return std::unexpected(std::move(result).error());        \
  declaration = *std::move(result)
