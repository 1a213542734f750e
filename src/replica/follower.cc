#include "replica/follower.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "ltx/codec.h"
#include "replica/database_url.h"
#include "replica/http_client.h"
#include "replica/replica_file.h"
#include "replica/stream_format.h"
#include "replica/transaction_assembly.h"
#include "replica/transaction_delta.h"

namespace offprint::replica {
namespace {

// A transaction whose file is larger goes through a spool: its pages may be 255 times as large.
constexpr std::uint64_t kSpoolFrom = 256 << 10;
constexpr int kWaitMs = 500;
// FILE-wal is moved into FILE after this long without a transaction.
constexpr std::chrono::seconds kIdleCheckpoint{5};
constexpr std::chrono::milliseconds kProgressPause{100};
constexpr std::uint64_t kPinnedReport = 64 << 20;
constexpr std::size_t kErrorBodyMax = 4096;
// Resyncs in a row, without a transaction between them, that are tried without a pause.
constexpr int kResyncsAtOnce = 2;

// How a session ended without an error.
enum class Next { kGoOn, kConnectAgain, kStopped, kCaughtUp, kDropped };

// FILE is damaged: its pages are to be compared.
bool is_damage(const Error& error) {
  int code = error.sqlite_code() & 0xff;
  return code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

// Trying again cannot mend it.
bool is_final(const Error& error, bool once) {
  switch (error.code()) {
    case Code::kNotFound:
    case Code::kUnauthorized:
    case Code::kForbidden:
    case Code::kInvalid:
    case Code::kIo:
    case Code::kInternal:
      return true;
    default:
      return once;
  }
}

class FollowerImpl final : public Follower {
 public:
  FollowerImpl(FollowerOptions options, FollowerEvents& events, std::unique_ptr<HttpClient> http)
      : options_(std::move(options)),
        events_(events),
        http_(std::move(http)),
        assembly_(*options_.files, options_.file + "-offprint-spool", kSpoolFrom) {}

  Result<FollowerOutcome> run() override;
  void stop() override {
    stop_.store(true);
    http_->wake();
  }

 private:
  Result<FollowerOutcome> follow();
  Result<> open_file();
  Result<Next> session();
  Result<> send_request();
  Result<Next> read_answer();
  Result<Next> idle();
  Result<Next> end_of_answer();
  Result<Next> refused();
  Result<Next> drain();
  Result<Next> handle(const Frame& frame);
  Result<Next> on_start(const Frame& frame);
  Result<Next> on_position(const Frame& frame);
  Result<Next> on_transaction(const Frame& frame);
  Result<Next> on_large_transaction();
  Result<Next> on_delta(const Frame& frame);
  Result<bool> former_page(PageNo page, std::span<std::uint8_t> image);
  Result<Next> add(Epoch epoch, ltx::DecodedFile file);
  Result<Next> on_snapshot_begin(const Frame& frame);
  Result<> on_pages(const Frame& frame);
  Result<Next> on_snapshot_end();
  Result<Next> on_resync(const Frame& frame);
  Result<Next> on_end(const Frame& frame);
  Result<Next> flush();
  Result<Next> after_apply(Result<> done, const FollowerEvents::Applied& applied);
  Result<Next> check_caught_up();
  Result<Next> distrust(const std::string& why);
  Result<> pause(const Error& error);

  // Constant after construction.
  const FollowerOptions options_;
  FollowerEvents& events_;
  const std::unique_ptr<HttpClient> http_;

  std::atomic<bool> stop_{false};
  std::unique_ptr<ReplicaFile> replica_;
  int failures_ = 0;        // in a row
  int resyncs_ = 0;         // in a row
  bool whole_ = false;      // the server does not take our page hashes: fetch everything
  bool no_deltas_ = false;  // one did not fit: the same transaction is to come as an LTX file
  bool was_there_ = false;  // the database existed at an earlier connection
  bool verified_ = false;   // since the start
  bool caught_up_ = false;
  std::uint64_t pinned_reported_ = kPinnedReport / 2;
  SteadyClock::time_point applied_at_{};

  // Of the session.
  std::optional<FrameReader> frames_;
  std::optional<TransactionBatch> batch_;
  TransactionAssembly assembly_;
  std::optional<SnapshotBegin> snapshot_;
  std::uint64_t snapshot_pages_ = 0;
  SteadyClock::time_point progress_at_{};
  std::string refusal_;
  bool started_ = false;            // the server keeps the stream alive by position frames
  bool complete_ = false;           // the answer came to its proper end
  std::optional<Position> target_;  // where the primary stood when we connected
  SteadyClock::time_point heard_at_{};
};

Result<FollowerOutcome> FollowerImpl::run() {
  Result<FollowerOutcome> outcome = follow();
  http_->stop();
  Result<> closed = outcome && replica_ != nullptr ? replica_->close() : Result<>{};
  replica_.reset();
  OFFPRINT_TRY(std::move(closed));
  return outcome;
}

Result<FollowerOutcome> FollowerImpl::follow() {
  while (!stop_.load()) {
    Result<> opened = replica_ == nullptr ? open_file() : Result<>{};
    Result<Next> next = Next::kConnectAgain;
    if (opened) {
      next = session();
    } else {
      next = fail(opened.error());
    }
    http_->stop();
    if (!next) {
      if (is_final(next.error(), options_.once)) return fail(next.error());
      OFFPRINT_TRY(pause(next.error()));
    } else if (*next == Next::kDropped) {
      return FollowerOutcome::kDropped;
    } else if (*next == Next::kCaughtUp) {
      return FollowerOutcome::kCaughtUp;
    }
  }
  return FollowerOutcome::kStopped;
}

Result<> FollowerImpl::open_file() {
  ReplicaFile::Options options;
  options.files = options_.files;
  options.busy_timeout_ms = options_.busy_timeout_ms;
  options.source = options_.url;
  OFFPRINT_TRY_ASSIGN(replica_, ReplicaFile::open(options_.file, options));
  was_there_ = was_there_ || replica_->noted_lineage() != Lineage{};
  return {};
}

// Waits before the next try: longer after each failure, and not at the same time as everybody else.
Result<> FollowerImpl::pause(const Error& error) {
  std::uint64_t limit = static_cast<std::uint64_t>(options_.retry_max_ms);
  std::uint64_t full =
      std::min(limit, static_cast<std::uint64_t>(options_.retry_min_ms) << std::min(failures_, 16));
  ++failures_;
  std::uint16_t dice = 0;
  fill_random({reinterpret_cast<std::uint8_t*>(&dice), sizeof dice});
  int delay_ms = static_cast<int>(full / 2 + full * dice / 65536 / 2);
  events_.interrupted(error, delay_ms);
  Deadline until = SteadyClock::now() + std::chrono::milliseconds(delay_ms);
  while (!stop_.load()) {
    auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - SteadyClock::now()).count();
    if (left <= 0) break;
    OFFPRINT_TRY(http_->wait(static_cast<int>(left)));
  }
  return {};
}

// One request and its answer.
Result<Next> FollowerImpl::session() {
  frames_.emplace();
  batch_.reset();
  assembly_.reset();
  snapshot_.reset();
  refusal_.clear();
  started_ = false;
  complete_ = false;
  target_.reset();
  if (resyncs_ > kResyncsAtOnce) {
    resyncs_ = 0;
    return fail(Code::kConflict,
                "the copy differs from the primary again and again: " + replica_->doubt());
  }
  OFFPRINT_TRY(send_request());
  return read_answer();
}

Result<> FollowerImpl::send_request() {
  HttpClient::Request request;
  request.connect_timeout_ms = options_.connect_timeout_ms;
  request.ca_file = options_.ca_file;
  request.headers.push_back(fmt::format("{}: {}", kVersionHeader, kStreamVersion));
  request.headers.push_back(fmt::format("Accept: {}", kStreamContentType));
  if (!options_.token.empty()) request.headers.push_back("Authorization: Bearer " + options_.token);
  if (!no_deltas_)
    request.headers.push_back(fmt::format("{}: {}", kEncodingsHeader, kDeltaEncoding));
  if (std::optional<Position> position = replica_->position()) {
    request.url = address_below(options_.url, "/stream", "from=" + position->bookmark().text());
  } else if (replica_->absent() || whole_) {
    request.url = address_below(options_.url, "/stream");
  } else {
    OFFPRINT_TRY_ASSIGN(PageHashes hashes, replica_->page_hashes());
    request.url = address_below(options_.url, "/pages");
    request.headers.push_back(fmt::format("Content-Type: {}", kPageHashesContentType));
    request.body = encode_page_hashes(hashes);
  }
  heard_at_ = SteadyClock::now();
  return http_->start(std::move(request));
}

Result<Next> FollowerImpl::read_answer() {
  for (;;) {
    OFFPRINT_TRY_ASSIGN(HttpClient::Event event, http_->wait(kWaitMs));
    if (stop_.load()) return Next::kStopped;
    Next next = Next::kGoOn;
    switch (event) {
      case HttpClient::Event::kWoken:
        break;
      case HttpClient::Event::kIdle: {
        OFFPRINT_TRY_ASSIGN(next, idle());
        break;
      }
      case HttpClient::Event::kEnd:
        return end_of_answer();
      case HttpClient::Event::kData: {
        if (http_->status() != 200) {
          std::string_view text = as_text(http_->received());
          refusal_ += text.substr(0, kErrorBodyMax - std::min(kErrorBodyMax, refusal_.size()));
        } else {
          frames_->feed(http_->received());
        }
        http_->received().clear();
        OFFPRINT_TRY_ASSIGN(next, drain());
        heard_at_ = SteadyClock::now();
        break;
      }
    }
    if (next != Next::kGoOn) return next;
  }
}

Result<Next> FollowerImpl::idle() {
  auto silence =
      std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - heard_at_).count();
  int limit = started_ ? options_.silence_max_ms : options_.answer_timeout_ms;
  if (silence >= limit) {
    return fail(Code::kUnavailable,
                fmt::format("nothing heard from {} for {} ms", options_.url, silence));
  }
  return Next::kGoOn;
}

Result<Next> FollowerImpl::end_of_answer() {
  if (http_->status() != 200) return refused();
  if (complete_) return Next::kConnectAgain;
  return fail(Code::kUnavailable, "the server closed the stream");
}

Result<Next> FollowerImpl::refused() {
  int status = http_->status();
  std::string text = fmt::format("{} answers {}", options_.url, status);
  if (!refusal_.empty()) text += ": " + message_of(refusal_);
  switch (status) {
    case 401:
      return fail(Code::kUnauthorized, text);
    case 403:
      return fail(Code::kForbidden, text);
    case 404:
      if (was_there_) return Next::kDropped;
      return fail(Code::kNotFound, text);
    case 413:
      if (whole_ || replica_->position()) return fail(Code::kTooLarge, text);
      whole_ = true;
      return Next::kConnectAgain;
    default:
      return fail(
          status >= 400 && status < 500 && status != 429 ? Code::kInvalid : Code::kUnavailable,
          text);
  }
}

// Handles all frames at hand, then applies what they brought, as one.
Result<Next> FollowerImpl::drain() {
  for (;;) {
    OFFPRINT_TRY_ASSIGN(std::optional<Frame> frame, frames_->next());
    if (!frame) break;
    OFFPRINT_TRY_ASSIGN(Next next, handle(*frame));
    if (next != Next::kGoOn) return next;
  }
  OFFPRINT_TRY_ASSIGN(Next next, flush());
  if (next != Next::kGoOn) return next;
  bool quiet = SteadyClock::now() - applied_at_ > kIdleCheckpoint && !snapshot_;
  if (quiet) OFFPRINT_TRY(replica_->checkpoint(true));
  return check_caught_up();
}

Result<Next> FollowerImpl::handle(const Frame& frame) {
  switch (frame.kind) {
    case FrameKind::kHello: {
      OFFPRINT_TRY_ASSIGN(Hello hello, parse_hello(frame.payload));
      was_there_ = true;
      events_.connected(hello.server);
      return Next::kGoOn;
    }
    case FrameKind::kDatabase:
      return Next::kGoOn;
    case FrameKind::kStart:
      return on_start(frame);
    case FrameKind::kPosition:
      return on_position(frame);
    case FrameKind::kTransaction:
      return on_transaction(frame);
    case FrameKind::kDelta:
      return on_delta(frame);
    case FrameKind::kSnapshotBegin:
      return on_snapshot_begin(frame);
    case FrameKind::kPages: {
      OFFPRINT_TRY(on_pages(frame));
      return Next::kGoOn;
    }
    case FrameKind::kSnapshotEnd:
      return on_snapshot_end();
    case FrameKind::kResync:
      return on_resync(frame);
    case FrameKind::kEnd:
      return on_end(frame);
    case FrameKind::kSource: {
      OFFPRINT_TRY_ASSIGN(Bookmark source, parse_source(frame.payload));
      events_.source(source);
      return Next::kGoOn;
    }
    case FrameKind::kAlive:
    case FrameKind::kRevocation:  // concerns servers
      return Next::kGoOn;
  }
  return fail(Code::kCorrupt, "a frame of no kind");
}

Result<Next> FollowerImpl::on_start(const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(StreamPosition start, parse_position(frame.payload));
  std::optional<Position> ours = replica_->position();
  if (!ours || start.position.bookmark() != ours->bookmark()) {
    return fail(Code::kCorrupt, "the stream begins at another position than was asked for");
  }
  started_ = true;
  complete_ = false;
  if (start.position.checksum != ours->checksum) {
    return distrust(
        fmt::format("at transaction {} the copy has checksum {:016x}, the primary {:016x}",
                    ours->txid.value, ours->checksum.value, start.position.checksum.value));
  }
  return Next::kGoOn;
}

Result<Next> FollowerImpl::on_position(const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(StreamPosition now, parse_position(frame.payload));
  events_.heartbeat(now.position, now.unix_ms);
  if (!started_) return Next::kGoOn;  // a sign of life during a snapshot
  OFFPRINT_TRY_ASSIGN(Next next, flush());
  if (next != Next::kGoOn) return next;
  if (!target_) target_ = now.position;
  std::optional<Position> ours = replica_->position();
  bool same = ours && ours->bookmark() == now.position.bookmark();
  if (same) failures_ = 0;  // not before: a disk that is full lets every connection begin well
  if (same && ours->checksum != now.position.checksum)
    return distrust("the primary has another checksum here");
  return Next::kGoOn;
}

Result<Next> FollowerImpl::on_transaction(const Frame& frame) {
  if (!started_) return fail(Code::kCorrupt, "a transaction before the stream's start");
  OFFPRINT_TRY_ASSIGN(bool whole, assembly_.take(frame));
  if (!whole) return Next::kGoOn;
  if (assembly_.is_large()) return on_large_transaction();
  OFFPRINT_TRY_ASSIGN(ltx::DecodedFile file, ltx::decode(assembly_.take_bytes()));
  return add(assembly_.head().epoch, std::move(file));
}

// To what is applied next.
Result<Next> FollowerImpl::add(Epoch epoch, ltx::DecodedFile file) {
  if (!batch_) batch_.emplace(*replica_->position(), replica_->page_size());
  Result<> added = batch_->add(epoch, std::move(file));
  if (!added && added.error().code() == Code::kConflict) {
    // Only what came before may be applied; then the primary's word counts.
    OFFPRINT_TRY_ASSIGN(Next next, flush());
    return next != Next::kGoOn ? next : distrust(added.error().message());
  }
  OFFPRINT_TRY(std::move(added));
  return batch_->size_bytes() >= options_.memory_max ? flush() : Next::kGoOn;
}

// One that does not fit to the copy says nothing about which of the two is wrong: the transaction
// as an LTX file will.
Result<Next> FollowerImpl::on_delta(const Frame& frame) {
  if (!started_) return fail(Code::kCorrupt, "a transaction before the stream's start");
  const Checksum before =
      batch_ ? batch_->position().checksum : replica_->position().value().checksum;
  Result<DeltaTransaction> delta = rebuild(
      frame.payload, before, replica_->page_size(),
      [this](PageNo page, std::span<std::uint8_t> image) { return former_page(page, image); });
  if (delta) return add(delta->epoch, std::move(delta->file));
  if (is_damage(delta.error())) return distrust(delta.error().message());
  const Code code = delta.error().code();
  if (code != Code::kConflict && code != Code::kCorrupt) return fail(std::move(delta).error());
  OFFPRINT_TRY_ASSIGN(Next next, flush());
  if (next != Next::kGoOn) return next;
  no_deltas_ = true;
  events_.delta_refused(delta.error().message());
  return Next::kConnectAgain;
}

// As the newest transaction received so far left it.
Result<bool> FollowerImpl::former_page(PageNo page, std::span<std::uint8_t> image) {
  const Bytes* waiting = batch_ ? batch_->pages().find(page) : nullptr;
  if (waiting == nullptr) return replica_->read_page(page, image);
  if (waiting->size() != image.size()) return false;
  std::ranges::copy(*waiting, image.begin());
  return true;
}

Result<Next> FollowerImpl::on_large_transaction() {
  OFFPRINT_TRY_ASSIGN(Next next, flush());
  if (next != Next::kGoOn) return next;
  FollowerEvents::Applied applied;
  OFFPRINT_TRY_ASSIGN(std::unique_ptr<LtxPages> pages, LtxPages::open(assembly_.take_spool()));
  applied.transactions = 1;
  applied.bytes = assembly_.head().ltx_size;
  applied.lag_ms = pages->header().timestamp_ms;
  return after_apply(replica_->apply(assembly_.head().epoch, *pages), applied);
}

Result<Next> FollowerImpl::flush() {
  if (!batch_ || batch_->empty()) return Next::kGoOn;
  FollowerEvents::Applied applied;
  applied.transactions = batch_->count();
  applied.bytes = batch_->size_bytes();
  applied.lag_ms = batch_->timestamp_ms();
  Result<> done = replica_->apply(*batch_);
  batch_.reset();
  return after_apply(std::move(done), applied);
}

// `applied.lag_ms` holds the time of the commit still.
Result<Next> FollowerImpl::after_apply(Result<> done, const FollowerEvents::Applied& applied) {
  if (!done && (done.error().code() == Code::kConflict || is_damage(done.error())))
    return distrust(done.error().message());
  OFFPRINT_TRY(std::move(done));
  resyncs_ = 0;
  no_deltas_ = false;
  failures_ = 0;
  applied_at_ = SteadyClock::now();
  FollowerEvents::Applied told = applied;
  told.position = *replica_->position();
  told.lag_ms = applied.snapshot ? 0 : std::max<std::int64_t>(0, unix_time_ms() - applied.lag_ms);
  events_.applied(told);
  OFFPRINT_TRY(replica_->checkpoint(false));
  if (replica_->pinned_bytes() >= 2 * pinned_reported_) {
    pinned_reported_ = replica_->pinned_bytes();
    events_.pinned(pinned_reported_);
  } else if (replica_->pinned_bytes() == 0) {
    pinned_reported_ = kPinnedReport / 2;
  }
  return Next::kGoOn;
}

Result<Next> FollowerImpl::on_snapshot_begin(const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(SnapshotBegin begin, parse_snapshot_begin(frame.payload));
  bool other_source = !replica_->noted_source().empty() && replica_->noted_source() != options_.url;
  bool other_history =
      replica_->noted_lineage() != Lineage{} && replica_->noted_lineage() != begin.position.lineage;
  if (other_source && other_history) {
    return fail(Code::kForbidden,
                fmt::format("{} is a copy of {}, which is another database than {}: give another "
                            "name, or remove it",
                            options_.file, replica_->noted_source(), options_.url));
  }
  OFFPRINT_TRY(replica_->begin_snapshot(begin));
  snapshot_ = begin;
  snapshot_pages_ = 0;
  started_ = false;
  return Next::kGoOn;
}

Result<> FollowerImpl::on_pages(const Frame& frame) {
  if (!snapshot_) return fail(Code::kCorrupt, "pages outside of a snapshot");
  PagesReader pages(frame.payload, snapshot_->page_size);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(std::optional<PagesReader::Page> page, pages.next());
    if (!page) break;
    OFFPRINT_TRY(replica_->put_snapshot_page(page->number, page->image));
    ++snapshot_pages_;
  }
  SteadyClock::time_point now = SteadyClock::now();
  if (now - progress_at_ >= kProgressPause) {
    progress_at_ = now;
    events_.snapshot_progress(snapshot_pages_,
                              std::max<std::uint64_t>(snapshot_pages_, snapshot_->pages_to_come));
  }
  return {};
}

Result<Next> FollowerImpl::on_snapshot_end() {
  if (!snapshot_) return fail(Code::kCorrupt, "the end of no snapshot");
  FollowerEvents::Applied applied;
  applied.bytes = snapshot_pages_ * snapshot_->page_size;
  applied.snapshot = true;
  events_.snapshot_progress(snapshot_pages_, snapshot_pages_);
  snapshot_.reset();
  complete_ = true;
  whole_ = false;
  int resyncs = resyncs_;
  OFFPRINT_TRY_ASSIGN(Next next, after_apply(replica_->finish_snapshot(), applied));
  if (next == Next::kGoOn) resyncs_ = resyncs;  // a snapshot alone proves no progress
  return next;
}

Result<Next> FollowerImpl::on_resync(const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(Resync resync, parse_resync(frame.payload));
  OFFPRINT_TRY_ASSIGN(Next next, flush());
  if (next != Next::kGoOn) return next;
  return distrust(resync.text.empty() ? "the server does not have our position any more"
                                      : resync.text);
}

Result<Next> FollowerImpl::on_end(const Frame& frame) {
  OFFPRINT_TRY_ASSIGN(End end, parse_end(frame.payload));
  OFFPRINT_TRY_ASSIGN(Next next, flush());
  if (next != Next::kGoOn) return next;
  switch (end.reason) {
    case EndReason::kDropped:
      return Next::kDropped;
    case EndReason::kDone:
      return Next::kConnectAgain;
    case EndReason::kShuttingDown:
      return fail(Code::kUnavailable, "the server shuts down");
    case EndReason::kError:
      break;
  }
  return fail(Code::kUnavailable, "the server reports: " + end.text);
}

Result<Next> FollowerImpl::distrust(const std::string& why) {
  replica_->distrust(why);
  no_deltas_ = false;
  ++resyncs_;
  events_.resync(why);
  return Next::kConnectAgain;
}

Result<Next> FollowerImpl::check_caught_up() {
  std::optional<Position> ours = replica_->position();
  if (!target_ || !ours || ours->txid < target_->txid) return Next::kGoOn;
  if (options_.verify && !verified_) {
    OFFPRINT_TRY_ASSIGN(bool equal, replica_->verify());
    events_.verified(equal, replica_->doubt());
    if (!equal) return distrust(replica_->doubt());
    verified_ = true;
  }
  if (!caught_up_) events_.caught_up(*ours);
  caught_up_ = true;
  return options_.once ? Next::kCaughtUp : Next::kGoOn;
}

}  // namespace

Result<std::unique_ptr<Follower>> Follower::create(FollowerOptions options,
                                                   FollowerEvents& events) {
  OFFPRINT_TRY_ASSIGN(options.url, normalize_url(options.url));
  OFFPRINT_TRY_ASSIGN(std::unique_ptr<HttpClient> http, HttpClient::create());
  return std::make_unique<FollowerImpl>(std::move(options), events, std::move(http));
}

}  // namespace offprint::replica
