#pragma once

#include <memory>
#include <string>

#include "database/name.h"
#include "server/answered_request.h"
#include "server/hrana.h"
#include "server/http_message.h"
#include "server/service.h"

// What pipelines and cursors have in common: a request over HTTP that goes on with a client stream.
namespace offprint::server::hrana {

// A request that was read and found in order, with its stream taken out of the service's.
struct StreamedWork {
  Pipeline pipeline;
  ReadMode mode;
  ClientStreams::Stream stream;
  std::optional<database::RequestKey> key;
};
// Errors refuse the whole HTTP request, and nothing of it ran.
Result<StreamedWork> begin(Service& service, const database::DatabaseName& name,
                           const HttpRequest& request, Result<Pipeline> pipeline);

// On its way through the store; keeps its stream afterwards. With a key it is a stream of its own,
// which ends with it.
class StreamedRequest : public AnsweredRequest {
 public:
  bool likely_read_only() const final { return read_only_; }
  bool keep_transaction() const final { return !closes(); }

 protected:
  StreamedRequest(Service& service, const database::DatabaseName& name, StreamedWork work,
                  Responder responder);
  // Keeps the stream, with what became of its transaction, for the next request; appends its baton
  // in quotes (null when the stream was closed).
  Result<> append_baton(std::string& to, std::shared_ptr<database::HeldTransaction> held);
  // The answer to a request of which nothing happened.
  Response rejected(const database::Outcome& outcome);

  const Pipeline pipeline_;

 private:
  bool closes() const { return pipeline_.closes() || key; }

  ClientStreams::Stream stream_;
  const bool read_only_;
};

// The database must have reached the txid that a client was told as `replication_index` before.
void require_index(Service& service, const database::DatabaseName& name, std::uint64_t index,
                   database::Request& request);

// Hands it to the store, to the transaction `held` if there is one.
void submit(Service& service, const database::DatabaseName& name,
            const std::shared_ptr<database::HeldTransaction>& held, const ReadMode& mode,
            std::uint64_t replication_index, std::unique_ptr<database::Request> request);

}  // namespace offprint::server::hrana
