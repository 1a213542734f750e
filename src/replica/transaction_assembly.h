#pragma once

#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "replica/page_input.h"
#include "replica/stream_format.h"

namespace offprint::replica {

// Puts the frames of one transaction together: in memory, or in a spool when its file is larger
// than `memory_max`. Thread: one. Errors: kCorrupt when the frames do not make one transaction, and
// the spool's.
class TransactionAssembly {
 public:
  TransactionAssembly(FileSystem& files, std::string spool_path, std::uint64_t memory_max)
      : files_(files), spool_path_(std::move(spool_path)), memory_max_(memory_max) {}

  // Takes the next frame. True: the transaction is whole, to be taken with one of the functions
  // below.
  Result<bool> take(const Frame& frame);
  bool is_large() const { return spool_.has_value(); }
  const TransactionHead& head() const { return head_; }
  Bytes take_bytes();
  Spool take_spool();
  // Drops what was begun.
  void reset();

 private:
  FileSystem& files_;
  const std::string spool_path_;
  const std::uint64_t memory_max_;
  bool begun_ = false;
  TransactionHead head_;
  std::uint64_t received_ = 0;
  Bytes bytes_;
  std::optional<Spool> spool_;
};

}  // namespace offprint::replica
