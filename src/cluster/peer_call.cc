#include "cluster/peer_call.h"

#include <utility>

#include <openssl/crypto.h>
#include <boost/asio/connect.hpp>
#include <boost/asio/write.hpp>

#include "base/clock.h"
#include "base/random.h"
#include "cluster/peer_address.h"

namespace offprint::cluster {
namespace {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;

constexpr std::chrono::milliseconds kLookEvery{100};

}  // namespace

Result<std::unique_ptr<PeerCall>> PeerCall::open(Options options) {
  std::unique_ptr<PeerCall> call(new PeerCall(std::move(options)));
  OFFPRINT_TRY(call->connect());
  OFFPRINT_TRY(call->introduce());
  return call;
}

std::unexpected<Error> PeerCall::failed(const ErrorCode& error) const {
  return fail(Code::kIo, options_.address + ": " + error.message());
}

// Runs what was begun until `done`.
Result<> PeerCall::wait(const bool& done, std::chrono::milliseconds time) {
  const Deadline until = SteadyClock::now() + time;
  while (!done) {
    if (options_.cancelled()) return fail(Code::kUnavailable, "this node is to stop");
    if (SteadyClock::now() >= until)
      return fail(Code::kTimeout, options_.address + " does not answer");
    io_.restart();
    io_.run_for(kLookEvery);
  }
  return {};
}

Result<> PeerCall::connect() {
  OFFPRINT_TRY_ASSIGN(PeerAddress address, PeerAddress::parse(options_.address));
  bool done = false;
  ErrorCode refused;
  resolver_.async_resolve(address.host, address.port, [&](ErrorCode error, const auto& found) {
    refused = error;
    if (error) {
      done = true;
      return;
    }
    asio::async_connect(socket_, found, [&](ErrorCode none, const auto&) {
      refused = none;
      done = true;
    });
  });
  OFFPRINT_TRY(wait(done, options_.step_max));
  if (refused) return failed(refused);
  return {};
}

Result<> PeerCall::send(const Bytes& frames) {
  bool done = false;
  ErrorCode broken;
  asio::async_write(socket_, asio::buffer(frames), [&](ErrorCode error, std::size_t) {
    broken = error;
    done = true;
  });
  OFFPRINT_TRY(wait(done, options_.step_max));
  if (broken) return failed(broken);
  return {};
}

Result<PeerFrame> PeerCall::next(std::chrono::milliseconds time) {
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto frame, reader_.next());
    if (frame) return *std::move(frame);
    bool done = false;
    ErrorCode broken;
    std::size_t got = 0;
    socket_.async_read_some(asio::buffer(buffer_), [&](ErrorCode error, std::size_t size) {
      broken = error;
      got = size;
      done = true;
    });
    OFFPRINT_TRY(wait(done, time));
    if (broken) return failed(broken);
    reader_.add(ByteView(buffer_).first(got));
  }
}

// Both sides say who they are, and prove it.
Result<> PeerCall::introduce() {
  PeerHello hello;
  hello.cluster = options_.cluster;
  hello.node = options_.node;
  hello.member = options_.member;
  hello.is_guardian = options_.is_guardian;
  hello.nonce.resize(kPeerNonceSize);
  fill_random(hello.nonce);
  Bytes said;
  append_hello(said, hello);
  OFFPRINT_TRY(send(said));
  OFFPRINT_TRY_ASSIGN(PeerFrame first, next(options_.step_max));
  const auto* other = std::get_if<PeerHello>(&first);
  if (other == nullptr || other->cluster != options_.cluster)
    return fail(Code::kInvalid, options_.address + " is no node of this cluster");
  if (options_.secret.empty()) return {};
  Bytes proof;
  append_proof(proof, {proof_of(options_.secret, hello, *other)});
  OFFPRINT_TRY(send(proof));
  OFFPRINT_TRY_ASSIGN(PeerFrame second, next(options_.step_max));
  const auto* theirs = std::get_if<PeerProof>(&second);
  const Bytes expected = proof_of(options_.secret, *other, hello);
  if (theirs == nullptr || theirs->mac.size() != expected.size() ||
      CRYPTO_memcmp(theirs->mac.data(), expected.data(), expected.size()) != 0)
    return fail(Code::kForbidden, options_.address + " does not know the cluster's secret");
  return {};
}

}  // namespace offprint::cluster
