#include "tail/source_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "sqlite/capture_wal.h"
#include "sqlite/read_snapshot.h"

namespace offprint::tail {
namespace {

constexpr char kMain[] = "main";
constexpr std::string_view kMagic = "SQLite format 3";  // and a zero byte
constexpr std::size_t kHeadSize = 100;
constexpr std::size_t kPageSizeOffset = 16;
constexpr std::size_t kReadVersionOffset = 19;
constexpr std::size_t kWalIndexRegion = 32 << 10;  // mapped at once, walformat.html
constexpr int kBusyTimeoutMs = 100;
constexpr std::chrono::microseconds kLockLook{20};
constexpr int kCheckpointLock = 1;  // of the wal-index's locks, walformat.html
// In the wal-index, behind both copies of its header: nBackfill of walformat.html.
constexpr std::size_t kBackfillOffset = 2 * sqlite::kWalIndexHeaderSize;

sqlite3_file* file_of(sqlite::Connection& connection, int which) {
  sqlite3_file* file = nullptr;
  sqlite3_file_control(connection.handle(), kMain, which, &file);
  return file == nullptr || file->pMethods == nullptr ? nullptr : file;
}

// xRead, which fills what it lacks with zeros; the size tells how much there was.
Result<std::size_t> read_file_at(sqlite3_file* file, std::uint64_t offset,
                                 std::span<std::uint8_t> to) {
  sqlite3_int64 size = 0;
  int code = file->pMethods->xFileSize(file, &size);
  if (code != SQLITE_OK) return fail(sqlite::sqlite_error(code));
  std::uint64_t there =
      static_cast<std::uint64_t>(size) > offset ? static_cast<std::uint64_t>(size) - offset : 0;
  to = to.first(static_cast<std::size_t>(std::min<std::uint64_t>(there, to.size())));
  if (to.empty()) return std::size_t{0};
  code = file->pMethods->xRead(file, to.data(), static_cast<int>(to.size()),
                               static_cast<sqlite3_int64>(offset));
  if (code == SQLITE_IOERR_SHORT_READ) return std::size_t{0};  // cut meanwhile
  if (code != SQLITE_OK) return fail(sqlite::sqlite_error(code));
  return to.size();
}

}  // namespace

Result<std::unique_ptr<SourceFile>> SourceFile::open(const std::string& path) {
  sqlite::Connection::Options options;
  options.busy_timeout_ms = kBusyTimeoutMs;
  OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(path, options));
  sqlite3* db = connection.handle();
  sqlite3_db_config(db, SQLITE_DBCONFIG_LOOKASIDE, nullptr, 0, 0);  // there may be thousands
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_wal_autocheckpoint(db, 0);
  if (sqlite3_db_readonly(db, kMain) != 0) {
    return fail(Code::kForbidden,
                fmt::format("{} can only be read: to follow it, Offprint takes SQLite's locks and "
                            "checkpoints, so it needs the right to write the file and its folder",
                            path));
  }
  std::unique_ptr<SourceFile> source(new SourceFile(std::move(connection)));
  OFFPRINT_TRY(source->look_at_head());
  return source;
}

Result<> SourceFile::look_at_head() {
  sqlite3_file* file = file_of(connection_, SQLITE_FCNTL_FILE_POINTER);
  if (file == nullptr) return fail(Code::kIo, "SQLite has no file");
  std::uint8_t head[kHeadSize] = {};
  OFFPRINT_TRY_ASSIGN(std::size_t size, read_file_at(file, 0, head));
  kind_ = FileKind::kEmpty;
  if (size == 0) return {};
  kind_ = FileKind::kForeign;
  if (size < kHeadSize || std::memcmp(head, kMagic.data(), kMagic.size() + 1) != 0) return {};
  page_size_ = load_be<std::uint16_t>(head + kPageSizeOffset);
  if (page_size_ == 1) page_size_ = 65536;
  kind_ = head[kReadVersionOffset] == 2 ? FileKind::kWal : FileKind::kRollback;
  return {};
}

Result<> SourceFile::set_wal() {
  OFFPRINT_TRY_ASSIGN(auto mode, connection_.query_text("PRAGMA journal_mode=WAL"));
  if (mode != "wal") return fail(Code::kBusy, "it could not be turned into WAL mode");
  return look_at_head();
}

Result<> SourceFile::slim_down() {
  // With fewer than three pages SQLite does not take room for twenty at once; the first pragma
  // reads the schema, the second forgets it.
  OFFPRINT_TRY(connection_.execute("PRAGMA cache_size=2; PRAGMA writable_schema=RESET"));
  sqlite3_db_release_memory(connection_.handle());
  return {};
}

void SourceFile::rest() const {
  // A shared mapping of a file: what it says stays there.
  if (wal_index_ != nullptr)
    (void)::madvise(const_cast<void*>(wal_index_), kWalIndexRegion, MADV_DONTNEED);
}

// The transaction is begun by a pragma that needs no schema: what an idle file costs is the
// connection alone.
Result<> SourceFile::begin() {
  if (!begin_) {
    OFFPRINT_TRY_ASSIGN(begin_, connection_.prepare("BEGIN", SQLITE_PREPARE_PERSISTENT));
    OFFPRINT_TRY_ASSIGN(look_,
                        connection_.prepare("PRAGMA schema_version", SQLITE_PREPARE_PERSISTENT));
    OFFPRINT_TRY_ASSIGN(end_, connection_.prepare("ROLLBACK", SQLITE_PREPARE_PERSISTENT));
  }
  auto newest_before = WalPlace::read(wal_index_);
  const std::uint32_t backfilled_before = backfilled();
  OFFPRINT_TRY(begin_.run());
  reading_ = true;
  if (auto begun = look_.run(); !begun) {
    end();
    return begun;
  }
  auto snapshot = sqlite::ReadSnapshot::of(connection_);
  if (!snapshot) {
    end();
    return fail(snapshot.error());
  }
  if (wal_index_ == nullptr) wal_index_ = sqlite::map_wal_index(connection_);
  if (wal_index_ == nullptr) {
    end();
    return fail(Code::kBusy, "its wal-index is not there");
  }
  place_ = snapshot->header();
  // Else it may have the lock of those who read from the -wal.
  out_of_the_way_ =
      place_.last_frame == 0 || (newest_before && same_place(*newest_before, place_) &&
                                 backfilled_before == place_.last_frame);
  note_place();
  return {};
}

Result<> SourceFile::begin_alone() {
  // SQLite's own waiting sleeps for milliseconds, and a program that writes without a pause leaves
  // the lock alone for microseconds.
  sqlite3_busy_timeout(connection_.handle(), 0);
  const Deadline until = SteadyClock::now() + std::chrono::milliseconds(kBusyTimeoutMs);
  Result<> begun = connection_.execute("BEGIN IMMEDIATE");
  while (!begun && begun.error().code() == Code::kBusy && SteadyClock::now() < until) {
    std::this_thread::sleep_for(kLockLook);
    begun = connection_.execute("BEGIN IMMEDIATE");
  }
  sqlite3_busy_timeout(connection_.handle(), kBusyTimeoutMs);
  OFFPRINT_TRY(std::move(begun));
  reading_ = true;
  wal_index_ = sqlite::map_wal_index(connection_);
  auto newest = WalPlace::read(wal_index_);  // nobody changes it now
  if (!newest) {
    end();
    return fail(Code::kBusy, "the wal-index is being recovered");
  }
  place_ = *newest;
  out_of_the_way_ = false;
  note_place();
  return {};
}

void SourceFile::note_place() {
  // Nothing more is written to the file before this transaction ends if all is there now; a new
  // generation tells that it was so.
  auto newest = WalPlace::read(wal_index_);
  std::uint32_t after = backfilled();
  bool begun_anew = newest && !newest->same_generation(place_);
  lets_restart_ = place_.last_frame == 0 || after == place_.last_frame || begun_anew;
  page_count_.reset();
  // Without frames it is what the file says, should that have been written over.
  if (place_.last_frame != 0) page_count_ = place_.page_count;
  if (place_.page_size != 0) page_size_ = place_.page_size;
}

void SourceFile::end() {
  if (!std::exchange(reading_, false)) return;
  page_.reset();
  if (!connection_.autocommit()) (void)(end_ ? end_.run() : connection_.execute("ROLLBACK"));
}

Result<std::uint32_t> SourceFile::page_count() {
  if (!page_count_) {
    OFFPRINT_TRY_ASSIGN(auto count, connection_.query_int("PRAGMA page_count"));
    page_count_ = static_cast<std::uint32_t>(count);
  }
  return *page_count_;
}

Result<ByteView> SourceFile::page(PageNo page) {
  if (!page_) {
    OFFPRINT_TRY(connection_.execute("PRAGMA cache_size=-64"));
    OFFPRINT_TRY_ASSIGN(page_, connection_.prepare("SELECT data FROM sqlite_dbpage WHERE pgno=?1",
                                                   SQLITE_PREPARE_PERSISTENT));
  }
  page_.reset();
  page_.bind(1, page);
  OFFPRINT_TRY_ASSIGN(bool found, page_.step());
  if (!found) return fail(Code::kCorrupt, fmt::format("page {} does not exist", page));
  ByteView image = page_.column_blob(0);
  if (image.size() != page_size_) return fail(Code::kCorrupt, "a page of another size");
  return image;
}

Result<std::string> SourceFile::schema_text() { return connection_.query_text(kSchemaTextSql); }

bool SourceFile::is_newest() const {
  std::atomic_thread_fence(std::memory_order_acquire);
  auto newest = WalPlace::read(wal_index_);
  return newest && same_place(*newest, place_);
}

std::uint32_t SourceFile::backfilled() const {
  if (wal_index_ == nullptr) return 0;
  std::uint32_t value = 0;
  const auto* from = static_cast<const std::uint8_t*>(const_cast<const void*>(wal_index_));
  std::memcpy(&value, from + kBackfillOffset, sizeof value);
  return value;
}

std::uint32_t SourceFile::generations_since() const {
  auto newest = WalPlace::read(wal_index_);
  return newest ? newest->salt1 - place_.salt1 : std::numeric_limits<std::uint32_t>::max();
}

std::uint32_t SourceFile::frames() const {
  auto newest = WalPlace::read(wal_index_);
  return newest ? newest->last_frame : 0;
}

bool SourceFile::is_checkpointed() const {
  sqlite3_file* file = file_of(connection_, SQLITE_FCNTL_FILE_POINTER);
  if (file == nullptr || file->pMethods->iVersion < 2) return false;
  constexpr int kShared = SQLITE_SHM_SHARED;
  if (file->pMethods->xShmLock(file, kCheckpointLock, 1, SQLITE_SHM_LOCK | kShared) != SQLITE_OK)
    return true;
  file->pMethods->xShmLock(file, kCheckpointLock, 1, SQLITE_SHM_UNLOCK | kShared);
  return false;
}

Result<std::size_t> SourceFile::read_wal_at(std::uint64_t offset, std::span<std::uint8_t> to) {
  sqlite3_file* file = file_of(connection_, SQLITE_FCNTL_JOURNAL_POINTER);
  if (file == nullptr) return std::size_t{0};
  return read_file_at(file, offset, to);
}

Result<> SourceFile::checkpoint(int mode) {
  sqlite3* db = connection_.handle();
  sqlite3_busy_timeout(db, 0);  // writers would wait with it
  int code = sqlite3_wal_checkpoint_v2(db, kMain, mode, nullptr, nullptr);
  sqlite3_busy_timeout(db, kBusyTimeoutMs);
  if (code == SQLITE_OK || (code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED)
    return {};
  return fail(sqlite::sqlite_error(code, db).with_context("checkpoint"));
}

void SourceFile::leave_as_is() {
  sqlite3_db_config(connection_.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
}

}  // namespace offprint::tail
