#include "database/state.h"

#include <algorithm>

#include <fmt/format.h>

#include "ltx/checksum.h"

namespace offprint::database {
namespace {

constexpr std::uint8_t kVersion = 1;
// version 1 · lineage 16 · epoch 4 · txid 8 · checksum 8 · page size 4 · page count 4 · time 8 ·
// header 100
constexpr std::size_t kSize = 1 + 16 + 4 + 8 + 8 + 4 + 4 + 8 + 100;

}  // namespace

DatabaseState DatabaseState::never_written(Lineage lineage, Epoch epoch, std::uint32_t page_size) {
  DatabaseState state;
  state.position = {lineage, epoch, TxId{0}, ltx::kEmptyDatabase};
  state.page_size = page_size;
  return state;
}

Bytes DatabaseState::encode() const {
  Bytes bytes;
  bytes.reserve(kSize);
  bytes.push_back(kVersion);
  append(bytes, position.lineage.bytes);
  append_be<std::uint32_t>(bytes, position.epoch.value);
  append_be<std::uint64_t>(bytes, position.txid.value);
  append_be<std::uint64_t>(bytes, position.checksum.value);
  append_be<std::uint32_t>(bytes, page_size);
  append_be<std::uint32_t>(bytes, page_count);
  append_be<std::uint64_t>(bytes, static_cast<std::uint64_t>(timestamp_ms));
  append(bytes, header);
  return bytes;
}

Result<DatabaseState> DatabaseState::decode(ByteView bytes) {
  if (bytes.empty()) return fail(Code::kCorrupt, "database state: empty");
  if (bytes[0] > kVersion) {
    return fail(Code::kInvalid,
                fmt::format("database state: version {} is newer than this program", bytes[0]));
  }
  if (bytes.size() != kSize) return fail(Code::kCorrupt, "database state: wrong size");
  const std::uint8_t* at = bytes.data() + 1;
  DatabaseState state;
  std::copy_n(at, 16, state.position.lineage.bytes.begin());
  state.position.epoch = Epoch{load_be<std::uint32_t>(at + 16)};
  state.position.txid = TxId{load_be<std::uint64_t>(at + 20)};
  state.position.checksum = Checksum{load_be<std::uint64_t>(at + 28)};
  state.page_size = load_be<std::uint32_t>(at + 36);
  state.page_count = load_be<std::uint32_t>(at + 40);
  state.timestamp_ms = static_cast<std::int64_t>(load_be<std::uint64_t>(at + 44));
  std::copy_n(at + 52, 100, state.header.begin());
  return state;
}

}  // namespace offprint::database
