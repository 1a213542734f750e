// One connection that follows many databases of a real server: GET or POST /v1/stream.
// OFFPRINT_TEST_ROUNDS says how often the server is killed, OFFPRINT_TEST_SEED repeats a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "ltx/codec.h"
#include "replica/http_client.h"
#include "replica/stream_format.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using replica::FrameKind;

constexpr int kDatabases = 50;
constexpr int kWriters = 4;

std::string database_name(int number) { return fmt::format("many/d{}", number); }

// What a client knows of one database.
struct Copy {
  Position position;           // after the last whole transaction
  std::set<std::string> seen;  // bookmarks of the transactions that came
  Bytes file;                  // of the transaction that is coming
  replica::TransactionHead head;
  bool started = false, coming = false;
  int positions = 0;  // frames
  std::optional<replica::EndReason> end;
  std::optional<replica::ResyncReason> resync;
  bool ended() const { return end || resync; }
};

// Follows databases over one connection after the other, and checks each frame against what came
// before. Reads only when told to.
class StreamClient {
 public:
  StreamClient() : client_(*replica::HttpClient::create()) {}

  // "db=NAME@BOOKMARK&…"; empty: all databases.
  void subscribe(const ServerProcess& server, const std::string& parameters = {}) {
    reader_ = {};
    names_.clear();
    hello_ = open_ = true;
    replica::HttpClient::Request request;
    request.url = server.url() + "/v1/stream";
    request.method = "POST";
    request.body = Bytes(parameters.begin(), parameters.end());
    ASSERT_TRUE(client_->start(std::move(request)));
    for (auto& [name, copy] : copies_) {
      copy.file.clear();
      copy.coming = copy.started = false;
    }
  }
  // Where it stands, as parameters of the next subscription.
  std::string parameters() const {
    std::string text;
    for (const auto& [name, copy] : copies_) {
      text +=
          fmt::format("{}db={}@{}", text.empty() ? "" : "&", name, copy.position.bookmark().text());
    }
    return text;
  }
  // What comes within a while; false when the connection has ended.
  bool read(int timeout_ms = 20) {
    if (!open_) return false;
    auto event = client_->wait(timeout_ms);
    open_ = event && *event != replica::HttpClient::Event::kEnd;
    Bytes& bytes = client_->received();
    reader_.feed(bytes);
    bytes.clear();
    for (;;) {
      auto frame = reader_.next();
      EXPECT_TRUE(frame) << frame.error().message();
      if (!frame || !*frame) return open_ && frame;
      take(**frame);
    }
  }
  template <class Condition>
  void read_until(Condition condition, const char* what, double seconds = 60) {
    Deadline end = in_seconds(seconds);
    while (!condition()) {
      ASSERT_FALSE(::testing::Test::HasFailure());
      ASSERT_LT(SteadyClock::now(), end) << what;
      ASSERT_TRUE(read() || condition()) << what << ": the stream has ended";
    }
  }
  bool all_started(std::size_t count) const {
    std::size_t started = 0;
    for (const auto& [name, copy] : copies_) started += copy.started ? 1 : 0;
    return started >= count;
  }
  std::map<std::string, Copy>& copies() { return copies_; }
  // Lives of databases that were told on this connection.
  std::size_t numbers() const { return names_.size(); }

 private:
  void take(const replica::Frame& frame) {
    if (hello_) {
      EXPECT_EQ(frame.kind, FrameKind::kHello);
      hello_ = false;
      return;
    }
    if (frame.kind == FrameKind::kDatabase) {
      std::string name = *replica::parse_database(frame.payload);
      EXPECT_TRUE(names_.emplace(frame.database, name).second) << "a number comes twice";
      if (copies_[name].ended()) copies_[name] = Copy();  // the name lives again
      return;
    }
    ASSERT_TRUE(names_.contains(frame.database)) << "a number without a name";
    Copy& copy = copies_[names_[frame.database]];
    EXPECT_FALSE(copy.ended()) << "a frame after the last one";
    switch (frame.kind) {
      case FrameKind::kStart:
        return take_start(copy, *replica::parse_position(frame.payload));
      case FrameKind::kPosition:
        return take_position(copy, *replica::parse_position(frame.payload));
      case FrameKind::kTransaction:
        return take_transaction(copy, frame);
      case FrameKind::kEnd:
        copy.end = replica::parse_end(frame.payload)->reason;
        return;
      case FrameKind::kResync:
        copy.resync = replica::parse_resync(frame.payload)->reason;
        EXPECT_EQ(copy.resync, replica::ResyncReason::kOtherLineage) << names_[frame.database];
        return;
      default:
        ADD_FAILURE() << "frame of kind " << static_cast<int>(frame.kind);
    }
  }

  static void take_start(Copy& copy, const replica::StreamPosition& start) {
    EXPECT_FALSE(copy.started);
    if (copy.position != Position()) {
      EXPECT_EQ(start.position, copy.position);
    }
    copy.position = start.position;
    copy.started = true;
  }
  // The primary stands at what came, or beyond.
  static void take_position(Copy& copy, const replica::StreamPosition& now) {
    EXPECT_TRUE(copy.started);
    EXPECT_EQ(now.position.lineage, copy.position.lineage);
    EXPECT_GE(now.position.txid, copy.position.txid);
    if (now.position.txid == copy.position.txid) {
      EXPECT_EQ(now.position, copy.position);
    }
    ++copy.positions;
  }
  static void take_transaction(Copy& copy, const replica::Frame& frame) {
    ASSERT_TRUE(copy.started);
    if (copy.coming) {
      append(copy.file, frame.payload);
    } else {
      auto first = replica::parse_transaction_first(frame.payload);
      ASSERT_TRUE(first) << first.error().message();
      copy.head = first->head;
      copy.file.assign(first->part.begin(), first->part.end());
    }
    copy.coming = frame.more();
    if (copy.coming) return;
    EXPECT_EQ(copy.file.size(), copy.head.ltx_size);
    auto decoded = ltx::decode(copy.file);
    ASSERT_TRUE(decoded) << decoded.error().message();
    EXPECT_EQ(decoded->header.min_txid.value, copy.position.txid.value + 1);
    EXPECT_EQ(decoded->header.max_txid, decoded->header.min_txid);
    EXPECT_EQ(decoded->header.pre_apply,
              copy.position.txid.value == 0 ? Checksum{} : copy.position.checksum);
    copy.position.epoch = copy.head.epoch;
    copy.position.txid = decoded->header.max_txid;
    copy.position.checksum = decoded->trailer.post_apply;
    copy.seen.insert(copy.position.bookmark().text());
  }

  std::unique_ptr<replica::HttpClient> client_;
  replica::FrameReader reader_;
  std::map<std::uint32_t, std::string> names_;
  std::map<std::string, Copy> copies_;
  bool hello_ = true, open_ = false;
};

// Clients that write to databases at random until told to stop, or the server goes.
class Writers {
 public:
  Writers(std::uint16_t port, std::uint64_t seed) {
    for (int i = 0; i < kWriters; ++i) {
      threads_.emplace_back(
          [this, port, seed = seed + static_cast<unsigned>(i)] { run(port, seed); });
    }
  }
  ~Writers() { stop(); }
  void stop() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  std::size_t written() const { return written_; }
  // After stop(): database -> bookmarks that they were told.
  const std::map<std::string, std::set<std::string>>& bookmarks() const { return bookmarks_; }
  const std::string& failure() const { return failure_; }

 private:
  void run(std::uint16_t port, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    HttpConnection connection(port);
    while (!stop_) {
      std::string name = database_name(static_cast<int>(random() % kDatabases));
      // Most are small, some travel in parts, a few have a file of their own.
      std::uint64_t roll = random() % 200;
      std::uint64_t size = roll < 190 ? 10 + roll : roll < 199 ? 200'000 : 1'500'000;
      auto answer = connection.request(
          "POST", "/db/" + name + "/query",
          sql_body(fmt::format("INSERT INTO t (b) VALUES (randomblob({}))", size)));
      if (!answer) return;
      std::lock_guard lock(mutex_);
      if (answer->status == 200) {
        bookmarks_[name].insert(json_field(answer->body, "bookmark"));
        ++written_;
      } else if (answer->status != 503) {
        failure_ = answer->body;
        return;
      }
    }
  }

  std::atomic<bool> stop_ = false;
  std::atomic<std::size_t> written_ = 0;
  std::mutex mutex_;
  std::map<std::string, std::set<std::string>> bookmarks_;  // guarded by mutex_
  std::string failure_;                                     // guarded by mutex_
  std::vector<std::thread> threads_;
};

class StreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(server_.start());
    for (int i = 0; i < kDatabases && !HasFailure(); ++i) create(database_name(i));
  }
  void create(const std::string& name) {
    server_.create(name);
    server_.query(name, "CREATE TABLE t (id INTEGER PRIMARY KEY, b)");
  }
  std::string bookmark(const std::string& name) {
    auto answer = server_.request("GET", "/v1/databases/" + name);
    return answer ? json_field(answer->body, "bookmark") : "";
  }
  // Until the client has all that the server has.
  void catch_up(StreamClient& client) {
    std::map<std::string, std::string> there;
    for (int i = 0; i < kDatabases; ++i) there[database_name(i)] = bookmark(database_name(i));
    client.read_until(
        [&] {
          return std::all_of(there.begin(), there.end(), [&](const auto& entry) {
            return client.copies()[entry.first].position.bookmark().text() == entry.second;
          });
        },
        "not everything came");
  }
  // Every transaction that a writer was told of came; with `exactly`, no others.
  void expect_told(StreamClient& client, const std::map<std::string, std::set<std::string>>& told,
                   bool exactly) {
    for (const auto& [name, bookmarks] : told) {
      const std::set<std::string>& seen = client.copies()[name].seen;
      EXPECT_TRUE(std::includes(seen.begin(), seen.end(), bookmarks.begin(), bookmarks.end()))
          << name << ": acknowledged, but it did not come";
      if (exactly) {
        EXPECT_EQ(seen, bookmarks) << name;
      }
    }
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
  std::mt19937_64 random_{test_seed()};
};

TEST_F(StreamTest, EveryTransactionOfManyDatabasesComesInOrder) {
  StreamClient client;
  client.subscribe(server_);
  client.read_until([&] { return client.all_started(kDatabases); }, "starts");
  Deadline start = SteadyClock::now();
  Writers writers(server_.port(), random_());
  for (Deadline end = in_seconds(2); SteadyClock::now() < end && client.read();) continue;
  writers.stop();
  EXPECT_EQ(writers.failure(), "");
  catch_up(client);
  expect_told(client, writers.bookmarks(), true);
  // Heartbeats, also while nothing happens.
  const int seconds = 4;
  client.read_until([&] { return SteadyClock::now() > start + std::chrono::seconds(seconds); },
                    "time");
  int least = 1'000'000;
  for (const auto& [name, copy] : client.copies()) least = std::min(least, copy.positions);
  EXPECT_GE(least, seconds - 2);
  fmt::print("{} writes to {} databases; at least {} positions of each in {} s\n",
             writers.written(), kDatabases, least, seconds);
  // They end as the server stops.
  EXPECT_EQ(server_.terminate(), 0) << server_.log();
  while (client.read()) continue;
  for (const auto& [name, copy] : client.copies()) {
    EXPECT_EQ(copy.end, replica::EndReason::kShuttingDown) << name;
    EXPECT_FALSE(copy.resync) << name;
  }
}

TEST_F(StreamTest, DatabasesComeAndGo) {
  const std::string gone = database_name(7), late = "many/late";
  StreamClient client;
  client.subscribe(server_);
  client.read_until([&] { return client.all_started(kDatabases); }, "starts");
  Writers writers(server_.port(), random_());
  create(late);
  client.read_until([&] { return client.copies()[late].started; }, "the new database");
  server_.query(late, "INSERT INTO t (b) VALUES ('late')");
  std::string last = bookmark(late);
  client.read_until([&] { return client.copies()[late].position.bookmark().text() == last; },
                    "its transaction");
  writers.stop();
  EXPECT_EQ(writers.failure(), "");
  EXPECT_EQ(server_.request("DELETE", "/v1/databases/" + gone)->status, 204);
  client.read_until([&] { return client.copies()[gone].end.has_value(); }, "the end");
  EXPECT_EQ(client.copies()[gone].end, replica::EndReason::kDropped);
  // The name again, and at once dropped and created once more, which the stream may see as one
  // change: another number each time.
  create(gone);
  client.read_until([&] { return client.copies()[gone].started; }, "the name again");
  std::size_t numbers = client.numbers();
  EXPECT_EQ(server_.request("DELETE", "/v1/databases/" + gone)->status, 204);
  create(gone);
  client.read_until([&] { return client.numbers() > numbers; }, "the name once more", 20);
  last = bookmark(gone);
  client.read_until([&] { return client.copies()[gone].position.bookmark().text() == last; },
                    "its content");
}

TEST_F(StreamTest, GoesOnWithoutAGapWhenTheServerIsKilled) {
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 4);
  StreamClient client;
  client.subscribe(server_);
  client.read_until([&] { return client.all_started(kDatabases); }, "starts");
  std::map<std::string, std::set<std::string>> told;
  std::size_t written = 0;
  for (int round = 0; round < rounds && !HasFailure(); ++round) {
    Writers writers(server_.port(), random_());
    Deadline end = in_seconds(0.2 + static_cast<double>(random_() % 1000) / 1000);
    while (SteadyClock::now() < end && client.read()) continue;
    server_.kill();
    writers.stop();
    EXPECT_EQ(writers.failure(), "");
    while (client.read()) continue;
    for (const auto& [name, bookmarks] : writers.bookmarks())
      told[name].insert(bookmarks.begin(), bookmarks.end());
    written += writers.written();
    ASSERT_TRUE(server_.restart());
    client.subscribe(server_, client.parameters());
  }
  catch_up(client);
  expect_told(client, told, false);
  fmt::print("{} kills, {} writes acknowledged\n", rounds, written);
  EXPECT_GT(written, 0U);
}

// Nobody waits for those who do not read, and nothing is kept for them but their place.
TEST_F(StreamTest, SlowReadersDoNotFillTheServersMemory) {
  constexpr int kReaders = 6, kMebibytes = 80;
  server_.set_options({"--write-timeout-ms", "300000"});
  ASSERT_TRUE(server_.restart());
  auto write = [&](int mebibytes) {
    for (int i = 0; i < mebibytes * 2 && !HasFailure(); ++i)
      server_.query(database_name(i % kDatabases), "INSERT INTO t (b) VALUES (randomblob(500000))");
  };
  write(60);  // what the databases themselves need
  std::vector<std::unique_ptr<StreamClient>> readers;
  for (int i = 0; i < kReaders; ++i) {
    readers.push_back(std::make_unique<StreamClient>());
    readers.back()->subscribe(server_);
    readers.back()->read_until([&] { return readers.back()->all_started(kDatabases); }, "starts");
  }
  std::uint64_t before = process_memory_kib(server_.pid(), "VmHWM");
  write(kMebibytes);
  std::uint64_t peak = process_memory_kib(server_.pid(), "VmHWM");
  fmt::print("{} MiB written for {} readers that slept: {} KiB of memory before, {} at most\n",
             kMebibytes, kReaders, before, peak);
  EXPECT_LT(peak, before + (100 << 10));
  for (auto& reader : readers) catch_up(*reader);
}

}  // namespace
}  // namespace offprint::testing
