// Feeds arbitrary bytes to the HTTP parser, whole and in pieces: both must read the same requests,
// and what the parser accepts must obey its own rules. The first byte of the input is the size of
// the pieces.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/assert.h"
#include "server/address.h"
#include "server/http_parser.h"

namespace {

using offprint::server::HttpParser;

constexpr std::size_t kHeadLimit = 4096;
constexpr std::size_t kBodyLimit = 1 << 16;
const std::string kRefused = "refused";
const std::string kUnfinished = "unfinished";

// What was read from a connection: one line for each request, and why it ended.
std::vector<std::string> read_all(std::string_view bytes, std::size_t piece) {
  std::vector<std::string> seen;
  HttpParser parser(kHeadLimit);
  std::string pending;
  bool head_seen = false;
  for (;;) {
    std::size_t used = parser.feed(pending);
    OFFPRINT_ASSERT(used <= pending.size());
    pending.erase(0, used);
    if (!head_seen && (parser.state() == HttpParser::State::kBody ||
                       parser.state() == HttpParser::State::kDone)) {
      head_seen = true;
      parser.set_body_limit(kBodyLimit);
      continue;
    }
    if (parser.state() == HttpParser::State::kRefused) {
      OFFPRINT_ASSERT(parser.error_status() >= 400);
      seen.push_back(kRefused);
      return seen;
    }
    if (parser.state() == HttpParser::State::kDone) {
      const auto& request = parser.request();
      OFFPRINT_ASSERT(!request.target.empty() &&
                      (request.target[0] == '/' || request.target == "*"));
      OFFPRINT_ASSERT(!(request.chunked && request.content_length));
      OFFPRINT_ASSERT(parser.body().size() <= kBodyLimit);
      OFFPRINT_ASSERT(!request.content_length || *request.content_length == parser.body().size());
      (void)offprint::server::parse_address(request.target);
      seen.push_back(std::string(request.target) + "\n" + parser.body());
      parser.reset();
      head_seen = false;
      continue;
    }
    if (used > 0) continue;
    if (bytes.empty()) {
      seen.push_back(kUnfinished);
      return seen;
    }
    std::size_t size = std::min(piece, bytes.size());
    pending.append(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
}

// The same requests and the same end.
bool agree(std::vector<std::string> whole, std::vector<std::string> pieces) {
  for (auto* seen : {&whole, &pieces}) {
    if (seen->back() == kRefused) seen->back() = kUnfinished;
  }
  return whole == pieces;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto whole = read_all(bytes, bytes.size() + 1);
  auto pieces = read_all(bytes, data[0] + std::size_t{1});
  OFFPRINT_ASSERT(agree(whole, pieces));
  return 0;
}
