#pragma once

#include <string>

#include "base/result.h"
#include "database/request.h"
#include "sqlite/connection.h"

// Rows of a statement as JSON text.
namespace offprint::server {

// {"type":"integer","value":"1"} and its like.
void append_hrana_value(std::string& to, const sqlite::Statement& statement, int column);
// 1, 1.5, "text", {"base64":"…"}, null.
void append_plain_value(std::string& to, const sqlite::Statement& statement, int column);

// `"cols":[…]` and `[…]`, a row, as Hrana wants them.
void append_hrana_columns(std::string& to, const sqlite::Statement& statement);
void append_hrana_row(std::string& to, const sqlite::Statement& statement);

// RESPONSE_TOO_LARGE, for a result of more than `size_max` bytes.
std::unexpected<Error> result_too_large(std::uint64_t size_max);

// Writes `"cols":[…],"rows":[[…]…` (Hrana) to the end of a string; close() ends the array of rows.
class HranaRows final : public database::RowSink {
 public:
  // A text longer than `size_max` ends the statement with RESPONSE_TOO_LARGE.
  HranaRows(std::string& to, std::size_t size_max, bool want_rows)
      : to_(to), size_max_(size_max), want_rows_(want_rows) {}
  void columns(const sqlite::Statement& statement) override;
  Result<> row(const sqlite::Statement& statement) override;
  void close();

 private:
  std::string& to_;
  const std::size_t size_max_;
  const bool want_rows_;
  bool started_ = false;
  bool first_ = true;
};

// The same for /query: `"columns":[…],"rows":[[…]…`.
class PlainRows final : public database::RowSink {
 public:
  PlainRows(std::string& to, std::size_t size_max) : to_(to), size_max_(size_max) {}
  void columns(const sqlite::Statement& statement) override;
  Result<> row(const sqlite::Statement& statement) override;
  void close();

 private:
  std::string& to_;
  const std::size_t size_max_;
  bool started_ = false;
  bool first_ = true;
};

}  // namespace offprint::server
