#pragma once

#include "ltx/codec.h"
#include "ltx/types.h"
#include "replica/page_input.h"

namespace offprint::replica {

// Whole, verified transactions in order, merged into what one apply has to write. Readers then see
// the state before the first or after the last of them: each is a state of the primary.
class TransactionBatch {
 public:
  // `page_size` 0: not known yet.
  explicit TransactionBatch(const Position& start, std::uint32_t page_size)
      : start_(start), position_(start), page_size_(page_size) {}
  // Errors as of check_follows; the batch is unchanged then.
  Result<> add(Epoch epoch, ltx::DecodedFile transaction);

  bool empty() const { return count_ == 0; }
  std::size_t count() const { return count_; }
  std::size_t size_bytes() const { return pages_.size_bytes(); }
  const Position& start() const { return start_; }
  const Position& position() const { return position_; }  // after all of them
  std::uint32_t page_size() const { return page_size_; }
  std::uint32_t page_count() const { return page_count_; }
  std::int64_t timestamp_ms() const { return timestamp_ms_; }  // of the last one
  // Its transactions carried more than one schema cookie.
  bool cookie_moved() const { return cookie_moved_; }
  MemoryPages& pages() { return pages_; }

 private:
  Position start_;
  Position position_;
  std::uint32_t page_size_;
  std::uint32_t page_count_ = 0;
  std::int64_t timestamp_ms_ = 0;
  std::size_t count_ = 0;
  std::optional<std::uint32_t> cookie_;
  bool cookie_moved_ = false;
  MemoryPages pages_;
};

}  // namespace offprint::replica
