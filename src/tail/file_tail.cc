#include "tail/file_tail.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include <fmt/format.h>

#include "base/log.h"

namespace offprint::tail {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSlowLook{10'000};  // should a notice get lost
constexpr milliseconds kRetryMin{250};
constexpr milliseconds kRetryMax{10'000};
constexpr milliseconds kSettles{100};      // without a write, then it may be whole
constexpr milliseconds kSoonRetryMin{25};  // whatever happens to the file
constexpr milliseconds kSoonRetryMax{1'000};
constexpr std::chrono::microseconds kFirstLook{100};  // a commit follows on its frames
constexpr int kSameLooks = 4;                         // of that distance, then each twice as far
constexpr int kLooksWhileWritten = 7;                 // no farther apart while frames come
constexpr int kLooksAfterCommit = 9;  // 3 ms and longer: a checkpoint may wait for readers
constexpr int kLooksMax = 20;
// Between what is taken from a program that does not pause: each look takes time from it.
constexpr std::chrono::microseconds kPaceMin{250};
constexpr std::chrono::microseconds kPaceMax{4'000};
constexpr std::uint32_t kLooksOfWal = 8;  // while it writes a -wal
constexpr int kLooksUntilDeaf = 8;
constexpr int kLooksUntilHeard = 16;
constexpr milliseconds kDeafLook{1};
constexpr int kBusyMax = 16;
constexpr int kOpenTries = 3;  // the first one makes what SQLite needs beside a file
constexpr int kEmptyDoublings = 12;
constexpr std::uint32_t kHeldRestarts = 4;

std::int64_t nanoseconds_of(const struct statx_timestamp& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + std::int64_t{time.tv_nsec};
}

// The copy is not what the file's transactions follow on.
bool is_difference(const Error& error) {
  return error.code() == Code::kBehind || error.code() == Code::kConflict ||
         error.code() == Code::kCorrupt || error.code() == Code::kNotFound ||
         error.code() == Code::kInvalid;
}

Error explained(const Error& error) {
  if (error.code() != Code::kBusy) return error;
  return Error(Code::kBusy,
               "a program holds it alone (PRAGMA locking_mode=EXCLUSIVE), or recovers it: " +
                   error.message());
}

}  // namespace

FileIdentity FileIdentity::of(const std::string& path) {
  struct statx status{};
  if (::statx(AT_FDCWD, path.c_str(), 0, STATX_INO | STATX_BTIME, &status) != 0) return {};
  FileIdentity identity{status.stx_ino, 0};
  if ((status.stx_mask & STATX_BTIME) != 0) identity.born_ns = nanoseconds_of(status.stx_btime);
  return identity;
}

FilesBeside FilesBeside::of(const std::string& path) {
  return {FileIdentity::of(path + "-wal"), FileIdentity::of(path + "-shm")};
}

std::optional<FileStamp> FileStamp::of(const std::string& path) {
  struct statx status{};
  constexpr unsigned kWanted = STATX_SIZE | STATX_MTIME | STATX_CTIME;
  if (::statx(AT_FDCWD, path.c_str(), 0, kWanted, &status) != 0) return {};
  return FileStamp{status.stx_size, nanoseconds_of(status.stx_mtime),
                   nanoseconds_of(status.stx_ctime)};
}

std::string FileIdentity::text() const { return fmt::format("{} {}\n", inode, born_ns); }

FileIdentity FileIdentity::parse(std::string_view text) {
  FileIdentity identity;
  const char* end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, identity.inode);
  if (error != std::errc() || at == end) return {};
  if (std::from_chars(at + 1, end, identity.born_ns).ec != std::errc()) return {};
  return identity;
}

std::string_view state_name(TailState state) {
  switch (state) {
    case TailState::kWaiting:
      return "waiting";
    case TailState::kComparing:
      return "comparing";
    case TailState::kFollowing:
      return "following";
    case TailState::kFailed:
      return "failed";
  }
  return "failed";
}

FileTail::FileTail(database::Store& store, database::DatabaseName name, std::string path,
                   FileTailOptions options)
    : store_(store),
      name_(std::move(name)),
      path_(std::move(path)),
      options_(std::move(options)),
      changed_at_(SteadyClock::now()),
      aside_at_(options_.checkpoint_frames / 4 * 3) {
  status_.name = name_.text();
  status_.file = path_;
}

FileTail::~FileTail() { close(); }

void FileTail::close() { let_go(false); }

TailStatus FileTail::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

void FileTail::set_state(TailState state, const std::string& error) {
  bool news;
  {
    std::lock_guard lock(mutex_);
    news = status_.state != state || status_.error != error;
    status_.state = state;
    status_.error = error;
    if (state == TailState::kFollowing) status_.behind_since_ms = 0;
    if (state == TailState::kFailed && status_.behind_since_ms == 0)
      status_.behind_since_ms = unix_time_ms();
  }
  if (!news || state == TailState::kComparing) return;
  if (state == TailState::kFollowing || state == TailState::kWaiting) told_.clear();
  if (state == TailState::kFailed) {
    if (std::exchange(told_, error) == error) return;
    log::warn("database '{}' cannot follow {}: {}; trying again", name_.text(), path_, error);
  } else if (state == TailState::kWaiting) {
    log::info("database '{}' waits for {}: {}", name_.text(), path_, error);
  } else {
    log::info("database '{}' follows {}", name_.text(), path_);
  }
}

std::string FileTail::memory_path() const {
  std::string file = name_.text();
  std::replace(file.begin(), file.end(), '/', '.');  // no name has a point
  return options_.directory + "/" + file;
}

ChangeSet::Options FileTail::spool() const {
  return {options_.files, memory_path() + ".spool", ChangeSet::Options().memory_max};
}

// --- steps -------------------------------------------------------------------------------------

Deadline FileTail::step(bool something_changed) {
  std::uint64_t taken = status().transactions;
  Result<> advanced = advance();
  if (advanced) {
    failures_in_a_row_ = 0;
    return next_look(something_changed, status().transactions != taken);
  }
  const Error& error = advanced.error();
  if (interrupted_) return SteadyClock::now() + kSlowLook;
  if (is_difference(error)) same_ = false;
  // While nothing can be taken the -wal does not grow for ever: it is compared later.
  bool too_long = held_ && held_->frames() > kHeldRestarts * options_.restart_frames;
  // What a file's -wal and -shm say may not be about it any more: closed, they may go.
  bool not_its = error.code() == Code::kCorrupt || error.code() == Code::kIo;
  if (held_ && (too_long || not_its || written_over_)) let_go(false);
  compared_at_.reset();
  deaf_ = false;
  bool passes = error.code() == Code::kBusy && failures_in_a_row_ < kBusyMax;
  if (!passes) {
    {
      std::lock_guard lock(mutex_);
      ++status_.failures;
    }
    set_state(TailState::kFailed, error.message());
  }
  const int doubled = 1 << std::min(failures_in_a_row_, 8);
  ++failures_in_a_row_;
  Deadline now = SteadyClock::now();
  not_before_ = now + (passes ? kSoonRetryMin : std::min(kSoonRetryMax, kSoonRetryMin * doubled));
  return passes ? not_before_ : now + std::min(kRetryMax, kRetryMin * doubled);
}

Result<> FileTail::advance() {
  OFFPRINT_TRY(make_database());
  if (dropped_) return {};
  FileIdentity now = FileIdentity::of(path_);
  if (held_ && now != open_file_) let_go(true);
  if (held_ && is_robbed()) {
    log::warn(
        "the -wal or -shm of {} was removed while it was open: database '{}' is compared "
        "with it",
        path_, name_.text());
    let_go(true);
  }
  if (held_ && is_written_over()) {
    log::warn("{} was written to, and not by SQLite as it seems: database '{}' is compared with it",
              path_, name_.text());
    written_over_ = true;
    let_go(false);  // with it goes what its -wal and -shm said of the file before
  }
  if (!held_) {
    OFFPRINT_TRY_ASSIGN(Ready ready, open());
    if (ready == Ready::kNo) return {};
  }
  if (!same_) OFFPRINT_TRY(compare());
  if (!held_->is_newest()) OFFPRINT_TRY(take_changes());
  stand_aside();
  set_state(TailState::kFollowing);
  note_stamp();
  OFFPRINT_TRY(look_after_wal());
  note_stamp();
  return {};
}

bool FileTail::is_robbed() const { return FilesBeside::of(open_path_) != open_beside_; }

// After what was read, before it is believed: its readers were kept from nothing otherwise.
Result<> FileTail::check_not_robbed() const {
  if (is_robbed()) return fail(Code::kBusy, "its -wal or -shm was removed just now");
  return {};
}

// What SQLite has open may not be the file's any more: then it must never be brought into it.
Result<> FileTail::bring_in(SourceFile& source, int mode) {
  OFFPRINT_TRY(check_not_robbed());
  return source.checkpoint(mode);
}

// Only checkpoints write to the file, and not any more when they have brought all into it.
bool FileTail::is_written_over() {
  if (!stamp_ || FileStamp::of(path_) == stamp_) return false;
  if (held_->is_newest()) return true;
  // With our read transaction in the way nothing of SQLite's writes to the file.
  if (held_->is_reading() && held_->lets_restart()) return true;
  // Nor before the generation that follows is brought in; while nobody reads, that place may not
  // have been the last of its own.
  const std::uint32_t generations = held_->is_reading() ? 1 : 0;
  bool not_brought_in = held_->backfilled() == 0 && !held_->is_checkpointed();
  if (not_brought_in && held_->generations_since() <= generations) return true;
  stamp_.reset();
  return false;
}

void FileTail::note_stamp() {
  const WalPlace& place = held_->place();
  // A -wal that was begun anew without a commit since.
  bool emptied = place.last_frame == 0 && place.change == stamp_place_.change &&
                 place.salt1 == stamp_place_.salt1 + 1;
  if (!emptied && place != stamp_place_) stamp_.reset();
  stamp_place_ = place;
  if (stamp_ || held_->backfilled() != place.last_frame) return;
  stamp_ = FileStamp::of(path_);
  if (!held_->is_newest()) stamp_.reset();  // what came may have been brought in, too
}

// A comparison that read from the file alone met no checkpoint: what wrote to it is not SQLite.
Result<> FileTail::check_compared() const {
  OFFPRINT_TRY(check_not_robbed());
  if (compared_at_ && FileStamp::of(path_) != compared_at_)
    return fail(Code::kBusy, "it is being written over");
  return {};
}

// Soon when a commit may be on its way, then ever later; when all is quiet there is nothing to do.
Deadline FileTail::next_look(bool something_changed, bool took) {
  Deadline now = SteadyClock::now();
  not_before_ = now;
  if (took || something_changed) commit_may_come_ = !took;
  if (took) {
    pace_looks(now);
  } else if (something_changed) {
    idle_looks_ =
        idle_looks_ >= kLooksAfterCommit ? 0 : std::min(idle_looks_ + 1, kLooksWhileWritten);
  } else {
    idle_looks_ = std::min(idle_looks_ + 1, kLooksMax);
  }
  Deadline next = now + kSlowLook;
  if (!held_ || !same_) {
    deaf_ = false;
    return next;
  }
  if (!took) busy_looks_ = deaf_ ? std::min(busy_looks_, 0) - 1 : 0;
  if (busy_looks_ <= -kLooksUntilHeard) deaf_ = false;
  if (!held_->is_newest()) return not_before_;
  if (deaf_) return took ? not_before_ : now + kDeafLook;
  if (held_->frames() > 0 || spare_ || !held_->is_slim())
    next = std::max(quiet_from(), now + kFirstLook);
  bool in_the_way = held_->is_reading() && held_->frames() > 0 && !held_->is_out_of_the_way();
  if ((commit_may_come_ || in_the_way) && idle_looks_ < kLooksMax) {
    int doubled = std::max(0, idle_looks_ - kSameLooks);
    Deadline look = now + kFirstLook * (1 << doubled);
    next = std::min(next, std::max(look, not_before_));
    if (something_changed && !took) not_before_ = look;
  }
  if (next >= now + kSlowLook && held_->is_slim()) held_->rest();
  return next;
}

// Something was taken. A program that does not pause is looked at now and then, so often that it
// cannot begin its -wal anew twice meanwhile.
void FileTail::pace_looks(Deadline now) {
  const bool without_pause = now < took_at_ + 2 * kPaceMax;
  pace_ = without_pause ? std::clamp(2 * pace_, kPaceMin, kPaceMax) : pace_.zero();
  if (advance_ > aside_at_ / kLooksOfWal)
    pace_ = std::max(std::min(kPaceMin, pace_), pace_ * (aside_at_ / kLooksOfWal) / advance_);
  busy_looks_ = without_pause ? std::max(busy_looks_, 0) + 1 : 0;
  deaf_ = busy_looks_ >= kLooksUntilDeaf;
  not_before_ = now + pace_;
  took_at_ = changed_at_ = now;
  empty_tries_ = 0;
  idle_looks_ = kLooksAfterCommit;
}

// A program's reader may have been in the way of emptying the -wal.
Deadline FileTail::quiet_from() const {
  return changed_at_ + options_.quiet * (1 << std::min(empty_tries_, kEmptyDoublings));
}

void FileTail::let_go(bool other_file) {
  if (held_ && (FileIdentity::of(path_) != open_file_ || is_robbed())) other_file = true;
  if (other_file) {  // -wal and -shm of that name are not those of this one any more
    if (held_) held_->leave_as_is();
    if (spare_) spare_->leave_as_is();
  }
  if (spare_) spare_->end();
  spare_.reset();
  if (held_) held_->end();
  held_.reset();
  same_ = false;
  open_file_ = {};
  stamp_.reset();
  checkpointed_at_ = restart_tried_at_ = 0;
  empty_tries_ = 0;
}

// --- the database and the file -----------------------------------------------------------------

Result<> FileTail::make_database() {
  if (auto info = store_.info(name_)) {
    if (made_) return {};
    if (info->options.tails != path_) OFFPRINT_TRY(store_.set_tails(name_, path_));
    OFFPRINT_TRY_ASSIGN(bool remembered, options_.files->exists(memory_path()));
    if (remembered) {
      OFFPRINT_TRY_ASSIGN(Bytes text, read_file(*options_.files, memory_path(), 4096));
      remembered_ = FileIdentity::parse(as_text(text));
    }
    made_ = true;
    return {};
  }
  if (made_) {  // by somebody who may
    dropped_ = true;
    let_go(false);
    set_state(TailState::kFailed, "the database was dropped; it begins anew with the next start");
    return {};
  }
  database::CreateOptions options;
  options.tails = path_;
  OFFPRINT_TRY(store_.create(name_, options));
  OFFPRINT_TRY(options_.files->remove(memory_path()));
  made_ = true;
  return {};
}

Result<FileTail::Ready> FileTail::open() {
  FileIdentity file = FileIdentity::of(path_);
  if (file.inode == 0) {
    std::error_code unknown;
    auto folder = std::filesystem::path(path_).parent_path();
    bool no_folder = !std::filesystem::exists(folder.empty() ? "." : folder, unknown);
    set_state(TailState::kWaiting, no_folder ? "its folder does not exist" : "it does not exist");
    return Ready::kNo;
  }
  if (written_over_ && !is_settled()) return fail(Code::kBusy, "it is being written over");
  std::error_code unknown;
  open_path_ = std::filesystem::canonical(path_, unknown).string();
  for (int attempt = 0; attempt < kOpenTries; ++attempt) {
    OFFPRINT_TRY_ASSIGN(auto source, open_source());
    if (source->kind() == FileKind::kEmpty) {
      set_state(TailState::kWaiting, "it is empty");
      return Ready::kNo;
    }
    // Which ones it has open is known when they were there before and stayed.
    open_beside_ = FilesBeside::of(open_path_);
    const Result<> begun = source->begin();
    const bool same_file = FileIdentity::of(path_) == file;
    if (begun && same_file && open_beside_.are_there() && !is_robbed()) {
      held_ = std::move(source);
      open_file_ = file;
      return Ready::kYes;
    }
    source->leave_as_is();
    if (!begun) return fail(explained(begun.error()));
    if (!same_file) return fail(Code::kBusy, "it was replaced just now");
  }
  return fail(Code::kBusy, "its -wal or -shm is removed while it is opened");
}

// Whatever writes to it does so by pieces. By this machine's clock: those of files can be set.
bool FileTail::is_settled() {
  auto stamp = FileStamp::of(path_);
  const Deadline now = SteadyClock::now();
  if (stamp != settling_) {
    settling_ = stamp;
    settles_at_ = now + kSettles;
  }
  return now >= settles_at_;
}

// One that can be followed, or is empty.
Result<std::unique_ptr<SourceFile>> FileTail::open_source() {
  OFFPRINT_TRY_ASSIGN(auto source, SourceFile::open(path_));
  if (source->kind() == FileKind::kForeign)
    return fail(Code::kInvalid, "it is no SQLite database, or an encrypted one");
  if (source->kind() == FileKind::kRollback && options_.set_wal) {
    OFFPRINT_TRY(source->set_wal());
    log::info("{} was turned into WAL mode", path_);
  }
  if (source->kind() == FileKind::kRollback) {
    return fail(Code::kInvalid,
                "it is in rollback-journal mode, which cannot be followed: run PRAGMA "
                "journal_mode=WAL on it once (it stays so), or start with --tail-set-wal "
                "(offprint tail: --set-wal)");
  }
  return source;
}

Result<> FileTail::note_source() {
  if (remembered_ == open_file_) return {};
  OFFPRINT_TRY(write_file_atomically(*options_.files, memory_path(), as_bytes(open_file_.text())));
  remembered_ = open_file_;
  return {};
}

Result<> FileTail::open_spare() {
  if (spare_) return {};
  OFFPRINT_TRY_ASSIGN(spare_, SourceFile::open(path_));
  if (FileIdentity::of(path_) == open_file_) return {};
  spare_->leave_as_is();
  spare_.reset();
  return fail(Code::kBusy, "it was replaced just now");
}

}  // namespace offprint::tail
