#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "database/replication.h"
#include "database/store.h"
#include "replica/stream_format.h"
#include "replica/transaction_assembly.h"

namespace offprint::replica {

// A spooled transaction, read from its beginning.
class SpoolSource final : public ltx::ByteSource {
 public:
  explicit SpoolSource(std::shared_ptr<Spool> spool) : spool_(std::move(spool)) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    OFFPRINT_TRY_ASSIGN(std::size_t size, spool_->read_at(offset_, to));
    offset_ += size;
    return size;
  }

 private:
  std::shared_ptr<Spool> spool_;
  std::uint64_t offset_ = 0;
};

// One database on the stream. Used by the follower's thread.
struct Feed {
  std::optional<database::DatabaseName> name;
  std::unique_ptr<TransactionAssembly> assembly;
  std::vector<database::IncomingTransaction> pending;
  std::size_t pending_bytes = 0;
  std::unique_ptr<database::CopyWriter> writer;
  std::uint32_t snapshot_page_size = 0;
  std::optional<Bookmark> source;   // of the transaction or position that comes
  std::optional<Position> primary;  // where it stood …
  std::int64_t primary_at_ms = 0;   // … when we heard of it
  bool busy = false;                // the store works for it
  bool off = false;                 // nothing more of it is taken in this session
  bool dropped = false;             // to be dropped here when not busy
  std::optional<Lineage> lineage;   // which life of its name it is
};

// What the store or a repair has finished.
struct Completion {
  enum class Of { kFeed, kRepair, kDrop, kStopped, kAnew };
  Of of = Of::kFeed;
  std::uint32_t number = 0;
  std::size_t bytes = 0;
  std::size_t transactions = 0;
  Result<> result = {};
  std::string name = {};  // of a database that has stopped
};

// Whether a transaction that failed so shows that the copy is not what the primary has.
bool is_difference(const Error& error);

// A token, or all of a database, that count no more. kCorrupt: it is neither or both.
Result<database::Revocation> take_revocation(const Frame& frame);

}  // namespace offprint::replica
