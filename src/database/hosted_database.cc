#include "database/hosted_database.h"

#include <algorithm>
#include <future>

#include <fmt/format.h>

#include "base/log.h"
#include "database/reader_session.h"
#include "database/recovery.h"

namespace offprint::database {
namespace {

constexpr std::size_t kBatchMax = 256;
constexpr std::size_t kQueueMax = 20'000;

}  // namespace

HostedDatabase::HostedDatabase(Environment& environment, Identity identity, Replayed replayed)
    : environment_(environment),
      identity_(std::move(identity)),
      state_(replayed.state),
      visible_(replayed.state.position),
      checkpointed_(replayed.checkpointed),
      log_(std::move(replayed.log)),
      unapplied_(std::move(replayed.unapplied)),
      state_lsn_(replayed.state_lsn),
      last_used_(SteadyClock::now()),
      tails_(identity_.options.tails),
      closed_as_(replayed.closed_as),
      needs_recovery_(replayed.checkpointed < replayed.state.position.txid) {}

HostedDatabase::~HostedDatabase() = default;

// ----------------------------------------------------------------------------------------------------
// what it is

DatabaseInfo HostedDatabase::info() {
  std::lock_guard lock(mutex_);
  DatabaseInfo info;
  info.id = identity_.id;
  info.name = identity_.name;
  info.bookmark = visible_.bookmark();
  info.page_size = state_.page_size != 0 ? state_.page_size : identity_.options.page_size;
  info.page_count = state_.page_count;
  info.created_at_ms = identity_.created_at_ms;
  info.written_at_ms = state_.timestamp_ms;
  info.open = files_ != nullptr;
  info.readers = subscribers_ ? static_cast<int>(subscribers_->count()) : 0;
  info.stopped = stopped_;
  if (info.stopped.empty() && begins_filled_ && state_.position.txid.value == 0)
    info.stopped = filling_error().message();
  info.options = identity_.options;
  info.options.tails = tails_;
  info.limits = limits_;
  info.ancestors = identity_.ancestors;
  return info;
}

void HostedDatabase::set_limits(const DatabaseLimits& limits) {
  std::lock_guard lock(mutex_);
  if (limits_ == limits) return;
  limits_ = limits;
  reads_blocked_ = limits.reads_blocked;
  ++limits_version_;
}

Result<> HostedDatabase::set_tails(const std::string& path) {
  if (identity_.options.tails.empty())
    return fail(Code::kConflict, fmt::format("database '{}' is one of its own, and follows no file",
                                             identity_.name));
  std::lock_guard lock(mutex_);
  tails_ = path;
  return {};
}

std::optional<Error> HostedDatabase::reads_blocked() {
  if (!reads_blocked_.load(std::memory_order_relaxed)) return std::nullopt;
  std::lock_guard lock(mutex_);
  return blocked_error(limits_.block_reason, "neither read nor written");
}

void HostedDatabase::apply_limits(UserConnection& connection) {
  std::uint64_t version = limits_version_.load(std::memory_order_acquire);
  if (connection.limits_version() == version) return;
  DatabaseLimits limits;
  std::uint32_t page_size;
  {
    std::lock_guard lock(mutex_);
    limits = limits_;
    page_size = state_.page_size;
  }
  connection.set_limits(limits, page_size, version);
}

Position HostedDatabase::position() {
  std::lock_guard lock(mutex_);
  return visible_;
}

Bookmark HostedDatabase::bookmark() {
  std::lock_guard lock(mutex_);
  return visible_.bookmark();
}

Result<Checksum> HostedDatabase::checksum_at(const Bookmark& bookmark) {
  std::lock_guard lock(mutex_);
  if (bookmark.lineage != state_.position.lineage)
    return fail(Code::kBehind, "the position is of another lineage");
  if (bookmark.txid == visible_.txid) return visible_.checksum;
  if (bookmark.txid > visible_.txid)
    return fail(Code::kBehind, "the position is newer than this database");
  for (const LogEntry& entry : log_) {
    if (entry.txid == bookmark.txid) return entry.checksum;
    if (entry.txid == bookmark.txid.next() && entry.before.value != 0) return entry.before;
  }
  return fail(Code::kBehind, "the position is older than the log");
}

Result<std::vector<LogEntry>> HostedDatabase::log_after(const Bookmark& after, std::size_t limit) {
  std::lock_guard lock(mutex_);
  if (after.lineage != state_.position.lineage)
    return fail(Code::kBehind, "the position is of another lineage");
  if (after.txid > visible_.txid)
    return fail(Code::kBehind, "the position is newer than this database");
  std::vector<LogEntry> entries;
  if (after.txid == visible_.txid) return entries;
  if (log_.empty() || log_.front().txid > after.txid.next()) {
    return fail(Code::kBehind, "the position is older than the log");
  }
  std::size_t index = static_cast<std::size_t>(after.txid.value + 1 - log_.front().txid.value);
  for (; index < log_.size() && entries.size() < limit && log_[index].txid <= visible_.txid;
       ++index) {
    entries.push_back(log_[index]);
  }
  return entries;
}

// ------------------------------------------------------------------------------------------------
// subscriptions

std::unique_ptr<Subscription> HostedDatabase::subscribe(std::function<void()> changed) {
  std::lock_guard lock(mutex_);
  if (!subscribers_) subscribers_ = std::make_unique<Subscribers<>>();
  return subscribers_->add(std::move(changed));
}

void HostedDatabase::became_visible() {
  std::unique_lock lock(mutex_);
  if (visible_ == state_.position && !dropped_) return;
  journal::Lsn first = state_lsn_;
  if (!log_.empty() && visible_.txid >= log_.front().txid && visible_.txid < log_.back().txid)
    first = log_[visible_.txid.value + 1 - log_.front().txid.value].location.lsn;
  visible_ = state_.position;
  if (!waiting_.empty())
    environment_.helpers.post([self = shared_from_this()] { self->wake_waiting(); });
  Subscribers<>* subscribers = subscribers_.get();
  lock.unlock();
  if (subscribers != nullptr) subscribers->call();
  if (!is_state_name(identity_.name)) environment_.committed.call(identity_.name, first);
}

void HostedDatabase::on_decided(const DatabaseState& state, const sqlite::WalPoint& point,
                                const LogEntry& entry) {
  {
    std::lock_guard lock(mutex_);
    state_ = state;
    state_lsn_ = entry.location.lsn;
    wal_map_.add(point, entry.txid);
    log_.push_back(entry);
    unapplied_.push_back(
        {.txid = entry.txid, .location = entry.location, .whole = entry.txid.value == 1});
  }
  environment_.counters.transactions.fetch_add(1, std::memory_order_relaxed);
  if (environment_.upkeep) environment_.upkeep();
}

// --------------------------------------------------------------------------------------------------------
// requests

void HostedDatabase::answer_error(Request& request, Error error) {
  Outcome outcome;
  outcome.state = Outcome::State::kRejected;
  outcome.error = std::move(error);
  outcome.bookmark = bookmark();
  request.done(std::move(outcome));
}

// Those who asked for it learn of it when the archive has it.
void HostedDatabase::answer_committed(std::vector<Answer> answers) {
  if (!waits_for_archive()) return give(answers);
  Bookmark at = bookmark();
  environment_.answers.hold(identity_.name, at, std::move(answers));
}

bool HostedDatabase::waits_for_archive() {
  std::lock_guard lock(mutex_);
  return identity_.id != 0 && environment_.answers.is_wanted(limits_.durability);
}

Result<> HostedDatabase::wait_for_archive(const Bookmark& at) {
  if (!waits_for_archive()) return {};
  return environment_.answers.wait(identity_.name, at);
}

void HostedDatabase::answer_read_only(Request& request) {
  answer_error(request, read_only_error());
}

Error HostedDatabase::read_only_error() {
  // Not has_primary_elsewhere(): this node may have become primary just now.
  if (identity_.options.tails.empty()) {
    return Error(Code::kNotPrimary,
                 "NOT_PRIMARY: this node has a copy; only the primary can do this");
  }
  std::lock_guard lock(mutex_);
  return Error(Code::kForbidden,
               fmt::format("DATABASE_TAILED: database '{}' follows the file {}: it is written by "
                           "the program whose file that is, and only read here",
                           identity_.name, tails_));
}

bool HostedDatabase::is_being_filled() {
  if (!begins_filled_) return false;
  if (position().txid.value == 0) return true;
  begins_filled_ = false;  // for good: no request need ask again
  return false;
}

Error HostedDatabase::filling_error() {
  return Error(
      Code::kUnavailable,
      fmt::format("DATABASE_FILLING: the content of database '{}' is on its way; try again "
                  "when it is there",
                  identity_.name));
}

void HostedDatabase::submit(std::unique_ptr<Request> request) {
  if (is_being_filled()) return answer_error(*request, filling_error());
  if (auto blocked = reads_blocked()) return answer_error(*request, *std::move(blocked));
  bool asks_primary = has_primary_elsewhere() && request->needs_primary;
  if (is_copy() && (asks_primary || !request->likely_read_only()))
    return answer_read_only(*request);
  if (request->at_least) {
    std::unique_lock lock(mutex_);
    bool is_shared = this->is_shared(*request->at_least);
    bool same_history = is_shared || is_of_this_history(*request->at_least);
    bool reached = is_shared || request->at_least->txid <= visible_.txid;
    lock.unlock();
    if (!same_history) {
      if (has_primary_elsewhere())
        return answer_read_only(*request);  // it may know another history
      return answer_error(*request, Error(Code::kConflict,
                                          "lineage_changed: the bookmark is of another history of "
                                          "this database"));
    }
    if (!reached) return wait_for_state(std::move(request));
  }
  if (request->likely_read_only() && try_read(request)) return;
  enqueue(std::move(request));
}

void HostedDatabase::enqueue(std::unique_ptr<Request> request) {
  std::unique_lock lock(mutex_);
  std::optional<Error> error = refused_ ? refused_ : exclusive_;
  if (!error && queue_.size() >= kQueueMax)
    error = Error(Code::kBusy, "too many requests are waiting");
  if (error) {
    lock.unlock();
    return answer_error(*request, *std::move(error));
  }
  queue_.push_back(std::move(request));
  environment_.counters.queue_length.fetch_add(1, std::memory_order_relaxed);
  schedule(lock);
}

void HostedDatabase::schedule(std::unique_lock<std::mutex>& lock) {
  if (scheduled_) return;
  scheduled_ = true;
  lock.unlock();
  environment_.writers.post([self = shared_from_this()] { self->take_turns(); });
}

void HostedDatabase::take_turns() {
  while (take_one_turn()) {
    if (environment_.writers.has_waiting()) {  // let other databases go first
      environment_.writers.post([self = shared_from_this()] { self->take_turns(); });
      return;
    }
  }
}

// Does the next piece of work. False: there was none, the turn is given up.
bool HostedDatabase::take_one_turn() {
  std::unique_lock lock(mutex_);
  if (!tasks_.empty()) {
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    return true;
  }
  if (held_) {
    auto held = held_;
    if (!held->pending.empty()) {
      auto request = std::move(held->pending.front());
      held->pending.erase(held->pending.begin());
      lock.unlock();
      run_held(std::move(held), std::move(request));
      return true;
    }
    if (SteadyClock::now() >= held->expires) {
      lock.unlock();
      end_held(held,
               Error(Code::kTimeout,
                     "TRANSACTION_TIMEOUT: the transaction was idle too long and was rolled back"));
      return true;
    }
    scheduled_ = false;
    return false;
  }
  if (queue_.empty()) {
    scheduled_ = false;
    return false;
  }
  std::vector<std::unique_ptr<Request>> requests;
  while (!queue_.empty() && requests.size() < kBatchMax) {
    if (queue_.front()->runs_alone() && !requests.empty()) break;
    if (!requests.empty() && requests.front()->runs_alone()) break;
    requests.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  environment_.counters.queue_length.fetch_sub(static_cast<std::int64_t>(requests.size()),
                                               std::memory_order_relaxed);
  lock.unlock();
  run_batch(std::move(requests));
  return true;
}

std::optional<Error> HostedDatabase::exclusive() {
  std::lock_guard lock(mutex_);
  return exclusive_;
}

// A request that runs alone begins: nobody shall wait for its end.
void HostedDatabase::refuse_others() {
  Deque<std::unique_ptr<Request>> refused;
  Error error(Code::kBusy,
              "IMPORT_RUNNING: an import into this database is running; reads go on, writes can be "
              "tried again when it is done");
  {
    std::lock_guard lock(mutex_);
    exclusive_ = error;
    refused.swap(queue_);
  }
  environment_.counters.queue_length.fetch_sub(static_cast<std::int64_t>(refused.size()),
                                               std::memory_order_relaxed);
  for (auto& request : refused) answer_error(*request, error);
}

// This node is about to stop being primary: what may leave a transaction open goes to the next one.
void HostedDatabase::refuse_interactive(std::vector<std::unique_ptr<Request>>& requests) {
  std::erase_if(requests, [&](std::unique_ptr<Request>& request) {
    if (!request->keep_transaction()) return false;
    answer_error(*request,
                 Error(Code::kNotPrimary, "NOT_PRIMARY: another node is about to become primary"));
    return true;
  });
}

void HostedDatabase::run_batch(std::vector<std::unique_ptr<Request>> requests) {
  auto files = open_files();
  if (!files) {
    for (auto& request : requests) answer_error(*request, files.error());
    return;
  }
  Deadline now = SteadyClock::now();
  std::erase_if(requests, [&](std::unique_ptr<Request>& request) {
    if (request->deadline > now) return false;
    answer_error(*request, Error(Code::kTimeout, "the request waited longer than its time limit"));
    return true;
  });
  // Reads get here when the database had to be opened first.
  std::erase_if(requests, [&](std::unique_ptr<Request>& request) {
    return request->likely_read_only() && run_read(*files, request, false) == ReadResult::kDone;
  });
  if (is_copy()) {
    for (auto& request : requests) answer_read_only(*request);
    return;
  }
  if (environment_.leaving && identity_.id != 0) refuse_interactive(requests);
  if (requests.empty()) return;
  environment_.counters.requests_write.fetch_add(requests.size(), std::memory_order_relaxed);
  bool is_exclusive = requests.front()->runs_alone();
  if (is_exclusive) refuse_others();
  BatchRunner::Host host;
  host.bookmark = [this] { return bookmark(); };
  host.became_visible = [this, is_exclusive] {
    if (is_exclusive) {  // before it is answered
      std::lock_guard lock(mutex_);
      exclusive_.reset();
    }
    became_visible();
  };
  host.files_broken = [this] { lose_files(); };
  host.answer = [this](std::vector<Answer> answers) { answer_committed(std::move(answers)); };
  host.hold = [this, &files](std::unique_ptr<WriterSession> session) {
    return hold(*files, std::move(session), nullptr, nullptr);
  };
  apply_limits((*files)->writer());
  BatchRunner runner(environment_, **files, identity_.id, std::move(host));
  auto left = runner.run(std::move(requests));
  TransactionRecorder& recorder = (*files)->recorder();
  {
    std::lock_guard lock(mutex_);
    last_used_ = SteadyClock::now();
    if (recorder.stopped_error()) stopped_ = recorder.stopped_error()->message();
    environment_.counters.queue_length.fetch_add(static_cast<std::int64_t>(left.size()),
                                                 std::memory_order_relaxed);
    for (auto request = left.rbegin(); request != left.rend(); ++request)
      queue_.push_front(std::move(*request));
  }
  if (recorder.broken_error() || recorder.outcome_unknown()) {
    files->reset();
    return lose_files();
  }
  start_checkpoint_if_due();
}

void HostedDatabase::run_task_and_wait(Task task) {
  std::promise<void> done;
  std::unique_lock lock(mutex_);
  tasks_.push_back([&task, &done] {
    task();
    done.set_value();
  });
  schedule(lock);
  if (lock.owns_lock()) lock.unlock();
  done.get_future().wait();
}

}  // namespace offprint::database
