// A database that takes over a file, which is its content at a position: the file waits beside its
// place, the journal decides, then it moves. Whenever that is cut short, it is there as a whole or
// not at all.
#include "database/adoption.h"

#include <algorithm>
#include <array>
#include <limits>

#include <fmt/format.h>

#include "base/random.h"
#include "database/checkpoint_record.h"
#include "database/file_snapshot.h"
#include "database/store_folder.h"

namespace offprint::database {
namespace {

constexpr std::string_view kMagic{"SQLite format 3\0", 16};

// The beginning of page 1 as it counts for checksums.
Result<std::array<std::uint8_t, 100>> read_header(File& file, const AdoptedFile& adopted) {
  std::array<std::uint8_t, 100> header{};
  OFFPRINT_TRY_ASSIGN(std::size_t got, file.read_at(0, header));
  OFFPRINT_TRY_ASSIGN(std::uint64_t size, file.size());
  if (got != header.size() || !std::ranges::equal(as_text(header).substr(0, 16), kMagic) ||
      size != std::uint64_t{adopted.page_size} * adopted.page_count)
    return fail(Code::kInvalid, adopted.path + " is no SQLite file of that size");
  return header;
}

// Answers that; the file is in WAL mode then.
Result<std::array<std::uint8_t, 100>> prepare(FileSystem& files, const AdoptedFile& adopted) {
  OFFPRINT_TRY_ASSIGN(auto file, files.open(adopted.path, FileSystem::Mode::kReadWrite));
  OFFPRINT_TRY_ASSIGN(auto header, read_header(*file, adopted));
  if (header[kWriteVersion] != 2 || header[kWriteVersion + 1] != 2) {
    OFFPRINT_TRY(mark_as_wal(*file));
    OFFPRINT_TRY(file->sync());
  }
  return header;
}

}  // namespace

Result<std::unique_ptr<Snapshot>> open_adopted(FileSystem& files, const AdoptedFile& file) {
  OFFPRINT_TRY_ASSIGN(auto opened, files.open(file.path, FileSystem::Mode::kRead));
  if (auto header = read_header(*opened, file); !header) return fail(header.error());
  return std::make_unique<FileSnapshot>(std::move(opened), file.position, file.page_size,
                                        file.page_count);
}

Result<> check_is_unwritten(HostedDatabase& database) {
  if (database.position().txid.value == 0) return {};
  return fail(Code::kConflict,
              fmt::format("database '{}' has transactions of its own", database.identity().name));
}

Epoch epoch_after_loss(Epoch known) {
  constexpr std::uint32_t kOrdinarySteps = 1'024;
  std::array<std::uint8_t, 2> random;
  fill_random(random);
  const std::uint32_t step = kOrdinarySteps + load_be<std::uint16_t>(random.data());
  const bool fits = known.value <= std::numeric_limits<std::uint32_t>::max() - step;
  return Epoch{known.value + (fits ? step : 1)};
}

Result<> adopt_into(Catalog& catalog, HostedDatabase& database, const AdoptedFile& file) {
  OFFPRINT_TRY(check_is_unwritten(database));
  OFFPRINT_TRY(catalog.set_restored(database.identity().id, file.position.bookmark()));
  if (file.page_count == 0) {
    database.move_unwritten(file.position);
  } else {
    OFFPRINT_TRY(database.adopt(file));
  }
  database.add_end({file.position.epoch, file.position.txid});
  return {};
}

Result<> restore_catalog(const StoreOptions& options, HostedDatabase& catalog) {
  if (!options.restore_catalog || catalog.position().txid.value != 0) return {};
  OFFPRINT_TRY_ASSIGN(auto file, options.restore_catalog());
  return file ? catalog.adopt(*file) : Result<>();
}

void HostedDatabase::add_end(const EpochEnd& end) {
  std::lock_guard lock(mutex_);
  ends_.push_back(end);
}

void HostedDatabase::set_ends(std::vector<EpochEnd> ends) {
  std::lock_guard lock(mutex_);
  ends_ = std::move(ends);
}

bool HostedDatabase::is_of_this_history(const Bookmark& bookmark) const {
  return bookmark.lineage == state_.position.lineage &&
         std::ranges::none_of(ends_, [&](const EpochEnd& end) {
           return bookmark.epoch < end.epoch && bookmark.txid > end.txid;
         });
}

Result<> HostedDatabase::adopt(const AdoptedFile& file) {
  Result<> result = fail(Code::kUnavailable, "not run");
  run_task_and_wait([&] { result = adopt_at_turn(file); });
  return result;
}

Result<> HostedDatabase::adopt_at_turn(const AdoptedFile& file) {
  DatabaseState state;
  {
    std::lock_guard lock(mutex_);
    if (refused_) return fail(*refused_);
    if (state_.position.txid.value != 0)
      return fail(Code::kConflict, "the database was written meanwhile");
    state = state_;
  }
  FileSystem& files = *environment_.options.files;
  OFFPRINT_TRY_ASSIGN(state.header, prepare(files, file));
  state.position = file.position;
  state.page_size = file.page_size;
  state.page_count = file.page_count;
  state.timestamp_ms = file.timestamp_ms;
  close_files();
  const std::string waiting = identity_.path + kAdoptedSuffix;
  OFFPRINT_TRY(files.rename(file.path, waiting));
  OFFPRINT_TRY(files.sync_directory(waiting.substr(0, waiting.rfind('/'))));
  const auto fingerprint = FileFingerprint::of(waiting);
  auto location = environment_.journal->commit(
      checkpoint_record(identity_.id, state, state.position.txid, fingerprint));
  if (!location && location.error().code() == Code::kIo) environment_.fatal(location.error());
  if (!location) return fail(location.error());
  Result<> placed = finish_adoption(files, identity_.path);
  {
    std::lock_guard lock(mutex_);
    state_ = state;
    state_lsn_ = location->lsn;
    checkpointed_ = state.position.txid;
    closed_as_ = fingerprint;
    // It is decided: the next start puts the file where it belongs.
    if (!placed) refused_ = placed.error();
  }
  became_visible();
  return placed;
}

}  // namespace offprint::database
