#include "base/random.h"

#include <sys/random.h>

#include "base/assert.h"

namespace offprint {

void fill_random(std::span<std::uint8_t> to) {
  while (!to.empty()) {
    ssize_t got = getrandom(to.data(), to.size(), 0);
    OFFPRINT_ASSERT(got > 0);
    to = to.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace offprint
