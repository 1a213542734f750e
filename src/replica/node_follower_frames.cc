// Of NodeFollowerImpl: what comes, and what the store makes of it.
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "ltx/layout.h"
#include "replica/node_follower_impl.h"

namespace offprint::replica {

using database::DatabaseName;
using database::IncomingTransaction;

namespace {

constexpr std::uint64_t kSpoolFrom = 256 << 10;  // larger transactions wait on the disk
constexpr int kFeedRetryMinMs = 1'000;  // doubled while there are feeds that end with an error
constexpr int kFeedRetryMaxMs = 60'000;
constexpr std::chrono::microseconds kSessionMin{20'000}, kSessionMinOfFeed{200};

}  // namespace

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
    case FrameKind::kSource: {
      OFFPRINT_TRY_ASSIGN(feed.source, parse_source(frame.payload));
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
  auto name = followed_.name_of(text);
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

// The frame that came says at which transaction that state of the source is.
void NodeFollowerImpl::note_source(Feed& feed, TxId at) {
  if (auto source = std::exchange(feed.source, {})) followed_.has_source(*feed.name, at, *source);
}

void NodeFollowerImpl::on_position(Feed& feed, const StreamPosition& position, bool is_start) {
  feed.lineage = position.position.lineage;
  note_source(feed, position.position.txid);
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
    if (feed.source && bytes >= ltx::kHeaderSize) {
      auto header = ltx::load_header(ByteView(transaction.ltx).first<ltx::kHeaderSize>());
      if (header) note_source(feed, header->max_txid);
    }
  }
  feed.source.reset();
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
  followed_.has_ended(*feed.name, end.reason == EndReason::kDropped, end.text);
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
  if (completion.of == Completion::Of::kAnew) {  // not before this session was of use
    if (!anew_at_) anew_at_ = began_at_ + kSessionMin + kSessionMinOfFeed * feeds_.size();
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

}  // namespace offprint::replica
