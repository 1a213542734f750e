#pragma once

namespace offprint {
// Prints where and what, then aborts.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);
}  // namespace offprint

// A condition that only a bug can make false. Checked in release builds too: going on would risk
// data.
#define OFFPRINT_ASSERT(condition)                                  \
  do {                                                              \
    if (!(condition)) [[unlikely]]                                  \
      ::offprint::assertion_failed(#condition, __FILE__, __LINE__); \
  } while (false)
