// The files of a hosted database: opened when needed, recovered, checkpointed, closed.
#include <malloc.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "base/log.h"
#include "database/checkpoint_record.h"
#include "database/hosted_database.h"
#include "database/reader_session.h"
#include "database/recovery.h"
#include "database/replay.h"
#include "ltx/checksum.h"

namespace offprint::database {
namespace {

constexpr std::uint64_t kTrimEvery = 32;  // closed databases
// Times the frames that start a checkpoint: from there on writers wait for readers, so that the
// -wal does not grow without end under reads that overlap.
constexpr std::uint32_t kInsistAfter = 4;

bool is_damage(const Error& error) {
  int code = error.sqlite_code() & 0xff;
  return error.code() == Code::kCorrupt || code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

}  // namespace

// At this database's turn.
Result<std::shared_ptr<OpenFiles>> HostedDatabase::open_files() {
  {
    std::lock_guard lock(mutex_);
    if (files_) return files_;
    if (refused_) return fail(*refused_);
  }
  bool recovered = std::exchange(needs_recovery_, false);
  bool is_complete = false;
  if (recovered) {
    auto done = recover();
    needs_recovery_ = !done;
    if (!done) return fail(refuse_if_damaged(done.error()));
    is_complete = *done;
  }
  DatabaseState state;
  {
    std::lock_guard lock(mutex_);
    state = state_;
    wal_map_.reset(state_.position.txid);
  }
  OpenFiles::Options options;
  options.path = identity_.path;
  options.vfs = environment_.vfs.c_str();
  options.database_id = identity_.id;
  options.decider = decider();
  options.create = identity_.options;
  options.watchdog = &environment_.watchdog;
  options.is_copy = is_copy();
  // Whoever takes an instance as a whole must not find in it what others were once shown.
  options.secure_delete = identity_.name.starts_with('@');
  options.wall_clock_ms = environment_.options.wall_clock_ms;
  options.keys = {environment_.options.key_age_max_ms, environment_.options.keys_max,
                  environment_.options.key_answer_bytes_max};
  if (identity_.id != 0) options.meter = environment_.meter_of(identity_.id, identity_.name);
  auto files = OpenFiles::open(options, state,
                               [this](const DatabaseState& next, const sqlite::WalPoint& point,
                                      const LogEntry& entry) { on_decided(next, point, entry); });
  if (!files) {
    needs_recovery_ = recovered;
    return fail(refuse_if_damaged(
        files.error().with_context(fmt::format("open database '{}'", identity_.name))));
  }
  if (auto checked = check_for_foreign_change(**files, recovered); !checked) {
    needs_recovery_ = recovered;
    return fail(std::move(checked).error());
  }
  if (is_complete) record_checkpoint(state.position.txid, false);
  environment_.counters.open_databases.fetch_add(1, std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  files_ = *files;
  last_used_ = SteadyClock::now();
  if (!idle_timer_armed_) {
    idle_timer_armed_ = true;
    arm_idle_timer(last_used_ + std::chrono::milliseconds(environment_.options.idle_close_ms));
  }
  return files_;
}

// A program that wrote to the file while it was closed has left its mark; then, and after a crash,
// the whole is read. What differs is not taken for ours: the database gives what it has, but takes
// no more writes. What was recovered into a file that differed may be a mixture: nothing of it is
// given.
Result<> HostedDatabase::check_for_foreign_change(OpenFiles& files, bool recovered) {
  std::optional<FileFingerprint> left;
  DatabaseState state;
  {
    std::lock_guard lock(mutex_);
    left = std::exchange(closed_as_, std::nullopt);
    state = state_;
  }
  if (state.position.txid.value == 0) return {};
  std::error_code absent;
  bool wal_has_content = std::filesystem::file_size(identity_.path + "-wal", absent) > 0 && !absent;
  if (!recovered && left && left == FileFingerprint::of(identity_.path) && !wal_has_content)
    return {};
  OFFPRINT_TRY_ASSIGN(auto reader, PageReader::open(identity_.path, environment_.vfs.c_str()));
  OFFPRINT_TRY_ASSIGN(Checksum found, scan_checksum(reader, state));
  if (found == state.position.checksum) return {};
  if (recovered)
    return fail(refuse_if_damaged(Error(Code::kCorrupt, "the pages have another checksum")));
  Error why(Code::kUnavailable,
            "another program changed the database file while it was closed; export it and import "
            "it under a new name");
  log::error("database '{}' takes no more writes: {}", identity_.name, why.message());
  files.recorder().stop(why);
  {
    std::lock_guard lock(mutex_);
    stopped_ = why.message();
  }
  environment_.stopped.call(identity_.name);
  return {};
}

// The error to answer. A file that another program has changed, or that is damaged, is not touched
// any more until the next start.
Error HostedDatabase::refuse_if_damaged(const Error& error) {
  if (!is_damage(error)) return error;
  Error why(Code::kCorrupt,
            fmt::format("the file of database '{}' is not what the journal says ({}): another "
                        "program changed it, or it is damaged; import the database from a replica",
                        identity_.name, error.message()));
  log::error("{}", why.message());
  {
    std::lock_guard lock(mutex_);
    refused_ = why;
    stopped_ = why.message();
  }
  environment_.stopped.call(identity_.name);
  return why;
}

// Whether everything is in the database file now.
Result<bool> HostedDatabase::recover() {
  DatabaseState state;
  {
    std::lock_guard lock(mutex_);
    state = state_;
  }
  RecordsToApply above = records_above_checkpoint();
  auto recover = [&] {
    return recover_file(identity_.path, environment_.vfs.c_str(), state, above.records,
                        above.new_history, *environment_.journal);
  };
  auto complete = recover();
  if (!complete && (is_copy() || above.new_history) && above.whole &&
      (complete.error().code() == Code::kInvalid || is_damage(complete.error()))) {
    // Another page size, or damaged: the file is made again.
    OFFPRINT_TRY(remove_database_files(*environment_.options.files, identity_.path));
    complete = recover();
  }
  if (!complete) {
    stop_if_sync_failed(complete.error());
    return fail(
        complete.error().with_context(fmt::format("recover database '{}'", identity_.name)));
  }
  if (!above.new_history) environment_.counters.recoveries.fetch_add(1, std::memory_order_relaxed);
  return *complete;
}

// What a failed fsync left unwritten counts as written from then on: only a new start, which
// recovers from the journal, may go on.
void HostedDatabase::stop_if_sync_failed(const Error& error) {
  int code = error.sqlite_code();
  if (code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC) environment_.fatal(error);
}

// `covered` is in the database file, fsynced: the journal may let go of everything up to it.
void HostedDatabase::record_checkpoint(TxId covered, bool durable, bool closing) {
  std::optional<FileFingerprint> fingerprint;
  DatabaseState state;
  {
    std::lock_guard lock(mutex_);
    if (covered < checkpointed_) return;
    fingerprint = closed_as_;  // none while it is open
    state = state_;
  }
  if (closing) fingerprint = FileFingerprint::of(identity_.path);
  auto location =
      environment_.journal->append(checkpoint_record(identity_.id, state, covered, fingerprint));
  if (location && durable) {
    if (auto synced = environment_.journal->wait_durable(*location); !synced)
      return environment_.fatal(synced.error());
  }
  if (!location && location.error().code() == Code::kIo)
    return environment_.fatal(location.error());
  if (!location)
    return log::warn("database '{}': checkpoint not recorded: {}", identity_.name,
                     location.error().message());
  std::lock_guard lock(mutex_);
  checkpointed_ = std::max(checkpointed_, covered);
  closed_as_ = fingerprint;
  if (checkpointed_ == state_.position.txid) state_lsn_ = location->lsn;
  drop_applied(unapplied_, checkpointed_);
}

// Whether everything committed is in the database file.
bool HostedDatabase::checkpoint(const CheckpointRun& run) {
  std::shared_ptr<OpenFiles> files;
  WalMap::Stage before;
  bool insist = false;
  {
    std::lock_guard lock(mutex_);
    files = files_;
    before = wal_map_.stage();
    insist =
        run.may_insist && wal_map_.frames() > kInsistAfter * environment_.options.checkpoint_frames;
  }
  if (!files) return true;
  auto result = files->checkpoint(insist);
  environment_.counters.checkpoints.fetch_add(1, std::memory_order_relaxed);
  if (!result) {
    stop_if_sync_failed(result.error());
    log::warn("database '{}': checkpoint: {}", identity_.name, result.error().message());
    return false;
  }
  if (result->busy && result->wal_frames == 0) return false;  // it did not even start
  std::optional<TxId> covered;
  {
    std::lock_guard lock(mutex_);
    covered = wal_map_.covered_since(before, result->done_frames, result->wal_frames);
  }
  if (covered) record_checkpoint(*covered, run.durable, run.closing);
  std::lock_guard lock(mutex_);
  return checkpointed_ == state_.position.txid;
}

// The bulk of a checkpoint runs beside the writer; when the -wal has grown on meanwhile, the rest
// follows at this database's turn, so that the next transaction can start the -wal anew.
void HostedDatabase::start_checkpoint_if_due() {
  std::uint32_t limit = environment_.options.checkpoint_frames;
  {
    std::lock_guard lock(mutex_);
    std::uint32_t frames = wal_map_.frames();
    bool tried = generation_at_checkpoint_ ==
                 wal_map_.generation();  // a reader was in the way: not at every batch
    if (checkpointing_ || frames < limit || (tried && frames < frames_at_checkpoint_ + limit))
      return;
    checkpointing_ = true;
    frames_at_checkpoint_ = frames;
    generation_at_checkpoint_ = wal_map_.generation();
  }
  environment_.helpers.post([self = shared_from_this()] {
    self->checkpoint({});
    std::unique_lock lock(self->mutex_);
    self->tasks_.push_back([self] {
      self->checkpoint({.may_insist = true});
      std::lock_guard inner(self->mutex_);
      self->checkpointing_ = false;
    });
    self->schedule(lock);
  });
}

// At this database's turn, before the files are closed: whether everything is in the database file.
// Holds the write lock, under which nobody else can write, and what another program has written is
// noticed.
bool HostedDatabase::settle_files() {
  std::shared_ptr<OpenFiles> files;
  {
    std::lock_guard lock(mutex_);
    files = files_;
  }
  if (!files) return true;
  TransactionRecorder& recorder = files->recorder();
  bool is_alone = files->begin().has_value();
  if (auto error = recorder.journal_error()) environment_.fatal(*error);
  {
    std::lock_guard lock(mutex_);
    if (recorder.stopped_error()) stopped_ = recorder.stopped_error()->message();
  }
  became_visible();
  bool all_in_file = checkpoint({.durable = true, .closing = is_alone && stopped_.empty()});
  files->rollback();
  return all_in_file;
}

// At this database's turn. Readers that are lent out keep their connections until they are given
// back.
void HostedDatabase::close_files() {
  std::shared_ptr<OpenFiles> files;
  {
    std::lock_guard lock(mutex_);
    files = std::move(files_);
    files_.reset();
  }
  if (!files) return;
  files.reset();
  std::uint64_t open =
      environment_.counters.open_databases.fetch_sub(1, std::memory_order_relaxed) - 1;
  if (open % kTrimEvery == 0) ::malloc_trim(0);  // what they used goes back to the system
}

// At this database's turn: they hold less than was committed. Who comes next recovers them.
void HostedDatabase::lose_files() {
  needs_recovery_ = true;
  close_files();
}

void HostedDatabase::arm_idle_timer(Deadline when) {
  environment_.timers.at(when, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    std::unique_lock lock(self->mutex_);
    if (!self->files_) {
      self->idle_timer_armed_ = false;
      return;
    }
    Deadline due =
        self->last_used_ + std::chrono::milliseconds(self->environment_.options.idle_close_ms);
    Deadline now = SteadyClock::now();
    if (due > now || self->scheduled_)
      return self->arm_idle_timer(std::max(due, now + std::chrono::milliseconds(100)));
    self->idle_timer_armed_ = false;
    self->tasks_.push_back([self] { self->close_if_idle(); });
    self->schedule(lock);
  });
}

void HostedDatabase::close_if_idle() {
  bool busy;
  {
    std::lock_guard lock(mutex_);
    std::erase_if(held_readers_, [](const auto& held) {
      auto alive = held.lock();
      return !alive || alive->ended;
    });
    // Besides files_ nobody may have them: readers, snapshots, checkpoints.
    busy = held_ || !held_readers_.empty() || !queue_.empty() || checkpointing_ ||
           files_.use_count() > 1;
    if (busy && files_ && !idle_timer_armed_) {
      idle_timer_armed_ = true;
      arm_idle_timer(SteadyClock::now() +
                     std::chrono::milliseconds(environment_.options.idle_close_ms));
    }
  }
  if (busy) return;
  if (settle_files()) return close_files();
  // A reader needs the -wal. Closed now, the file would have to be read whole at the next opening.
  std::lock_guard lock(mutex_);
  idle_timer_armed_ = true;
  arm_idle_timer(SteadyClock::now() +
                 std::chrono::milliseconds(environment_.options.idle_close_ms));
}

void HostedDatabase::shut_down(const Error& reason, bool dropped) {
  {
    std::lock_guard lock(mutex_);
    if (!files_ && !scheduled_ && !dropped && waiting_.empty()) {
      refused_ = reason;
      return;
    }
  }
  run_task_and_wait([&] {
    Deque<std::unique_ptr<Request>> waiting;
    std::shared_ptr<HeldTransaction> held;
    std::vector<std::weak_ptr<HeldTransaction>> readers;
    {
      std::lock_guard lock(mutex_);
      refused_ = reason;
      dropped_ = dropped_ || dropped;
      waiting = std::move(queue_);
      queue_.clear();
      held = held_;
      readers = std::move(held_readers_);
    }
    environment_.counters.queue_length.fetch_sub(static_cast<std::int64_t>(waiting.size()),
                                                 std::memory_order_relaxed);
    for (auto& request : waiting) answer_error(*request, reason);
    if (held) end_held(held, reason);
    for (auto& weak : readers) {
      if (auto reader = weak.lock()) end_held(reader, reason);
    }
    wake_waiting();
    if (!dropped) settle_files();
    close_files();
    became_visible();
  });
}

// ------------------------------------------------------------------------------------------------------
// upkeep

std::optional<journal::Lsn> HostedDatabase::needed_from() {
  std::lock_guard lock(mutex_);
  if (dropped_ || state_.position.txid.value == 0) return std::nullopt;
  if (!unapplied_.empty()) return std::min(unapplied_.front().location.lsn, state_lsn_);
  return state_lsn_;
}

std::optional<LogEntry> HostedDatabase::oldest_log_entry() {
  std::lock_guard lock(mutex_);
  if (log_.empty()) return std::nullopt;
  return log_.front();
}

void HostedDatabase::trim_log(journal::Lsn lsn) {
  std::lock_guard lock(mutex_);
  while (!log_.empty() && log_.front().location.lsn < lsn) log_.pop_front();
}

void HostedDatabase::let_go_of(journal::Lsn lsn) {
  auto is_needed = [&] {
    auto needed = needed_from();
    return needed && *needed < lsn;
  };
  if (!is_needed() || exclusive()) return;
  run_task_and_wait([&] {
    bool all_in_file;
    TxId newest;
    {
      std::lock_guard lock(mutex_);
      all_in_file = unapplied_.empty();
      newest = state_.position.txid;
    }
    if (all_in_file)
      return record_checkpoint(newest, false);  // only the state has to be written again
    if (auto files = open_files(); !files) {
      return log::warn("database '{}': {}", identity_.name, files.error().message());
    }
    checkpoint({.durable = true});
    if (!is_needed()) return;
    if (auto written = append_images_again(); !written) {
      log::warn("database '{}' holds back the journal: {}", identity_.name,
                written.error().message());
    }
  });
}

Result<> HostedDatabase::checkpoint_now() {
  if (auto busy = exclusive()) return fail(*std::move(busy));
  Result<> result;
  run_task_and_wait([&] {
    {
      std::lock_guard lock(mutex_);
      if (unapplied_.empty()) return;  // all is in the file
    }
    if (auto files = open_files(); !files) {
      result = fail(std::move(files).error());
    } else {
      checkpoint({.durable = true});
    }
  });
  return result;
}

// A reader keeps the -wal from being checkpointed: the newest images of all pages above the last
// checkpoint become one new record, so that the older ones are not needed any more. At this
// database's turn.
Result<> HostedDatabase::append_images_again() {
  DatabaseState state;
  TxId from;
  {
    std::lock_guard lock(mutex_);
    if (!stopped_.empty()) return fail(Code::kUnavailable, stopped_);  // not our images
    state = state_;
    from = checkpointed_;
  }
  std::set<PageNo> pages;
  for (const journal::Location& location : records_above_checkpoint().records) {
    OFFPRINT_TRY_ASSIGN(auto source, environment_.journal->open_payload(location));
    ltx::Decoder decoder(*source);
    OFFPRINT_TRY(decoder.begin());
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
      if (!page) break;
      if (page->number <= state.page_count) pages.insert(page->number);
    }
    OFFPRINT_TRY(decoder.finish());
  }
  OFFPRINT_TRY_ASSIGN(auto reader, PageReader::open(identity_.path, environment_.vfs.c_str()));
  OFFPRINT_TRY(reader.begin());
  OFFPRINT_TRY_ASSIGN(auto large, environment_.journal->create_large_payload());
  ltx::Encoder encoder(*large);
  ltx::Header header;
  header.flags = ltx::kNoChecksumFlag;
  header.page_size = state.page_size;
  header.page_count = state.page_count;
  header.min_txid = from.next();
  header.max_txid = state.position.txid;
  header.timestamp_ms = state.timestamp_ms;
  OFFPRINT_TRY(encoder.begin(header));
  for (PageNo page : pages) {
    OFFPRINT_TRY_ASSIGN(ByteView image, reader.page(page));
    Bytes as_sent(image.begin(), image.end());
    if (page == 1) std::copy(state.header.begin(), state.header.end(), as_sent.begin());
    OFFPRINT_TRY(encoder.page(page, as_sent));
  }
  reader.end();
  OFFPRINT_TRY(encoder.finish(Checksum{}));
  OFFPRINT_TRY(large->finish());
  journal::Draft draft;
  draft.database_id = identity_.id;
  draft.large_file = large->file();
  draft.large_size = large->size();
  draft.metadata.push_back({journal::MetadataType::kDatabaseState, state.encode()});
  Bytes txid;
  append_be<std::uint64_t>(txid, from.value);
  draft.metadata.push_back({journal::MetadataType::kCheckpointedTxId, std::move(txid)});
  OFFPRINT_TRY_ASSIGN(auto location, environment_.journal->commit(std::move(draft)));
  std::lock_guard lock(mutex_);
  unapplied_ = {{state.position.txid, location}};
  state_lsn_ = location.lsn;
  return {};
}

// What recovery would have to apply now.
HostedDatabase::RecordsToApply HostedDatabase::records_above_checkpoint() {
  std::lock_guard lock(mutex_);
  RecordsToApply above;
  above.records.reserve(unapplied_.size());
  above.whole = !unapplied_.empty() && unapplied_.front().whole;
  for (const UnappliedRecord& record : unapplied_) {
    above.records.push_back(record.location);
    above.new_history |= record.new_history;
  }
  return above;
}

}  // namespace offprint::database
