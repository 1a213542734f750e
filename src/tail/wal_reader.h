#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "ltx/types.h"
#include "sqlite/capture_wal.h"

// Reads what commits wrote into a program's -wal. Format: https://sqlite.org/walformat.html.
namespace offprint::tail {

// A place between two commits, as SQLite's wal-index names it: salts of the generation, its last
// frame, the cumulative checksum there.
using WalPlace = sqlite::WalIndexHeader;

// Whether two transactions that begin there see the same state.
inline bool same_place(const WalPlace& one, const WalPlace& other) {
  return one.same_generation(other) && one.last_frame == other.last_frame &&
         one.same_checksum(other);
}

// Bytes of a -wal at an offset; fewer than asked only at its end.
using ReadWal =
    std::function<Result<std::size_t>(std::uint64_t offset, std::span<std::uint8_t> to)>;

// A page that was written, and the frame with its last image.
struct WalPage {
  PageNo page = 0;
  std::uint32_t frame = 0;
  bool is_before = false;  // of the generation before, which the newest one has not reached yet
  bool operator==(const WalPage&) const = default;
};

struct WalChanges {
  std::vector<WalPage> pages;  // ascending
  std::uint32_t commits = 0;   // never more than there were: what may be a copy does not count
  std::uint32_t copies = 0;    // … and there are so many of those
  std::uint32_t frames = 0;    // that were read
};

// The pages that the commits from `from` to `to` wrote, none above the size after the last of
// them. `from` is of the same generation, or has no frames: then from the beginning of the
// generation of `to`. Every frame is checked; the last one is a commit with the checksum of `to`.
// kBehind: the -wal does not lead from there to there (any more).
Result<WalChanges> read_wal(const ReadWal& wal, const WalPlace& from, const WalPlace& to);

// What the generation of `from` still has behind it, since the -wal was begun anew once: the next
// one did not reach those frames yet. Whether they are all, and all of them were ever seen, is for
// the caller to say: by counting. kBehind: the database became smaller in them.
Result<WalChanges> read_wal_rest(const ReadWal& wal, const WalPlace& from);

// Both in one, pages above the size `page_count` left out.
WalChanges join_changes(WalChanges before, const WalChanges& after, PageNo page_count);

// The image in a frame that read_wal() named, `of` that generation. kBehind: it is not there any
// more.
Result<> read_frame(const ReadWal& wal, const WalPlace& of, const WalPage& page,
                    std::span<std::uint8_t> image);

}  // namespace offprint::tail
