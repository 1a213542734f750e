#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace offprint {

// CRC-32C (Castagnoli, RFC 3720 B.4): check("123456789") = 0xe3069283.
// `seed` is the result over the bytes before these, 0 at the start.
std::uint32_t crc32c(ByteView bytes, std::uint32_t seed = 0);

}  // namespace offprint
