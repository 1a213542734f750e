#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace offprint {

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "offprint: bug: %s is false at %s:%d\n", condition, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace offprint
