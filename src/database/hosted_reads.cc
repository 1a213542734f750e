// Reads of a hosted database: on the caller's thread while they are short, else on a helper; with a
// bookmark they wait until it is reached.
#include "database/hosted_database.h"
#include "database/reader_session.h"

#include <algorithm>

namespace offprint::database {
namespace {

constexpr auto kStateWaitMax = std::chrono::seconds(5);  // how long a read waits for its bookmark
constexpr std::size_t kWaitingMax = 10'000;

}  // namespace

// The state that a read asked for has not come yet: it waits for it, until its deadline.
void HostedDatabase::wait_for_state(std::unique_ptr<Request> request) {
  auto wait_max = has_primary_elsewhere()
                      ? std::chrono::milliseconds(environment_.options.copy_wait_ms)
                      : std::chrono::milliseconds(kStateWaitMax);
  Deadline until = std::min(request->deadline, SteadyClock::now() + wait_max);
  std::unique_lock lock(mutex_);
  if (refused_ || waiting_.size() >= kWaitingMax) {
    Error error =
        refused_ ? *refused_ : Error(Code::kBusy, "too many requests wait for a later state");
    lock.unlock();
    return answer_error(*request, std::move(error));
  }
  if (request->at_least->txid <= visible_.txid) {  // it came meanwhile
    lock.unlock();
    return submit(std::move(request));
  }
  waiting_.push_back({std::move(request), until});
  lock.unlock();
  environment_.timers.at(until, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->environment_.helpers.post([self] { self->wake_waiting(); });
  });
}

// Submits the waiting requests whose state has come; those whose time is up are answered.
void HostedDatabase::wake_waiting() {
  std::vector<std::unique_ptr<Request>> ready;
  std::vector<std::unique_ptr<Request>> late;
  {
    std::lock_guard lock(mutex_);
    Deadline now = SteadyClock::now();
    std::erase_if(waiting_, [&](WaitingRequest& waiting) {
      bool reached = waiting.request->at_least->txid <= visible_.txid || refused_;
      if (!reached && waiting.until > now) return false;
      (reached ? ready : late).push_back(std::move(waiting.request));
      return true;
    });
  }
  for (auto& request : ready) submit(std::move(request));
  for (auto& request : late) {
    if (has_primary_elsewhere()) {
      answer_read_only(*request);
      continue;
    }
    answer_error(*request, Error(Code::kBehind, "the bookmark was not reached here in time"));
  }
}

bool HostedDatabase::try_read(std::unique_ptr<Request>& request) {
  std::shared_ptr<OpenFiles> files;
  {
    std::lock_guard lock(mutex_);
    if (refused_ || files_ == nullptr) return false;
    files = files_;
    last_used_ = SteadyClock::now();
  }
  switch (run_read(files, request, true)) {
    case ReadResult::kDone:
      return true;
    case ReadResult::kNeedsWriter:
      return false;
    case ReadResult::kTooLong:
      read_on_helper(std::move(files), std::move(request));
      return true;
  }
  return false;
}

HostedDatabase::ReadResult HostedDatabase::run_read(const std::shared_ptr<OpenFiles>& files,
                                                    std::unique_ptr<Request>& request,
                                                    bool is_slice) {
  auto reader = files->take_reader();
  if (!reader) {
    answer_error(*request, reader.error());
    return ReadResult::kDone;
  }
  UserConnection& connection = *reader->connection;
  apply_limits(connection);
  auto session = std::make_unique<ReaderSession>(connection);
  session->seen = reader->seen;
  Deadline slice =
      SteadyClock::now() + std::chrono::milliseconds(environment_.options.statement_inline_ms);
  bool sliced = is_slice && slice < request->deadline;
  session->set_time_slice(sliced);
  connection.clear_timed_out();
  connection.set_deadline(sliced ? slice : request->deadline);
  session->set_rights(request->rights.get());
  request->run(*session);
  connection.set_deadline(Deadline::max());
  connection.clear_timed_out();
  if (session->lost()) {
    bool too_long = session->lost_reason() == SessionBase::Lost::kTooLong;
    files->give_reader(*std::move(reader));
    return too_long ? ReadResult::kTooLong : ReadResult::kNeedsWriter;
  }
  finish_read(files, std::move(request), *std::move(reader), std::move(session));
  return ReadResult::kDone;
}

void HostedDatabase::note_snapshot(UserConnection& reader, ReaderSession& session) {
  if (session.seen || reader.autocommit()) return;
  auto snapshot = sqlite::ReadSnapshot::of(reader.connection());
  if (!snapshot) return;
  std::lock_guard lock(mutex_);
  if (auto txid = wal_map_.find(snapshot->point())) session.seen = {*snapshot, *txid};
}

void HostedDatabase::finish_read(const std::shared_ptr<OpenFiles>& files,
                                 std::unique_ptr<Request> request, LentReader reader,
                                 std::unique_ptr<ReaderSession> session) {
  environment_.counters.requests_read.fetch_add(1, std::memory_order_relaxed);
  note_snapshot(*reader.connection, *session);
  Outcome outcome;
  outcome.bookmark = bookmark();
  if (session->seen) outcome.bookmark.txid = session->seen->txid;
  bool stays_open = request->keep_transaction() && !session->autocommit();
  if (stays_open && has_primary_elsewhere()) {  // it may write later
    session->finish();
    reader.seen = session->seen;
    files->give_reader(std::move(reader));
    return answer_read_only(*request);
  }
  if (request->needs_primary && !environment_.log->knows_newest(files->term())) {
    session->finish();
    reader.seen = session->seen;
    files->give_reader(std::move(reader));
    return answer_error(*request, not_newest());
  }
  if (stays_open) {
    outcome.held = hold(files, nullptr, std::move(reader.connection), std::move(session));
  } else {
    reader.seen = session->seen;
    files->give_reader(std::move(reader));
  }
  request->done(std::move(outcome));
}

void HostedDatabase::read_on_helper(std::shared_ptr<OpenFiles> files,
                                    std::unique_ptr<Request> request) {
  auto shared = std::make_shared<std::unique_ptr<Request>>(std::move(request));
  environment_.long_reads.post(identity_.id,
                               [self = shared_from_this(), files = std::move(files), shared] {
                                 if (self->run_read(files, *shared, false) != ReadResult::kDone)
                                   self->enqueue(std::move(*shared));
                               });
}

}  // namespace offprint::database
