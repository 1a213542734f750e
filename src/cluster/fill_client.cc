#include "cluster/fill_client.h"

#include <array>
#include <chrono>
#include <optional>
#include <utility>

#include <openssl/crypto.h>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include "base/clock.h"
#include "base/random.h"
#include "cluster/group_index.h"
#include "cluster/peer_address.h"
#include "cluster/peer_wire.h"
#include "database/folder_fill.h"

namespace offprint::cluster {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr std::chrono::milliseconds kLookEvery{100};
// The primary fills one node after the other.
constexpr std::chrono::minutes kSilenceMax{10};
constexpr std::chrono::seconds kConnectMax{5};

class FillClient {
 public:
  FillClient(FileSystem& files, const FillRequest& request) : files_(files), request_(request) {}

  Result<std::uint64_t> run() {
    OFFPRINT_TRY(connect());
    OFFPRINT_TRY(introduce());
    OFFPRINT_TRY_ASSIGN(database::FolderFill fill,
                        database::FolderFill::begin(files_, request_.directory));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(PeerFrame frame, next(kSilenceMax));
      auto* part = std::get_if<FillFrame>(&frame);
      if (part == nullptr) return fail(Code::kCorrupt, "what came is no part of a fill");
      OFFPRINT_TRY_ASSIGN(bool is_done, take(fill, *part));
      if (is_done) return bytes_;
    }
  }

 private:
  // Runs what was begun until `done`.
  Result<> wait(const bool& done, std::chrono::milliseconds time) {
    const Deadline until = SteadyClock::now() + time;
    while (!done) {
      if (request_.cancelled()) return fail(Code::kUnavailable, "this node is to stop");
      if (SteadyClock::now() >= until)
        return fail(Code::kTimeout, request_.address + " does not answer");
      io_.restart();
      io_.run_for(kLookEvery);
    }
    return {};
  }

  Result<> connect() {
    OFFPRINT_TRY_ASSIGN(PeerAddress address, PeerAddress::parse(request_.address));
    bool done = false;
    ErrorCode failed;
    resolver_.async_resolve(address.host, address.port, [&](ErrorCode error, const auto& found) {
      failed = error;
      if (error) {
        done = true;
        return;
      }
      asio::async_connect(socket_, found, [&](ErrorCode refused, const auto&) {
        failed = refused;
        done = true;
      });
    });
    OFFPRINT_TRY(wait(done, kConnectMax));
    if (failed) return fail(Code::kIo, request_.address + ": " + failed.message());
    return {};
  }

  Result<> send(const Bytes& bytes) {
    bool done = false;
    ErrorCode failed;
    asio::async_write(socket_, asio::buffer(bytes), [&](ErrorCode error, std::size_t) {
      failed = error;
      done = true;
    });
    OFFPRINT_TRY(wait(done, kConnectMax));
    if (failed) return fail(Code::kIo, request_.address + ": " + failed.message());
    return {};
  }

  Result<PeerFrame> next(std::chrono::milliseconds time) {
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto frame, reader_.next());
      if (frame) return *std::move(frame);
      bool done = false;
      ErrorCode failed;
      std::size_t got = 0;
      socket_.async_read_some(asio::buffer(buffer_), [&](ErrorCode error, std::size_t size) {
        failed = error;
        got = size;
        done = true;
      });
      OFFPRINT_TRY(wait(done, time));
      if (failed) return fail(Code::kIo, request_.address + ": " + failed.message());
      reader_.add(ByteView(buffer_).first(got));
    }
  }

  // Both sides say who they are, and prove it.
  Result<> introduce() {
    PeerHello hello;
    hello.cluster = request_.cluster;
    hello.node = request_.node;
    hello.nonce.resize(kPeerNonceSize);
    fill_random(hello.nonce);
    Bytes said;
    append_hello(said, hello);
    OFFPRINT_TRY(send(said));
    OFFPRINT_TRY_ASSIGN(PeerFrame first, next(kConnectMax));
    const auto* other = std::get_if<PeerHello>(&first);
    if (other == nullptr || other->cluster != request_.cluster)
      return fail(Code::kInvalid, request_.address + " is no node of this cluster");
    if (request_.secret.empty()) return {};
    Bytes proof;
    append_proof(proof, {proof_of(request_.secret, hello, *other)});
    OFFPRINT_TRY(send(proof));
    OFFPRINT_TRY_ASSIGN(PeerFrame second, next(kConnectMax));
    const auto* theirs = std::get_if<PeerProof>(&second);
    const Bytes expected = proof_of(request_.secret, *other, hello);
    if (theirs == nullptr || theirs->mac.size() != expected.size() ||
        CRYPTO_memcmp(theirs->mac.data(), expected.data(), expected.size()) != 0)
      return fail(Code::kForbidden, request_.address + " does not know the cluster's secret");
    return {};
  }

  // Whether that was all.
  Result<bool> take(database::FolderFill& fill, const FillFrame& part) {
    if (const auto* refusal = std::get_if<FillRefusal>(&part))
      return fail(Code::kUnavailable, request_.address + ": " + refusal->why);
    if (const auto* begin = std::get_if<FillBegin>(&part)) {
      begins_ = {journal_group(0), begin->lsn, begin->epoch, begin->promised};
      return false;
    }
    if (!begins_) return fail(Code::kCorrupt, "a fill did not begin");
    if (const auto* pages = std::get_if<FillPages>(&part)) {
      bytes_ += pages->images.size();
      OFFPRINT_TRY(fill.pages(pages->images));
    } else if (const auto* database = std::get_if<FillDatabase>(&part)) {
      OFFPRINT_TRY(fill.database(database->id, database->state));
    } else {
      OFFPRINT_TRY(
          fill.finish(std::get<FillEnd>(part).databases, *begins_, as_bytes(request_.mark)));
      return true;
    }
    return false;
  }

  FileSystem& files_;
  const FillRequest& request_;
  asio::io_context io_;
  tcp::resolver resolver_{io_};
  tcp::socket socket_{io_};
  std::array<std::uint8_t, 256 << 10> buffer_{};
  PeerFrameReader reader_;
  std::optional<database::LogBeginning> begins_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

Result<std::uint64_t> fetch_fill(FileSystem& files, const FillRequest& request) {
  return std::make_unique<FillClient>(files, request)->run();
}

}  // namespace offprint::cluster
