#pragma once

#include <span>

#include "ltx/codec.h"

// What the encoder and the decoder share: the fixed parts of an LTX file and the rules on the order
// of its pages. Internal to this folder. Format: docs/format/ltx.md.
namespace offprint::ltx {

// Before each page: u32 page number, u16 flags and, when the flag below is set, u32 size of the LZ4
// block that follows.
inline constexpr std::size_t kPageHeaderSize = 6;
inline constexpr std::size_t kSizeFieldSize = 4;
inline constexpr std::uint16_t kSizedBlockFlag = 1;

bool is_page_size(std::uint32_t size);

void store_header(const Header& header, std::span<std::uint8_t, kHeaderSize> to);
// kCorrupt when it is not a valid header.
Result<Header> load_header(std::span<const std::uint8_t, kHeaderSize> from);

// kCorrupt when a file with this header cannot end with this post-apply checksum.
Result<> validate_post_apply(const Header& header, Checksum post_apply);

// Which pages a file with this header may hold, asked in the file's order. kCorrupt with the rule
// that is broken.
class PageOrder {
 public:
  explicit PageOrder(const Header& header);
  // Ascending, within the database, never the lock page; a snapshot leaves out nothing else.
  Result<> take(PageNo page);
  // Whether pages may end here.
  Result<> finish() const;
  std::uint32_t page_size() const { return page_size_; }

 private:
  // 64 bits wide: what follows the last possible page is none.
  std::uint64_t next_of_snapshot() const;

  std::uint32_t page_size_;
  std::uint32_t page_count_;
  PageNo lock_page_;
  bool snapshot_;
  PageNo last_ = 0;
};

// The page index as it stands in a file: for each page three variable-length integers (number,
// offset and size of its frame), then 00, then the length of all that as u64. Memory: about eight
// bytes a page.
class PageIndex {
 public:
  void clear() { bytes_.clear(); }
  void add(PageNo page, std::uint64_t offset, std::uint64_t size);
  // Adds 00 and the length; the whole index then.
  ByteView finish();

 private:
  void add_varint(std::uint64_t value);

  Bytes bytes_;
};

}  // namespace offprint::ltx
