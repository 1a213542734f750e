#include "server/hrana_single.h"

#include <optional>

#include "server/errors.h"
#include "server/hrana_run.h"
#include "server/hrana_stream.h"

namespace offprint::server {
namespace {

class SingleRequest final : public AnsweredRequest {
 public:
  SingleRequest(Service& service, const database::DatabaseName& name, hrana::StreamRequest request,
                Responder responder)
      : AnsweredRequest(service, name, std::move(responder)), request_(std::move(request)) {}

  void run(database::Session& session) override {
    answer_.clear();
    answer_.text += "{\"result\":";
    Result<> done =
        hrana::append_result(answer_, request_, session, service_.options.response_bytes_max);
    failure_.reset();
    if (!done) failure_ = std::move(done).error();
  }

  bool likely_read_only() const override { return request_.looks_read_only(); }

 private:
  Response make_answer(database::Outcome outcome) override {
    if (outcome.state != database::Outcome::State::kCommitted)
      failure_ = outcome.error.value_or(Error(Code::kInternal, "rejected"));
    Response response;
    if (failure_) {
      // As Hrana words it everywhere else.
      response = plain_error(failure_->sqlite_code() != 0 ? failure_->with_context("SQLite error")
                                                          : *failure_);
    } else {
      answer_.set_replication_index(outcome.bookmark.txid);
      answer_.text += '}';
      response.body = std::move(answer_.text);
    }
    response.headers += answer_headers(service_, name_, outcome.bookmark);
    return response;
  }

  const hrana::StreamRequest request_;
  hrana::AnswerText answer_;
  std::optional<Error> failure_;
};

}  // namespace

void handle_single(Service& service, const database::DatabaseName& name,
                   hrana::StreamRequest::Kind kind, HttpRequest& request, Responder responder) {
  Result<hrana::StreamedWork> work =
      hrana::begin(service, name, request, hrana::parse_single(request.body, kind));
  if (!work) return responder.respond(plain_error(work.error()));
  hrana::StreamRequest& only = work->pipeline.requests.front();
  std::uint64_t index = only.replication_index;
  std::optional<database::RequestKey> key = std::move(work->key);
  auto single =
      std::make_unique<SingleRequest>(service, name, std::move(only), std::move(responder));
  single->key = std::move(key);
  hrana::submit(service, name, nullptr, work->mode, index, std::move(single));
}

}  // namespace offprint::server
