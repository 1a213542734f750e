#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "database/name.h"
#include "database/session.h"
#include "server/hrana.h"
#include "server/http_message.h"
#include "server/service.h"
#include "server/spool.h"

// Hrana's cursors: the results of a batch as a list of entries, a JSON object each, which can be
// much larger than an answer. docs/protocol/hrana.md, "Cursors".
namespace offprint::server::hrana {

// The entries of a cursor, each ending in a line feed. Made while the request runs and only then
// read, because what a statement wrote must be durable before anybody sees its result.
class CursorEntries {
 public:
  explicit CursorEntries(Service& service) : spool_(std::make_shared<Spool>(service)) {}

  // Runs the steps and gathers their entries, dropping what an earlier call gathered. Returns early
  // when session.lost().
  void run(const std::vector<Step>& steps, database::Session& session);
  // The last entry: which txid the results left or saw.
  void finish(TxId txid);

  const std::shared_ptr<Spool>& spool() const { return spool_; }

  // Reading waits for the disk.
  bool must_block() const { return spool_->has_file(); }
  // Appends the next entries, at most `count_max` of them and about `size_max` bytes, with commas
  // between them. `done`: there are no more.
  Result<> next(std::uint64_t count_max, std::size_t size_max, std::string& to, bool& done);

 private:
  std::shared_ptr<Spool> spool_;
  std::uint64_t offset_ = 0;  // of what has been read into unread_ so far
  std::string unread_;
};

}  // namespace offprint::server::hrana

namespace offprint::server {

// POST …/v3/cursor: the entries as lines of JSON, after one line with the baton.
void handle_cursor(Service& service, const database::DatabaseName& name, HttpRequest& request,
                   Responder responder);

}  // namespace offprint::server
