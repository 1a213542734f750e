#pragma once

#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "replica/follower.h"
#include "replica/replica_testing.h"

// For tests only: a server of one database, and a follower of it.
namespace offprint::replica::testing {

using sqlite::Connection;
using sqlite::testing::content_hash;
using sqlite::testing::open_plain;

// Serves one database over HTTP/1.0, one connection at a time, and misbehaves when told to.
class TestServer {
 public:
  TestServer() {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~TestServer() {
    change([&] { stop_ = true; });
    thread_.join();
    close(listener_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/db/t/"; }

  // What the server has; change under change().
  SentState state;                   // newest, for snapshots
  std::vector<SentTransaction> log;  // in order, the last one made `state`
  std::vector<Position> known;       // positions that a stream may begin at
  bool dropped = false;
  bool quiet = false;         // no heartbeats
  bool speaks_deltas = true;  // else it is an older one
  bool wrong_delta = false;   // the next delta is of other pages
  int status = 200;
  std::size_t cut_after = SIZE_MAX;   // bytes of an answer, then the connection breaks
  bool damage = false;                // a bit of the answers
  std::size_t hashes_max = SIZE_MAX;  // bytes of page hashes taken
  // What it saw.
  int streams = 0, snapshots = 0, differences = 0;
  std::size_t deltas_sent = 0, files_sent = 0;
  std::size_t pages_sent = 0;
  std::string last_request;

  template <class Change>
  void change(const Change& change) {
    std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  template <class Read>
  auto look(const Read& read) {
    std::lock_guard lock(mutex_);
    return read();
  }

 private:
  void serve() {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        if (stop_) return;
      }
      pollfd waiting{listener_, POLLIN, 0};
      if (poll(&waiting, 1, 20) != 1) continue;
      int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      sent_ = 0;
      answer(client);
      close(client);
    }
  }

  bool send_all(int client, ByteView bytes) {
    while (!bytes.empty()) {
      std::size_t size = std::min<std::size_t>(bytes.size(), 1500);
      if (sent_ + size > cut_after) return false;
      ssize_t put = send(client, bytes.data(), size, MSG_NOSIGNAL);
      if (put <= 0) return false;
      sent_ += static_cast<std::size_t>(put);
      bytes = bytes.subspan(static_cast<std::size_t>(put));
    }
    return true;
  }

  static std::string read_request(int client, Bytes& body) {
    std::string request;
    char buffer[4096];
    std::size_t end = std::string::npos;
    std::size_t wanted = 0;
    while (end == std::string::npos || request.size() < end + 4 + wanted) {
      ssize_t got = recv(client, buffer, sizeof buffer, 0);
      if (got <= 0) break;
      request.append(buffer, static_cast<std::size_t>(got));
      if (end != std::string::npos) continue;
      end = request.find("\r\n\r\n");
      std::size_t length = request.find("Content-Length: ");
      if (end != std::string::npos && length < end)
        wanted = std::stoul(request.substr(length + 16));
    }
    if (end == std::string::npos) return {};
    ByteView raw = as_bytes(request).subspan(end + 4);
    body.assign(raw.begin(), raw.end());
    return request.substr(0, end);
  }

  void answer(int client) {
    Bytes body;
    std::string request = read_request(client, body);
    std::unique_lock lock(mutex_);
    last_request = request;
    int answer_status = dropped ? 404 : status;
    bool pages = request.starts_with("POST /db/t/pages ");
    if (pages && body.size() > hashes_max) answer_status = 413;
    if (answer_status != 200) {
      send_all(client,
               as_bytes("HTTP/1.0 " + std::to_string(answer_status) + " no\r\n\r\nwhy not"));
      return;
    }
    Bytes out(as_bytes("HTTP/1.0 200 OK\r\n\r\n").begin(),
              as_bytes("HTTP/1.0 200 OK\r\n\r\n").end());
    append_hello(out, {kStreamVersion, "test"});
    if (pages) {
      PageHashes hashes = *parse_page_hashes(body);
      snapshot(out, &hashes);
      append_end(out, 0, {EndReason::kDone, ""});
      damage_if_told(out);
      send_all(client, out);
      return;
    }
    takes_deltas_ = request.find("\r\nOffprint-Stream-Encodings: delta") != std::string::npos;
    std::size_t from = request.find("from=");
    std::optional<Position> start;
    if (from != std::string::npos) {
      auto bookmark = Bookmark::parse(request.substr(from + 5, 59));
      for (const Position& position : known) {
        if (position.bookmark() == bookmark) start = position;
      }
      if (!start) {
        append_resync(out, 0, {ResyncReason::kTooOld, "too old"});
        send_all(client, out);
        return;
      }
    } else {
      snapshot(out, nullptr);
      start = state.position;
    }
    ++streams;
    stream(client, lock, out, *start);
  }

  void snapshot(Bytes& out, const PageHashes* hashes) {
    bool difference =
        hashes != nullptr && !hashes->hashes.empty() && hashes->page_size == state.page_size;
    ++(difference ? differences : snapshots);
    append_snapshot_begin(
        out, 0, {state.position, state.page_size, state.page_count, state.page_count, difference});
    PagesWriter writer(0);
    for (const auto& [page, image] : state.pages) {
      if (difference && page <= hashes->hashes.size() &&
          hashes->hashes[page - 1] == ltx::page_checksum(page, image).value) {
        continue;
      }
      writer.add(out, page, image);
      ++pages_sent;
    }
    writer.flush(out);
    append_snapshot_end(out, 0);
  }

  void damage_if_told(Bytes& out) {
    if (!damage || out.empty()) return;
    out[out.size() / 2] ^= 1;
    damage = false;
  }

  void stream(int client, std::unique_lock<std::mutex>& lock, Bytes& out, Position at) {
    append_start(out, 0, {at, unix_time_ms()});
    append_position(out, 0, {state.position, unix_time_ms()});
    for (;;) {
      for (const SentTransaction& sent : log) {
        if (sent.position.lineage != at.lineage || sent.position.txid <= at.txid) continue;
        append_transaction(out, sent);
        at = sent.position;
      }
      if (dropped) append_end(out, 0, {EndReason::kDropped, "dropped"});
      damage_if_told(out);
      if (!send_all(client, out) || stop_ || dropped) return;
      out.clear();
      bool woken =
          changed_.wait_for(lock, std::chrono::milliseconds(100)) == std::cv_status::no_timeout;
      if (!woken && !quiet) append_position(out, 0, {state.position, unix_time_ms()});
      pollfd gone{client, POLLIN, 0};
      if (poll(&gone, 1, 0) == 1) return;
    }
  }

  void append_transaction(Bytes& out, const SentTransaction& sent) {
    if (!takes_deltas_ || !speaks_deltas || sent.delta.empty()) {
      ++files_sent;
      replica::append_transaction(out, 0, {sent.position.epoch, sent.ltx.size(), {}}, sent.ltx);
      return;
    }
    ++deltas_sent;
    Bytes delta = sent.delta;
    if (std::exchange(wrong_delta, false)) delta[delta.size() / 2] ^= 1;
    append_delta(out, 0, delta);
  }

  int listener_;
  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::size_t sent_ = 0;
  bool takes_deltas_ = false;  // the client of now
  std::thread thread_;
};

// Remembers what happened; waits for it on another thread.
class Recorder final : public FollowerEvents {
 public:
  void connected(const std::string& server) override {
    note([&] {
      ++connections;
      last_server = server;
    });
  }
  void snapshot_progress(std::uint64_t, std::uint64_t) override {
    note([&] { ++progress; });
  }
  void applied(const Applied& applied) override {
    note([&] {
      position = applied.position;
      transactions += applied.transactions;
      ++applies;
      snapshots += applied.snapshot ? 1 : 0;
    });
  }
  void verified(bool equal, const std::string&) override {
    note([&] { ++(equal ? verified_equal : verified_different); });
  }
  void resync(const std::string& why) override {
    note([&] { resyncs.push_back(why); });
  }
  void delta_refused(const std::string& why) override {
    note([&] { refused_deltas.push_back(why); });
  }
  void interrupted(const Error& error, int) override {
    note([&] { interruptions.push_back(error.message()); });
  }
  void caught_up(const Position&) override {
    note([&] { ++caught; });
  }

  template <class Condition>
  bool wait(const Condition& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), condition);
  }

  int connections = 0, progress = 0, applies = 0, snapshots = 0, verified_equal = 0,
      verified_different = 0, caught = 0;
  std::uint64_t transactions = 0;
  std::string last_server;
  std::optional<Position> position;
  std::vector<std::string> resyncs, interruptions, refused_deltas;

 private:
  template <class Change>
  void note(const Change& change) {
    std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
};

class FollowerTest : public ::testing::Test {
 protected:
  FollowerTest()
      : primary_(std::make_unique<LtxPrimary>(folder_ / "primary.db", primary_options())) {
    primary_->primary().make_tables();
    primary_->capture();
    publish({});
  }
  ~FollowerTest() override { stop(); }

  static sqlite::testing::RandomPrimary::Options primary_options() {
    return {.page_size = 1024, .seed = 21};
  }

  void publish(std::vector<SentTransaction> sent) {
    SentState state = primary_->state();
    server_.change([&] {
      server_.state = std::move(state);
      server_.known.push_back(server_.state.position);
      for (SentTransaction& one : sent) {
        server_.known.push_back(one.position);
        server_.log.push_back(std::move(one));
      }
    });
  }
  void random_transactions(int count) {
    std::vector<SentTransaction> sent;
    for (int i = 0; i < count; ++i) sent.push_back(primary_->random_transaction());
    publish(std::move(sent));
  }

  FollowerOptions options() {
    FollowerOptions options;
    options.url = server_.url();
    options.file = path_;
    options.token = "secret";
    options.silence_max_ms = 600;
    options.retry_min_ms = 5;
    options.retry_max_ms = 50;
    return options;
  }
  void start(const FollowerOptions& options) {
    auto follower = Follower::create(options, events_);
    ASSERT_TRUE(follower) << follower.error().message();
    follower_ = *std::move(follower);
    thread_ = std::thread([this] { outcome_ = follower_->run(); });
  }
  void stop() {
    if (!thread_.joinable()) return;
    follower_->stop();
    thread_.join();
  }
  bool wait_for_primary() {
    Position wanted = primary_->position();
    return events_.wait([&] { return events_.position == wanted; });
  }
  Result<FollowerOutcome> run_once(FollowerOptions chosen) {
    chosen.once = true;
    auto follower = Follower::create(chosen, events_);
    if (!follower) return fail(follower.error());
    return (*follower)->run();
  }
  void expect_equal() {
    Connection reader = open_plain(path_);
    EXPECT_EQ(content_hash(reader), content_hash(primary_->db()));
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "copy.db";
  std::unique_ptr<LtxPrimary> primary_;
  TestServer server_;
  Recorder events_;
  std::unique_ptr<Follower> follower_;
  Result<FollowerOutcome> outcome_ = FollowerOutcome::kStopped;
  std::thread thread_;
};

}  // namespace offprint::replica::testing
