#include "ltx/follows.h"

#include <fmt/format.h>

#include "ltx/checksum.h"

namespace offprint::ltx {

Result<> check_follows(const Position& current, Epoch epoch, const Header& header) {
  if (!header.tracks_checksum() || header.page_count == 0) {
    return fail(Code::kCorrupt, "a transaction without checksum or pages");
  }
  if (header.min_txid != current.txid.next() || epoch < current.epoch) {
    return fail(
        Code::kBehind,
        fmt::format("transaction {} of epoch {} does not follow on {} of epoch {}",
                    header.min_txid.value, epoch.value, current.txid.value, current.epoch.value));
  }
  // A database's first transaction has no content before it.
  Checksum before = header.is_snapshot() ? kEmptyDatabase : header.pre_apply;
  if (before != current.checksum) {
    return fail(
        Code::kConflict,
        fmt::format(
            "the copy diverged: at transaction {} it has checksum {:016x}, the primary {:016x}",
            current.txid.value, current.checksum.value, before.value));
  }
  return {};
}

}  // namespace offprint::ltx
