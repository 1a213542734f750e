#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace offprint {

// Number of a transaction of one database: +1 each commit, never reused. 0 = before the first one.
struct TxId {
  std::uint64_t value = 0;
  auto operator<=>(const TxId&) const = default;
  TxId next() const { return TxId{value + 1}; }
};

// +1 each time the right to write a database moves or it is restored to an earlier state.
struct Epoch {
  std::uint32_t value = 0;
  auto operator<=>(const Epoch&) const = default;
};

// A page's number within its database file, from 1.
using PageNo = std::uint32_t;

// Random identity of a database's history. All zero: none.
struct Lineage {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const Lineage&) const = default;
  static Lineage random();
  std::string text() const;  // 32 lower-case hex digits
  static std::optional<Lineage> parse(std::string_view text);
};

// Rolling checksum of a database, or the checksum of one page, as LTX defines them
// (ltx/checksum.h). Bit 63 is set in every valid one; 0 = not tracked.
struct Checksum {
  std::uint64_t value = 0;
  auto operator<=>(const Checksum&) const = default;
};

// Where a copy stands, as a text that clients carry: "%08x-%08x-%08x-%032x" of epoch, txid high,
// txid low, lineage. Fixed width and lower case, so that it sorts as a string within one lineage.
struct Bookmark {
  Epoch epoch;
  TxId txid;
  Lineage lineage;
  auto operator<=>(const Bookmark&) const = default;
  std::string text() const;  // 59 characters
  static std::optional<Bookmark> parse(std::string_view text);
};

// Where a copy stands, with proof: a bookmark and the rolling checksum of the database there.
struct Position {
  Lineage lineage;
  Epoch epoch;
  TxId txid;
  Checksum checksum;
  bool operator==(const Position&) const = default;
  Bookmark bookmark() const { return {epoch, txid, lineage}; }
};

}  // namespace offprint
