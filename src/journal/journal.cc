#include "journal/journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <mutex>

#include "base/assert.h"
#include "journal/directory_lock.h"
#include "journal/large_files.h"
#include "journal/pending.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/segment_reader.h"

namespace offprint::journal {
namespace {

// Appended and not yet written: beyond this, append itself waits for the disk.
constexpr std::uint64_t kPendingBytesMax = 16 << 20;

Result<> validate(const Options& options) {
  if (options.segment_size < kSegmentSizeMin || options.segment_size > kSegmentSizeMax ||
      options.segment_size % kSegmentHeaderBlock != 0) {
    return fail(Code::kInvalid,
                "journal: segment_size must be a multiple of 4096 between 64 KiB and 1 GiB");
  }
  if (options.spare_segments < 0 || options.spare_segments > 1024) {
    return fail(Code::kInvalid, "journal: spare_segments must be between 0 and 1024");
  }
  return {};
}

class JournalImpl final : public Journal {
 public:
  JournalImpl(FileSystem& files, const std::string& directory, const Options& options,
              std::unique_ptr<DirectoryLock> directory_lock)
      : files_(files),
        directory_(directory),
        options_(options),
        directory_lock_(std::move(directory_lock)),
        large_(std::make_shared<LargeFiles>(
            files, directory + "/large",
            [state = failure_](const Error& error) { state->set(error); })) {}
  ~JournalImpl() override;

  Result<> start(const Visitor& visitor);

  Result<Location> append(Draft draft) override;
  Result<> wait_durable(const Location& location) override;
  void set_commit(std::uint32_t group, Lsn commit) override;
  GroupState group(std::uint32_t group) const override;
  Result<std::unique_ptr<LargePayload>> create_large_payload() override;
  Result<std::unique_ptr<ltx::ByteSource>> open_large_payload(const std::string& file) override {
    return large_->open_finished(file);
  }
  Result<Record> read(const Location& location) override;
  Result<std::unique_ptr<ltx::ByteSource>> open_payload(const Location& location) override;
  std::vector<Segment> segments() const override;
  Result<> remove_before(Lsn lsn) override;
  Lsn durable_lsn() const override;
  Lsn end_lsn() const override;
  std::uint64_t sync_count() const override;
  std::uint64_t disk_bytes() const override;

 private:
  // The first failure after which nothing may be trusted. Shared with the large payloads, which may
  // outlive us.
  struct Failure {
    void set(const Error& error) {
      std::lock_guard lock(mutex);
      if (!first)
        first = Error(Code::kIo, "the journal failed and must be recovered: " + error.message());
    }
    Result<> check() const {
      std::lock_guard lock(mutex);
      if (first) return fail(*first);
      return {};
    }
    mutable std::mutex mutex;
    std::optional<Error> first;
  };
  using Lock = std::unique_lock<std::mutex>;

  Result<Location> place(const Draft& draft, const Bytes& metadata, const LargeReference* large);
  SegmentFile& current() const { return *segments_.back(); }
  Result<> make_room(Lock& lock, std::uint64_t size);
  bool has_room(std::uint64_t size) const;
  void enter_segment(SegmentPointer next);
  void put_mark();
  Result<> wait_until(Lock& lock, Lsn target);
  Result<> lead(Lock& lock);
  Result<std::uint64_t> write_out(std::vector<PendingChunk>& batch);
  void set_committed(const GroupTable& snapshot);
  Result<std::optional<SegmentPointer>> detach_oldest(Lsn lsn);
  Result<Record> read_at(const Location& location, std::optional<LargeReference>* large);
  void write_closing_mark();

  FileSystem& files_;
  const std::string directory_;
  const Options options_;
  const std::unique_ptr<DirectoryLock>
      directory_lock_;  // none on files that are not the machine's own
  const std::shared_ptr<Failure> failure_ = std::make_shared<Failure>();
  const std::shared_ptr<LargeFiles> large_;
  // Constant after start.
  std::uint32_t seed_ = 0;
  std::unique_ptr<SegmentSupply> supply_;

  std::mutex maintenance_mutex_;  // one remove_before at a time; taken before mutex_

  mutable std::mutex mutex_;
  // State below is protected by mutex_.
  std::deque<SegmentPointer> segments_;  // oldest first, never empty
  Lsn next_;                             // position of the next record
  Lsn durable_;                          // everything below is
  Lsn stated_durable_;                   // the greatest durable lsn that a record states
  PendingBuffer pending_;
  GroupTable groups_;
  std::uint64_t sync_count_ = 0;
  bool next_wanted_ = false;  // the supply was told to prepare the segment after the current one

  // A new segment is being fetched; appends wait.
  bool switching_ = false;
  std::condition_variable switched_;

  // Group commit. Generation g is the batch that is being written, or was written last; who waits
  // for it sleeps on batch_done_[g % 2], who waits for the one after on the other.
  bool flushing_ = false;
  Lsn flushing_end_;
  std::uint64_t generation_ = 0;
  std::condition_variable batch_done_[2];
};

Result<> JournalImpl::start(const Visitor& visitor) {
  OFFPRINT_TRY_ASSIGN(RecoveredState state, recover(files_, directory_, *large_));
  bool fresh = state.segments.empty();
  if (fresh) state.id = JournalId::random();
  seed_ = state.id.crc_seed();
  supply_ = std::make_unique<SegmentSupply>(
      files_, directory_, state.id,
      SegmentSupply::Options{options_.segment_size, options_.spare_segments, options_.background});
  if (fresh) {
    OFFPRINT_TRY_ASSIGN(auto first, supply_->take(Lsn{0}));
    state.end = first->first_record();
    state.segments.push_back(std::move(first));
  }
  OFFPRINT_TRY(visit_records(state, visitor));
  std::set<std::string> named;
  for (const auto& segment : state.segments)
    named.insert(segment->large_files.begin(), segment->large_files.end());
  OFFPRINT_TRY(large_->sweep(named));

  std::unique_lock lock(mutex_);
  segments_.assign(state.segments.begin(), state.segments.end());
  if (state.prepared) {
    supply_->adopt(std::move(state.prepared));
    next_wanted_ = true;
  }
  next_ = durable_ = state.end;
  stated_durable_ = state.known_durable;
  groups_.states = std::move(state.groups);
  // From now on damage to what was just found is told from a torn tail.
  if (stated_durable_ < durable_ && next_ > current().first_record() &&
      has_room(groups_.mark_size())) {
    put_mark();
    return wait_until(lock, next_);
  }
  return {};
}

JournalImpl::~JournalImpl() { write_closing_mark(); }

// After a clean stop the next start knows how far everything was durable. Best effort: without it,
// recovery merely cannot tell damage to the last batch from a torn one.
void JournalImpl::write_closing_mark() {
  if (!supply_ || !failure_->check()) return;
  std::unique_lock lock(mutex_);
  if (segments_.empty() || stated_durable_ == durable_ || next_ != durable_) return;
  if (next_ == current().first_record() || !has_room(groups_.mark_size())) return;
  put_mark();
  auto written = wait_until(lock, next_);
  static_cast<void>(written);
}

Result<Location> JournalImpl::append(Draft draft) {
  OFFPRINT_TRY(failure_->check());
  Bytes metadata;
  for (const Metadata& piece : draft.metadata) {
    bool reserved = piece.type == MetadataType::kLargePayload ||
                    static_cast<std::uint16_t>(piece.type) >= 0xff00;
    if (reserved)
      return fail(Code::kInvalid, "journal: this type of metadata is the journal's own");
    append_metadata(metadata, static_cast<std::uint16_t>(piece.type), piece.value);
  }
  if (!draft.large_file) return place(draft, metadata, nullptr);
  if (!draft.payload.empty())
    return fail(Code::kInvalid, "journal: a payload, and a large payload too");
  OFFPRINT_TRY_ASSIGN(LargeReference large, large_->claim(*draft.large_file, draft.large_size));
  append_metadata(metadata, static_cast<std::uint16_t>(MetadataType::kLargePayload),
                  encode_large_reference(large));
  auto placed = place(draft, metadata, &large);
  if (!placed) large_->unclaim(large);
  return placed;
}

// Gives the record its position. When it answers an error, the record was not taken.
Result<Location> JournalImpl::place(const Draft& draft, const Bytes& metadata,
                                    const LargeReference* large) {
  std::uint64_t length = kRecordHeaderSize + metadata.size() + draft.payload.size();
  if (length > options_.segment_size / 2) {
    return fail(
        Code::kTooLarge,
        fmt::format("journal: a record of {} bytes; {} fit, more must come as a large payload",
                    length, options_.segment_size / 2));
  }
  std::uint32_t body = body_crc(metadata, draft.payload, seed_);
  RecordHeader header;
  header.length = static_cast<std::uint32_t>(length);
  header.kind = static_cast<std::uint8_t>(draft.kind);
  header.database_id = draft.database_id;
  header.group = draft.group;
  header.fencing_epoch = draft.fencing_epoch;
  header.metadata_size = static_cast<std::uint32_t>(metadata.size());

  Lock lock(mutex_);
  if (pending_.size_bytes() > kPendingBytesMax) OFFPRINT_TRY(wait_until(lock, next_));
  if (!groups_.admits(draft.group)) return fail(Code::kTooLarge, "journal: too many groups");
  OFFPRINT_TRY(make_room(lock, header.padded_size()));
  header.lsn = next_;
  header.durable_lsn = stated_durable_ = durable_;
  OFFPRINT_TRY(groups_.advance(header, draft.group_lsn));
  pending_.add(segments_.back(), header, body, metadata, draft.payload);
  next_.value += header.padded_size();
  if (large != nullptr) current().large_files.push_back(large->name);
  if (!next_wanted_ && next_.value - current().begin.value > current().size / 2) {
    next_wanted_ = true;
    supply_->want(current().end());
  }
  return Location{header.lsn, header.padded_size(),
                  large != nullptr ? large->size : draft.payload.size(), large != nullptr};
}

bool JournalImpl::has_room(std::uint64_t size) const {
  bool first = next_ == current().first_record();
  return next_.value + size + (first ? groups_.mark_size() : 0) <= current().end().value;
}

// Afterwards `size` bytes fit at next_. Lets go of the lock while it fetches a segment.
Result<> JournalImpl::make_room(Lock& lock, std::uint64_t size) {
  for (;;) {
    OFFPRINT_TRY(failure_->check());
    if (has_room(size)) break;
    if (switching_) {
      switched_.wait(lock);
      continue;
    }
    switching_ = true;
    Lsn begin = current().end();
    lock.unlock();
    auto next = supply_->take(begin);
    if (!next && next.error().code() != Code::kFull) failure_->set(next.error());
    lock.lock();
    switching_ = false;
    switched_.notify_all();
    OFFPRINT_TRY(failure_->check());
    if (!next) return fail(next.error().with_context("journal: no room for a new segment"));
    enter_segment(*std::move(next));
  }
  if (next_ == current().first_record()) put_mark();
  return {};
}

void JournalImpl::enter_segment(SegmentPointer next) {
  if (current().end().value - next_.value >= kRecordHeaderSize) {
    RecordHeader filler;
    filler.length = kRecordHeaderSize;
    filler.kind = kFillerKind;
    filler.lsn = next_;
    filler.durable_lsn = durable_;
    pending_.add(segments_.back(), filler, body_crc({}, {}, seed_), {}, {});
  }
  segments_.push_back(std::move(next));
  next_ = current().first_record();
  next_wanted_ = false;
}

void JournalImpl::put_mark() {
  Bytes metadata = groups_.encode();
  RecordHeader mark;
  mark.length = static_cast<std::uint32_t>(kRecordHeaderSize + metadata.size());
  mark.kind = kMarkKind;
  mark.lsn = next_;
  mark.durable_lsn = stated_durable_ = durable_;
  mark.metadata_size = static_cast<std::uint32_t>(metadata.size());
  pending_.add(segments_.back(), mark, body_crc(metadata, {}, seed_), metadata, {});
  next_.value += mark.padded_size();
}

Result<> JournalImpl::wait_durable(const Location& location) {
  Lock lock(mutex_);
  Lsn target{location.lsn.value + location.size};
  if (target > next_) return fail(Code::kInvalid, "journal: no record was appended there");
  return wait_until(lock, target);
}

Result<> JournalImpl::wait_until(Lock& lock, Lsn target) {
  while (durable_ < target) {
    if (auto sound = failure_->check(); !sound) {
      // Whoever was woken to lead goes away instead: the others must not wait for a leader.
      for (std::condition_variable& done : batch_done_) done.notify_all();
      return sound;
    }
    if (!flushing_) return lead(lock);
    bool in_this_batch = target <= flushing_end_;
    batch_done_[(generation_ + (in_this_batch ? 0 : 1)) % 2].wait(lock);
  }
  return {};
}

// Writes and syncs everything that is pending, for all who wait. Everything pending includes what
// the caller waits for.
Result<> JournalImpl::lead(Lock& lock) {
  flushing_ = true;
  flushing_end_ = next_;
  std::uint64_t generation = ++generation_;
  std::vector<PendingChunk> batch = pending_.take();
  GroupTable committed = groups_;
  lock.unlock();
  auto syncs = write_out(batch);
  if (!syncs) failure_->set(syncs.error());
  lock.lock();
  flushing_ = false;
  if (syncs) {
    durable_ = flushing_end_;
    sync_count_ += *syncs;
    set_committed(committed);
    pending_.give_back(std::move(batch));
  }
  lock.unlock();
  batch_done_[generation % 2].notify_all();
  if (syncs) {
    batch_done_[(generation + 1) % 2].notify_one();  // the next leader
  } else {
    batch_done_[(generation + 1) % 2].notify_all();
  }
  lock.lock();
  return syncs ? Result<>() : failure_->check();
}

// A segment is durable before anything in the next one is written: the chain has no holes. Returns
// the number of syncs.
Result<std::uint64_t> JournalImpl::write_out(std::vector<PendingChunk>& batch) {
  for (PendingChunk& chunk : batch) {
    OFFPRINT_TRY(chunk.segment->file->write_at(chunk.offset, chunk.bytes));
    OFFPRINT_TRY(chunk.segment->file->sync());
  }
  return std::uint64_t{batch.size()};
}

void JournalImpl::set_committed(const GroupTable& snapshot) {
  if (auto local = snapshot.states.find(kLocalGroup); local != snapshot.states.end())
    groups_.states[kLocalGroup].commit = local->second.last;
}

void JournalImpl::set_commit(std::uint32_t group, Lsn commit) {
  std::lock_guard lock(mutex_);
  auto found = groups_.states.find(group);
  if (group == kLocalGroup || found == groups_.states.end()) return;
  GroupState& state = found->second;
  state.commit = std::max(state.commit, std::min(commit, state.last));
}

GroupState JournalImpl::group(std::uint32_t group) const {
  std::lock_guard lock(mutex_);
  auto found = groups_.states.find(group);
  return found != groups_.states.end() ? found->second : GroupState{};
}

Result<std::unique_ptr<LargePayload>> JournalImpl::create_large_payload() {
  OFFPRINT_TRY(failure_->check());
  return large_->create();
}

Result<Record> JournalImpl::read(const Location& location) { return read_at(location, nullptr); }

Result<Record> JournalImpl::read_at(const Location& location,
                                    std::optional<LargeReference>* large) {
  SegmentPointer segment;
  {
    Lock lock(mutex_);
    Lsn end{location.lsn.value + location.size};
    if (end > next_ || end < location.lsn)
      return fail(Code::kInvalid, "journal: no record was appended there");
    if (end > durable_) OFFPRINT_TRY(wait_until(lock, end));
    auto found = std::find_if(segments_.begin(), segments_.end(), [&](const SegmentPointer& each) {
      return each->holds(location.lsn);
    });
    if (found == segments_.end()) {
      return fail(Code::kNotFound,
                  "journal: the segment of lsn " + lsn_text(location.lsn) + " was removed");
    }
    segment = *found;
  }
  auto broken = [&] {
    return fail(Code::kCorrupt,
                fmt::format("{} at offset {} (lsn {}): no valid record", segment->path,
                            location.lsn.value - segment->begin.value, lsn_text(location.lsn)));
  };
  std::uint64_t offset = location.lsn.value - segment->begin.value;
  if (location.size < kRecordHeaderSize || location.size > segment->size - offset) return broken();
  Bytes bytes(location.size);
  OFFPRINT_TRY_ASSIGN(std::size_t got, segment->file->read_at(offset, bytes));
  std::optional<RecordHeader> header =
      parse_record_header(ByteView(bytes).first(got), location.lsn, location.size);
  if (!header || got != location.size || header->padded_size() != location.size ||
      header->is_internal() || !record_verifies(*header, bytes, seed_)) {
    return broken();
  }
  return decode_record(*header, bytes, large);
}

Result<std::unique_ptr<ltx::ByteSource>> JournalImpl::open_payload(const Location& location) {
  std::optional<LargeReference> large;
  OFFPRINT_TRY_ASSIGN(Record record, read_at(location, &large));
  if (!large) return std::make_unique<OwnedSource>(std::move(record.payload));
  auto source = large_->open(*large);
  if (source) return source;
  // Freed since its record was read?
  Lock lock(mutex_);
  if (location.lsn < segments_.front()->begin) {
    return fail(Code::kNotFound,
                "journal: the segment of lsn " + lsn_text(location.lsn) + " was removed");
  }
  return source;
}

std::vector<Segment> JournalImpl::segments() const {
  Lock lock(mutex_);
  std::vector<Segment> result;
  for (const SegmentPointer& segment : segments_)
    result.push_back({segment->begin, segment->end()});
  result.back().end = next_;
  return result;
}

// The oldest segment, when it may go: forgotten here, still on disk.
Result<std::optional<SegmentPointer>> JournalImpl::detach_oldest(Lsn lsn) {
  OFFPRINT_TRY(failure_->check());
  Lock lock(mutex_);
  Lsn end = segments_.front()->end();
  if (segments_.size() < 2 || end > lsn || end > durable_) return std::nullopt;
  SegmentPointer oldest = std::move(segments_.front());
  segments_.pop_front();
  return oldest;
}

Result<> JournalImpl::remove_before(Lsn lsn) {
  std::lock_guard maintenance(maintenance_mutex_);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto oldest, detach_oldest(lsn));
    if (!oldest) return {};
    std::vector<std::string> large_files = std::move((*oldest)->large_files);
    // The segment first: a record must never name a file that is gone.
    auto done = supply_->release(*std::move(oldest));
    for (std::size_t i = 0; done && i < large_files.size(); ++i)
      done = large_->remove(large_files[i]);
    if (!done) {
      failure_->set(done.error());
      return done;
    }
  }
}

Lsn JournalImpl::durable_lsn() const {
  Lock lock(mutex_);
  return durable_;
}

Lsn JournalImpl::end_lsn() const {
  Lock lock(mutex_);
  return next_;
}

std::uint64_t JournalImpl::sync_count() const {
  Lock lock(mutex_);
  return sync_count_;
}

std::uint64_t JournalImpl::disk_bytes() const {
  std::uint64_t bytes = supply_->idle_bytes();
  Lock lock(mutex_);
  for (const SegmentPointer& segment : segments_) bytes += segment->size;
  return bytes;
}

std::string folder_above(const std::string& directory) {
  std::string above = std::filesystem::path(directory).parent_path().string();
  return above.empty() ? "." : above;
}

// Makes the journal's folders and their names durable, also those that an interrupted start has
// left: existing is not the same as being durable.
Result<> make_folders(FileSystem& files, const std::string& directory) {
  std::string data = folder_above(directory);
  OFFPRINT_TRY(files.create_directories(directory + "/large"));
  OFFPRINT_TRY(files.sync_directory(directory));
  OFFPRINT_TRY(files.sync_directory(data));
  if (data == "." || data == "/") return {};
  return files.sync_directory(folder_above(data));
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::open(FileSystem& files, const std::string& directory,
                                               const Options& options, const Visitor& visitor) {
  OFFPRINT_TRY(validate(options));
  OFFPRINT_TRY(make_folders(files, directory));
  std::unique_ptr<DirectoryLock> directory_lock;
  if (&files == &FileSystem::real()) {
    OFFPRINT_TRY_ASSIGN(directory_lock, DirectoryLock::acquire(directory));
  }
  auto journal =
      std::make_unique<JournalImpl>(files, directory, options, std::move(directory_lock));
  OFFPRINT_TRY(journal->start(visitor));
  return journal;
}

Result<Location> Journal::commit(Draft draft) {
  OFFPRINT_TRY_ASSIGN(Location location, append(std::move(draft)));
  OFFPRINT_TRY(wait_durable(location));
  return location;
}

}  // namespace offprint::journal
