#include "database/checkpoint_record.h"

#include <utility>

namespace offprint::database {

journal::Draft checkpoint_record(std::uint64_t database_id, const DatabaseState& state,
                                 TxId covered, const std::optional<FileFingerprint>& closed_as) {
  journal::Draft draft;
  draft.kind = journal::Kind::kCheckpointed;
  draft.database_id = database_id;
  draft.metadata.push_back({journal::MetadataType::kDatabaseState, state.encode()});
  Bytes txid;
  append_be<std::uint64_t>(txid, covered.value);
  draft.metadata.push_back({journal::MetadataType::kCheckpointedTxId, std::move(txid)});
  if (closed_as)
    draft.metadata.push_back({journal::MetadataType::kFileFingerprint, closed_as->encode()});
  return draft;
}

}  // namespace offprint::database
