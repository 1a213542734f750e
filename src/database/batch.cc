#include "database/batch.h"

#include "base/log.h"

namespace offprint::database {

Error not_newest() {
  return Error(Code::kNotPrimary,
               "NOT_PRIMARY: this node does not know whether another one has become primary");
}

std::vector<std::unique_ptr<Request>> BatchRunner::run(
    std::vector<std::unique_ptr<Request>> requests) {
  std::size_t begin = 0;
  // One that runs alone comes by itself.
  std::size_t end = requests.front()->runs_alone() ? 0 : requests.size();
  bool held = false;
  const TransactionRecorder& recorder = files_.recorder();
  while (begin < requests.size() && !held && !recorder.broken_error() &&
         !recorder.outcome_unknown()) {
    if (begin == end) {  // the offender
      if (timed_out_) {
        reject({&requests[begin], 1},
               Error(Code::kTimeout, "the request took longer than its time limit"));
      } else if (requests[begin]->key) {
        run_keyed_alone(requests[begin]);
      } else {
        held = run_alone(requests[begin]);
      }
      timed_out_ = false;
      ++begin;
      end = requests.size();
      continue;
    }
    std::size_t done = run_shared({requests.data() + begin, end - begin});
    if (done == end - begin) {
      begin = end;
    } else {
      end = begin + done;  // those before it once more, without it
    }
  }
  requests.erase(requests.begin(), requests.begin() + static_cast<std::ptrdiff_t>(begin));
  return requests;
}

// What asks for a transaction of its own, or ends the shared one even when nobody shares it, cannot
// be done once only: nothing of it happens.
void BatchRunner::run_keyed_alone(std::unique_ptr<Request>& request) {
  if (run_shared({&request, 1}) == 1) return;
  const Error unusable(
      Code::kInvalid,
      "IDEMPOTENCY_KEY_UNUSABLE: this cannot be one transaction with what is kept of it (VACUUM, "
      "PRAGMA foreign_keys, a change of a published schema); send it without Idempotency-Key");
  const Error late(Code::kTimeout, "the request took longer than its time limit");
  reject({&request, 1}, timed_out_ ? late : why_lost_.value_or(unusable));
}

SessionBase::Lost BatchRunner::run_keyed(Request& request, WriterSession& session) {
  auto before = files_.keys().find(*request.key);
  if (!before && before.error().code() != Code::kInvalid) {
    why_lost_ = before.error();
    return SessionBase::Lost::kTransactionGone;
  }
  if (!before) {
    request.recall(fail(before.error()));
    return SessionBase::Lost::kNo;
  }
  if (*before) {
    request.recall(std::move(**before));
    return SessionBase::Lost::kNo;
  }
  auto lost = run_one(request, session);
  if (session.why_lost()) why_lost_ = session.why_lost();
  if (lost != SessionBase::Lost::kNo || !session.wrote()) return lost;
  const DatabaseState& state = files_.recorder().state();
  Outcome outcome;  // if this transaction is committed
  outcome.bookmark = state.position.bookmark();
  outcome.bookmark.txid = state.position.txid.next();
  auto added = files_.keys().add(*request.key, {outcome.bookmark, request.answer_to_keep(outcome)},
                                 environment_.options.wall_clock_ms());
  if (added) return SessionBase::Lost::kNo;
  why_lost_ = added.error();
  return SessionBase::Lost::kTransactionGone;
}

SessionBase::Lost BatchRunner::run_one(Request& request, WriterSession& session) {
  UserConnection& writer = files_.writer();
  writer.clear_timed_out();
  writer.set_deadline(request.deadline);
  session.set_rights(request.rights.get());
  session.set_may_break(request.may_break);
  if (request.source) files_.recorder().set_source(request.source);
  request.run(session);
  writer.set_deadline(Deadline::max());
  bool timed_out = writer.timed_out();
  writer.clear_timed_out();
  session.finish(request.keep_transaction());
  if (session.lost_reason() == SessionBase::Lost::kTransactionGone && timed_out)
    return SessionBase::Lost::kTimedOut;
  return session.lost_reason();
}

std::size_t BatchRunner::run_shared(Requests requests) {
  TransactionRecorder& recorder = files_.recorder();
  recorder.set_source({});
  if (auto begun = files_.begin(); !begun) {
    auto why = recorder.take_error();
    stop_if_journal_failed();
    reject(requests, why ? *why : begun.error());
    return requests.size();
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    WriterSession session(files_.writer(), WriterSession::Mode::kShared, recorder, schema_check_);
    why_lost_.reset();
    auto lost =
        requests[i]->key ? run_keyed(*requests[i], session) : run_one(*requests[i], session);
    if (lost == SessionBase::Lost::kNo) continue;
    if (lost == SessionBase::Lost::kMustRunAlone) why_lost_.reset();
    files_.rollback();
    environment_.counters.offenders.fetch_add(1, std::memory_order_relaxed);
    timed_out_ = lost == SessionBase::Lost::kTimedOut;
    return i;
  }
  environment_.counters.batches.fetch_add(1, std::memory_order_relaxed);
  TxId before = recorder.state().position.txid;
  auto committed = files_.commit();
  bool decided = recorder.state().position.txid != before;
  if (committed ||
      decided) {  // decided, yet not published: the files are recovered, the answer stands
    finish_commit(requests, decided);
    return requests.size();
  }
  auto why = recorder.take_error();
  files_.rollback();
  stop_if_journal_failed();
  reject(requests, why ? *why : committed.error());
  return requests.size();
}

bool BatchRunner::run_alone(std::unique_ptr<Request>& request) {
  TransactionRecorder& recorder = files_.recorder();
  TxId before = recorder.state().position.txid;
  auto session = std::make_unique<WriterSession>(files_.writer(), WriterSession::Mode::kAlone,
                                                 recorder, schema_check_);
  recorder.set_source({});
  run_one(*request, *session);
  stop_if_journal_failed();
  if (recorder.broken_error()) host_.files_broken();
  host_.became_visible();
  Outcome outcome = recorder.outcome();
  outcome.bookmark = host_.bookmark();
  bool stays_open = !session->autocommit();
  if (stays_open) outcome.held = host_.hold(std::move(session));
  bool wrote = recorder.state().position.txid != before;
  answer({&request, 1}, outcome, wrote);
  return stays_open;
}

// The process stops here (StoreOptions::on_fatal): nothing may be answered that is not sure.
void BatchRunner::stop_if_journal_failed() {
  if (auto error = files_.recorder().journal_error()) environment_.fatal(*error);
}

void BatchRunner::answer(Requests requests, const Outcome& outcome, bool wrote) {
  if (!wrote || outcome.state != Outcome::State::kCommitted) {
    for (auto& request : requests) {
      if (!wrote && request->needs_primary && !outcome.held &&
          !environment_.log->knows_newest(files_.term())) {
        reject({&request, 1}, not_newest());
        continue;
      }
      request->done(outcome);
      request.reset();
    }
    return;
  }
  std::vector<Answer> answers;
  answers.reserve(requests.size());
  for (auto& request : requests) answers.push_back({std::move(request), outcome});
  host_.answer(std::move(answers));
}

void BatchRunner::finish_commit(Requests requests, bool wrote) {
  if (files_.recorder().broken_error()) host_.files_broken();
  host_.became_visible();
  Outcome outcome;
  outcome.bookmark = host_.bookmark();
  answer(requests, outcome, wrote);
}

void BatchRunner::reject(Requests requests, const Error& error) {
  environment_.counters.rejected.fetch_add(requests.size(), std::memory_order_relaxed);
  Bookmark bookmark = host_.bookmark();
  for (auto& request : requests) {
    Outcome outcome;
    outcome.state =
        files_.recorder().outcome_unknown() ? Outcome::State::kUnknown : Outcome::State::kRejected;
    outcome.error = error;
    outcome.bookmark = bookmark;
    request->done(std::move(outcome));
    request.reset();
  }
}

}  // namespace offprint::database
