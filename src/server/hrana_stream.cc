#include "server/hrana_stream.h"

#include <algorithm>

#include "server/errors.h"

namespace offprint::server::hrana {
namespace {

Result<ClientStreams::Stream> stream_of(Service& service, const database::DatabaseName& name,
                                        const Pipeline& pipeline) {
  for (auto& held : service.streams.expire(SteadyClock::now())) service.store.release(held);
  if (!pipeline.baton) return ClientStreams::Stream();
  Result<ClientStreams::Stream> stream = service.streams.take(*pipeline.baton, name.text());
  if (!stream && service.has_copies()) return fail(not_primary("the stream is the primary's"));
  return stream;
}

}  // namespace

Result<StreamedWork> begin(Service& service, const database::DatabaseName& name,
                           const HttpRequest& request, Result<Pipeline> pipeline) {
  if (!pipeline) return fail(std::move(pipeline).error());
  OFFPRINT_TRY_ASSIGN(ReadMode mode, read_mode(service, name, request));
  OFFPRINT_TRY_ASSIGN(auto key, request_key(request));
  if (key && pipeline->baton) {
    return fail(Code::kInvalid,
                "IDEMPOTENCY_KEY_UNUSABLE: a request with an Idempotency-Key goes on with no "
                "stream: send it without baton");
  }
  OFFPRINT_TRY_ASSIGN(ClientStreams::Stream stream, stream_of(service, name, *pipeline));
  if (Result<> resolved = resolve(*pipeline, stream.state.stored); !resolved) {
    if (stream.state.held) service.store.release(stream.state.held);
    return fail(std::move(resolved).error());
  }
  if (service.has_copies() && !stream.state.empty() && !pipeline->closes())
    return fail(not_primary("stored SQL is kept at the primary"));
  return StreamedWork{*std::move(pipeline), mode, std::move(stream), std::move(key)};
}

StreamedRequest::StreamedRequest(Service& service, const database::DatabaseName& name,
                                 StreamedWork work, Responder responder)
    : AnsweredRequest(service, name, std::move(responder)),
      pipeline_(std::move(work.pipeline)),
      stream_(std::move(work.stream)),
      read_only_(pipeline_.looks_read_only()) {
  key = std::move(work.key);
}

Result<> StreamedRequest::append_baton(std::string& to,
                                       std::shared_ptr<database::HeldTransaction> held) {
  if (closes()) {
    to += "null";
    return {};
  }
  stream_.state.held = std::move(held);
  Result<std::string> baton = service_.streams.put(stream_, name_.text());
  if (!baton) {
    if (stream_.state.held) service_.store.release(stream_.state.held);
    return fail(std::move(baton).error());
  }
  to += '"';
  to += *baton;
  to += '"';
  return {};
}

Response StreamedRequest::rejected(const database::Outcome& outcome) {
  Error error = outcome.error.value_or(Error(Code::kInternal, "rejected"));
  bool was_in_transaction = stream_.state.held != nullptr;
  if (outcome.held) service_.store.release(outcome.held);
  if (was_in_transaction && error.code() == Code::kTimeout && !outcome.held) {
    // 404, as for any stream that is no more, with the cause in the body.
    return error_response(404, "TRANSACTION_TIMEOUT", error_text(error).message);
  }
  if (was_in_transaction && error.code() == Code::kNotPrimary) {
    // Not for the primary: there its statements would be no transaction.
    return error_response(404, "TRANSACTION_LOST",
                          "another node has become primary, and the transaction was rolled back");
  }
  Response response = plain_error(error);
  if (response.for_primary && pipeline_.baton) response.own_baton = *pipeline_.baton;
  response.headers += answer_headers(service_, name_, outcome.bookmark);
  return response;
}

void require_index(Service& service, const database::DatabaseName& name, std::uint64_t index,
                   database::Request& request) {
  if (index == 0) return;
  Result<Position> here = service.store.position(name);
  if (!here || here->txid.value >= index) return;
  if (!request.at_least) request.at_least = Bookmark{here->epoch, here->txid, here->lineage};
  if (request.at_least->lineage != here->lineage) return;  // refused for that reason
  request.at_least->txid = std::max(request.at_least->txid, TxId{index});
}

void submit(Service& service, const database::DatabaseName& name,
            const std::shared_ptr<database::HeldTransaction>& held, const ReadMode& mode,
            std::uint64_t replication_index, std::unique_ptr<database::Request> request) {
  request->deadline = service.deadline();
  mode.apply(*request);
  if (held) return service.store.submit(held, std::move(request));
  require_index(service, name, replication_index, *request);
  service.store.submit(name, std::move(request));
}

}  // namespace offprint::server::hrana
