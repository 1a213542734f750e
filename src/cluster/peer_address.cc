#include "cluster/peer_address.h"

#include <charconv>
#include <cstdint>
#include <utility>

namespace offprint::cluster {

Result<PeerAddress> PeerAddress::parse(const std::string& address) {
  auto colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size())
    return fail(Code::kInvalid, "'" + address + "' is no HOST:PORT");
  std::uint16_t port = 0;
  const char* end = address.data() + address.size();
  if (auto parsed = std::from_chars(address.data() + colon + 1, end, port);
      parsed.ec != std::errc() || parsed.ptr != end) {
    return fail(Code::kInvalid, "'" + address + "' has no port from 0 to 65535");
  }
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return PeerAddress{std::move(host), address.substr(colon + 1)};
}

}  // namespace offprint::cluster
