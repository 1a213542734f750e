#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"

namespace offprint::sqlite {

// One page of a b-tree, as SQLite's file format has it (sqlite.org/fileformat2.html, "B-tree
// Pages"). Refers to the page's image; nothing is trusted: what lies outside the page is kCorrupt.
// Thread: any, const.
class BtreePage {
 public:
  enum class Kind : std::uint8_t {
    kInteriorIndex = 2,
    kInteriorTable = 5,
    kLeafIndex = 10,
    kLeafTable = 13,
  };
  struct Cell {
    std::uint32_t child = 0;         // of interior pages: what is before this cell
    std::int64_t rowid = 0;          // of tables
    std::uint64_t payload_size = 0;  // of all of it
    ByteView payload;                // the part that is in this page
    std::uint32_t overflow = 0;      // the page where it goes on; 0: nowhere
  };

  // The kind that the page's first byte says; nothing: it is no page of a b-tree. `number`: page 1
  // has the file's header first.
  static bool is_one(ByteView image, std::uint32_t number);
  // `usable`: the page's size without what is reserved at its end. kCorrupt.
  static Result<BtreePage> parse(ByteView image, std::uint32_t number, std::uint32_t usable);

  Kind kind() const { return kind_; }
  bool is_leaf() const { return kind_ == Kind::kLeafIndex || kind_ == Kind::kLeafTable; }
  bool is_table() const { return kind_ == Kind::kLeafTable || kind_ == Kind::kInteriorTable; }
  std::size_t cell_count() const { return cell_count_; }
  // The child behind the last cell, of interior pages.
  std::uint32_t last_child() const { return last_child_; }
  // kCorrupt: it reaches beyond the page.
  Result<Cell> cell(std::size_t index) const;

 private:
  ByteView image_;
  std::uint32_t usable_ = 0;
  Kind kind_ = Kind::kLeafTable;
  std::size_t pointers_ = 0;  // where the cells' places are
  std::size_t cell_count_ = 0;
  std::uint32_t last_child_ = 0;
};

// Zeroes what is between the cells of a b-tree page: the gap before them and the bodies of free
// blocks, where copies of cells that SQLite moved or removed may still be. True: something was.
// kCorrupt: it is no such page, and stays as it is.
Result<bool> clear_unused(std::span<std::uint8_t> image, std::uint32_t number,
                          std::uint32_t usable);

// The size of a page without what is reserved at its end, from page 1's header.
std::uint32_t usable_size(ByteView page_one);

// SQLite's variable-length integer: its value, and how many bytes it takes; 0 bytes: it does not
// end in `bytes`.
struct Varint {
  std::uint64_t value = 0;
  std::size_t size = 0;
};
Varint read_varint(ByteView bytes);

}  // namespace offprint::sqlite
