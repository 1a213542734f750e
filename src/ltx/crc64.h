#pragma once

#include "base/bytes.h"

// The two ways to advance a CRC-64/GO-ISO state; Crc64 (checksum.h) picks the faster one. Here so
// that tests can compare them. Both take and return the inverted ("raw") state, which starts as all
// ones. Thread: any.
namespace offprint::ltx::crc64 {

// Reflected polynomial x^64 + x^4 + x^3 + x + 1.
inline constexpr std::uint64_t kPolynomial = 0xd800000000000000;

// Sixteen table lookups for each 16 bytes. Works everywhere.
std::uint64_t update_by_tables(std::uint64_t state, ByteView bytes);

// True when this processor can multiply without carries (x86-64's PCLMULQDQ).
bool can_fold();
// Folds 64 bytes a step by carry-less multiplication. Call only when can_fold(). Any length.
std::uint64_t update_by_folding(std::uint64_t state, ByteView bytes);

}  // namespace offprint::ltx::crc64
