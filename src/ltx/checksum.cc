#include "ltx/checksum.h"

#include "ltx/crc64.h"

namespace offprint::ltx {

void Crc64::update(ByteView bytes) {
  state_ = bytes.size() >= 64 && crc64::can_fold() ? crc64::update_by_folding(state_, bytes)
                                                   : crc64::update_by_tables(state_, bytes);
}

Checksum page_checksum(PageNo page, ByteView content) {
  std::uint8_t number[4];
  store_be<std::uint32_t>(number, page);
  Crc64 crc;
  crc.update(number);
  crc.update(content);
  return Checksum{kChecksumFlag | crc.value()};
}

}  // namespace offprint::ltx
