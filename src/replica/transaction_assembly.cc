#include "replica/transaction_assembly.h"

#include <fmt/format.h>

#include "base/assert.h"

namespace offprint::replica {

Result<bool> TransactionAssembly::take(const Frame& frame) {
  ByteView part = frame.payload;
  if (!begun_) {
    OFFPRINT_TRY_ASSIGN(TransactionFirst first, parse_transaction_first(frame.payload));
    reset();
    begun_ = true;
    head_ = std::move(first.head);
    part = first.part;
    if (head_.ltx_size > memory_max_) {
      OFFPRINT_TRY_ASSIGN(spool_, Spool::create(files_, spool_path_));
    }
  }
  received_ += part.size();
  bool whole = !frame.more();
  if (received_ > head_.ltx_size || (whole && received_ != head_.ltx_size)) {
    return fail(Code::kCorrupt, fmt::format("a transaction of {} bytes where {} were announced",
                                            received_, head_.ltx_size));
  }
  if (spool_) {
    OFFPRINT_TRY(spool_->append(part));
  } else {
    append(bytes_, part);
  }
  begun_ = !whole;
  return whole;
}

Bytes TransactionAssembly::take_bytes() {
  OFFPRINT_ASSERT(!begun_ && !spool_);
  return std::move(bytes_);
}

Spool TransactionAssembly::take_spool() {
  OFFPRINT_ASSERT(!begun_ && spool_);
  Spool spool = *std::move(spool_);
  spool_.reset();
  return spool;
}

void TransactionAssembly::reset() {
  begun_ = false;
  received_ = 0;
  bytes_.clear();
  spool_.reset();
}

}  // namespace offprint::replica
