#pragma once

#include "ltx/codec.h"

namespace offprint::archive {

// Every Litestream 0.5 reads these (facts and reasons: docs/format/archive.md).
inline constexpr ltx::PageEncoding kArchiveEncoding = ltx::PageEncoding::kFrame;
// Where a stock `litestream replicate` that takes an archive over looks for a -wal it has not seen.
inline constexpr std::int64_t kWalOffset = 32;
inline constexpr std::uint32_t kWalSalt = 1;

// A transaction's header as it stands in an archive: Litestream knows no checksums, so the one of
// the database after it goes where a node's number would.
inline ltx::Header archive_header(ltx::Header header, Checksum database) {
  header.flags = ltx::kNoChecksumFlag;
  header.pre_apply = Checksum{};
  header.wal_offset = kWalOffset;
  header.wal_size = 0;
  header.wal_salt1 = header.wal_salt2 = kWalSalt;
  header.node_id = database.value;
  return header;
}

}  // namespace offprint::archive
