#include "archive/archived_history.h"

#include <algorithm>

#include "archive/chain.h"
#include "archive/history.h"

namespace offprint::archive {
namespace {

// The shortest file that leads from a state to the next one.
const ArchivedFile* leading_file(const std::vector<ArchivedFile>& files, TxId from, TxId to) {
  const ArchivedFile* found = nullptr;
  for (const ArchivedFile& file : files) {
    if (file.max_txid != to || file.min_txid > from.next()) continue;
    if (found == nullptr || file.min_txid > found->min_txid) found = &file;
  }
  return found;
}

}  // namespace

Result<std::vector<ArchivedMoment>> list_moments(ObjectStore& objects, const std::string& prefix,
                                                 const Lineage& lineage, TxId before,
                                                 std::size_t limit) {
  OFFPRINT_TRY_ASSIGN(Bytes text, read_object(objects, prefix + kHistoryKey, kHistoryBytesMax));
  OFFPRINT_TRY_ASSIGN(const History history, History::parse(as_text(text)));
  OFFPRINT_TRY_ASSIGN(const std::vector<ArchivedFile> files, list_files(objects, prefix));
  const Chain chain(files);
  const std::vector<TxId>& states = chain.restorable();
  std::vector<ArchivedMoment> moments;
  auto state = std::ranges::lower_bound(states, before);
  while (state != states.begin() && moments.size() < limit) {
    --state;
    const TxId from = state == states.begin() ? TxId{} : *std::prev(state);
    auto bookmark = history.bookmark_of(*state);
    if (!bookmark || bookmark->lineage != lineage) break;  // another database's, before this one
    const ArchivedFile* file = leading_file(files, from, *state);
    if (file == nullptr) continue;  // what leads there begins later than a state before it
    ArchivedMoment moment;
    moment.first = from.next();
    moment.bookmark = *bookmark;
    moment.time_ms = file->timestamp_ms;
    moment.bytes = file->size;
    moment.is_snapshot = file->min_txid < from.next();
    moment.key = file->key;
    if (from.value != 0) {
      auto former = history.bookmark_of(from);
      if (former && former->lineage == lineage) moment.former = *former;
    }
    if (moment.time_ms == 0) {
      auto header = read_header(objects, file->key);
      if (!header && header.error().code() == Code::kNotFound) continue;  // compacted meanwhile
      if (!header) return fail(header.error());
      moment.time_ms = header->timestamp_ms;
    }
    moments.push_back(moment);
  }
  return moments;
}

}  // namespace offprint::archive
