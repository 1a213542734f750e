#include "sqlite/page_apply.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/clock.h"
#include "sqlite/connection.h"

namespace offprint::sqlite {
namespace {

// SQLite keeps its lock bytes here; the page that holds them is never used (fileformat2.html, "The
// Lock-Byte Page").
constexpr std::uint32_t kLockByteOffset = 0x40000000;
// Places in page 1 (fileformat2.html, "The Database Header").
constexpr std::size_t kWriteVersionOffset = 18;
constexpr std::size_t kReadVersionOffset = 19;
constexpr std::size_t kEncodingOffset = 56;
// A -wal that a large transaction made longer is cut back to this when it starts from its beginning
// again.
constexpr std::int64_t kWalSizeMax = 64 << 20;
// Pause between tries where SQLite does not call its busy handler.
constexpr std::chrono::milliseconds kBusyPause{5};

// Text encodings as page 1 stores them. 0: no table was ever made, SQLite takes it as UTF-8.
constexpr std::uint32_t kUtf8 = 1;
constexpr std::array<const char*, 4> kSetEncoding = {
    nullptr, "PRAGMA encoding='UTF-8'", "PRAGMA encoding='UTF-16le'", "PRAGMA encoding='UTF-16be'"};

bool is_busy(const Error& error) {
  int primary = error.sqlite_code() & 0xff;
  return error.code() == Code::kBusy || primary == SQLITE_BUSY || primary == SQLITE_LOCKED ||
         primary == SQLITE_PROTOCOL;
}

// Calls `attempt` until it answers something else than busy, for at most `timeout_ms`.
template <class Attempt>
Result<> retry_busy(int timeout_ms, const Attempt& attempt) {
  Deadline deadline = SteadyClock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    Result<> result = attempt();
    if (result || !is_busy(result.error()) || SteadyClock::now() >= deadline) return result;
    std::this_thread::sleep_for(kBusyPause);
  }
}

// SQLite's own busy handler sleeps up to 100 ms at a time: too long for a copy that follows within
// a millisecond.
int nap(void* timeout_ms, int calls) {
  if (calls >= *static_cast<const int*>(timeout_ms)) return 0;
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return 1;
}

// COMMIT asks how many free pages it shall move: none, for the images are the primary's and already
// complete.
unsigned move_no_pages(void*, const char*, unsigned, unsigned, unsigned) { return 0; }

class PageApplierImpl final : public PageApplier {
 public:
  PageApplierImpl(std::string path, std::uint32_t page_size, const Options& options)
      : path_(std::move(path)),
        page_size_(page_size),
        options_(options),
        busy_timeout_ms_(options.busy_timeout_ms) {}
  ~PageApplierImpl() override { rollback(); }

  Result<> connect();

  Result<> begin() override;
  Result<std::uint32_t> page_count() override;
  Result<bool> read(std::uint32_t page, std::span<std::uint8_t> to) override;
  Result<> write(std::uint32_t page, ByteView image) override;
  Result<> commit(std::uint32_t page_count) override;
  void rollback() override;
  Result<CheckpointResult> checkpoint(int mode) override;

 private:
  Result<> attach(std::uint32_t encoding);
  Result<> prepare_file();
  Result<> refresh();
  Result<> insert(std::uint32_t page, std::optional<ByteView> image);
  Result<> write_page_one_and_size(std::uint32_t page_count);
  std::uint32_t lock_page() const { return kLockByteOffset / page_size_ + 1; }
  // Ends the transaction after a failure and hands the failure on.
  std::unexpected<Error> abandon(Error error);

  // Constant after construction.
  const std::string path_;
  const std::uint32_t page_size_;
  const Options options_;
  int busy_timeout_ms_;  // for the busy handler, which wants an address

  std::optional<Connection> db_;  // declared before the statements: closed after them
  Statement read_;
  Statement insert_;
  Statement count_;
  std::uint32_t encoding_ = kUtf8;  // of the file
  bool stale_ =
      false;  // the connection has another encoding than the file: connect again before use

  // Of the open transaction.
  bool open_ = false;
  std::uint32_t old_count_ = 0;
  std::uint32_t highest_ = 0;
  Bytes page_one_;  // its new image, empty: unchanged
};

Result<> PageApplierImpl::attach(std::uint32_t encoding) {
  read_ = {};
  insert_ = {};
  count_ = {};
  db_.reset();
  Connection::Options options;
  options.create = true;
  options.vfs = options_.vfs;
  OFFPRINT_TRY_ASSIGN(Connection db, Connection::open(":memory:", options));
  sqlite3_busy_handler(db.handle(), nap, &busy_timeout_ms_);
  OFFPRINT_TRY(db.execute(kSetEncoding[encoding]));
  sqlite3_db_config(db.handle(), SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, nullptr);
  sqlite3_autovacuum_pages(db.handle(), move_no_pages, nullptr, nullptr);
  sqlite3_wal_autocheckpoint(db.handle(), 0);
  {
    OFFPRINT_TRY_ASSIGN(Statement attach, db.prepare("ATTACH ?1 AS r"));
    attach.bind_text(1, path_);
    OFFPRINT_TRY(retry_busy(options_.busy_timeout_ms, [&] { return attach.run(); }));
  }
  db_ = std::move(db);
  encoding_ = encoding;
  return {};
}

Result<> PageApplierImpl::prepare_file() {
  return retry_busy(options_.busy_timeout_ms, [&]() -> Result<> {
    OFFPRINT_TRY_ASSIGN(std::int64_t count, db_->query_int("PRAGMA r.page_count"));
    if (count == 0)
      OFFPRINT_TRY(db_->execute(fmt::format("PRAGMA r.page_size={}", page_size_).c_str()));
    OFFPRINT_TRY_ASSIGN(std::int64_t page_size, db_->query_int("PRAGMA r.page_size"));
    if (page_size != page_size_) {
      return fail(Code::kInvalid,
                  fmt::format("{} has pages of {} bytes, not {}", path_, page_size, page_size_));
    }
    // Also when it is a WAL file already: somebody may have turned it back meanwhile. EXTRA: a
    // power loss must not bring back the -journal of this change.
    OFFPRINT_TRY(db_->execute("PRAGMA r.synchronous=EXTRA"));
    OFFPRINT_TRY_ASSIGN(std::string mode, db_->query_text("PRAGMA r.journal_mode=WAL"));
    if (mode != "wal") {
      return fail(Code::kBusy,
                  fmt::format("{} stays in journal mode {}: another program uses it", path_, mode));
    }
    OFFPRINT_TRY(db_->execute(fmt::format("PRAGMA r.journal_size_limit={}", kWalSizeMax).c_str()));
    return db_->execute(options_.sync_full ? "PRAGMA r.synchronous=FULL"
                                           : "PRAGMA r.synchronous=NORMAL");
  });
}

// A connection has one text encoding, and an attached file must have the same: it shows at ATTACH.
Result<> PageApplierImpl::connect() {
  Result<> attached = attach(encoding_);
  for (std::uint32_t encoding = kUtf8; encoding < kSetEncoding.size() && !attached; ++encoding) {
    if (attached.error().message().find("text encoding") == std::string::npos) break;
    attached = attach(encoding);
  }
  if (attached) attached = prepare_file();
  if (attached && options_.gate != nullptr) {
    attached = set_commit_gate(*db_, options_.gate, "r");
  }
  if (!attached) {
    if (is_busy(attached.error())) {
      return fail(Code::kBusy, fmt::format("a program holds {} exclusively", path_),
                  attached.error().sqlite_code());
    }
    return fail(attached.error().with_context("open " + path_));
  }
  OFFPRINT_TRY_ASSIGN(read_, db_->prepare("SELECT data FROM sqlite_dbpage('r') WHERE pgno=?1",
                                          SQLITE_PREPARE_PERSISTENT));
  OFFPRINT_TRY_ASSIGN(insert_,
                      db_->prepare("INSERT INTO sqlite_dbpage(pgno,data,schema) VALUES(?1,?2,'r')",
                                   SQLITE_PREPARE_PERSISTENT));
  OFFPRINT_TRY_ASSIGN(count_, db_->prepare("PRAGMA r.page_count", SQLITE_PREPARE_PERSISTENT));
  return {};
}

// The first table of a database fixes its encoding; the connection that wrote it cannot read it on.
Result<> PageApplierImpl::refresh() {
  if (!stale_) return {};
  OFFPRINT_TRY(connect());
  stale_ = false;
  return {};
}

std::unexpected<Error> PageApplierImpl::abandon(Error error) {
  rollback();
  return fail(error.with_context("apply to " + path_));
}

Result<> PageApplierImpl::begin() {
  OFFPRINT_ASSERT(!open_);
  OFFPRINT_TRY(refresh());
  // SQLite's own busy handler waits here, but not for every kind of lock.
  Result<> begun =
      retry_busy(options_.busy_timeout_ms, [&] { return db_->execute("BEGIN IMMEDIATE"); });
  if (!begun) {
    if (is_busy(begun.error())) {
      return fail(Code::kBusy, fmt::format("another program is writing to {}", path_),
                  begun.error().sqlite_code());
    }
    return fail(begun.error().with_context("begin on " + path_));
  }
  open_ = true;
  page_one_.clear();
  Result<std::uint32_t> count = page_count();
  if (!count) return abandon(count.error());
  old_count_ = *count;
  highest_ = old_count_;
  return {};
}

Result<std::uint32_t> PageApplierImpl::page_count() {
  OFFPRINT_TRY(refresh());
  Result<bool> row = count_.step();
  std::int64_t count = row && *row ? count_.column_int(0) : 0;
  count_.reset();
  OFFPRINT_TRY(std::move(row));
  return static_cast<std::uint32_t>(count);
}

Result<bool> PageApplierImpl::read(std::uint32_t page, std::span<std::uint8_t> to) {
  OFFPRINT_ASSERT(to.size() == page_size_);
  OFFPRINT_TRY(refresh());
  read_.bind(1, page);
  Result<bool> row = read_.step();
  bool found = false;
  if (row && *row) {
    ByteView image = read_.column_blob(0);
    found = image.size() == to.size();
    if (found) std::copy(image.begin(), image.end(), to.begin());
  }
  read_.reset();
  OFFPRINT_TRY(std::move(row));
  return found;
}

Result<> PageApplierImpl::insert(std::uint32_t page, std::optional<ByteView> image) {
  insert_.bind(1, page);
  if (image) {
    insert_.bind_blob_borrowed(2, *image);
  } else {
    insert_.bind_null(2);
  }
  return insert_.run();
}

Result<> PageApplierImpl::write(std::uint32_t page, ByteView image) {
  OFFPRINT_ASSERT(open_);
  if (page == 0 || image.size() != page_size_) {
    return abandon(Error(Code::kInvalid, fmt::format("page {} of {} bytes", page, image.size())));
  }
  if (page == lock_page()) return {};
  if (page == 1) {
    if (load_be<std::uint32_t>(image.data() + kEncodingOffset) >= kSetEncoding.size()) {
      return abandon(Error(Code::kCorrupt, "page 1 names no text encoding"));
    }
    page_one_.assign(image.begin(), image.end());
    page_one_[kWriteVersionOffset] = 2;
    page_one_[kReadVersionOffset] = 2;
    return {};
  }
  Result<> written = insert(page, image);
  if (!written) return abandon(written.error());
  highest_ = std::max(highest_, page);
  return {};
}

// Last of all, and in this order: page 1 makes SQLite read the schema again, and any write after
// the truncation would cancel it.
Result<> PageApplierImpl::write_page_one_and_size(std::uint32_t page_count) {
  if (!page_one_.empty()) OFFPRINT_TRY(insert(1, page_one_));
  if (page_count < old_count_) OFFPRINT_TRY(insert(page_count + 1, std::nullopt));
  return db_->execute("COMMIT");
}

Result<> PageApplierImpl::commit(std::uint32_t page_count) {
  OFFPRINT_ASSERT(open_);
  bool grown_whole =
      page_count <= highest_ || (page_count == lock_page() && highest_ + 1 == page_count);
  if (page_count == 0 || !grown_whole || (highest_ > old_count_ && highest_ > page_count)) {
    return abandon(Error(Code::kInvalid,
                         fmt::format("a size of {} pages does not fit the pages given, up to {}",
                                     page_count, highest_)));
  }
  std::uint32_t encoding = encoding_;
  if (!page_one_.empty()) {
    encoding = std::max(kUtf8, load_be<std::uint32_t>(page_one_.data() + kEncodingOffset));
  }
  if (encoding != encoding_ && page_count < old_count_) {
    return abandon(Error(Code::kInvalid, "the text encoding changed: this needs a new file"));
  }
  Result<> done = write_page_one_and_size(page_count);
  if (!done) return abandon(done.error());
  open_ = false;
  page_one_.clear();
  // Our own parsed pages were overwritten below the b-tree layer: without this the next
  // transactions fail with SQLITE_CORRUPT sooner or later.
  sqlite3_db_release_memory(db_->handle());
  stale_ = encoding != encoding_;
  encoding_ = encoding;
  return {};
}

void PageApplierImpl::rollback() {
  if (!open_) return;
  open_ = false;
  page_one_.clear();
  // SQLite may have rolled back by itself (disk full); then there is nothing to do.
  if (!db_->autocommit()) (void)db_->execute("ROLLBACK");
  sqlite3_db_release_memory(db_->handle());
}

Result<CheckpointResult> PageApplierImpl::checkpoint(int mode) {
  OFFPRINT_ASSERT(!open_);
  OFFPRINT_TRY(refresh());
  Result<CheckpointResult> result = sqlite::checkpoint(*db_, mode, "r");
  if (!result) return fail(result.error().with_context("checkpoint " + path_));
  return result;
}

}  // namespace

Result<std::unique_ptr<PageApplier>> PageApplier::open(const std::string& path,
                                                       std::uint32_t page_size,
                                                       const Options& options) {
  bool valid = page_size >= 512 && page_size <= 65536 && (page_size & (page_size - 1)) == 0;
  if (!valid) return fail(Code::kInvalid, fmt::format("no page size: {}", page_size));
  auto applier = std::make_unique<PageApplierImpl>(path, page_size, options);
  OFFPRINT_TRY(applier->connect());
  return applier;
}

}  // namespace offprint::sqlite
