#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "ltx/types.h"

// What the pages that a transaction changed held before it: journal metadata 9, with which the log
// leads back in time (docs/format/journal.md, "Undo").
namespace offprint::database {

// Thread: one.
class UndoWriter {
 public:
  // Takes no more than `bytes_max`.
  UndoWriter(std::uint32_t page_count_before, std::size_t bytes_max);
  // Pages in any order, each once. `after` is what the transaction carries, empty when the page is
  // gone.
  void add(PageNo page, ByteView before, ByteView after);
  // Nothing: it was too much, the log leads no further back than to this transaction.
  std::optional<Bytes> finish();

 private:
  const std::size_t bytes_max_;
  Bytes bytes_;
};

struct Undo {
  std::uint32_t page_count = 0;  // before the transaction
  struct Page {
    PageNo number;
    bool is_gone;    // the transaction's file does not have it
    ByteView delta;  // ltx::apply_page_delta to what the transaction carries, or to nothing
  };
  std::vector<Page> pages;
};

// Refers to `bytes`. kCorrupt; kInvalid: of a newer version.
Result<Undo> read_undo(ByteView bytes);

}  // namespace offprint::database
