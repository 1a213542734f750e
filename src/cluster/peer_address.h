#pragma once

#include <string>

#include "base/result.h"

namespace offprint::cluster {

// Where a node listens for the others: HOST:PORT, an IPv6 host in brackets.
struct PeerAddress {
  std::string host, port;
  // kInvalid.
  static Result<PeerAddress> parse(const std::string& address);
};

}  // namespace offprint::cluster
