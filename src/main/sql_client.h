#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "main/remote.h"
#include "main/result_writer.h"

namespace offprint {

// Runs SQL on a database over HTTP, as one connection would: a transaction that a statement began
// stays open for the next ones. Speaks Hrana, so any libSQL server will do. Thread: one.
class SqlClient {
 public:
  // `url` of the database, without a last slash.
  SqlClient(std::string url, const RemoteOptions& options)
      : url_(std::move(url)), remote_(options) {}
  // Rolls back what is still open, if the server can be reached.
  ~SqlClient();

  // What a list of statements gave: results of those that ran, and why the next one did not.
  struct Progress {
    std::vector<ResultSet> results;
    std::optional<Error> failure;
  };
  // One request, run in order up to the first that fails.
  Progress run(const std::vector<std::string>& statements);

 private:
  Result<HttpAnswer> send(const std::string& requests);

  const std::string url_;
  Remote remote_;
  std::string baton_;
};

}  // namespace offprint
