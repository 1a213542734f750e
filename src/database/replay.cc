#include "database/replay.h"

#include <algorithm>

#include <fmt/format.h>

#include "ltx/codec.h"

namespace offprint::database {
namespace {

std::optional<TxId> checkpointed_txid(const journal::Record& record) {
  const Bytes* value = find_metadata(record, journal::MetadataType::kCheckpointedTxId);
  if (value == nullptr || value->size() != 8) return std::nullopt;
  return TxId{load_be<std::uint64_t>(value->data())};
}

constexpr std::size_t kPreApplyOffset = 40;  // of an LTX header

}  // namespace

constexpr std::size_t kSourceSize = 28;

Bytes encode_source(const Bookmark& source) {
  Bytes bytes(kSourceSize);
  store_be<std::uint32_t>(bytes.data(), source.epoch.value);
  store_be<std::uint64_t>(bytes.data() + 4, source.txid.value);
  std::ranges::copy(source.lineage.bytes, bytes.begin() + 12);
  return bytes;
}

std::optional<Bookmark> source_in(const journal::Record& record) {
  const Bytes* bytes = find_metadata(record, journal::MetadataType::kSourcePosition);
  if (bytes == nullptr || bytes->size() < kSourceSize) return std::nullopt;
  Bookmark source;
  source.epoch = Epoch{load_be<std::uint32_t>(bytes->data())};
  source.txid = TxId{load_be<std::uint64_t>(bytes->data() + 4)};
  std::copy_n(bytes->begin() + 12, source.lineage.bytes.size(), source.lineage.bytes.begin());
  return source;
}

const Bytes* find_metadata(const journal::Record& record, journal::MetadataType type) {
  for (const journal::Metadata& metadata : record.metadata) {
    if (metadata.type == type) return &metadata.value;
  }
  return nullptr;
}

void note_new_history(Deque<UnappliedRecord>& unapplied, const UnappliedRecord& record) {
  if (record.whole) unapplied.clear();
  // What came before it is in the file when it is, whatever number it had in the other history.
  for (UnappliedRecord& earlier : unapplied) earlier.txid = record.txid;
  unapplied.push_back(record);
}

void drop_applied(Deque<UnappliedRecord>& unapplied, TxId checkpointed) {
  while (!unapplied.empty() && unapplied.front().txid <= checkpointed) unapplied.pop_front();
}

Result<> Replay::visit(const journal::Record& record) {
  if (record.kind == journal::Kind::kDrop) {
    dropped_.insert(record.database_id);
    databases_.erase(record.database_id);
    return {};
  }
  if (record.kind != journal::Kind::kTransaction && record.kind != journal::Kind::kCheckpointed)
    return {};
  if (dropped_.contains(record.database_id)) return {};
  const Bytes* encoded = find_metadata(record, journal::MetadataType::kDatabaseState);
  if (encoded == nullptr) {
    return fail(Code::kCorrupt, fmt::format("journal record at {} has no database state",
                                            record.location.lsn.value));
  }
  OFFPRINT_TRY_ASSIGN(DatabaseState state, DatabaseState::decode(*encoded));
  Replayed& database = databases_[record.database_id];
  const Bytes* new_history = find_metadata(record, journal::MetadataType::kNewHistory);
  if (new_history != nullptr || state.position.txid >= database.state.position.txid) {
    database.state = state;
    database.state_lsn = record.location.lsn;
  }
  database.closed_as.reset();
  if (new_history != nullptr) {
    database.log.clear();
    database.checkpointed = TxId{0};
    note_new_history(database.unapplied, {state.position.txid, record.location, true,
                                          new_history->size() == 1 && new_history->front() == 1});
    return {};
  }
  if (record.kind == journal::Kind::kTransaction) return visit_transaction(record, database);
  if (const Bytes* value = find_metadata(record, journal::MetadataType::kFileFingerprint)) {
    database.closed_as = FileFingerprint::decode(*value);
  }
  if (auto txid = checkpointed_txid(record))
    database.checkpointed = std::max(database.checkpointed, *txid);
  drop_applied(database.unapplied, database.checkpointed);
  return {};
}

Result<> Replay::visit_transaction(const journal::Record& record, Replayed& database) {
  if (checkpointed_txid(
          record)) {  // newest images of a run: what came before is not needed for recovery
    database.unapplied = {{database.state.position.txid, record.location}};
    return {};
  }
  TxId txid = database.state.position.txid;
  database.unapplied.push_back(
      {.txid = txid, .location = record.location, .whole = txid.value == 1});
  LogEntry entry;
  entry.txid = database.state.position.txid;
  entry.epoch = database.state.position.epoch;
  entry.checksum = database.state.position.checksum;
  entry.timestamp_ms = database.state.timestamp_ms;
  entry.location = record.location;
  if (record.payload.size() >= ltx::kHeaderSize) {
    entry.before = entry.txid.value == 1
                       ? Checksum{std::uint64_t{1} << 63}
                       : Checksum{load_be<std::uint64_t>(record.payload.data() + kPreApplyOffset)};
  }
  if (!database.log.empty() && database.log.back().txid.next() != entry.txid) database.log.clear();
  database.log.push_back(entry);
  return {};
}

Replayed Replay::take(std::uint64_t database_id, const DatabaseState& initial) {
  auto found = databases_.find(database_id);
  if (found == databases_.end()) {
    Replayed fresh;
    fresh.state = initial;
    return fresh;
  }
  Replayed replayed = std::move(found->second);
  databases_.erase(found);
  return replayed;
}

}  // namespace offprint::database
