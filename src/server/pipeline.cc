#include "server/pipeline.h"

#include "server/errors.h"
#include "server/gate.h"
#include "server/hrana_run.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

// A pipeline on its way through the store. Keeps what its stream needs afterwards.
class PipelineRequest final : public database::Request {
 public:
  PipelineRequest(Service& service, const database::DatabaseName& name, hrana::Pipeline pipeline,
                  ClientStreams::Stream stream, Responder responder)
      : service_(service),
        name_(name),
        pipeline_(std::move(pipeline)),
        stream_(std::move(stream)),
        responder_(std::move(responder)),
        read_only_(pipeline_.looks_read_only()) {}

  void run(database::Session& session) override {
    body_.clear();
    body_ += "{\"results\":";
    hrana::run_pipeline(pipeline_, session, body_, service_.options.response_bytes_max);
  }

  void done(database::Outcome outcome) override {
    if (outcome.state != database::Outcome::State::kCommitted) return reject(outcome);
    stream_.state.held = std::move(outcome.held);
    finish(answer_headers(service_, name_, outcome.bookmark));
  }

  bool likely_read_only() const override { return read_only_; }
  bool keep_transaction() const override { return !pipeline_.closes(); }

  // For a pipeline that needs no SQL.
  void answer_at_once() {
    body_ = "{\"results\":";
    hrana::answer_without_session(pipeline_, body_);
    finish({});
  }

 private:
  void finish(std::string headers) {
    Response response;
    if (pipeline_.closes()) {
      body_ += ",\"baton\":null,\"base_url\":null}";
    } else {
      Result<std::string> baton = service_.streams.put(stream_, name_.text());
      if (!baton) {
        if (stream_.state.held) service_.store.release(stream_.state.held);
        return responder_.respond(plain_error(baton.error()));
      }
      body_ += ",\"baton\":\"";
      body_ += *baton;
      body_ += "\",\"base_url\":null}";
    }
    response.headers = std::move(headers);
    response.body = std::move(body_);
    responder_.respond(std::move(response));
  }

  void reject(const database::Outcome& outcome) {
    Error error = outcome.error.value_or(Error(Code::kInternal, "rejected"));
    bool was_in_transaction = stream_.state.held != nullptr;
    if (outcome.held) service_.store.release(outcome.held);
    if (was_in_transaction && error.code() == Code::kTimeout && !outcome.held) {
      // 404, as for any stream that is no more, with the cause in the body.
      return responder_.respond(
          error_response(404, "TRANSACTION_TIMEOUT", error_text(error).message));
    }
    Response response = plain_error(error);
    response.headers += answer_headers(service_, name_, outcome.bookmark);
    responder_.respond(std::move(response));
  }

  Service& service_;
  const database::DatabaseName name_;
  const hrana::Pipeline pipeline_;
  ClientStreams::Stream stream_;
  Responder responder_;
  const bool read_only_;
  std::string body_;
};

Result<ClientStreams::Stream> stream_of(Service& service, const database::DatabaseName& name,
                                        const hrana::Pipeline& pipeline) {
  for (auto& held : service.streams.expire(SteadyClock::now())) service.store.release(held);
  if (pipeline.baton) return service.streams.take(*pipeline.baton, name.text());
  return ClientStreams::Stream();
}

}  // namespace

void handle_pipeline(Service& service, const database::DatabaseName& name, HttpRequest& request,
                     Responder responder) {
  Result<hrana::Pipeline> pipeline = hrana::parse_pipeline(request.body);
  if (!pipeline) return responder.respond(plain_error(pipeline.error()));
  Result<ReadMode> mode = read_mode(service, request);
  if (!mode) return responder.respond(plain_error(mode.error()));
  Result<ClientStreams::Stream> stream = stream_of(service, name, *pipeline);
  if (!stream) return responder.respond(plain_error(stream.error()));
  auto held = stream->state.held;
  if (Result<> resolved = hrana::resolve(*pipeline, stream->state.stored); !resolved) {
    if (held) service.store.release(held);
    return responder.respond(plain_error(resolved.error()));
  }
  bool runs = pipeline->runs_sql();
  bool closes = pipeline->closes();
  auto work = std::make_unique<PipelineRequest>(service, name, *std::move(pipeline),
                                                *std::move(stream), std::move(responder));
  work->deadline = service.deadline();
  mode->apply(*work);
  work->rights = access_of(service, request).sql_rights(name);
  if (!runs && (!held || closes)) {
    if (held) service.store.release(held);
    return work->answer_at_once();
  }
  if (held) return service.store.submit(held, std::move(work));
  service.store.submit(name, std::move(work));
}

}  // namespace offprint::server
