#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/result.h"
#include "cluster/replicated_log.h"

namespace offprint::cluster {

// Where frames of a fill go. Thread: any, one at a time.
class FillSink {
 public:
  enum class Put { kDone, kFull, kGone };
  virtual ~FillSink() = default;
  virtual const std::string& node() const = 0;
  // Waits for room so long: kFull, there is none.
  virtual Put put(const FillFrame& frame, std::chrono::milliseconds wait) = 0;
};

// One TCP connection to each other node of the cluster, made again whenever it breaks. Of two nodes
// the one with the smaller log id calls the other. A guardian's word about a member is received
// as the member's own. Format: docs/protocol/cluster.md.
// Thread: any; callbacks come on its own.
class PeerConnections final : public PeerTransport {
 public:
  struct Options {
    std::string cluster;
    RecordMember self;
    std::string listen;                     // HOST:PORT; port 0: any
    std::string secret;                     // of the cluster; empty: whoever connects is believed
    std::size_t queue_bytes_max = 8 << 20;  // to one node; then it takes no more
    int retry_ms = 50;                      // after this, doubled up to a second
    int silence_ms = 3'000;  // who does not say who he is, or acknowledges nothing, for so long
  };
  struct Callbacks {
    std::function<void(MemberId from, PeerMessage message)> received;
    std::function<void(MemberId)> connected;
    // A node that belongs to the cluster wants to be filled. Empty: nobody is.
    std::function<void(std::shared_ptr<FillSink>)> asks_for_fill = {};
  };
  // Listens at once; call start() when the callbacks may come. kInvalid, kIo: the address.
  static Result<std::unique_ptr<PeerConnections>> create(Options options);
  ~PeerConnections() override;
  // Nobody is called back afterwards, and nothing is sent. The destructor does it too.
  void stop();

  void start(Callbacks callbacks);
  // Keeps a connection to that node from now on; a later call changes where it is.
  void set_peer(const RecordMember& member, const std::string& address);

  bool send(MemberId to, const PeerMessage& message) override;
  std::uint16_t port() const { return port_; }

 private:
  class Connection;
  struct Peer {
    RecordMember member;
    std::string address;
    std::shared_ptr<Connection> connection;  // after its hello
    bool calling = false;  // or connected, or waiting to call again: for ever from then on
    int wait_ms = 0;
  };

  explicit PeerConnections(Options options);
  Result<> listen();
  void accept();
  void call(MemberId member);
  void call_later(MemberId member);
  // Whether the member is one of the cluster's.
  bool knows(const PeerHello& hello);
  // The other side has proved who it is. False: it is nobody we talk to.
  bool greeted(const std::shared_ptr<Connection>& connection, const PeerHello& hello);
  void ended(const Connection& connection);

  const Options options_;
  Callbacks callbacks_;
  std::uint16_t port_ = 0;
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_{io_};
  std::mutex mutex_;
  std::map<MemberId, Peer> peers_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace offprint::cluster
