// Of FileTail: checkpoints, so that a reader that is always there does not let the -wal grow.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tail/file_tail.h"

namespace offprint::tail {
namespace {

constexpr std::uint32_t kGrowthBetweenRestarts = 8;  // a part of restart_frames
constexpr std::chrono::milliseconds kWaitsFrom{2};   // a commit would have come
constexpr int kWaitsAfter = 2;                       // looks that find a checkpoint
constexpr std::chrono::milliseconds kGivesWay{300};  // programs look again each 100 ms
constexpr std::chrono::microseconds kGivesWayLook{50};
constexpr std::uint32_t kTrimEvery = 100;  // files that come to rest

constexpr std::uint32_t kAsideMin = 100;    // frames of a -wal that is begun anew unseen
constexpr std::uint32_t kAsideLooks = 3;    // that find as much as the last one, and miss nothing
constexpr std::uint32_t kAsideChances = 3;  // for a program to make its own checkpoint
constexpr std::chrono::seconds kAsidePauseMin{1};
constexpr std::chrono::seconds kAsidePauseMax{3600};
constexpr int kAsidePauseCosts = 50;  // what was missed costs no more than a part of the time
constexpr int kAsideForgets = 10;     // pauses of that length without a further one

std::atomic<std::uint32_t> emptied_count{0};  // of the process

}  // namespace

Result<> FileTail::look_after_wal() {
  const std::uint32_t frames = held_->frames();
  const std::uint32_t backfilled = held_->backfilled();
  if (frames < checkpointed_at_) checkpointed_at_ = restart_tried_at_ = 0;
  {
    std::lock_guard lock(mutex_);
    status_.wal_bytes = frames == 0 ? 0 : sqlite::frame_offset(frames + 1, held_->page_size());
  }
  if (SteadyClock::now() >= quiet_from()) return empty_wal();
  if (frames == 0) return {};
  bool grown = frames >= restart_tried_at_ + options_.restart_frames / kGrowthBetweenRestarts;
  if (frames >= options_.restart_frames && grown) return restart_wal();
  const std::uint32_t chances = held_->is_reading() ? 1 : kAsideChances;
  if (frames >= std::max(backfilled, checkpointed_at_) + chances * options_.checkpoint_frames) {
    checkpointed_at_ = frames;
    OFFPRINT_TRY(open_spare());
    OFFPRINT_TRY(bring_in(*spare_, SQLITE_CHECKPOINT_PASSIVE));
  }
  // A checkpoint that ends by beginning the -wal anew waits for those who read from it.
  if (held_->backfilled() == held_->place().last_frame &&
      (!held_->is_out_of_the_way() || held_->is_checkpointed()))
    return take_changes();  // to the same state, but reading from the file alone
  if (held_->backfilled() < frames && SteadyClock::now() >= changed_at_ + kWaitsFrom)
    return give_way();
  return {};
}

// A program begins its -wal anew when a checkpoint of its own brought all into the file, and nobody
// reads from it. With somebody who always does it would try at each of its commits, each time in
// vain. So nobody reads from it when that is near: what was written behind the last look stays
// there until the next generation has reached it.
void FileTail::stand_aside() {
  if (!held_->is_reading() || held_->lets_restart()) return;
  const std::uint32_t frames = held_->place().last_frame;
  const bool is_near = frames >= aside_at_ || held_->backfilled() > 0;
  const std::uint32_t enough = std::max(std::min(kAsideMin, aside_at_), kAsideLooks * advance_);
  if (is_near && frames >= enough && SteadyClock::now() >= aside_from_) held_->end();
}

// The -wal was begun anew, and had so many frames.
void FileTail::note_restart(std::uint32_t frames) {
  aside_at_ = std::min(std::max(frames, kAsideMin), options_.checkpoint_frames) / 4 * 3;
}

// Something was missed: to compare took so long.
void FileTail::do_not_stand_aside(SteadyClock::duration cost) {
  const Deadline now = SteadyClock::now();
  const bool again = now < aside_from_ + kAsideForgets * aside_pause_;
  const SteadyClock::duration doubled = again ? 2 * aside_pause_ : aside_pause_.zero();
  aside_pause_ =
      std::max<SteadyClock::duration>({doubled, kAsidePauseMin, kAsidePauseCosts * cost});
  aside_pause_ = std::min<SteadyClock::duration>(aside_pause_, kAsidePauseMax);
  aside_from_ = now + aside_pause_;
}

// A checkpoint that waits for readers waits for whoever has the lock of one of them, also for those
// that came later and see the newest state: it gets that lock only when nobody has it for a moment.
// It keeps writers away meanwhile. What happens after it is proven by what the wal-index counts.
Result<> FileTail::give_way() {
  if (!held_->is_reading()) return {};
  checkpoints_seen_ = held_->is_checkpointed() ? checkpoints_seen_ + 1 : 0;
  if (checkpoints_seen_ < kWaitsAfter) return {};
  checkpoints_seen_ = 0;
  held_->end();
  Deadline until = SteadyClock::now() + kGivesWay;
  while (held_->is_newest() && held_->backfilled() < held_->place().last_frame &&
         held_->is_checkpointed() && SteadyClock::now() < until)
    std::this_thread::sleep_for(kGivesWayLook);
  return take_changes();
}

// A writer that never rests: it waits while the last of the -wal is taken and brought into the
// file; then it begins the -wal anew by itself.
Result<> FileTail::restart_wal() {
  restart_tried_at_ = held_->frames();
  OFFPRINT_TRY(open_spare());
  const std::uint32_t left = held_->frames() - std::min(held_->frames(), held_->backfilled());
  const bool too_long = held_->frames() > options_.restart_frames / 4 * 5;
  if (left > options_.restart_frames / 4 && !too_long)  // most of it, beside the writer
    OFFPRINT_TRY(bring_in(*spare_, SQLITE_CHECKPOINT_PASSIVE));
  if (!held_->is_newest()) OFFPRINT_TRY(take_changes());
  auto alone = spare_->begin_alone();
  if (!alone) return alone.error().code() == Code::kBusy ? Result<>() : std::move(alone);
  auto changes = read_changes(*spare_);
  if (!changes) {
    spare_->end();
    return fail(std::move(changes).error());
  }
  held_->end();
  same_ = false;  // until it is sent: writers do not wait for that
  Result<> done = bring_in(*held_, SQLITE_CHECKPOINT_PASSIVE);
  if (done) done = held_->begin();
  spare_->end();
  OFFPRINT_TRY(std::move(done));
  OFFPRINT_TRY(send(**changes));
  same_ = true;
  restart_tried_at_ = checkpointed_at_ = held_->frames();
  std::lock_guard lock(mutex_);
  ++status_.restarts;
  return {};
}

// Nothing has happened for a while: what there is goes into the file, and one connection that
// remembers nothing stays. A file that is replaced now finds no -wal that would be taken for its
// own.
Result<> FileTail::empty_wal() {
  ++empty_tries_;
  if (held_->frames() > 0) {
    OFFPRINT_TRY(open_spare());
    OFFPRINT_TRY(bring_in(*spare_, SQLITE_CHECKPOINT_PASSIVE));
    OFFPRINT_TRY(take_changes());
    note_stamp();  // whoever sees it empty may replace the file
    OFFPRINT_TRY(bring_in(*spare_, SQLITE_CHECKPOINT_TRUNCATE));
  } else if (!spare_ && held_->is_slim()) {
    return {};
  }
  spare_.reset();
  OFFPRINT_TRY(open_spare());
  OFFPRINT_TRY(spare_->slim_down());
  OFFPRINT_TRY(take_changes());
  spare_.reset();
  if (emptied_count.fetch_add(1) % kTrimEvery == kTrimEvery - 1) ::malloc_trim(0);
  return {};
}

}  // namespace offprint::tail
