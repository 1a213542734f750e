#include "ltx/layout.h"

namespace offprint::ltx {

// Seven bits a byte, lowest first; the top bit says that more follow.
void PageIndex::add_varint(std::uint64_t value) {
  while (value >= 0x80) {
    bytes_.push_back(static_cast<std::uint8_t>(value | 0x80));
    value >>= 7;
  }
  bytes_.push_back(static_cast<std::uint8_t>(value));
}

void PageIndex::add(PageNo page, std::uint64_t offset, std::uint64_t size) {
  add_varint(page);
  add_varint(offset);
  add_varint(size);
}

ByteView PageIndex::finish() {
  bytes_.push_back(0);
  append_be<std::uint64_t>(bytes_, bytes_.size());
  return bytes_;
}

}  // namespace offprint::ltx
