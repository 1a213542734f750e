#pragma once

#include <string>
#include <vector>

#include "database/request.h"
#include "server/d1_query.h"

namespace offprint::server::d1 {

// Rows of a statement as D1 writes them: blobs are arrays of bytes. Begins anew with each
// statement.
class D1Rows final : public database::RowSink {
 public:
  // A text longer than `size_max` ends the statement with RESPONSE_TOO_LARGE.
  D1Rows(std::string& to, RunOptions::Rows form, std::size_t size_max)
      : to_(to), form_(form), size_max_(size_max) {}
  void columns(const sqlite::Statement& statement) override;
  Result<> row(const sqlite::Statement& statement) override;
  // Ends the text, also when no statement ran.
  void close();

 private:
  std::string& to_;
  const RunOptions::Rows form_;
  const std::size_t size_max_;
  std::vector<std::string> keys_;  // `"name":`
  bool started_ = false;
  bool first_ = true;
};

}  // namespace offprint::server::d1
