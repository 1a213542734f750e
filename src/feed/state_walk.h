#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "database/store.h"
#include "publication/tree_diff.h"

namespace offprint::feed {

// A database's states one after the other, as pages: where it stands, and during a step also the
// state one transaction later. Transactions come from the log; pages that they did not write, from
// a read transaction that is begun again now and then. Memory: kOverlayBytesMax and one
// transaction's pages, or kStepBytesMax of them. Thread: one at a time. Blocks. After an error it
// is of no use any more. kBehind, kNotFound: the log does not lead there.
class StateWalk {
 public:
  static constexpr std::size_t kOverlayBytesMax = 16 << 20, kStepBytesMax = 16 << 20;

  static Result<std::unique_ptr<StateWalk>> begin(database::Store& store,
                                                  const database::DatabaseName& name,
                                                  const Bookmark& at);

  const Bookmark& position() const { return position_; }

  // The state that it stands at. Valid until the next call of either.
  Result<ByteView> before(PageNo page);
  std::uint32_t pages_before() const { return pages_before_; }
  std::uint32_t page_size() const { return page_size_; }
  // The next one, between step() and settle().
  const Bookmark& next_position() const { return next_; }
  Result<ByteView> after(PageNo page);
  std::uint32_t pages_after() const { return pages_after_; }
  // The pages that the transaction between them wrote.
  const publication::PageSet& written() const { return written_; }

  // Reads a transaction that follows on position().
  Result<> step(const database::LogEntry& entry);
  // Stands after it from now on.
  Result<> settle();
  // Begins the read transaction again, if it has grown old. For who stands at the newest state.
  void rest();
  // The same with a checkpoint, when so much was written that the -wal, which the read transaction
  // keeps from starting again, has grown.
  Result<> rest_with_checkpoint();

 private:
  using Overlay = std::unordered_map<PageNo, Bytes>;
  StateWalk(database::Store& store, database::DatabaseName name)
      : store_(store), name_(std::move(name)) {}
  Result<> load(const Bookmark& at);
  Result<ByteView> read(database::Snapshot* base, const Overlay* newest, const Overlay* older,
                        std::uint32_t count, PageNo page);

  database::Store& store_;
  const database::DatabaseName name_;
  Bookmark position_, next_;
  std::unique_ptr<database::Snapshot> base_;        // older than position_ by overlay_; null: empty
  std::unique_ptr<database::Snapshot> base_after_;  // of a step that is too large for memory
  Overlay overlay_, fresh_;
  std::size_t overlay_bytes_ = 0;
  std::size_t pages_since_checkpoint_ = 0;
  std::uint32_t page_size_ = 0, pages_before_ = 0, pages_after_ = 0;
  publication::PageSet written_;
  Bytes zeros_;
};

}  // namespace offprint::feed
