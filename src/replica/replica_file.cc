#include "replica/replica_file.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/assert.h"
#include "ltx/checksum.h"
#include "ltx/follows.h"
#include "sqlite/connection.h"

namespace offprint::replica {
namespace {

// Applied pages that start a checkpoint, and how far vain tries may push it off.
constexpr std::uint64_t kCheckpointFrames = 1000;
constexpr std::uint64_t kCheckpointFramesMax = 64 * kCheckpointFrames;

// FILE holds nothing that anybody could miss: no bytes, or an SQLite database without tables.
bool is_blank(const std::string& path) {
  sqlite::Connection::Options options;
  options.read_only = true;
  Result<sqlite::Connection> db = sqlite::Connection::open(path, options);
  if (!db) return false;
  Result<std::int64_t> pages = db->query_int("PRAGMA page_count");
  Result<std::int64_t> tables = db->query_int("SELECT count(*) FROM sqlite_schema");
  return pages && tables && *pages <= 1 && *tables == 0;
}

bool same_boot(const Note& note) {
  std::array<std::uint8_t, 16> now = current_boot_id();
  return note.clean || now == std::array<std::uint8_t, 16>{} || now == note.boot_id;
}

}  // namespace

ReplicaFile::ReplicaFile(std::string path, const Options& options)
    : path_(std::move(path)), options_(options), checkpoint_at_(kCheckpointFrames) {}

// A first start that came to nothing leaves nothing.
ReplicaFile::~ReplicaFile() {
  if (note_ != nullptr && never_built_ && applier_ == nullptr)
    (void)options_.files->remove(path_ + "-offprint");
}

Result<std::unique_ptr<ReplicaFile>> ReplicaFile::open(const std::string& path,
                                                       const Options& options) {
  if (options.source.size() > kSourceMax) return fail(Code::kInvalid, "the URL is too long");
  std::unique_ptr<ReplicaFile> replica(new ReplicaFile(path, options));
  OFFPRINT_TRY(replica->take_up());
  return replica;
}

Result<> ReplicaFile::take_up() {
  FileSystem& files = *options_.files;
  std::string note_path = path_ + "-offprint";
  OFFPRINT_TRY_ASSIGN(bool exists, files.exists(path_));
  Result<std::unique_ptr<PositionFile>> note = PositionFile::open(files, note_path);
  bool noted = static_cast<bool>(note);
  if (!note && note.error().code() != Code::kNotFound) return fail(note.error());
  bool never_built = !noted || ((*note)->latest().after.position.lineage == Lineage{} &&
                                (*note)->latest().before.position.lineage == Lineage{});
  if (exists && never_built && !is_blank(path_)) {
    return fail(Code::kForbidden, fmt::format("{} exists and was not made by offprint follow ({} "
                                              "knows nothing of it): give another name, "
                                              "or remove it",
                                              path_, note_path));
  }
  if (!noted) {
    Note fresh;
    fresh.page_size = 512;
    fresh.source = options_.source;
    note = PositionFile::create(files, note_path, fresh);
    if (!note) return fail(note.error());
  }
  note_ = *std::move(note);
  Note latest = note_->latest();
  page_size_ = latest.page_size;
  OFFPRINT_TRY(finish_replacement(latest));
  never_built_ = never_built;
  if (never_built) {
    doubt_ = "it has no content yet";
    return {};
  }
  noted_source_ = latest.source;
  noted_lineage_ = latest.after.position.lineage;
  OFFPRINT_TRY_ASSIGN(exists, files.exists(path_));
  if (!exists) {
    doubt_ = "the file was removed";
    return {};
  }
  OFFPRINT_TRY(open_applier());
  OFFPRINT_TRY(find_position(latest));
  return forget_clean_mark(std::move(latest));
}

Result<> ReplicaFile::open_applier() {
  sqlite::PageApplier::Options options;
  options.busy_timeout_ms = options_.busy_timeout_ms;
  Result<std::unique_ptr<sqlite::PageApplier>> applier =
      sqlite::PageApplier::open(path_, page_size_, options);
  if (applier) {
    applier_ = *std::move(applier);
    return {};
  }
  Code code = applier.error().code();
  bool foreign = code == Code::kInvalid || code == Code::kCorrupt;
  if (!foreign) return fail(applier.error());
  return fail(Code::kForbidden, fmt::format("{} is not the file that {}-offprint tells of: {}",
                                            path_, path_, applier.error().message()));
}

// Which of the note's two states FILE is in: docs/format/replica-position.md, "How it is used".
Result<> ReplicaFile::find_position(const Note& note) {
  point_ = note.after;
  point_.cookie_highest = std::max(note.before.cookie_highest, note.after.cookie_highest);
  Bytes image(page_size_);
  OFFPRINT_TRY_ASSIGN(bool first, applier_->read(1, image));
  if (first && !same_boot(note)) {
    point_.cookie_highest = std::max(
        point_.cookie_highest, load_be<std::uint32_t>(image.data() + sqlite::kSchemaCookieOffset));
  }
  if (!same_boot(note)) {
    doubt_ = "the machine was restarted without an orderly end of the follower";
    return {};
  }
  bool after = true;
  if (note.probe.page != 0) {
    OFFPRINT_TRY_ASSIGN(bool there, applier_->read(note.probe.page, image));
    mask_probe(note.probe.page, image);
    Checksum checksum = there ? ltx::page_checksum(note.probe.page, image) : Checksum{};
    after = there && checksum == note.probe.after;
    bool before = there ? note.probe.existed && checksum == note.probe.before : !note.probe.existed;
    if (!after && !before) {
      doubt_ = "it was changed, or copied without its -wal";
      return {};
    }
  }
  if (!after) point_ = note.before;
  OFFPRINT_TRY_ASSIGN(std::uint32_t count, applier_->page_count());
  known_ = point_.position.lineage != Lineage{};
  if (!known_) {
    doubt_ = "a resync was not finished";
  } else if (count != std::max(point_.page_count, 1u)) {
    distrust(fmt::format("it has {} pages, not {}", count, point_.page_count));
  }
  return {};
}

// A clean note counts over a restart of the machine; from the first apply on it must not.
Result<> ReplicaFile::forget_clean_mark(Note note) {
  if (!note.clean) return {};
  note.clean = false;
  note.boot_id = current_boot_id();
  return note_->write_durably(std::move(note));
}

std::optional<Position> ReplicaFile::position() const {
  if (!known_) return std::nullopt;
  return point_.position;
}

void ReplicaFile::distrust(const std::string& why) {
  known_ = false;
  doubt_ = why;
}

Result<> ReplicaFile::apply(TransactionBatch& batch) {
  OFFPRINT_ASSERT(known_ && applier_ != nullptr && batch.start() == point_.position);
  if (batch.empty()) return {};
  if (batch.page_size() != page_size_) {
    distrust("the page size changed");
    return fail(Code::kConflict, doubt_);
  }
  Target target{batch.position(),         batch.page_count(),  false, false,
                point_.position.checksum, batch.cookie_moved()};
  return commit(target, batch.pages());
}

Result<> ReplicaFile::apply(Epoch epoch, LtxPages& transaction) {
  OFFPRINT_ASSERT(known_ && applier_ != nullptr);
  const ltx::Header& header = transaction.header();
  Result<> follows = ltx::check_follows(point_.position, epoch, header);
  if (!follows && follows.error().code() == Code::kConflict) distrust(follows.error().message());
  OFFPRINT_TRY(std::move(follows));
  if (header.page_size != page_size_) {
    distrust("the page size changed");
    return fail(Code::kConflict, doubt_);
  }
  Target target{point_.position, header.page_count, false, false, point_.position.checksum, false};
  target.position.epoch = epoch;
  target.position.txid = header.max_txid;
  target.position.checksum = transaction.trailer().post_apply;
  return commit(target, transaction);
}

Result<> ReplicaFile::commit(const Target& target, PageInput& input) {
  OFFPRINT_TRY(applier_->begin());
  scanned_.reset();
  Result<> done = commit_open(target, input);
  applier_->rollback();  // nothing to do when it committed
  page_one_.clear();
  if (!done && done.error().code() == Code::kConflict) distrust(done.error().message());
  return done;
}

Note ReplicaFile::begin_note(const Target& target) const {
  Note note;
  note.page_size = page_size_;
  note.before = point_;
  if (!known_) note.before.position.lineage = Lineage{};
  note.after = point_;
  note.after.position = target.position;
  note.after.page_count = target.page_count;
  note.boot_id = current_boot_id();
  note.source = options_.source;
  return note;
}

Result<> ReplicaFile::commit_open(const Target& target, PageInput& input) {
  OFFPRINT_TRY_ASSIGN(physical_count_, applier_->page_count());
  // SQLite makes a first page of its own in an empty file.
  old_count_ = known_ && point_.page_count == 0 ? 0 : physical_count_;
  Note note = begin_note(target);
  OFFPRINT_TRY(find_probe(target, input, note));
  bool differs = note.probe.page != 0;
  if (!differs && old_count_ != target.page_count) {
    return fail(Code::kConflict,
                fmt::format("the size goes from {} to {} pages, but no page differs", old_count_,
                            target.page_count));
  }
  if (!differs) {
    // FILE has this content already. Nothing to write; the checksum is compared all the same.
    note.after.cookie_offset = point_.cookie_offset;
    note.after.cookie_highest = point_.cookie_highest;
    OFFPRINT_TRY(write_pages(target, input, differs, note));
    OFFPRINT_TRY(note_->write(note));
  } else {
    OFFPRINT_TRY(note_->write(note));
    OFFPRINT_TRY(write_pages(target, input, differs, note));
    OFFPRINT_TRY(applier_->commit(target.page_count));
  }
  point_ = note.after;
  known_ = true;
  doubt_.clear();
  return {};
}

// Finds the page that will tell the states apart, and takes page 1's new image with the cookie that
// readers shall see.
Result<> ReplicaFile::find_probe(const Target& target, PageInput& input, Note& note) {
  Bytes old(page_size_);
  Bytes masked(page_size_);
  page_one_.clear();
  OFFPRINT_TRY(input.rewind());
  for (;;) {
    OFFPRINT_TRY_ASSIGN(std::optional<InputPage> page, input.next());
    if (!page) break;
    if (page->number > target.page_count || page->image.size() != page_size_) {
      return fail(Code::kCorrupt, fmt::format("page {} in a database of {} pages", page->number,
                                              target.page_count));
    }
    if (page->number == 1) {
      page_one_.assign(page->image.begin(), page->image.end());
      std::copy_n(page_one_.begin(), note.after.header.size(), note.after.header.begin());
    }
    OFFPRINT_TRY_ASSIGN(bool existed, applier_->read(page->number, old));
    masked.assign(page->image.begin(), page->image.end());
    mask_probe(page->number, masked);
    mask_probe(page->number, old);
    if (existed && masked == old) continue;
    note.probe.page = page->number;
    note.probe.existed = existed;
    if (existed) note.probe.before = ltx::page_checksum(page->number, old);
    note.probe.after = ltx::page_checksum(page->number, masked);
    break;
  }
  bool replaced = target.resync && note.probe.page != 0;
  if (replaced && page_one_.empty()) {
    OFFPRINT_TRY_ASSIGN(bool found, applier_->read(1, old));
    if (!found) return fail(Code::kCorrupt, "a snapshot without page 1");
    page_one_ = std::move(old);
    restore_header(page_one_);
  }
  if (!page_one_.empty()) choose_cookie(target, note);
  return {};
}

// docs/format/replica-position.md, "Schema cookie".
void ReplicaFile::choose_cookie(const Target& target, Note& note) const {
  std::uint32_t sent = load_be<std::uint32_t>(page_one_.data() + sqlite::kSchemaCookieOffset);
  std::uint32_t sent_before =
      load_be<std::uint32_t>(point_.header.data() + sqlite::kSchemaCookieOffset);
  // Without a change of ours, FILE shows cookie_highest.
  std::uint32_t shown = sent + point_.cookie_offset;
  bool moved = sent != sent_before || target.cookie_moved;
  bool may_be_known = shown < point_.cookie_highest || (moved && shown == point_.cookie_highest);
  if (target.resync || may_be_known) {
    note.after.cookie_highest = point_.cookie_highest + 1;
    note.after.cookie_offset = note.after.cookie_highest - sent;
  } else {
    note.after.cookie_highest = shown;
  }
}

// Writes what differs (when `differs`), and proves by the rolling checksum that FILE will be what
// the primary has.
Result<> ReplicaFile::write_pages(const Target& target, PageInput& input, bool differs,
                                  const Note& note) {
  Checksum rolling = target.whole ? ltx::kEmptyDatabase : target.start;
  Bytes old(page_size_);
  auto take_away = [&](PageNo page) {
    if (page == 1) restore_header(old);
    if (!target.whole) rolling = ltx::toggle(rolling, ltx::page_checksum(page, old));
  };
  OFFPRINT_TRY(input.rewind());
  for (;;) {
    OFFPRINT_TRY_ASSIGN(std::optional<InputPage> page, input.next());
    if (!page) break;
    OFFPRINT_TRY_ASSIGN(bool existed, applier_->read(page->number, old));
    bool same =
        existed && page->number != 1 && std::equal(old.begin(), old.end(), page->image.begin());
    if (page->number <= old_count_) take_away(page->number);
    rolling = ltx::toggle(rolling, ltx::page_checksum(page->number, page->image));
    if (!differs || same || page->number == 1) continue;
    OFFPRINT_TRY(applier_->write(page->number, page->image));
    ++waiting_frames_;
  }
  for (std::uint64_t page = std::uint64_t{target.page_count} + 1; page <= old_count_; ++page) {
    PageNo number = static_cast<PageNo>(page);
    if (target.whole || number == ltx::lock_page(page_size_)) continue;
    OFFPRINT_TRY_ASSIGN(bool found, applier_->read(number, old));
    if (found) take_away(number);
  }
  if (rolling != target.position.checksum) {
    return fail(Code::kConflict, fmt::format("the copy diverged: transaction {} would make its "
                                             "checksum {:016x}, the primary has {:016x}",
                                             target.position.txid.value, rolling.value,
                                             target.position.checksum.value));
  }
  if (differs && !page_one_.empty()) {
    Bytes image = page_one_;
    std::uint32_t sent = load_be<std::uint32_t>(image.data() + sqlite::kSchemaCookieOffset);
    store_be<std::uint32_t>(image.data() + sqlite::kSchemaCookieOffset,
                            sent + note.after.cookie_offset);
    OFFPRINT_TRY(applier_->write(1, image));
    ++waiting_frames_;
  }
  return {};
}

void ReplicaFile::restore_header(std::span<std::uint8_t> page_one) const {
  std::copy(point_.header.begin(), point_.header.end(), page_one.begin());
}

Result<bool> ReplicaFile::read_page(PageNo page, std::span<std::uint8_t> to) {
  OFFPRINT_TRY_ASSIGN(bool found, applier_->read(page, to));
  if (found && page == 1) restore_header(to);
  return found;
}

Result<> ReplicaFile::checkpoint(bool idle) {
  if (applier_ == nullptr || waiting_frames_ == 0 || (!idle && waiting_frames_ < checkpoint_at_))
    return {};
  OFFPRINT_TRY_ASSIGN(sqlite::CheckpointResult result,
                      applier_->checkpoint(SQLITE_CHECKPOINT_PASSIVE));
  pinned_frames_ = result.wal_frames - std::min(result.done_frames, result.wal_frames);
  if (pinned_frames_ == 0 && !result.busy) {
    waiting_frames_ = 0;
    checkpoint_at_ = kCheckpointFrames;
  } else {
    checkpoint_at_ = waiting_frames_ + std::min(waiting_frames_, kCheckpointFramesMax);
  }
  return {};
}

Result<> ReplicaFile::close() {
  if (applier_ == nullptr) return {};
  OFFPRINT_TRY_ASSIGN(sqlite::CheckpointResult result,
                      applier_->checkpoint(SQLITE_CHECKPOINT_PASSIVE));
  bool moved = !result.busy && result.done_frames == result.wal_frames;
  applier_.reset();
  if (!known_ || !moved) return {};
  Note note = note_->latest();
  note.before = point_;
  note.after = point_;
  note.probe = Probe{};
  note.boot_id = current_boot_id();
  note.clean = true;
  return note_->write_durably(std::move(note));
}

}  // namespace offprint::replica
