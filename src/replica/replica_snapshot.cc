#include <algorithm>

#include <fmt/format.h>

#include "base/assert.h"
#include "ltx/checksum.h"
#include "replica/replica_file.h"

// The parts of ReplicaFile that look at the whole file: hashes, verification, snapshots,
// replacement by a new file.
namespace offprint::replica {
namespace {

// In page 1: what SQLite cannot change in a file that is in use.
constexpr std::size_t kReservedOffset = 20;
constexpr std::size_t kEncodingOffset = 56;

std::uint32_t encoding_of(ByteView page_one) {
  return load_be<std::uint32_t>(page_one.data() + kEncodingOffset);
}

std::string folder_of(const std::string& path) {
  std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Result<PageHashes> ReplicaFile::page_hashes() {
  PageHashes result;
  scanned_.reset();
  if (applier_ == nullptr) return result;
  result.page_size = page_size_;
  Checksum rolling = ltx::kEmptyDatabase;
  Bytes image(page_size_);
  OFFPRINT_TRY_ASSIGN(std::uint32_t count, applier_->page_count());
  if (known_ && point_.page_count == 0) count = 0;
  PageNo lock_page = ltx::lock_page(page_size_);
  result.hashes.reserve(count);
  for (std::uint64_t page = 1; page <= count; ++page) {
    PageNo number = static_cast<PageNo>(page);
    if (number == lock_page) {
      result.hashes.push_back(0);
      continue;
    }
    OFFPRINT_TRY_ASSIGN(bool found, read_page(number, image));
    if (!found)
      return fail(Code::kBusy, fmt::format("{} is being changed by another program", path_));
    Checksum checksum = ltx::page_checksum(number, image);
    result.hashes.push_back(checksum.value);
    rolling = ltx::toggle(rolling, checksum);
  }
  scanned_ = rolling;
  return result;
}

Result<bool> ReplicaFile::verify() {
  if (!known_) return false;
  OFFPRINT_TRY(page_hashes());
  if (*scanned_ == point_.position.checksum) return true;
  distrust(fmt::format("the file's content has checksum {:016x}, the primary's is {:016x}",
                       scanned_->value, point_.position.checksum.value));
  return false;
}

Result<> ReplicaFile::begin_snapshot(const SnapshotBegin& begin) {
  incoming_.reset();
  if (begin.difference && (!scanned_ || begin.page_size != page_size_)) {
    return fail(Code::kCorrupt, "differences that were not asked for");
  }
  OFFPRINT_TRY_ASSIGN(bool exists, options_.files->exists(path_));
  Incoming incoming{begin, std::nullopt, std::nullopt};
  if (!exists) {
    applier_.reset();
    OFFPRINT_TRY_ASSIGN(incoming.build,
                        DatabaseBuilder::create(*options_.files, new_path(), begin.page_size));
  } else {
    if (applier_ == nullptr) {  // a blank file that somebody made before us: it is filled in place
      page_size_ = begin.page_size;
      Result<> opened = open_applier();
      if (!opened && opened.error().code() != Code::kForbidden) return opened;
    }
    OFFPRINT_TRY_ASSIGN(Spool spool, Spool::create(*options_.files, path_ + "-offprint-spool"));
    incoming.spool.emplace(std::move(spool), begin.page_size);
  }
  incoming_ = std::move(incoming);
  return {};
}

Result<> ReplicaFile::put_snapshot_page(PageNo page, ByteView image) {
  OFFPRINT_ASSERT(incoming_);
  if (page > incoming_->begin.page_count || page == ltx::lock_page(incoming_->begin.page_size)) {
    return fail(Code::kCorrupt, fmt::format("page {} in a snapshot of {} pages", page,
                                            incoming_->begin.page_count));
  }
  return incoming_->build ? incoming_->build->put(page, image) : incoming_->spool->put(page, image);
}

Result<> ReplicaFile::finish_snapshot() {
  OFFPRINT_ASSERT(incoming_);
  Incoming incoming = *std::move(incoming_);
  incoming_.reset();
  const SnapshotBegin& begin = incoming.begin;
  if (incoming.build) {
    OFFPRINT_TRY(incoming.build->finish(begin.page_count, begin.position.checksum));
    return put_in_place(*incoming.build, begin);
  }
  Target target{begin.position, begin.page_count, true, !begin.difference, Checksum{}};
  if (begin.difference) target.start = *scanned_;
  PageNo lock_page = ltx::lock_page(begin.page_size);
  std::uint32_t needed = begin.page_count - (begin.page_count >= lock_page ? 1 : 0);
  if (target.whole && incoming.spool->count() != needed) {
    return fail(Code::kCorrupt, fmt::format("the snapshot of {} pages lacks {} of them",
                                            begin.page_count, needed - incoming.spool->count()));
  }
  bool other_size = applier_ == nullptr || begin.page_size != page_size_;
  if (!other_size) {
    OFFPRINT_TRY_ASSIGN(other_size, must_replace(target, *incoming.spool));
  }
  if (!other_size) return commit(target, *incoming.spool);
  return replace(begin, *incoming.spool);
}

// Whether the new content cannot go into FILE as it is.
Result<bool> ReplicaFile::must_replace(const Target& target, PageInput& input) {
  if (target.page_count == 0) return true;
  OFFPRINT_TRY(input.rewind());
  OFFPRINT_TRY_ASSIGN(std::optional<InputPage> first, input.next());
  if (!first || first->number != 1) return false;
  Bytes old(page_size_);
  OFFPRINT_TRY_ASSIGN(bool found, applier_->read(1, old));
  if (!found) return false;
  if (old[kReservedOffset] != first->image[kReservedOffset]) return true;
  OFFPRINT_TRY_ASSIGN(std::uint32_t count, applier_->page_count());
  bool other_encoding = std::max(1u, encoding_of(old)) != std::max(1u, encoding_of(first->image));
  return other_encoding && (encoding_of(old) != 0 || target.page_count < count);
}

// Makes a new file of the pages given and, for those that are not, FILE's; then puts it in FILE's
// place.
Result<> ReplicaFile::replace(const SnapshotBegin& begin, PageInput& input) {
  OFFPRINT_TRY_ASSIGN(DatabaseBuilder builder,
                      DatabaseBuilder::create(*options_.files, new_path(), begin.page_size));
  OFFPRINT_TRY(input.rewind());
  OFFPRINT_TRY_ASSIGN(std::optional<InputPage> page, input.next());
  Bytes kept(begin.page_size);
  for (std::uint64_t i = 1; i <= begin.page_count; ++i) {
    PageNo number = static_cast<PageNo>(i);
    if (number == ltx::lock_page(begin.page_size)) continue;
    if (page && page->number == number) {
      OFFPRINT_TRY(builder.put(number, page->image));
      OFFPRINT_TRY_ASSIGN(page, input.next());
      continue;
    }
    bool found = false;
    if (begin.difference) {
      OFFPRINT_TRY_ASSIGN(found, read_page(number, kept));
    }
    if (!found) return fail(Code::kCorrupt, fmt::format("the snapshot lacks page {}", number));
    OFFPRINT_TRY(builder.put(number, kept));
  }
  OFFPRINT_TRY(builder.finish(begin.page_count, begin.position.checksum));
  if (applier_ != nullptr) {
    // Without its -wal, which goes, the old file must not be an older one.
    OFFPRINT_TRY_ASSIGN(sqlite::CheckpointResult moved,
                        applier_->checkpoint(SQLITE_CHECKPOINT_FULL));
    if (moved.busy || moved.done_frames != moved.wal_frames) {
      return fail(
          Code::kBusy,
          fmt::format("{} must be replaced, but a program holds an old snapshot of it", path_));
    }
  }
  return put_in_place(builder, begin);
}

// The note first: it is the built file's. A crash before the rename is completed by
// finish_replacement().
Result<> ReplicaFile::put_in_place(DatabaseBuilder& builder, const SnapshotBegin& begin) {
  FileSystem& files = *options_.files;
  applier_.reset();  // the last one to close moves FILE-wal into FILE, so that its removal takes
                     // nothing away
  Note note;
  note.page_size = begin.page_size;
  note.after.position = begin.position;
  note.after.page_count = begin.page_count;
  note.after.header = builder.header();
  note.after.cookie_highest = load_be<std::uint32_t>(builder.header().data() + 40);
  note.before = note.after;
  note.probe = builder.probe();
  note.boot_id = current_boot_id();
  note.source = options_.source;
  known_ = false;
  OFFPRINT_TRY(note_->write_durably(note));
  never_built_ = false;
  for (const char* rest : {"-wal", "-shm"}) OFFPRINT_TRY(files.remove(path_ + rest));
  OFFPRINT_TRY(files.rename(new_path(), path_));
  OFFPRINT_TRY(files.sync_directory(folder_of(path_)));
  page_size_ = begin.page_size;
  point_ = note.after;
  waiting_frames_ = 0;
  OFFPRINT_TRY(open_applier());
  known_ = true;
  doubt_.clear();
  return {};
}

Result<> ReplicaFile::finish_replacement(const Note& note) {
  FileSystem& files = *options_.files;
  OFFPRINT_TRY_ASSIGN(bool exists, files.exists(new_path()));
  if (!exists) return {};
  bool whole = note.probe.page == 1 && !note.probe.existed;
  if (whole) {
    OFFPRINT_TRY_ASSIGN(auto file, files.open(new_path(), FileSystem::Mode::kRead));
    Bytes image(note.page_size);
    OFFPRINT_TRY_ASSIGN(std::size_t got, file->read_at(0, image));
    mask_probe(1, image);
    OFFPRINT_TRY_ASSIGN(std::uint64_t size, file->size());
    whole = got == image.size() && ltx::page_checksum(1, image) == note.probe.after &&
            size == std::uint64_t{note.after.page_count} * note.page_size;
  }
  if (!whole) return files.remove(new_path());
  for (const char* rest : {"-wal", "-shm"}) OFFPRINT_TRY(files.remove(path_ + rest));
  OFFPRINT_TRY(files.rename(new_path(), path_));
  return files.sync_directory(folder_of(path_));
}

}  // namespace offprint::replica
