#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "sqlite/capture.h"

namespace offprint::sqlite {

// Of the schema cookie in page 1 (fileformat2.html, "The Database Header").
inline constexpr std::size_t kSchemaCookieOffset = 40;

// Writes whole pages into a live WAL-mode database, one SQLite transaction at a time, beside any
// number of readers. For replicas and for recovery. Rules and why: docs/page-apply.md. Thread: one
// at a time. It keeps one connection (":memory:" with the file attached) until destroyed. After any
// error the transaction is rolled back and the file is as it was before begin().
class PageApplier {
 public:
  struct Options {
    bool sync_full = false;      // synchronous=FULL, else NORMAL
    int busy_timeout_ms = 5000;  // how long begin() waits for another writer
    const char* vfs = nullptr;
    // Decides the commits (see set_commit_gate); wants the capture VFS and sync_full. Outlives it.
    CommitGate* gate = nullptr;
  };
  // Opens or creates the file; an empty one gets `page_size`. kInvalid when an existing file has
  // another page size, kBusy with "a program holds FILE exclusively" when it is locked.
  static Result<std::unique_ptr<PageApplier>> open(const std::string& path, std::uint32_t page_size,
                                                   const Options& options);
  virtual ~PageApplier() = default;

  // BEGIN IMMEDIATE. kBusy when another writer holds the file for longer than the timeout.
  virtual Result<> begin() = 0;
  // Pages in the file now, as this connection sees it (within or outside a transaction).
  virtual Result<std::uint32_t> page_count() = 0;
  // The current image of a page into `to` (page_size bytes); false when the file has no such page.
  virtual Result<bool> read(std::uint32_t page, std::span<std::uint8_t> to) = 0;
  // Takes a page's new image. Any order; page 1 is held back and written last; its bytes 18 and 19
  // become 2.
  virtual Result<> write(std::uint32_t page, ByteView image) = 0;
  // Cuts or keeps the file at `page_count` pages and commits.
  virtual Result<> commit(std::uint32_t page_count) = 0;
  virtual void rollback() = 0;

  virtual Result<CheckpointResult> checkpoint(int mode) = 0;
};

}  // namespace offprint::sqlite
