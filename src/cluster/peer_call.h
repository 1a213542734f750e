#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "base/result.h"
#include "cluster/peer_wire.h"

namespace offprint::cluster {

// A connection to another node's peer address by whoever is no member at work: one who wants to be
// filled, or a guardian. Both sides have said who they are, and proved it.
// Thread: one; each call blocks. Errors: kIo, kTimeout the connection; kInvalid the address, or no
// node of this cluster; kForbidden it does not know the secret; kUnavailable cancelled; kCorrupt no
// frames. After an error it is of no use.
class PeerCall {
 public:
  struct Options {
    std::string address;        // HOST:PORT
    std::string cluster, node;  // who calls
    MemberId member;            // {}: nobody yet
    bool is_guardian = false;   // of that member
    std::string secret;         // of the cluster; empty: it has none
    // To connect, to send, and for each answer of the greeting.
    std::chrono::milliseconds step_max{5'000};
    // Asked ten times a second; true: it ends.
    std::function<bool()> cancelled = [] { return false; };
  };
  static Result<std::unique_ptr<PeerCall>> open(Options options);

  // The other side's next frame.
  Result<PeerFrame> next(std::chrono::milliseconds time);
  Result<> send(const Bytes& frames);

 private:
  explicit PeerCall(Options options) : options_(std::move(options)) {}
  Result<> wait(const bool& done, std::chrono::milliseconds time);
  Result<> connect();
  Result<> introduce();
  std::unexpected<Error> failed(const boost::system::error_code& error) const;

  const Options options_;
  boost::asio::io_context io_;
  boost::asio::ip::tcp::resolver resolver_{io_};
  boost::asio::ip::tcp::socket socket_{io_};
  std::array<std::uint8_t, 256 << 10> buffer_{};
  PeerFrameReader reader_;
};

}  // namespace offprint::cluster
