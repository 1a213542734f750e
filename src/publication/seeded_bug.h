#pragma once

#include <atomic>
#include <cstdint>

namespace offprint::publication {

// Mistakes that tests can put in, to see that the oracle notices them. Never set elsewhere.
enum class SeededBug : std::uint8_t {
  kNone,
  kFilterMoves,    // a row that leaves an instance is looked for where it goes alone
  kOverflowPages,  // a row whose overflow pages alone were written counts as unchanged
  kFreedPages,     // pages that left a tree are not looked at
};

inline std::atomic<SeededBug> seeded_bug{SeededBug::kNone};

inline bool has_bug(SeededBug bug) { return seeded_bug.load(std::memory_order_relaxed) == bug; }

}  // namespace offprint::publication
