// Interactive transactions of a hosted database: held open between the requests of one client.
#include <algorithm>

#include "database/hosted_database.h"
#include "database/reader_session.h"

namespace offprint::database {

std::shared_ptr<HeldTransaction> HostedDatabase::hold(std::shared_ptr<OpenFiles> files,
                                                      std::unique_ptr<WriterSession> writer,
                                                      std::unique_ptr<UserConnection> connection,
                                                      std::unique_ptr<ReaderSession> reader) {
  auto held = std::make_shared<HeldTransaction>();
  held->database = shared_from_this();
  held->files = std::move(files);
  held->writer = std::move(writer);
  held->reader_connection = std::move(connection);
  held->reader = std::move(reader);
  held->expires =
      SteadyClock::now() + std::chrono::milliseconds(environment_.options.transaction_idle_ms);
  {
    std::lock_guard lock(mutex_);
    if (held->writer) {
      held_ = held;
      environment_.held_for_writing.fetch_add(1);
    }
    if (held->reader) {
      std::erase_if(held_readers_, [](const auto& other) { return other.expired(); });
      held_readers_.push_back(held);
    }
  }
  arm_held_timer(held, held->expires);
  return held;
}

void HostedDatabase::arm_held_timer(const std::shared_ptr<HeldTransaction>& held, Deadline when) {
  environment_.timers.at(when, [self = shared_from_this(), weak = std::weak_ptr(held)] {
    auto alive = weak.lock();
    if (!alive) return;
    std::unique_lock lock(self->mutex_);
    if (alive->ended) return;
    if (SteadyClock::now() < alive->expires || alive->running) {
      Deadline next = std::max(alive->expires, SteadyClock::now() + std::chrono::milliseconds(50));
      lock.unlock();
      self->arm_held_timer(alive, next);
    } else if (alive->writer) {
      self->schedule(lock);
    } else {
      lock.unlock();
      self->environment_.helpers.post([self, alive] {
        self->end_held(
            alive, Error(Code::kTimeout,
                         "TRANSACTION_TIMEOUT: the transaction was idle too long and was ended"));
      });
    }
  });
}

void HostedDatabase::submit_held(const std::shared_ptr<HeldTransaction>& held,
                                 std::unique_ptr<Request> request) {
  std::unique_lock lock(mutex_);
  std::optional<Error> error = held->ended;
  if (!error && limits_.reads_blocked)
    error = blocked_error(limits_.block_reason, "neither read nor written");
  if (!error && held->reader && held->running)
    error = Error(Code::kConflict, "a request of this stream is running");
  if (error) {
    lock.unlock();
    return answer_error(*request, *std::move(error));
  }
  if (held->reader) {
    held->running = true;
    lock.unlock();
    auto shared = std::make_shared<std::unique_ptr<Request>>(std::move(request));
    environment_.helpers.post([self = shared_from_this(), held, shared] {
      self->run_held_read(held, std::move(*shared));
    });
    return;
  }
  held->pending.push_back(std::move(request));
  schedule(lock);
}

void HostedDatabase::run_held_read(const std::shared_ptr<HeldTransaction>& held,
                                   std::unique_ptr<Request> request) {
  UserConnection& connection = *held->reader_connection;
  apply_limits(connection);
  held->reader->resume();
  held->reader->set_time_slice(false);
  connection.clear_timed_out();
  connection.set_deadline(request->deadline);
  held->reader->set_rights(request->rights.get());
  request->run(*held->reader);
  connection.set_deadline(Deadline::max());
  connection.clear_timed_out();
  if (held->reader->lost()) {
    answer_error(*request,
                 Error(Code::kSql, "attempt to write in a read transaction", SQLITE_READONLY));
  }
  note_snapshot(connection, *held->reader);
  Outcome outcome;
  outcome.bookmark = bookmark();
  if (held->reader->seen) outcome.bookmark.txid = held->reader->seen->txid;
  const Epoch term = held->files->term();
  bool stays = !held->reader->lost() && request->keep_transaction() && !held->reader->autocommit();
  bool answered = held->reader->lost();
  Error reason(Code::kInvalid, "the transaction has ended");
  {
    std::lock_guard lock(mutex_);
    if (held->ending) {
      reason = *held->ending;
      stays = false;
    }
    if (stays) held->running = false;
    held->expires =
        SteadyClock::now() + std::chrono::milliseconds(environment_.options.transaction_idle_ms);
  }
  if (stays) {
    outcome.held = held;
  } else {
    end_held(held, reason, true);
  }
  if (!answered && request->needs_primary && !environment_.log->knows_newest(term))
    return answer_error(*request, not_newest());
  if (!answered) request->done(std::move(outcome));
}

void HostedDatabase::run_held(std::shared_ptr<HeldTransaction> held,
                              std::unique_ptr<Request> request) {
  environment_.counters.requests_write.fetch_add(1, std::memory_order_relaxed);
  TxId before = position().txid;
  UserConnection& writer = held->files->writer();
  apply_limits(writer);
  held->writer->resume();
  writer.clear_timed_out();
  writer.set_deadline(request->deadline);
  held->writer->set_rights(request->rights.get());
  held->writer->set_may_break(request->may_break);
  request->run(*held->writer);
  writer.set_deadline(Deadline::max());
  writer.clear_timed_out();
  auto files = held->files;
  TransactionRecorder& recorder = files->recorder();
  if (auto error = recorder.journal_error()) environment_.fatal(*error);
  const bool are_useless = recorder.broken_error() || recorder.outcome_unknown();
  bool stays = !writer.autocommit() && request->keep_transaction() && !are_useless;
  became_visible();
  Outcome outcome = recorder.outcome();
  if (stays) {
    std::lock_guard lock(mutex_);
    held->expires =
        SteadyClock::now() + std::chrono::milliseconds(environment_.options.transaction_idle_ms);
    outcome.held = held;
  } else {
    end_held(held, Error(Code::kInvalid, "the transaction has ended"));
  }
  if (are_useless) lose_files();
  outcome.bookmark = bookmark();
  if (outcome.bookmark.txid == before || outcome.state != Outcome::State::kCommitted)
    return request->done(std::move(outcome));
  std::vector<Answer> answers;
  answers.push_back({std::move(request), std::move(outcome)});
  answer_committed(std::move(answers));
}

// At this database's turn (writers) or by whoever runs it (readers): rolls back and refuses what
// still comes. While a reader's request runs, that one will end it.
void HostedDatabase::end_held(const std::shared_ptr<HeldTransaction>& held, const Error& reason,
                              bool by_runner) {
  std::vector<std::unique_ptr<Request>> pending;
  {
    std::lock_guard lock(mutex_);
    if (held->ended) return;
    if (held->running && !by_runner) {
      held->ending = reason;
      return;
    }
    held->running = false;
    held->ended = reason;
    pending = std::move(held->pending);
    held->pending.clear();
  }
  for (auto& request : pending) answer_error(*request, reason);
  if (held->writer) {
    held->writer->finish(false);
    held->writer.reset();
    environment_.held_for_writing.fetch_sub(1);
  }
  if (held->reader) {
    held->reader->finish();
    held->reader.reset();
    held->files->give_reader({std::move(held->reader_connection), {}, 0});
  }
  held->files.reset();
  std::lock_guard lock(mutex_);
  if (held_ == held) held_.reset();
  last_used_ = SteadyClock::now();
}

void HostedDatabase::release(const std::shared_ptr<HeldTransaction>& held) {
  std::unique_lock lock(mutex_);
  if (held->ended || held->running) return;
  held->expires = SteadyClock::now();
  if (held->reader) {
    lock.unlock();
    end_held(held, Error(Code::kInvalid, "the stream was closed"));
    return;
  }
  schedule(lock);
}

}  // namespace offprint::database
