#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "ltx/types.h"

namespace offprint::publication {

// Reads a page of one state of a database; valid until the next call.
using PageSource = std::function<Result<ByteView>(PageNo)>;
using PageSet = std::unordered_set<PageNo>;

// The rows of a table that differ between two states. There may be some that only moved.
struct TouchedRows {
  std::vector<std::int64_t> rowids;  // of a table with rowids; each once
  std::vector<Bytes> records;        // of a table without: whole old and new records
};

// Where the pages of one table are in its b-tree: with it the rows that a transaction touched are
// found from the pages that it changed, without reading the rest. A page may leave the tree without
// being written (SQLite does not write what it frees), and an overflow page may change without the
// page that leads to it; both are found. Memory: about 50 bytes for each page of the table. Thread:
// one.
class TreeMap {
 public:
  // Reads the whole table. `usable`: sqlite::usable_size(). kCorrupt: it is no sound b-tree.
  static Result<TreeMap> read(const PageSource& state, PageNo root, std::uint32_t usable);

  enum class Toward { kLater, kEarlier };
  // Rows that differ between the state that the map is of and a later one (or an earlier one),
  // whose map it is from then on. `changed`: all pages that were written between the two, of
  // whatever table. After an error the map is useless. kCorrupt: it does not fit the pages.
  Result<TouchedRows> advance(const PageSource& before, const PageSource& after,
                              const PageSet& changed, Toward toward = Toward::kLater);

  bool operator==(const TreeMap&) const = default;

 private:
  class Walk;
  class Rows;
  TreeMap(PageNo root, std::uint32_t usable) : root_(root), usable_(usable) {}
  PageSet touched_by(const PageSet& changed) const;
  static Result<> settle(Walk& then, Walk& now, Toward toward);
  static TouchedRows differing(Rows& then, Rows& now);
  void forget(const std::vector<PageNo>& pages);

  PageNo root_;
  std::uint32_t usable_;
  bool is_table_ = true;                       // with rowids
  std::unordered_map<PageNo, PageNo> parent_;  // of each page of the tree; 0: of the root
  std::unordered_map<PageNo, PageNo> owner_;   // of each overflow page: the page that leads there
  std::unordered_map<PageNo, std::vector<PageNo>> overflow_;  // the reverse
};

}  // namespace offprint::publication
