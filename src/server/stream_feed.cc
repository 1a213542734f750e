#include "server/stream_feed.h"

#include <algorithm>

#include "base/log.h"
#include "ltx/checksum.h"

namespace offprint::server {
namespace {

// Read on an I/O thread: so many transactions, each so large and so young, at most.
constexpr std::size_t kInlineEntries = 64;
constexpr std::uint64_t kInlineBytes = 64 << 10;
constexpr std::int64_t kInlineAgeMs = 10'000;
// Larger transactions are sent in parts.
constexpr std::uint64_t kWholeBytes = 256 << 10;

}  // namespace

StreamFeed::StreamFeed(database::Store& store, PayloadCache& cache, database::DatabaseName name,
                       std::uint32_t number, FeedRequest request, const AgeOf& age_of,
                       const SourceOf& source_of)
    : store_(store),
      cache_(cache),
      age_of_(age_of),
      source_of_(source_of),
      name_(std::move(name)),
      number_(number),
      request_(std::move(request)),
      stage_(request_.snapshot || request_.hashes ? Stage::kSnapshot : Stage::kStart) {}

StreamFeed::State StreamFeed::produce(Bytes& to, std::size_t limit, bool may_block) {
  if (stage_ == Stage::kSnapshot) {
    if (!may_block) return State::kNeedsHelper;
    State state = produce_snapshot(to, limit);
    if (stage_ != Stage::kStart) return state;
  }
  if (stage_ == Stage::kStart) {
    if (Result<> started = start(to); !started) return end_by(to, started.error());
  }
  if (stage_ == Stage::kEnded) return State::kEnded;
  return follow(to, limit, may_block);
}

// --- snapshots ---------------------------------------------------------------------------------

Result<> StreamFeed::open_snapshot(Bytes& to) {
  OFFPRINT_TRY_ASSIGN(snapshot_, store_.snapshot(name_));
  difference_ = request_.hashes && !request_.hashes->hashes.empty() &&
                request_.hashes->page_size == snapshot_->page_size();
  replica::SnapshotBegin begin;
  begin.position = snapshot_->position();
  begin.page_size = snapshot_->page_size();
  begin.page_count = snapshot_->page_count();
  begin.pages_to_come = snapshot_->page_count();
  begin.difference = difference_;
  replica::append_snapshot_begin(to, number_, begin);
  return {};
}

bool StreamFeed::wanted(PageNo page, ByteView image) const {
  if (page == ltx::lock_page(snapshot_->page_size())) return false;
  if (!difference_ || page > request_.hashes->hashes.size()) return true;
  return ltx::page_checksum(page, image).value != request_.hashes->hashes[page - 1];
}

StreamFeed::State StreamFeed::produce_snapshot(Bytes& to, std::size_t limit) {
  if (!snapshot_) {
    if (Result<> opened = open_snapshot(to); !opened) return end_by(to, opened.error());
  }
  replica::PagesWriter writer(number_);
  // Pages that are the same produce nothing; a bound on what is read keeps the heartbeat of the
  // connection going.
  std::size_t read = 0;
  std::size_t read_max = (std::size_t{16} << 20) / snapshot_->page_size();
  while (next_page_ <= snapshot_->page_count() && to.size() < limit && read < read_max) {
    Result<ByteView> image = snapshot_->page(next_page_);
    if (!image) return end_by(to, image.error());
    if (wanted(next_page_, *image)) writer.add(to, next_page_, *image);
    ++next_page_;
    ++read;
  }
  writer.flush(to);
  if (next_page_ <= snapshot_->page_count()) return State::kMore;
  replica::append_snapshot_end(to, number_);
  snapshot_end_ = snapshot_->position();
  snapshot_.reset();
  if (request_.hashes) return end(to, replica::EndReason::kDone, "");
  stage_ = Stage::kStart;
  return State::kMore;
}

// --- following ---------------------------------------------------------------------------------

Result<> StreamFeed::start(Bytes& to) {
  replica::StreamPosition position;
  if (snapshot_end_) {
    position.position = *snapshot_end_;
  } else if (request_.from) {
    Result<Checksum> checksum = store_.checksum_at(name_, *request_.from);
    if (!checksum) return fail(std::move(checksum).error());
    position.position = {request_.from->lineage, request_.from->epoch, request_.from->txid,
                         *checksum};
  } else {
    OFFPRINT_TRY_ASSIGN(position.position, store_.position(name_));
  }
  position.unix_ms = unix_time_ms();
  last_ = position.position.bookmark();
  replica::append_start(to, number_, position);
  stage_ = Stage::kFollow;
  append_heartbeat(to);
  return {};
}

void StreamFeed::append_heartbeat(Bytes& to) {
  if (stage_ != Stage::kFollow) return;
  // First: what it has by then is at that position, or before it.
  const auto source =
      source_of_ && name_.is_instance() ? source_of_(name_) : std::optional<Bookmark>();
  Result<Position> position = store_.position(name_);
  // Dropped, and perhaps made again: the next produce() says so.
  if (!position || position->lineage != last_.lineage) return;
  replica::StreamPosition frame;
  frame.position = *position;
  frame.unix_ms = unix_time_ms();
  if (age_of_) frame.age_ms = age_of_(name_);
  if (source && position->bookmark() == last_) replica::append_source(to, number_, *source);
  replica::append_position(to, number_, frame);
}

StreamFeed::State StreamFeed::follow(Bytes& to, std::size_t limit, bool may_block) {
  while (to.size() < limit) {
    if (large_) {
      if (!may_block) return State::kNeedsHelper;
      if (Result<> sent = continue_large(to, limit); !sent) return end_by(to, sent.error());
      continue;
    }
    const Bookmark before = last_;
    Result<State> state = append_entries(to, limit, may_block);
    if (!state) return end_by(to, state.error());
    // The journal of a copy does not have the states of the source.
    if (*state == State::kIdle && age_of_ && name_.is_instance() && last_ != before)
      append_heartbeat(to);
    if (*state != State::kMore) return *state;
  }
  return State::kMore;
}

Result<StreamFeed::State> StreamFeed::append_entries(Bytes& to, std::size_t limit, bool may_block) {
  OFFPRINT_TRY_ASSIGN(auto entries, store_.log_after(name_, last_, kInlineEntries));
  if (entries.empty()) return State::kIdle;
  if (!may_block && entries.size() == kInlineEntries) return State::kNeedsHelper;
  std::int64_t young = unix_time_ms() - kInlineAgeMs;
  for (const database::LogEntry& entry : entries) {
    if (to.size() >= limit) return State::kMore;
    bool is_cheap =
        may_block || (entry.location.payload_size <= kInlineBytes && entry.timestamp_ms >= young);
    OFFPRINT_TRY_ASSIGN(PayloadCache::MaybeDelta delta, delta_of(entry, is_cheap));
    if (!delta) return State::kNeedsHelper;
    bool is_delta = *delta != nullptr;
    bool is_large =
        !is_delta && (entry.location.large || entry.location.payload_size > kWholeBytes);
    if (!is_delta && !may_block && (is_large || (!is_cheap && !cache_.find(entry))))
      return State::kNeedsHelper;
    if (name_.is_instance()) {
      if (!is_cheap) return State::kNeedsHelper;
      OFFPRINT_TRY_ASSIGN(auto source, store_.source_of(entry.location));
      if (source) replica::append_source(to, number_, *source);
    }
    if (is_delta) {
      replica::append_delta(to, number_, **delta);
    } else if (is_large) {
      OFFPRINT_TRY(begin_large(to, entry));
    } else {
      OFFPRINT_TRY_ASSIGN(PayloadCache::Payload payload, cache_.get(store_, entry));
      replica::TransactionHead head;
      head.epoch = entry.epoch;
      head.ltx_size = payload->size();
      replica::append_transaction(to, number_, head, *payload);
    }
    last_.epoch = entry.epoch;
    last_.txid = entry.txid;
    if (is_large) return State::kMore;
  }
  return entries.size() == kInlineEntries ? State::kMore : State::kIdle;
}

// Null: it is sent as an LTX file. Nothing: that is not known, and takes too long to find out.
Result<PayloadCache::MaybeDelta> StreamFeed::delta_of(const database::LogEntry& entry,
                                                      bool may_make) {
  if (!request_.deltas || entry.location.large) return PayloadCache::Payload();
  PayloadCache::MaybeDelta known = cache_.find_delta(entry);
  if (known || !may_make) return known;
  OFFPRINT_TRY_ASSIGN(PayloadCache::Payload made, cache_.delta(store_, entry));
  return made;
}

Result<> StreamFeed::begin_large(Bytes& to, const database::LogEntry& entry) {
  OFFPRINT_TRY_ASSIGN(large_, store_.open_payload(entry.location));
  large_left_ = entry.location.payload_size;
  replica::TransactionHead head;
  head.epoch = entry.epoch;
  head.ltx_size = large_left_;
  replica::append_transaction_first(to, number_, head, {}, true);
  return {};
}

Result<> StreamFeed::continue_large(Bytes& to, std::size_t limit) {
  Bytes part;
  while (large_left_ > 0 && to.size() < limit) {
    part.resize(
        static_cast<std::size_t>(std::min<std::uint64_t>(large_left_, replica::kPayloadTarget)));
    OFFPRINT_TRY_ASSIGN(std::size_t size, large_->read(part));
    if (size != part.size())
      return fail(Code::kCorrupt, "a transaction in the journal is shorter than it must be");
    large_left_ -= size;
    replica::append_transaction_part(to, number_, part, large_left_ > 0);
  }
  if (large_left_ == 0) large_.reset();
  return {};
}

// --- ends --------------------------------------------------------------------------------------

StreamFeed::State StreamFeed::end(Bytes& to, replica::EndReason reason, const std::string& text) {
  replica::append_end(to, number_, {reason, text});
  stage_ = Stage::kEnded;
  is_dropped_ = reason == replica::EndReason::kDropped;
  snapshot_.reset();
  large_.reset();
  return State::kEnded;
}

void StreamFeed::append_shutdown(Bytes& to) {
  if (stage_ != Stage::kEnded) end(to, replica::EndReason::kShuttingDown, "the server is stopping");
}

void StreamFeed::append_refusal(Bytes& to, const std::string& why) {
  if (stage_ != Stage::kEnded) end(to, replica::EndReason::kError, why);
}

StreamFeed::State StreamFeed::end_by(Bytes& to, const Error& error) {
  Result<Position> now = store_.position(name_);
  if (!now && now.error().code() == Code::kNotFound) {
    return end(to, replica::EndReason::kDropped, "the database was dropped");
  }
  bool mid_transaction = large_ != nullptr;
  bool behind = error.code() == Code::kBehind ||
                error.code() == Code::kNotFound;  // its segment was freed meanwhile
  if (!behind || !now || mid_transaction || stage_ == Stage::kSnapshot) {
    log::warn("stream of {}: {}", name_.text(), error.message());
    return end(to, replica::EndReason::kError, error.message());
  }
  Bookmark asked = stage_ == Stage::kStart && request_.from ? *request_.from : last_;
  replica::Resync resync;
  resync.reason = asked.lineage != now->lineage ? replica::ResyncReason::kOtherLineage
                  : asked.txid > now->txid      ? replica::ResyncReason::kUnknownPosition
                                                : replica::ResyncReason::kTooOld;
  resync.text = error.message();
  replica::append_resync(to, number_, resync);
  stage_ = Stage::kEnded;
  return State::kEnded;
}

}  // namespace offprint::server
