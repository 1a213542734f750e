#pragma once

#include <cstdint>
#include <vector>

#include "ltx/merge.h"

namespace offprint::archive {

// The checksum that a database has after each input of a merge that begins with a snapshot, from
// the images as the merge reads them. Costs a checksum of each image. Thread: one.
class MergedChecksums final : public ltx::MergeObserver {
 public:
  // Of an open merge, before its next() is called.
  void begin(const ltx::Merge& merge);
  void image(std::size_t input, PageNo page, ByteView content) override;
  // After the merge has ended.
  std::vector<Checksum> finish() const;

 private:
  std::vector<std::uint32_t> page_counts_;
  std::uint32_t page_count_min_ = 0;
  // The XOR of what input i adds to and takes from the checksum after input i-1.
  std::vector<std::uint64_t> changes_;
  PageNo page_ = 0;
  std::size_t newer_ = 0;  // the oldest input seen that has an image of page_
};

}  // namespace offprint::archive
