#include "server/pipeline.h"

#include "server/errors.h"
#include "server/hrana_run.h"
#include "server/hrana_stream.h"

namespace offprint::server {
namespace {

class PipelineRequest final : public hrana::StreamedRequest {
 public:
  PipelineRequest(Service& service, const database::DatabaseName& name, hrana::StreamedWork work,
                  Responder responder)
      : StreamedRequest(service, name, std::move(work), std::move(responder)) {}

  void run(database::Session& session) override {
    answer_.clear();
    answer_.text += "{\"results\":";
    hrana::run_pipeline(pipeline_, session, answer_, service_.options.response_bytes_max);
  }

  // For a pipeline that needs no SQL.
  void answer_at_once() {
    answer_.text = "{\"results\":";
    hrana::answer_without_session(pipeline_, answer_);
    responder_.respond(finish(nullptr, {}));
  }

 private:
  Response make_answer(database::Outcome outcome) override {
    if (outcome.state != database::Outcome::State::kCommitted) return rejected(outcome);
    answer_.set_replication_index(outcome.bookmark.txid);
    return finish(std::move(outcome.held), answer_headers(service_, name_, outcome.bookmark));
  }
  Response finish(std::shared_ptr<database::HeldTransaction> held, std::string headers) {
    answer_.text += ",\"baton\":";
    if (Result<> kept = append_baton(answer_.text, std::move(held)); !kept)
      return plain_error(kept.error());
    answer_.text += ",\"base_url\":null}";
    Response response;
    response.headers = std::move(headers);
    response.body = std::move(answer_.text);
    return response;
  }

  hrana::AnswerText answer_;
};

}  // namespace

void handle_pipeline(Service& service, const database::DatabaseName& name, HttpRequest& request,
                     Responder responder) {
  Result<hrana::StreamedWork> work =
      hrana::begin(service, name, request, hrana::parse_pipeline(request.body));
  if (!work) return responder.respond(plain_error(work.error()));
  auto held = work->stream.state.held;
  bool at_once = !work->pipeline.runs_sql() && (!held || work->pipeline.closes());
  ReadMode mode = work->mode;
  std::uint64_t index = work->pipeline.replication_index();
  auto pipeline =
      std::make_unique<PipelineRequest>(service, name, *std::move(work), std::move(responder));
  if (!at_once) return hrana::submit(service, name, held, mode, index, std::move(pipeline));
  if (held) service.store.release(held);
  pipeline->answer_at_once();
}

}  // namespace offprint::server
