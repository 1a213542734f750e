#include "cluster/peer_connections.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <utility>

#include <netinet/tcp.h>

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>

#include "base/log.h"
#include "base/random.h"
#include "cluster/peer_address.h"

namespace offprint::cluster {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

namespace {

constexpr int kProbes = 3;                      // of a silent connection
constexpr std::size_t kFillQueueMax = 4 << 20;  // bytes

}  // namespace

// One connection. Everything but queue() on the I/O thread; shared with the operations under way.
class PeerConnections::Connection : public FillSink,
                                    public std::enable_shared_from_this<Connection> {
 public:
  // `called`: whom we called; nobody when we were called.
  Connection(PeerConnections& owner, tcp::socket socket, MemberId called)
      : owner_(owner), called_(called), socket_(std::move(socket)), silence_(owner.io_) {}

  MemberId called() const { return called_; }

  void begin() {
    ErrorCode ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    // A node that does not even acknowledge has gone. It is asked also while there is nothing to
    // say: one that was killed while it was cut off may have left half a connection.
    socket_.set_option(asio::socket_base::keep_alive(true), ignored);
    const int silence_ms = owner_.options_.silence_ms;
    const int every_s = std::max(1, silence_ms / (kProbes * 1000));
    for (const auto& [option, value] : {std::pair{TCP_USER_TIMEOUT, silence_ms},
                                        {TCP_KEEPIDLE, every_s},
                                        {TCP_KEEPINTVL, every_s},
                                        {TCP_KEEPCNT, kProbes}})
      setsockopt(socket_.native_handle(), IPPROTO_TCP, option, &value, sizeof value);
    hello_.cluster = owner_.options_.cluster;
    hello_.node = owner_.options_.self.node;
    hello_.member = MemberId{owner_.options_.self.log_id};
    hello_.nonce.resize(kPeerNonceSize);
    fill_random(hello_.nonce);
    if (called_.value == 0) {
      Bytes hello;
      append_hello(hello, hello_);
      queue(hello);
    }
    read();
    watch();
  }

  // Whether there was room. Thread: any.
  template <class Append>
  bool queue_if_room(std::size_t limit, Append append) {
    std::unique_lock lock(mutex_);
    if (closed_ || outgoing_.size() > limit) return false;
    append(outgoing_);
    flush(lock);
    return true;
  }

  const std::string& node() const override { return other_.node; }
  Put put(const FillFrame& frame, std::chrono::milliseconds wait) override {
    std::unique_lock lock(mutex_);
    const bool has_room =
        room_.wait_for(lock, wait, [&] { return closed_ || outgoing_.size() <= kFillQueueMax; });
    if (closed_) return Put::kGone;
    if (!has_room) return Put::kFull;
    append_fill(outgoing_, frame);
    flush(lock);
    return Put::kDone;
  }

  void close() {
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(closed_, true)) return;
    }
    room_.notify_all();
    ErrorCode ignored;
    silence_.cancel();
    socket_.close(ignored);
    owner_.ended(*this);
  }

 private:
  // With mutex_ held.
  void flush(const std::unique_lock<std::mutex>&) {
    if (!std::exchange(flush_posted_, true))
      asio::post(owner_.io_, [self = shared_from_this()] { self->write(); });
  }

  void queue(const Bytes& bytes) {
    queue_if_room(bytes.size(), [&](Bytes& to) { append(to, bytes); });
  }

  void write() {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      flush_posted_ = true;  // until this batch is out
      if (outgoing_.empty()) {
        flush_posted_ = false;
        return;
      }
      writing_.clear();
      std::swap(writing_, outgoing_);
    }
    room_.notify_all();
    asio::async_write(socket_, asio::buffer(writing_),
                      [self = shared_from_this()](const ErrorCode& error, std::size_t) {
                        if (error) return self->close();
                        self->write();
                      });
  }

  void read() {
    socket_.async_read_some(asio::buffer(buffer_),
                            [self = shared_from_this()](const ErrorCode& error, std::size_t size) {
                              if (error || !self->take(size)) return self->close();
                              self->read();
                            });
  }

  bool take(std::size_t size) {
    reader_.add(ByteView(buffer_).first(size));
    for (;;) {
      auto frame = reader_.next();
      if (!frame) {
        log::warn("node {:016x}: {}", member_.value, frame.error().message());
        return false;
      }
      if (!*frame) return true;
      if (auto* hello = std::get_if<PeerHello>(&**frame)) {
        if (!take_hello(std::move(*hello))) return false;
      } else if (auto* proof = std::get_if<PeerProof>(&**frame)) {
        if (!take_proof(*proof)) return false;
      } else if (auto* message = std::get_if<PeerMessage>(&**frame)) {
        if (guards_.value != 0) return take_release(*message);
        if (member_.value == 0 || std::holds_alternative<Release>(message->message)) return false;
        owner_.callbacks_.received(member_, std::move(*message));
      } else {
        return false;
      }
    }
  }

  bool take_hello(PeerHello hello) {
    const std::string& secret = owner_.options_.secret;
    if (has_hello_ || hello.member == hello_.member) return false;
    has_hello_ = true;
    // Who has another one's address now must not take this connection for one to itself.
    if (called_.value != 0 && hello.member != called_) return false;
    other_ = std::move(hello);
    Bytes said;
    if (called_.value != 0) append_hello(said, hello_);
    if (!secret.empty()) append_proof(said, {proof_of(secret, hello_, other_)});
    if (!said.empty()) queue(said);
    return !secret.empty() || welcome();
  }

  bool take_proof(const PeerProof& proof) {
    const std::string& secret = owner_.options_.secret;
    if (secret.empty()) return true;  // it has one, we have none: it will leave
    if (!has_hello_ || is_known_) return false;
    Bytes expected = proof_of(secret, other_, hello_);
    bool right = proof.mac.size() == expected.size() &&
                 CRYPTO_memcmp(proof.mac.data(), expected.data(), expected.size()) == 0;
    if (!right) log::warn("node {}: it does not know the cluster's secret", other_.node);
    return right && welcome();
  }

  // All that a guardian has to say; the end of the connection tells it that it was heard.
  bool take_release(const PeerMessage& message) {
    const auto* release = std::get_if<Release>(&message.message);
    if (release == nullptr || release->primary != guards_) return false;
    log::info("node {}: its process that was primary in epoch {} has died, says its guardian",
              other_.node, release->epoch.value);
    owner_.callbacks_.received(guards_, message);
    return false;
  }

  bool welcome() {
    is_known_ = true;
    if (other_.is_guardian) {  // it takes the place of no node's connection
      if (!owner_.knows(other_)) return false;
      guards_ = other_.member;
      return true;
    }
    if (other_.member.value == 0) {
      if (other_.cluster != hello_.cluster || !owner_.callbacks_.asks_for_fill) return false;
      owner_.callbacks_.asks_for_fill(shared_from_this());
      return true;
    }
    if (!owner_.greeted(shared_from_this(), other_)) return false;
    member_ = other_.member;
    owner_.callbacks_.connected(member_);
    return true;
  }

  // Ends it when the other side does not say who it is. Later it may be silent: nodes that share no
  // group have nothing to say to each other.
  void watch() {
    silence_.expires_after(std::chrono::milliseconds(owner_.options_.silence_ms));
    silence_.async_wait([self = shared_from_this()](const ErrorCode& error) {
      if (!error && !self->is_known_) self->close();
    });
  }

  PeerConnections& owner_;
  const MemberId called_;
  tcp::socket socket_;
  asio::steady_timer silence_;
  PeerHello hello_, other_;
  bool has_hello_ = false;
  bool is_known_ = false;  // has proved it
  MemberId member_;        // nobody before that
  MemberId guards_;        // a guardian's: of that member
  std::array<std::uint8_t, 64 << 10> buffer_;
  PeerFrameReader reader_;
  Bytes writing_;

  std::mutex mutex_;
  std::condition_variable room_;
  // --- guarded by mutex_
  Bytes outgoing_;
  bool flush_posted_ = false;
  bool closed_ = false;
};

PeerConnections::PeerConnections(Options options) : options_(std::move(options)) {}

Result<std::unique_ptr<PeerConnections>> PeerConnections::create(Options options) {
  std::unique_ptr<PeerConnections> peers(new PeerConnections(std::move(options)));
  OFFPRINT_TRY(peers->listen());
  return peers;
}

Result<> PeerConnections::listen() {
  OFFPRINT_TRY_ASSIGN(PeerAddress address, PeerAddress::parse(options_.listen));
  ErrorCode error;
  tcp::resolver resolver(io_);
  auto found = resolver.resolve(address.host, address.port, tcp::resolver::passive, error);
  if (error || found.empty())
    return fail(Code::kInvalid, "peer address " + options_.listen + ": " + error.message());
  tcp::endpoint endpoint = *found.begin();
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(128, error);
  if (error) return fail(Code::kIo, "listen on " + options_.listen + ": " + error.message());
  port_ = acceptor_.local_endpoint(error).port();
  return {};
}

PeerConnections::~PeerConnections() { stop(); }

void PeerConnections::stop() {
  io_.stop();
  if (thread_.joinable()) thread_.join();
  std::lock_guard lock(mutex_);
  peers_.clear();
}

void PeerConnections::start(Callbacks callbacks) {
  callbacks_ = std::move(callbacks);
  accept();
  thread_ = std::thread([this] { io_.run(); });
}

void PeerConnections::accept() {
  acceptor_.async_accept([this](const ErrorCode& error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error) std::make_shared<Connection>(*this, std::move(socket), MemberId{})->begin();
    accept();
  });
}

void PeerConnections::set_peer(const RecordMember& member, const std::string& address) {
  MemberId id{member.log_id};
  std::vector<std::shared_ptr<Connection>> former;
  bool calls = false;
  {
    std::lock_guard lock(mutex_);
    // A node whose folder is another one is another member, and the former one does not come back.
    std::erase_if(peers_, [&](auto& each) {
      const bool is_former = each.second.member.node == member.node && each.first != id;
      if (is_former && each.second.connection) former.push_back(each.second.connection);
      return is_former;
    });
    Peer& peer = peers_[id];
    peer.member = member;
    peer.address = address;
    calls = options_.self.log_id < member.log_id && !peer.calling && !peer.connection;
    if (calls) peer.calling = true;
  }
  for (const auto& each : former) asio::post(io_, [each] { each->close(); });
  if (calls) asio::post(io_, [this, id] { call(id); });
}

void PeerConnections::call(MemberId member) {
  std::string address;
  {
    std::lock_guard lock(mutex_);
    auto peer = peers_.find(member);
    if (peer == peers_.end()) return;
    address = peer->second.address;
  }
  auto parsed = PeerAddress::parse(address);
  if (!parsed) return call_later(member);
  auto resolver = std::make_shared<tcp::resolver>(io_);
  auto socket = std::make_shared<tcp::socket>(io_);
  auto timer = std::make_shared<asio::steady_timer>(io_, std::chrono::seconds(2));
  timer->async_wait([socket](const ErrorCode& error) {
    ErrorCode ignored;
    if (!error) socket->close(ignored);
  });
  resolver->async_resolve(
      parsed->host, parsed->port,
      [this, member, resolver, socket, timer](const ErrorCode& error, const auto& found) {
        if (error) {
          timer->cancel();
          return call_later(member);
        }
        asio::async_connect(
            *socket, found, [this, member, socket, timer](const ErrorCode& failed, const auto&) {
              timer->cancel();
              if (failed) return call_later(member);
              std::make_shared<Connection>(*this, std::move(*socket), member)->begin();
            });
      });
}

void PeerConnections::call_later(MemberId member) {
  int wait_ms;
  {
    std::lock_guard lock(mutex_);
    auto found = peers_.find(member);
    if (found == peers_.end()) return;
    Peer& peer = found->second;
    wait_ms = peer.wait_ms = std::min(std::max(options_.retry_ms, peer.wait_ms * 2), 1000);
  }
  auto timer = std::make_shared<asio::steady_timer>(io_, std::chrono::milliseconds(wait_ms));
  timer->async_wait([this, member, timer](const ErrorCode& error) {
    if (!error) call(member);
  });
}

bool PeerConnections::knows(const PeerHello& hello) {
  if (hello.cluster != options_.cluster) {
    log::warn("node {} is of cluster '{}', this is '{}'", hello.node, hello.cluster,
              options_.cluster);
    return false;
  }
  std::lock_guard lock(mutex_);
  return peers_.contains(hello.member);
}

bool PeerConnections::greeted(const std::shared_ptr<Connection>& connection,
                              const PeerHello& hello) {
  if (!knows(hello)) return false;
  std::shared_ptr<Connection> former;
  {
    std::lock_guard lock(mutex_);
    auto found = peers_.find(hello.member);
    if (found == peers_.end()) return false;
    former = std::exchange(found->second.connection, connection);
    found->second.wait_ms = 0;
  }
  if (former) asio::post(io_, [former] { former->close(); });
  return true;
}

void PeerConnections::ended(const Connection& connection) {
  {
    std::lock_guard lock(mutex_);
    for (auto& [member, peer] : peers_) {
      if (peer.connection.get() == &connection) peer.connection.reset();
    }
    auto called = peers_.find(connection.called());
    if (called == peers_.end() || called->second.connection) return;
  }
  call_later(connection.called());
}

bool PeerConnections::send(MemberId to, const PeerMessage& message) {
  std::shared_ptr<Connection> connection;
  {
    std::lock_guard lock(mutex_);
    auto found = peers_.find(to);
    if (found != peers_.end()) connection = found->second.connection;
  }
  return connection && connection->queue_if_room(options_.queue_bytes_max, [&](Bytes& bytes) {
    append_message(bytes, message);
  });
}

}  // namespace offprint::cluster
