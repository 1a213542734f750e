#include "journal/segment.h"

#include <fmt/format.h>

#include <algorithm>

namespace offprint::journal {
namespace {

constexpr std::string_view kNewName = "new.tmp";
constexpr std::string_view kSparePrefix = "spare-";
constexpr std::size_t kZeroChunk = 1 << 20;
// Synced often enough that a commit in the foreground never waits behind much of it.
constexpr std::uint64_t kZeroSyncEvery = 8 << 20;

}  // namespace

bool is_temporary_segment(std::string_view name) {
  return name == kNewName || name.starts_with(kSparePrefix);
}

SegmentSupply::SegmentSupply(FileSystem& files, std::string directory, JournalId id,
                             Options options)
    : files_(files), directory_(std::move(directory)), id_(id), options_(options) {
  if (options_.background && options_.spare_segments > 0) thread_ = std::thread([this] { run(); });
}

SegmentSupply::~SegmentSupply() {
  {
    std::lock_guard lock(wanted_mutex_);
    stop_ = true;
  }
  wanted_changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<SegmentPointer> SegmentSupply::take(Lsn begin) {
  std::lock_guard lock(mutex_);
  if (failure_) return fail(*failure_);
  SegmentPointer taken;
  if (prepared_ && prepared_->begin == begin) {
    taken = std::move(prepared_);
  } else {
    OFFPRINT_TRY_ASSIGN(taken, make(begin));
  }
  newest_taken_ = begin;
  return taken;
}

void SegmentSupply::want(Lsn begin) {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(wanted_mutex_);
    wanted_ = begin;
  }
  wanted_changed_.notify_all();
}

void SegmentSupply::adopt(SegmentPointer prepared) {
  std::lock_guard lock(mutex_);
  prepared_ = std::move(prepared);
}

void SegmentSupply::run() {
  for (;;) {
    Lsn begin;
    {
      std::unique_lock lock(wanted_mutex_);
      wanted_changed_.wait(lock, [this] { return stop_ || wanted_; });
      if (stop_) return;
      begin = *wanted_;
      wanted_.reset();
    }
    std::lock_guard lock(mutex_);
    // A request that was overtaken by take() must not put a fresh file in the place of a live one.
    if (prepared_ || failure_ || (newest_taken_ && *newest_taken_ >= begin)) continue;
    auto made = make(begin);
    if (made) {
      prepared_ = *std::move(made);
    } else if (made.error().code() != Code::kFull) {
      failure_ = made.error();
    }
  }
}

Result<SegmentPointer> SegmentSupply::make(Lsn begin) {
  return spares_.empty() ? make_new(begin) : make_from_spare(begin);
}

Result<SegmentPointer> SegmentSupply::make_new(Lsn begin) {
  std::string temporary = directory_ + "/" + std::string(kNewName);
  auto attempt = [&]() -> Result<SegmentPointer> {
    OFFPRINT_TRY(files_.remove(temporary));
    auto segment = std::make_shared<SegmentFile>();
    segment->size = options_.segment_size;
    OFFPRINT_TRY_ASSIGN(segment->file, files_.open(temporary, FileSystem::Mode::kCreateNew));
    OFFPRINT_TRY(segment->file->allocate(segment->size));
    OFFPRINT_TRY(write_zeros(*segment->file));
    OFFPRINT_TRY(finish(*segment, begin, temporary));
    return segment;
  };
  auto made = attempt();
  if (!made) {
    // Gives back what it took; if that fails too, the file goes at the next attempt.
    auto removed = files_.remove(temporary);
    static_cast<void>(removed);
  }
  return made;
}

Result<SegmentPointer> SegmentSupply::make_from_spare(Lsn begin) {
  SegmentPointer segment = spares_.front();
  OFFPRINT_TRY(finish(*segment, begin, segment->path));
  spares_.pop_front();
  return segment;
}

// Real zeros, not only reserved space: the first write into a reserved block changes metadata,
// which would double the cost of every fdatasync.
Result<> SegmentSupply::write_zeros(File& file) {
  Bytes zeros(std::min<std::uint64_t>(kZeroChunk, options_.segment_size));
  std::uint64_t unsynced = 0;
  for (std::uint64_t at = 0; at < options_.segment_size;) {
    std::uint64_t size = std::min<std::uint64_t>(zeros.size(), options_.segment_size - at);
    OFFPRINT_TRY(file.write_at(at, ByteView(zeros).first(size)));
    at += size;
    unsynced += size;
    if (unsynced >= kZeroSyncEvery) {
      OFFPRINT_TRY(file.sync());
      unsynced = 0;
    }
  }
  return {};
}

// Header first, name second: a segment under its name is always whole.
Result<> SegmentSupply::finish(SegmentFile& segment, Lsn begin, const std::string& temporary) {
  Bytes header(kSegmentHeaderSize);
  encode_segment_header({id_, begin, segment.size}, header.data());
  OFFPRINT_TRY(segment.file->write_at(0, header));
  OFFPRINT_TRY(segment.file->sync());
  std::string path = directory_ + "/" + segment_name(begin);
  OFFPRINT_TRY(files_.rename(temporary, path));
  segment.path = std::move(path);
  segment.begin = begin;
  segment.large_files.clear();
  return files_.sync_directory(directory_);
}

Result<> SegmentSupply::release(SegmentPointer segment) {
  std::lock_guard lock(mutex_);
  // Nobody can get at it any more, so a count of one stays one: no reader.
  bool reusable = segment.use_count() == 1 && segment->size == options_.segment_size &&
                  idle_count() < options_.spare_segments;
  if (!reusable) {
    OFFPRINT_TRY(files_.remove(segment->path));
    return files_.sync_directory(directory_);
  }
  std::string path = fmt::format("{}/{}{}", directory_, kSparePrefix, spare_number_++);
  auto renamed = files_.rename(segment->path, path);
  if (!renamed && renamed.error().code() == Code::kFull) {
    OFFPRINT_TRY(files_.remove(segment->path));
    return files_.sync_directory(directory_);
  }
  OFFPRINT_TRY(renamed);
  segment->path = std::move(path);
  // Before its header changes, the old name must be gone for good.
  OFFPRINT_TRY(files_.sync_directory(directory_));
  spares_.push_back(std::move(segment));
  return {};
}

int SegmentSupply::idle_count() const {
  return static_cast<int>(spares_.size()) + (prepared_ ? 1 : 0);
}

std::uint64_t SegmentSupply::idle_bytes() const {
  std::lock_guard lock(mutex_);
  std::uint64_t bytes = prepared_ ? prepared_->size : 0;
  for (const auto& spare : spares_) bytes += spare->size;
  return bytes;
}

}  // namespace offprint::journal
