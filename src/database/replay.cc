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

// Without what only those need who apply it.
journal::Record outline_of(const journal::Record& record) {
  journal::Record outline;
  outline.location = record.location;
  outline.kind = record.kind;
  outline.database_id = record.database_id;
  outline.group = record.group;
  outline.group_lsn = record.group_lsn;
  for (const journal::Metadata& metadata : record.metadata) {
    if (metadata.type != journal::MetadataType::kUndo) outline.metadata.push_back(metadata);
  }
  const std::size_t size = std::min(record.payload.size(), ltx::kHeaderSize);
  outline.payload.assign(record.payload.begin(),
                         record.payload.begin() + static_cast<std::ptrdiff_t>(size));
  return outline;
}

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

Result<DatabaseState> state_in(const journal::Record& record) {
  if (const Bytes* encoded = find_metadata(record, journal::MetadataType::kDatabaseState))
    return DatabaseState::decode(*encoded);
  return fail(Code::kCorrupt,
              fmt::format("journal record at {} has no database state", record.location.lsn.value));
}

LogEntry entry_of(const journal::Record& record, const DatabaseState& state) {
  LogEntry entry;
  entry.txid = state.position.txid;
  entry.epoch = state.position.epoch;
  entry.checksum = state.position.checksum;
  entry.timestamp_ms = state.timestamp_ms;
  entry.location = record.location;
  if (record.payload.size() >= ltx::kHeaderSize) {
    entry.before = entry.txid.value == 1
                       ? Checksum{std::uint64_t{1} << 63}
                       : Checksum{load_be<std::uint64_t>(record.payload.data() + kPreApplyOffset)};
  }
  return entry;
}

Result<> Replay::visit(const journal::Record& record) {
  if (record.group != journal::kLocalGroup) return hold_back(record);
  // What is in a file was decided, whether or not this journal says so.
  const bool tells_of_file =
      record.kind == journal::Kind::kCheckpointed || record.kind == journal::Kind::kTransaction;
  if (tells_of_file && !undecided_.empty()) {
    OFFPRINT_TRY_ASSIGN(DatabaseState state, state_in(record));
    OFFPRINT_TRY(decide_up_to(record.database_id, state.position.txid));
  }
  return take_in(record);
}

Result<> Replay::hold_back(const journal::Record& record) {
  if (record.kind == journal::Kind::kTruncate) {
    while (!undecided_.empty() && undecided_.back().record.group_lsn > record.group_lsn)
      undecided_.pop_back();
  }
  if (record.kind == journal::Kind::kTransaction) {
    OFFPRINT_TRY_ASSIGN(DatabaseState state, state_in(record));
    undecided_.push_back({outline_of(record), state.position.txid});
  }
  return decide(record.commit_lsn);
}

Result<> Replay::decide(journal::Lsn number) {
  while (!undecided_.empty() && undecided_.front().record.group_lsn <= number) {
    const journal::Record record = std::move(undecided_.front().record);
    undecided_.pop_front();
    OFFPRINT_TRY(take_in(record));
  }
  return {};
}

Result<> Replay::decide_up_to(std::uint64_t database_id, TxId txid) {
  journal::Lsn newest;
  for (const Undecided& each : undecided_) {
    if (each.record.database_id == database_id && each.txid <= txid) newest = each.record.group_lsn;
  }
  return decide(newest);
}

Result<> Replay::take_in(const journal::Record& record) {
  if (record.kind == journal::Kind::kDrop) {
    dropped_.insert(record.database_id);
    databases_.erase(record.database_id);
    return {};
  }
  if (record.kind != journal::Kind::kTransaction && record.kind != journal::Kind::kCheckpointed)
    return {};
  if (dropped_.contains(record.database_id)) return {};
  OFFPRINT_TRY_ASSIGN(DatabaseState state, state_in(record));
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
  LogEntry entry = entry_of(record, database.state);
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
