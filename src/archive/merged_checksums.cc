#include "archive/merged_checksums.h"

#include <algorithm>

#include "ltx/checksum.h"

namespace offprint::archive {

void MergedChecksums::begin(const ltx::Merge& merge) {
  page_counts_.clear();
  for (std::size_t i = 0; i < merge.size(); ++i) page_counts_.push_back(merge.header(i).page_count);
  page_count_min_ = std::ranges::min(page_counts_);
  changes_.assign(merge.size() + 1, 0);
  page_ = 0;
}

void MergedChecksums::image(std::size_t input, PageNo page, ByteView content) {
  if (page != page_) newer_ = page_counts_.size();
  page_ = page;
  // The image counts until a newer one, or until the database becomes too small for it.
  std::size_t end = newer_;
  if (page > page_count_min_) {
    const auto from = page_counts_.begin() + static_cast<std::ptrdiff_t>(input);
    const auto to = page_counts_.begin() + static_cast<std::ptrdiff_t>(end);
    end = static_cast<std::size_t>(
        std::find_if(from, to, [&](std::uint32_t count) { return count < page; }) -
        page_counts_.begin());
  }
  const std::uint64_t sum = ltx::page_checksum(page, content).value;
  changes_[input] ^= sum;
  changes_[end] ^= sum;
  newer_ = input;
}

std::vector<Checksum> MergedChecksums::finish() const {
  std::vector<Checksum> sums;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < page_counts_.size(); ++i) {
    sum ^= changes_[i];
    sums.push_back(Checksum{ltx::kChecksumFlag | sum});
  }
  return sums;
}

}  // namespace offprint::archive
