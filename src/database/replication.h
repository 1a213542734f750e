#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "journal/journal.h"
#include "ltx/codec.h"
#include "ltx/types.h"

// What a node takes from another one to keep copies of its databases.
namespace offprint::database {

// A transaction of the primary, as its stream carried it.
struct IncomingTransaction {
  Epoch epoch;
  Bytes ltx;  // its LTX file; empty when it is too large for memory, then …
  std::function<Result<std::unique_ptr<ltx::ByteSource>>()> open;  // … reads it from its beginning
};

// Where a copy is to stand when its pages have come.
struct CopyTarget {
  Position position;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // 0: the primary was never written
  bool whole = true;             // else only pages that differ come
};

// Takes the pages of a copy, ascending, then finish(). Dropped before that, nothing has happened.
// Thread: one at a time. Blocks.
class CopyWriter {
 public:
  virtual ~CopyWriter() = default;
  virtual Result<> page(PageNo page, ByteView image) = 0;
  // The copy stands at the target. kCorrupt: what came does not add up to it; a whole copy is
  // needed.
  virtual Result<> finish() = 0;
};

// The epoch in which a database goes on whose last transactions are lost; `known` is the last one
// known of. There may have been later ones, and others that began in the same place: a random step
// over them keeps their bookmarks from being taken for this one's.
Epoch epoch_after_loss(Epoch known);

// The end of what counts of the epochs before `epoch`: later transactions of them are lost.
struct EpochEnd {
  Epoch epoch;
  TxId txid;
};

// An SQLite file that is a database's content at a position, such as an archive restores it.
struct AdoptedFile {
  std::string path;  // durable, on the store's file system, opened by nobody; it moves
  Position position;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // 0: there is no file, the database was never written
  std::int64_t timestamp_ms = 0;
};

// A history that does not follow on what a copy has: where it stands, and its pages in the journal.
struct NewHistory {
  CopyTarget target;
  std::array<std::uint8_t, 100> header{};  // of page 1; all zero: as it was
  bool has_header = false;
  std::string payload_file;  // journal::LargePayload, finished
  std::uint64_t payload_size = 0;
};

}  // namespace offprint::database
