#include "publication/digest.h"

#include <array>
#include <cstdint>

#include <openssl/evp.h>

#include "base/assert.h"
#include "base/bytes.h"

namespace offprint::publication {

std::string digest(std::string_view text) {
  std::array<std::uint8_t, 32> bytes{};
  unsigned size = 0;
  const int done = EVP_Digest(text.data(), text.size(), bytes.data(), &size, EVP_sha256(), nullptr);
  OFFPRINT_ASSERT(done == 1 && size == bytes.size());
  return to_hex(bytes);
}

}  // namespace offprint::publication
