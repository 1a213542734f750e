#include "replica/node_follower.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <thread>
#include <unordered_map>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "replica/copy_repairs.h"
#include "replica/database_url.h"
#include "replica/http_client.h"
#include "replica/name_queue.h"
#include "replica/node_feed.h"
#include "replica/stream_format.h"

namespace offprint::replica {
namespace {

using database::DatabaseName;
using database::IncomingTransaction;

constexpr std::uint64_t kSpoolFrom = 256 << 10;  // larger transactions wait on the disk
constexpr int kWaitMs = 200;
constexpr int kFeedRetryMinMs = 1'000;  // doubled while there are feeds that end with an error
constexpr int kFeedRetryMaxMs = 60'000;
constexpr auto kLongSession = std::chrono::seconds(10);
constexpr std::size_t kErrorBodyMax = 4096;
constexpr std::size_t kListMax = 1'000'000;

class NodeFollowerImpl final : public NodeFollower {
 public:
  NodeFollowerImpl(NodeFollowerOptions options, database::Store& store,
                   std::unique_ptr<HttpClient> http)
      : options_(std::move(options)),
        store_(store),
        http_(std::move(http)),
        repairs_({options_.url, options_.token, options_.ca_file, options_.connect_timeout_ms,
                  options_.answer_timeout_ms},
                 options_.retry_max_ms, store,
                 [this] { complete({.of = Completion::Of::kRepair}); }),
        stopped_(store.subscribe_stopped([this](const std::string& name) {
          complete({.of = Completion::Of::kStopped, .name = name});
        })) {}
  ~NodeFollowerImpl() override { stop(); }

  void start() override {
    started_ms_ = unix_time_ms();
    thread_ = std::thread([this] { run(); });
    repairs_.start();
  }
  void stop() override {
    {
      std::lock_guard lock(mutex_);
      stop_.store(true);
    }
    changed_.notify_all();
    http_->wake();
    if (thread_.joinable()) thread_.join();
    repairs_.stop();
  }

  std::int64_t age_ms(const DatabaseName& name) const override;
  Status status() const override;

 private:
  void run();
  void pause(const Error& error);
  Result<> session();
  Result<> send_request();
  Result<> read_answer();
  Result<> take_received();
  Result<> handle(const Frame& frame);
  Result<> handle(Feed& feed, const Frame& frame);
  Result<> on_database(const Frame& frame);
  void on_position(Feed& feed, const StreamPosition& position, bool is_start);
  Result<> on_transaction(Feed& feed, const Frame& frame);
  Result<> on_snapshot_begin(Feed& feed, const Frame& frame);
  void on_snapshot_end(Feed& feed, std::uint32_t number);
  Result<> on_end(Feed& feed, const Frame& frame);
  void submit(std::uint32_t number);
  void drop_if_idle(Feed& feed);
  Result<> take_completions();
  Result<> finish(const Completion& completion);
  void complete(Completion completion);
  void settle();
  void drop(const DatabaseName& name, const Lineage& lineage);
  void repair(Feed& feed, const std::string& why);
  bool repair_stopped(Feed& feed);
  void note_fresh(const DatabaseName& name, std::int64_t at_ms);

  const NodeFollowerOptions options_;
  database::Store& store_;
  const std::unique_ptr<HttpClient> http_;
  CopyRepairs repairs_;
  NameQueue lives_{store_};  // ends and beginnings of databases, which must not pass each other
  std::atomic<bool> stop_{false};
  std::int64_t started_ms_ = 0;
  std::thread thread_;

  // Of the follower's thread.
  int failures_ = 0;
  FrameReader frames_;
  std::vector<Feed> feeds_;  // by number
  std::vector<std::uint32_t> touched_;
  std::string refusal_;
  bool connect_again_ = false;
  std::optional<Deadline> reconnect_at_;  // for feeds that ended with an error
  int feed_retry_ms_ = 0;
  Deadline greeted_at_{};
  std::size_t busy_ = 0;           // feeds that the store works for
  std::size_t waiting_bytes_ = 0;  // of transactions not applied yet
  Deadline heard_at_{};
  std::uint64_t spool_number_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Completion> completed_;  // guarded by mutex_

  mutable std::shared_mutex status_mutex_;
  std::unordered_map<std::string, std::int64_t> fresh_at_ms_;  // guarded by status_mutex_
  Status status_;                                              // guarded by status_mutex_
  std::int64_t heard_at_ms_ = 0;                               // guarded by status_mutex_

  std::unique_ptr<database::Subscription> stopped_;  // calls complete()
};

// --- sessions ----------------------------------------------------------------------------------

void NodeFollowerImpl::run() {
  while (!stop_.load()) {
    connect_again_ = false;
    Result<> ended = session();
    http_->stop();
    settle();
    {
      std::unique_lock lock(status_mutex_);
      status_.connected = false;
      status_.databases = 0;
      if (!ended) status_.error = ended.error().message();
    }
    if (!ended && !stop_.load()) pause(ended.error());
  }
}

void NodeFollowerImpl::pause(const Error& error) {
  bool was_long = greeted_at_ != Deadline() && SteadyClock::now() - greeted_at_ > kLongSession;
  if (was_long) failures_ = 0;
  greeted_at_ = Deadline();
  auto limit = static_cast<std::uint64_t>(options_.retry_max_ms);
  std::uint64_t full =
      std::min(limit, static_cast<std::uint64_t>(options_.retry_min_ms) << std::min(failures_, 16));
  if (failures_++ == 0) log::warn("following {}: {}; trying again", options_.url, error.message());
  std::uint16_t dice = 0;
  fill_random({reinterpret_cast<std::uint8_t*>(&dice), sizeof dice});
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(full / 2 + full * dice / 65536 / 2),
                    [this] { return stop_.load(); });
}

// One stream, until it ends or fails.
Result<> NodeFollowerImpl::session() {
  frames_ = FrameReader();
  feeds_.clear();
  feeds_.resize(1);
  touched_.clear();
  refusal_.clear();
  reconnect_at_.reset();
  OFFPRINT_TRY(send_request());
  Result<> read = read_answer();
  if (!reconnect_at_) feed_retry_ms_ = 0;
  return read;
}

Result<> NodeFollowerImpl::send_request() {
  std::string body = "snapshots=1";
  for (const std::string& pattern : options_.match) body += "&match=" + pattern;
  const std::set<std::string> repairing = repairs_.names();
  for (const auto& info : store_.list("", "", kListMax)) {
    // What is being repaired stays out: it is named so that it does not come as a new one.
    body += "&db=" + info.name;
    if (!repairing.contains(info.name)) body += "@" + info.bookmark.text();
  }
  HttpClient::Request request;
  request.url = options_.url + "/v1/stream";
  request.ca_file = options_.ca_file;
  request.connect_timeout_ms = options_.connect_timeout_ms;
  request.headers = {fmt::format("{}: {}", kVersionHeader, kStreamVersion),
                     fmt::format("Accept: {}", kStreamContentType),
                     "Content-Type: application/x-www-form-urlencoded"};
  if (!options_.token.empty()) request.headers.push_back("Authorization: Bearer " + options_.token);
  request.body = Bytes(body.begin(), body.end());
  heard_at_ = SteadyClock::now();
  return http_->start(std::move(request));
}

Result<> NodeFollowerImpl::read_answer() {
  bool greeted = false;
  while (!stop_.load() && !connect_again_) {
    if (reconnect_at_ && SteadyClock::now() >= *reconnect_at_) break;
    OFFPRINT_TRY(take_completions());
    if (waiting_bytes_ > options_.memory_max) {  // the store must catch up first
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(kWaitMs),
                        [this] { return stop_.load() || !completed_.empty(); });
      heard_at_ = SteadyClock::now();
      continue;
    }
    OFFPRINT_TRY_ASSIGN(HttpClient::Event event, http_->wait(kWaitMs));
    if (event == HttpClient::Event::kData) {
      heard_at_ = SteadyClock::now();
      OFFPRINT_TRY(take_received());
      greeted = http_->status() == 200;
    } else if (event == HttpClient::Event::kEnd) {
      if (http_->status() != 200) {
        return fail(Code::kUnavailable,
                    fmt::format("{} answers {}: {}", options_.url, http_->status(), refusal_));
      }
      return fail(Code::kUnavailable, "the server closed the stream");
    }
    auto silence =
        std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - heard_at_);
    if (silence.count() > (greeted ? options_.silence_max_ms : options_.answer_timeout_ms))
      return fail(Code::kUnavailable, fmt::format("nothing heard for {} ms", silence.count()));
  }
  return {};
}

Result<> NodeFollowerImpl::take_received() {
  if (http_->status() != 200) {
    if (refusal_.size() < kErrorBodyMax) refusal_ += as_text(http_->received());
    http_->received().clear();
    return {};
  }
  {
    std::unique_lock lock(status_mutex_);
    heard_at_ms_ = unix_time_ms();
  }
  frames_.feed(http_->received());
  http_->received().clear();
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto frame, frames_.next());
    if (!frame) break;
    OFFPRINT_TRY(handle(*frame));
  }
  for (std::uint32_t number : std::exchange(touched_, {})) submit(number);
  return {};
}

// --- frames ------------------------------------------------------------------------------------

Result<> NodeFollowerImpl::handle(const Frame& frame) {
  if (frame.kind == FrameKind::kHello) {
    OFFPRINT_TRY_ASSIGN(Hello hello, parse_hello(frame.payload));
    if (failures_ > 0) log::info("following {} again", options_.url);
    greeted_at_ = SteadyClock::now();
    std::unique_lock lock(status_mutex_);
    status_.connected = true;
    status_.error.clear();
    return {};
  }
  if (frame.kind == FrameKind::kAlive) return {};
  if (frame.kind == FrameKind::kRevocation) {
    OFFPRINT_TRY_ASSIGN(database::Revocation revocation, take_revocation(frame));
    return options_.on_revocation ? options_.on_revocation(revocation) : Result<>();
  }
  if (frame.kind == FrameKind::kDatabase) return on_database(frame);
  if (frame.database == 0 || frame.database >= feeds_.size() || !feeds_[frame.database].name)
    return fail(Code::kCorrupt, "a frame of no database");
  Feed& feed = feeds_[frame.database];
  return feed.off ? Result<>() : handle(feed, frame);
}

Result<> NodeFollowerImpl::handle(Feed& feed, const Frame& frame) {
  switch (frame.kind) {
    case FrameKind::kStart:
    case FrameKind::kPosition: {
      OFFPRINT_TRY_ASSIGN(StreamPosition position, parse_position(frame.payload));
      on_position(feed, position, frame.kind == FrameKind::kStart);
      return {};
    }
    case FrameKind::kTransaction:
      return on_transaction(feed, frame);
    case FrameKind::kSnapshotBegin:
      return on_snapshot_begin(feed, frame);
    case FrameKind::kPages: {
      if (!feed.writer) return fail(Code::kCorrupt, "pages outside of a snapshot");
      PagesReader pages(frame.payload, feed.snapshot_page_size);
      for (;;) {
        OFFPRINT_TRY_ASSIGN(auto page, pages.next());
        if (!page) return {};
        OFFPRINT_TRY(feed.writer->page(page->number, page->image));
      }
    }
    case FrameKind::kSnapshotEnd:
      if (!feed.writer) return fail(Code::kCorrupt, "the end of no snapshot");
      on_snapshot_end(feed, frame.database);
      return {};
    case FrameKind::kResync: {
      OFFPRINT_TRY_ASSIGN(Resync resync, parse_resync(frame.payload));
      repair(feed, resync.text);
      return {};
    }
    case FrameKind::kEnd:
      return on_end(feed, frame);
    default:
      return {};
  }
}

Result<> NodeFollowerImpl::on_database(const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(std::string text, parse_database(frame.payload));
  auto name = DatabaseName::parse(text);
  if (!name || frame.database != feeds_.size()) {
    return fail(Code::kCorrupt, fmt::format("database '{}' with number {}", text, frame.database));
  }
  Feed feed;
  feed.name = *name;
  feed.assembly = std::make_unique<TransactionAssembly>(
      *options_.files, fmt::format("{}/transaction-{}", options_.spool_directory, ++spool_number_),
      kSpoolFrom);
  feed.off = repairs_.contains(text);
  feeds_.push_back(std::move(feed));
  std::unique_lock lock(status_mutex_);
  status_.databases = feeds_.size() - 1;
  return {};
}

void NodeFollowerImpl::on_position(Feed& feed, const StreamPosition& position, bool is_start) {
  feed.lineage = position.position.lineage;
  if (!is_start) {
    feed.primary = position.position;
    feed.primary_at_ms = unix_time_ms() - position.age_ms;
  }
  if (feed.busy || !feed.pending.empty() || feed.writer) return;
  auto ours = store_.position(*feed.name);
  if (!ours) return;
  if (ours->bookmark() != position.position.bookmark()) {
    if (is_start) repair(feed, "the stream begins elsewhere");
    return;
  }
  if (is_start && repair_stopped(feed)) return;
  if (ours->checksum != position.position.checksum) {
    return repair(feed, "the copy differs from the primary");
  }
  if (!is_start) note_fresh(*feed.name, feed.primary_at_ms);
}

Result<> NodeFollowerImpl::on_transaction(Feed& feed, const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(bool whole, feed.assembly->take(frame));
  if (!whole) return {};
  IncomingTransaction transaction;
  transaction.epoch = feed.assembly->head().epoch;
  std::size_t bytes = 0;
  if (feed.assembly->is_large()) {
    auto spool = std::make_shared<Spool>(feed.assembly->take_spool());
    bytes = kSpoolFrom;
    transaction.open = [spool]() -> Result<std::unique_ptr<ltx::ByteSource>> {
      return std::make_unique<SpoolSource>(spool);
    };
  } else {
    transaction.ltx = feed.assembly->take_bytes();
    bytes = transaction.ltx.size();
  }
  feed.pending_bytes += bytes;
  waiting_bytes_ += bytes;
  if (feed.pending.empty()) touched_.push_back(frame.database);
  feed.pending.push_back(std::move(transaction));
  return {};
}

Result<> NodeFollowerImpl::on_snapshot_begin(Feed& feed, const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(SnapshotBegin begin, parse_snapshot_begin(frame.payload));
  feed.snapshot_page_size = begin.page_size;
  feed.lineage = begin.position.lineage;
  OFFPRINT_TRY_ASSIGN(feed.writer, store_.begin_copy(*feed.name, {begin.position, begin.page_size,
                                                                  begin.page_count, true}));
  return {};
}

void NodeFollowerImpl::on_snapshot_end(Feed& feed, std::uint32_t number) {
  feed.busy = true;
  ++busy_;
  std::shared_ptr<database::CopyWriter> writer = std::move(feed.writer);
  auto result = std::make_shared<Result<>>();
  lives_.post(
      feed.name->text(), [writer, result] { *result = writer->finish(); },
      [this, number, result] { complete({.number = number, .result = *result}); });
}

Result<> NodeFollowerImpl::on_end(Feed& feed, const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(End end, parse_end(frame.payload));
  if (end.reason == EndReason::kShuttingDown)
    return fail(Code::kUnavailable, end.text.empty() ? "the stream ended" : end.text);
  feed.off = true;
  feed.writer.reset();
  if (end.reason != EndReason::kDropped) {  // this one cannot be followed now, the others can
    log::warn("database '{}' is not followed for now: {}", feed.name->text(), end.text);
    if (!reconnect_at_) {
      feed_retry_ms_ = std::min(std::max(2 * feed_retry_ms_, kFeedRetryMinMs), kFeedRetryMaxMs);
      reconnect_at_ = SteadyClock::now() + std::chrono::milliseconds(feed_retry_ms_);
    }
    return {};
  }
  feed.dropped = true;
  if (auto ours = store_.position(*feed.name); ours && !feed.lineage) feed.lineage = ours->lineage;
  drop_if_idle(feed);
  return {};
}

void NodeFollowerImpl::drop_if_idle(Feed& feed) {
  if (feed.busy || !feed.pending.empty() || !feed.lineage) return;
  feed.dropped = false;
  ++busy_;
  lives_.post(
      feed.name->text(),
      [this, name = *feed.name, lineage = *feed.lineage] { drop(name, lineage); },
      [this] { complete({.of = Completion::Of::kDrop}); });
}

// On a helper thread; the name may have another life already.
void NodeFollowerImpl::drop(const DatabaseName& name, const Lineage& lineage) {
  auto ours = store_.position(name);
  if (!ours || ours->lineage != lineage) return;
  log::info("database '{}' was dropped at the primary", name.text());
  if (auto dropped = store_.drop(name); !dropped && dropped.error().code() != Code::kNotFound)
    log::warn("dropping '{}': {}", name.text(), dropped.error().message());
}

// --- the store's work --------------------------------------------------------------------------

void NodeFollowerImpl::submit(std::uint32_t number) {
  Feed& feed = feeds_[number];
  if (feed.busy || feed.pending.empty()) return;
  feed.busy = true;
  ++busy_;
  std::size_t bytes = std::exchange(feed.pending_bytes, 0);
  std::size_t count = feed.pending.size();
  store_.apply(*feed.name, std::exchange(feed.pending, {}), [=, this](Result<> result) {
    complete({Completion::Of::kFeed, number, bytes, count, std::move(result)});
  });
}

// Thread: any.
void NodeFollowerImpl::complete(Completion completion) {
  {
    std::lock_guard lock(mutex_);
    completed_.push_back(std::move(completion));
    changed_.notify_all();
    http_->wake();  // under the lock: stop() may free it right after
  }
}

Result<> NodeFollowerImpl::take_completions() {
  std::vector<Completion> completed;
  {
    std::lock_guard lock(mutex_);
    completed.swap(completed_);
  }
  Result<> first;
  for (const Completion& completion : completed) {
    if (Result<> done = finish(completion); !done && first) first = std::move(done);
  }
  std::unique_lock lock(status_mutex_);
  status_.waiting_bytes = waiting_bytes_;
  return first;
}

Result<> NodeFollowerImpl::finish(const Completion& completion) {
  if (completion.of == Completion::Of::kRepair) {  // it is followed from where it stands now
    connect_again_ = true;
    return {};
  }
  if (completion.of == Completion::Of::kDrop) {
    --busy_;
    return {};
  }
  if (completion.of == Completion::Of::kStopped) {
    for (Feed& feed : feeds_) {
      if (feed.name && feed.name->text() == completion.name && !feed.off) repair_stopped(feed);
    }
    return {};
  }
  Feed& feed = feeds_[completion.number];
  feed.busy = false;
  --busy_;
  waiting_bytes_ -= completion.bytes;
  if (!completion.result && feed.dropped) {
    drop_if_idle(feed);
    return {};
  }
  if (!completion.result) {
    const Error& error = completion.result.error();
    if (!is_difference(error)) return fail(error.with_context(feed.name->text()));
    repair(feed, error.message());
    return {};
  }
  {
    std::unique_lock lock(status_mutex_);
    status_.transactions += completion.transactions;
    status_.bytes += completion.bytes;
    status_.copies += completion.transactions == 0;
  }
  auto ours = store_.position(*feed.name);
  if (ours && feed.primary && ours->lineage == feed.primary->lineage &&
      ours->txid >= feed.primary->txid) {
    note_fresh(*feed.name, feed.primary_at_ms);
  }
  submit(completion.number);
  if (feed.dropped) drop_if_idle(feed);
  return {};
}

// Waits until the store has finished what this session gave it.
void NodeFollowerImpl::settle() {
  for (Feed& feed : feeds_) {
    waiting_bytes_ -= std::exchange(feed.pending_bytes, 0);
    feed.pending.clear();
    feed.writer.reset();
  }
  while (busy_ > 0) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !completed_.empty(); });
    }
    (void)take_completions();
  }
}

// --- repairs -----------------------------------------------------------------------------------

void NodeFollowerImpl::repair(Feed& feed, const std::string& why) {
  log::info("database '{}' is compared with the primary's, page by page: {}", feed.name->text(),
            why);
  feed.off = true;
  feed.writer.reset();
  waiting_bytes_ -= std::exchange(feed.pending_bytes, 0);
  feed.pending.clear();
  repairs_.add(*feed.name);
}

// A copy whose file another program changed shows what the primary never had.
bool NodeFollowerImpl::repair_stopped(Feed& feed) {
  auto ours = store_.info(*feed.name);
  if (!ours || ours->stopped.empty()) return false;
  repair(feed, ours->stopped);
  return true;
}

// --- what is known -----------------------------------------------------------------------------

void NodeFollowerImpl::note_fresh(const DatabaseName& name, std::int64_t at_ms) {
  std::unique_lock lock(status_mutex_);
  std::int64_t& fresh = fresh_at_ms_[name.text()];
  fresh = std::max(fresh, at_ms);
}

std::int64_t NodeFollowerImpl::age_ms(const DatabaseName& name) const {
  std::int64_t at = 0;
  {
    std::shared_lock lock(status_mutex_);
    auto found = fresh_at_ms_.find(name.text());
    if (found != fresh_at_ms_.end()) at = found->second;
  }
  if (at == 0) {
    auto info = store_.info(name);
    at = info && info->written_at_ms > 0 ? info->written_at_ms : started_ms_;
    if (!info) {  // whether there is such a database was known when something was heard
      std::shared_lock lock(status_mutex_);
      at = std::max(at, heard_at_ms_);
    }
  }
  return std::max<std::int64_t>(0, unix_time_ms() - at);
}

NodeFollower::Status NodeFollowerImpl::status() const {
  std::shared_lock lock(status_mutex_);
  Status status = status_;
  status.copies += repairs_.done_count();
  status.heard_ms_ago = unix_time_ms() - (heard_at_ms_ == 0 ? started_ms_ : heard_at_ms_);
  return status;
}

}  // namespace

Result<std::unique_ptr<NodeFollower>> NodeFollower::create(NodeFollowerOptions options,
                                                           database::Store& store) {
  OFFPRINT_TRY_ASSIGN(options.url, normalize_url(options.url));
  OFFPRINT_TRY_ASSIGN(std::unique_ptr<HttpClient> http, HttpClient::create());
  return std::make_unique<NodeFollowerImpl>(std::move(options), store, std::move(http));
}

}  // namespace offprint::replica
