#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "archive/object_store.h"
#include "base/result.h"
#include "ltx/codec.h"
#include "ltx/types.h"

namespace offprint::archive {

inline constexpr int kLevels = 10;
inline constexpr int kSnapshotLevel = 9;

// An LTX file of an archive, as a list shows it.
struct ArchivedFile {
  int level = 0;
  TxId min_txid, max_txid;
  std::string key;
  std::uint64_t size = 0;
  std::int64_t timestamp_ms = 0;  // of its last transaction; 0: the store's lists do not tell
  bool operator==(const ArchivedFile&) const = default;
};

// The LTX files of all levels below `prefix` ("orders/", or "" for the store's own place). Other
// objects there are left out.
Result<std::vector<ArchivedFile>> list_files(ObjectStore& store, const std::string& prefix);

// The header of one of them; nothing more of it is fetched than it has to be. kNotFound: it is
// gone.
Result<ltx::Header> read_header(ObjectStore& store, const std::string& key);

// Which moments of a database an archive can restore, and from which files. A file can be applied
// to a database at transaction N when it begins at N+1 or before and leads further; one that begins
// at transaction 1 needs nothing before it. Files may overlap. Value type.
class Chain {
 public:
  explicit Chain(std::vector<ArchivedFile> files);

  // The last transaction that any file claims to reach, restorable or not; 0 without files.
  TxId newest() const;
  // All that can be restored, ascending.
  const std::vector<TxId>& restorable() const { return restorable_; }

  // Few files, to be applied in this order, that end exactly at `target`. kNotFound: it is before
  // or after what the archive has, or among transactions that are kept only together; the message
  // says what can be restored. kCorrupt: files are missing; it says which transactions.
  Result<std::vector<ArchivedFile>> files_to(TxId target) const;

  // The last moment that can be restored whose time, which `time_ms` reads from a file's header, is
  // not after `unix_ms`; few files are read, because times ascend. kNotFound: all are later.
  // kCorrupt: files are missing between that moment and the time. And what `time_ms` answers.
  Result<TxId> at_time(
      std::int64_t unix_ms,
      const std::function<Result<std::int64_t>(const ArchivedFile&)>& time_ms) const;

 private:
  // The restorable moment before or at `target`; 0: none.
  TxId before(TxId target) const;
  const ArchivedFile& shortest_to(TxId txid) const;
  std::unexpected<Error> missing_after(TxId reached) const;

  std::vector<ArchivedFile> files_;  // by max_txid; of the same, the longest first
  std::vector<TxId> restorable_;
};

}  // namespace offprint::archive
