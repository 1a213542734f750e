#include "replica/follower.h"

#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "replica/replica_testing.h"

namespace offprint::replica {
namespace {

using sqlite::Connection;
using sqlite::testing::content_hash;
using sqlite::testing::open_plain;
using testing::LtxPrimary;
using testing::SentState;
using testing::SentTransaction;
using testing::TemporaryFolder;

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
  bool quiet = false;  // no heartbeats
  int status = 200;
  std::size_t cut_after = SIZE_MAX;   // bytes of an answer, then the connection breaks
  bool damage = false;                // a bit of the answers
  std::size_t hashes_max = SIZE_MAX;  // bytes of page hashes taken
  // What it saw.
  int streams = 0, snapshots = 0, differences = 0;
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
        append_transaction(out, 0, {sent.position.epoch, sent.ltx.size(), {}}, sent.ltx);
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

  int listener_;
  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::size_t sent_ = 0;
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
  std::vector<std::string> resyncs, interruptions;

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

TEST_F(FollowerTest, OnceCatchesUpAndReturns) {
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(*outcome, FollowerOutcome::kCaughtUp);
  expect_equal();
  EXPECT_EQ(events_.last_server, "test");
  EXPECT_NE(server_.last_request.find("Authorization: Bearer secret"), std::string::npos);
  EXPECT_NE(server_.last_request.find("Offprint-Stream-Version: 1"), std::string::npos);
  random_transactions(30);
  outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  expect_equal();
  EXPECT_EQ(server_.snapshots, 1) << "the second time it went on from its position";
  EXPECT_EQ(events_.transactions, 30u);
  EXPECT_LT(events_.applies, 20) << "what waits is applied as one";
}

TEST_F(FollowerTest, FollowsLive) {
  start(options());
  ASSERT_TRUE(wait_for_primary());
  for (int i = 0; i < 40; ++i) {
    random_transactions(1 + i % 3);
    ASSERT_TRUE(wait_for_primary()) << i;
    expect_equal();
  }
  stop();
  ASSERT_TRUE(outcome_);
  EXPECT_EQ(*outcome_, FollowerOutcome::kStopped);
  EXPECT_EQ(server_.streams, 1);
}

TEST_F(FollowerTest, GoesOnAfterCutsAtAnyByte) {
  sqlite::testing::must(primary_->db(), "CREATE TABLE big AS SELECT randomblob(80000) AS b");
  primary_->capture();
  publish({});
  for (std::size_t cut = 20; cut < 60'000; cut = cut * 3 / 2 + 13) {
    server_.change([&] { server_.cut_after = cut; });
    random_transactions(3);
    start(options());
    ASSERT_TRUE(events_.wait([&] { return !events_.interruptions.empty(); })) << cut;
    server_.change([&] { server_.cut_after = SIZE_MAX; });
    ASSERT_TRUE(wait_for_primary()) << cut;
    stop();
    expect_equal();
    events_.interruptions.clear();
    std::filesystem::remove(path_);
  }
}

TEST_F(FollowerTest, DamagedBytesAreFetchedAgain) {
  server_.change([&] { server_.damage = true; });
  start(options());
  ASSERT_TRUE(wait_for_primary());
  server_.change([&] { server_.damage = true; });
  random_transactions(5);
  ASSERT_TRUE(wait_for_primary());
  stop();
  expect_equal();
  EXPECT_EQ(events_.interruptions.size(), 2u);
}

TEST_F(FollowerTest, ASilentServerIsLeft) {
  server_.change([&] { server_.quiet = true; });
  start(options());
  ASSERT_TRUE(events_.wait([&] { return !events_.interruptions.empty(); }));
  EXPECT_NE(events_.interruptions[0].find("nothing heard"), std::string::npos)
      << events_.interruptions[0];
  server_.change([&] { server_.quiet = false; });
  random_transactions(1);
  ASSERT_TRUE(wait_for_primary());
}

TEST_F(FollowerTest, AForgottenPositionCostsOnlyTheDifferences) {
  sqlite::testing::must(
      primary_->db(),
      "INSERT INTO t(b) SELECT randomblob(700) FROM (WITH RECURSIVE n(i) AS (VALUES(1) "
      "UNION ALL SELECT i+1 FROM n LIMIT 250) SELECT i FROM n)");
  primary_->capture();
  publish({});
  ASSERT_TRUE(run_once(options()));
  sqlite::testing::must(primary_->db(), "UPDATE t SET b=randomblob(700) WHERE id=9");
  primary_->capture();
  server_.change([&] {
    server_.known.clear();
    server_.log.clear();
    server_.pages_sent = 0;
  });
  publish({});
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  expect_equal();
  EXPECT_EQ(server_.differences, 1);
  EXPECT_LT(server_.pages_sent, 10u);
  EXPECT_EQ(events_.resyncs.size(), 1u);
}

TEST_F(FollowerTest, ADivergedCopyIsFoundAndMended) {
  ASSERT_TRUE(run_once(options()));
  // The server says another checksum at our position: as after a forced failover.
  auto other = std::make_unique<LtxPrimary>(folder_ / "other.db", primary_options());
  other->primary().make_tables();
  sqlite::testing::must(other->db(), "INSERT INTO t(a) VALUES('other')");
  other->capture();
  Position diverged = other->position();
  SentState state = other->state();
  diverged.lineage = primary_->position().lineage;
  state.position = diverged;
  server_.change([&] {
    server_.state = state;
    server_.known = {diverged};
  });
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(events_.resyncs.size(), 1u);
  Connection reader = open_plain(path_);
  EXPECT_EQ(content_hash(reader), content_hash(other->db()));
}

TEST_F(FollowerTest, VerifyFindsAForeignWrite) {
  ASSERT_TRUE(run_once(options()));
  {
    Connection foreign = open_plain(path_);
    sqlite::testing::must(foreign, "INSERT INTO w VALUES('foreign','write')");
  }
  FollowerOptions chosen = options();
  chosen.verify = true;
  auto outcome = run_once(chosen);
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(events_.verified_different, 1);
  EXPECT_EQ(events_.verified_equal, 1);
  expect_equal();
}

TEST_F(FollowerTest, ADroppedDatabaseEndsIt) {
  start(options());
  ASSERT_TRUE(wait_for_primary());
  server_.change([&] { server_.dropped = true; });
  thread_.join();
  ASSERT_TRUE(outcome_) << outcome_.error().message();
  EXPECT_EQ(*outcome_, FollowerOutcome::kDropped);
  // Dropped while we were away.
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(*outcome, FollowerOutcome::kDropped);
  expect_equal();
}

TEST_F(FollowerTest, SaysWhyItCannotFollow) {
  FollowerOptions chosen = options();
  server_.change([&] { server_.status = 401; });
  EXPECT_EQ(run_once(chosen).error().code(), Code::kUnauthorized);
  server_.change([&] { server_.status = 404; });
  EXPECT_EQ(run_once(chosen).error().code(), Code::kNotFound);
  server_.change([&] { server_.status = 503; });
  EXPECT_EQ(run_once(chosen).error().code(), Code::kUnavailable);
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_FALSE(std::filesystem::exists(path_ + "-offprint"))
      << "a first start that failed leaves nothing";
  chosen.url = "http://127.0.0.1:9/db/t";
  EXPECT_EQ(run_once(chosen).error().code(), Code::kUnavailable);
  chosen.url = "ftp://127.0.0.1/db/t";
  EXPECT_EQ(run_once(chosen).error().code(), Code::kInvalid);
  chosen.url = "http://user:secret@127.0.0.1/db/t";
  EXPECT_EQ(run_once(chosen).error().code(), Code::kInvalid);
  std::ofstream(path_) << "not a database of ours";
  EXPECT_EQ(run_once(options()).error().code(), Code::kForbidden);
}

TEST_F(FollowerTest, ACopyOfAnotherDatabaseIsNotOverwritten) {
  ASSERT_TRUE(run_once(options()));
  TestServer second;
  LtxPrimary other(folder_ / "other.db", primary_options());
  other.primary().make_tables();
  other.capture();
  second.change([&] {
    second.state = other.state();
    second.known = {second.state.position};
  });
  FollowerOptions chosen = options();
  chosen.url = second.url();
  auto refused = run_once(chosen);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kForbidden);
  expect_equal();
  // The same database at another address is followed on.
  second.change([&] {
    second.state = server_.state;
    second.known = server_.known;
  });
  EXPECT_TRUE(run_once(chosen));
  expect_equal();
}

TEST_F(FollowerTest, ANewLineageAtTheSameAddressIsTaken) {
  ASSERT_TRUE(run_once(options()));
  primary_ = std::make_unique<LtxPrimary>(folder_ / "new.db", primary_options());
  primary_->primary().make_tables();
  primary_->capture();
  server_.change([&] {
    server_.known.clear();
    server_.log.clear();
    server_.hashes_max = 20;  // and it takes no hashes: a whole snapshot into the same file
  });
  publish({});
  auto outcome = run_once(options());
  ASSERT_TRUE(outcome) << outcome.error().message();
  expect_equal();
  EXPECT_EQ(server_.differences, 0);
  EXPECT_EQ(server_.snapshots, 2);
}

TEST_F(FollowerTest, LargeTransactionsGoThroughASpool) {
  start(options());
  ASSERT_TRUE(wait_for_primary());
  sqlite::testing::must(primary_->db(), "INSERT INTO t(b) VALUES(randomblob(3000000))");
  publish({primary_->capture()});
  ASSERT_TRUE(wait_for_primary());
  random_transactions(3);
  ASSERT_TRUE(wait_for_primary());
  stop();
  expect_equal();
}

}  // namespace
}  // namespace offprint::replica
