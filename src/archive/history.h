#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ltx/types.h"

namespace offprint::archive {

// What Litestream's layout cannot say of a database's archive: its epochs and lineages, and how far
// it must reach. The object kHistoryKey of the archive; format: docs/format/archive.md.
struct History {
  // The first transaction of an epoch or lineage that the archive has.
  struct Part {
    Bookmark from;
    std::int64_t since_ms = 0;
    bool operator==(const Part&) const = default;
  };

  std::string database;      // its name when this was written
  bool foreign_keys = true;  // as it was created
  std::vector<Part> parts;   // by txid
  Position head;             // the archive has reached this; it may reach farther
  std::int64_t head_ms = 0;  // time of that transaction
  bool operator==(const History&) const = default;

  // The epoch and lineage that a transaction belongs to. kNotFound: before the first one.
  Result<Bookmark> bookmark_of(TxId txid) const;
  // Whether the bookmark is one of this history; that it is not later than what the archive has is
  // for the caller to know.
  bool holds(const Bookmark& bookmark) const;

  std::string text() const;
  // kCorrupt: it is damaged; kInvalid: of a newer version.
  static Result<History> parse(std::string_view text);
};

inline constexpr const char* kHistoryKey = "offprint/history";
inline constexpr std::uint64_t kHistoryBytesMax = 16 << 20;

}  // namespace offprint::archive
