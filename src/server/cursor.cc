#include "server/cursor.h"

#include "server/errors.h"
#include "server/hrana_run.h"
#include "server/hrana_stream.h"
#include "server/json_writer.h"
#include "server/rows_json.h"

namespace offprint::server {
namespace hrana {
namespace {

constexpr std::size_t kReadPiece = 256 << 10;

class CursorRows final : public database::RowSink {
 public:
  CursorRows(Spool& spool, std::size_t step, bool want_rows)
      : spool_(spool), step_(step), want_rows_(want_rows) {}

  void columns(const sqlite::Statement& statement) override {
    std::string& to = spool_.tail();
    to += R"({"type":"step_begin","step":)";
    append_unsigned(to, step_);
    to += ',';
    append_hrana_columns(to, statement);
    to += "}\n";
  }
  Result<> row(const sqlite::Statement& statement) override {
    if (!want_rows_) return {};
    std::string& to = spool_.tail();
    std::size_t start = to.size();
    to += R"({"type":"row","row":)";
    append_hrana_row(to, statement);
    to += "}\n";
    Result<> taken = spool_.take_over();
    if (!taken) to.resize(start);
    return taken;
  }

 private:
  Spool& spool_;
  const std::size_t step_;
  const bool want_rows_;
};

StepState run_step(const Step& step, std::size_t index, database::Session& session, Spool& spool) {
  CursorRows rows(spool, index, step.statement.want_rows);
  Result<database::StatementResult> done = session.execute(step.statement.statement, rows);
  std::string& to = spool.tail();
  if (!done) {
    to += R"({"type":"step_error","step":)";
    append_unsigned(to, index);
    to += ",\"error\":";
    append_hrana_error(to, done.error());
    to += "}\n";
    return StepState::kFailed;
  }
  to += R"({"type":"step_end")";
  append_changes(to, *done);
  to += "}\n";
  return StepState::kOk;
}

}  // namespace

void CursorEntries::run(const std::vector<Step>& steps, database::Session& session) {
  spool_->clear();
  std::vector<StepState> states;
  states.reserve(steps.size());
  for (const Step& step : steps) {
    if (step.condition && !holds(*step.condition, states, session)) {
      states.push_back(StepState::kSkipped);
      continue;
    }
    states.push_back(run_step(step, states.size(), session, *spool_));
    if (session.lost()) return;
  }
}

void CursorEntries::finish(TxId txid) {
  std::string& to = spool_->tail();
  to += R"({"type":"replication_index","replication_index":")";
  append_unsigned(to, txid.value);
  to += "\"}\n";
}

Result<> CursorEntries::next(std::uint64_t count_max, std::size_t size_max, std::string& to,
                             bool& done) {
  std::size_t start = to.size();
  std::size_t used = 0;
  for (std::uint64_t count = 0; count < count_max && to.size() - start < size_max;) {
    std::size_t end = unread_.find('\n', used);
    if (end != std::string::npos) {
      if (count++ > 0) to += ',';
      to.append(unread_, used, end - used);
      used = end + 1;
      continue;
    }
    unread_.erase(0, used);
    used = 0;
    OFFPRINT_TRY_ASSIGN(std::size_t size, spool_->read(offset_, kReadPiece, unread_));
    offset_ += size;
    if (size == 0) break;
  }
  unread_.erase(0, used);
  done = unread_.empty() && offset_ == spool_->size();
  return {};
}

}  // namespace hrana

namespace {

constexpr std::uint64_t kPlainBodyMax = 256 << 10;

class CursorRequest final : public hrana::StreamedRequest {
 public:
  CursorRequest(Service& service, const database::DatabaseName& name, hrana::StreamedWork work,
                Responder responder)
      : StreamedRequest(service, name, std::move(work), std::move(responder)), entries_(service) {}

  void run(database::Session& session) override {
    entries_.run(pipeline_.requests.front().steps, session);
  }

 private:
  Response make_answer(database::Outcome outcome) override {
    if (outcome.state != database::Outcome::State::kCommitted) return rejected(outcome);
    entries_.finish(outcome.bookmark.txid);
    std::string head = "{\"baton\":";
    if (Result<> kept = append_baton(head, std::move(outcome.held)); !kept)
      return plain_error(kept.error());
    head += ",\"base_url\":null}\n";
    Response response;
    response.content_type = "text/plain";
    response.headers = answer_headers(service_, name_, outcome.bookmark);
    const std::shared_ptr<Spool>& spool = entries_.spool();
    if (!spool->has_file() && spool->size() <= kPlainBodyMax) {
      response.body = std::move(head) + spool->tail();
    } else {
      response.stream = spooled_body(service_, std::move(head), spool);
    }
    return response;
  }

  hrana::CursorEntries entries_;
};

}  // namespace

void handle_cursor(Service& service, const database::DatabaseName& name, HttpRequest& request,
                   Responder responder) {
  Result<hrana::StreamedWork> work =
      hrana::begin(service, name, request, hrana::parse_cursor(request.body));
  if (!work) return responder.respond(plain_error(work.error()));
  auto held = work->stream.state.held;
  ReadMode mode = work->mode;
  std::uint64_t index = work->pipeline.replication_index();
  auto cursor =
      std::make_unique<CursorRequest>(service, name, *std::move(work), std::move(responder));
  hrana::submit(service, name, held, mode, index, std::move(cursor));
}

}  // namespace offprint::server
