// A replica beside a random history, while its follower, and now and then its server, are killed.
//
// Each round: replica_oracle.py makes a random history and says what each of its generations looks
// like; a client sends it to the server; a follower keeps a file, killed at random moments; stock
// readers check that each view they get is exactly one generation, never an older one than before.
// OFFPRINT_TEST_ROUNDS says how many rounds, OFFPRINT_TEST_SEED repeats a run.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

constexpr std::array kReaders = {"fresh", "cached", "hold", "write"};
constexpr std::array kPageSizes = {512, 1024, 4096, 4096, 8192, 65536};

// Sends a history, line by line, over whatever becomes of the server.
class Sender {
 public:
  Sender(std::uint16_t port, std::string database, const std::string& requests, std::uint64_t seed)
      : database_(std::move(database)), requests_(requests), random_(seed), connection_(port) {}

  // Until all is sent, or the deadline.
  void run(Deadline deadline) {
    std::string line;
    while (std::getline(requests_, line) && failure_.empty()) {
      bool is_generation = line.starts_with('[');
      if (is_generation) ++generation_;
      if (random_() % 10 == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(random_() % 300));
      while (!send(line, is_generation) && failure_.empty()) {
        if (SteadyClock::now() > deadline) failure_ = "not sent in time";
      }
    }
    done_ = true;
  }
  bool done() const { return done_; }
  int generation() const { return generation_; }
  const std::string& failure() const { return failure_; }

 private:
  // True: the server has it.
  bool send(const std::string& line, bool is_generation) {
    auto answer = connection_.request("POST", "/db/" + database_ + "/query", line);
    if (answer && answer->status == 200) return true;
    if (answer && answer->status != 503) {
      failure_ =
          fmt::format("generation {}: {}\n{}", generation_, answer->body, line.substr(0, 2000));
      return false;
    }
    if (!answer && connection_.refused()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      return false;
    }
    return is_generation && is_there();  // a VACUUM may be repeated
  }

  // Whether the generation whose answer was cut off was committed.
  bool is_there() {
    for (int attempt = 0; attempt < 5000; ++attempt) {
      auto answer = connection_.request("POST", "/db/" + database_ + "/query",
                                        sql_body("SELECT n FROM generation"));
      if (answer && answer->status == 200)
        return rows_of(answer->body) == fmt::format("[[{}]]", generation_);
      if (answer && answer->status == 400) return false;  // not even its table
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    failure_ = "the server does not come back";
    return false;
  }

  const std::string database_;
  std::ifstream requests_;
  std::mt19937_64 random_;
  HttpConnection connection_;
  std::atomic<int> generation_ = 0;
  std::atomic<bool> done_ = false;
  std::string failure_;
};

class ReplicaTest : public ::testing::Test {
 protected:
  // Files of a round.
  struct Round {
    std::string folder, database, replica;
    int generations = 0;
    double seconds = 0;  // to cause trouble in
  };

  Round prepare(int number, int generations, double seconds) {
    Round round;
    round.folder = folder_ / fmt::format("round{}", number);
    round.database = fmt::format("round{}", number);
    round.replica = round.folder + "/replica.db";
    round.generations = generations;
    round.seconds = seconds;
    std::filesystem::create_directories(round.folder);
    int page_size = kPageSizes[random_() % kPageSizes.size()],
        auto_vacuum = static_cast<int>(random_() % 3);
    Finished oracle =
        run_program({"python3", test_script("replica_oracle.py"), round.folder,
                     std::to_string(random_() % 1'000'000'000), std::to_string(generations),
                     std::to_string(page_size), std::to_string(auto_vacuum)},
                    {}, {}, 300);
    EXPECT_EQ(oracle.exit_code, 0) << oracle.err;
    server_.create(round.database,
                   fmt::format(R"(,"page_size":{},"auto_vacuum":{})", page_size, auto_vacuum));
    return round;
  }

  std::vector<std::unique_ptr<Process>> start_readers(const Round& round) {
    std::vector<std::unique_ptr<Process>> readers;
    for (const char* kind : kReaders) {
      Process::Options options;
      options.arguments = {"python3", "-B",          test_script("replica_reader.py"),
                           kind,      round.replica, round.folder + "/expected.json"};
      options.environment = {{"OFFPRINT_HOLD_S", std::getenv("OFFPRINT_TEST_ROUNDS") ? "60" : "3"}};
      options.pipe_input = true;
      options.stderr_path = round.folder + "/" + kind + ".log";
      readers.push_back(std::make_unique<Process>(options));
    }
    return readers;
  }

  // Kills the follower every now and then, sometimes leaves it dead for a while, sometimes kills
  // the server.
  void cause_trouble(const Round& round, FollowerProcess& follower, const Sender& sender) {
    Deadline end = in_seconds(round.seconds);
    while (SteadyClock::now() < end && !HasFailure()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(random_() % 400));
      if (!follower.running()) {
        ADD_FAILURE() << "the follower ended: " << follower.log();
        return;
      }
      follower.kill();
      ++kills_;
      if (random_() % 5 == 0) {
        if (random_() % 2 == 0) {
          server_.kill();
        } else {
          EXPECT_EQ(server_.terminate(), 0) << server_.log();
        }
        ASSERT_TRUE(server_.restart());
        ++restarts_;
      }
      if (random_() % 4 == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(random_() % 700));
      follower.start();
      if (sender.done() && random_() % 8 == 0) return;
    }
  }

  void wait_until_equal(const Round& round, Sender& sender, FollowerProcess& follower) {
    std::string expected = fmt::format("[[{}]]", round.generations);
    StockReader reader(round.replica);
    std::string found;
    for (Deadline end = in_seconds(120);
         SteadyClock::now() < end && sender.failure().empty() && follower.running();) {
      found = sender.done() ? reader.query("SELECT n FROM generation") : "less";
      if (found == expected) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "sent " << sender.generation() << " of " << round.generations
                  << ", the replica has " << found << "; " << sender.failure() << "\n"
                  << follower.log() << server_.log();
  }

  void end_readers(const Round& round, std::vector<std::unique_ptr<Process>>& readers) {
    for (auto& reader : readers) reader->close_input();
    for (std::size_t i = 0; i < readers.size(); ++i) {
      std::string line = readers[i]->read_line(in_seconds(60)).value_or("");
      std::string log = file_text(round.folder + "/" + kReaders[i] + ".log");
      EXPECT_EQ(json_field(line, "generation"), std::to_string(round.generations))
          << kReaders[i] << ": " << line << log;
      views_ += std::atoi(json_field(line, "views").c_str());
    }
  }

  void run_round(const Round& round) {
    Sender sender(server_.port(), round.database, round.folder + "/requests.jsonl", random_());
    FollowerProcess follower(folder_, server_.database_url(round.database), round.replica);
    auto readers = start_readers(round);
    follower.start();
    std::thread sending([&] { sender.run(in_seconds(round.seconds + 240)); });
    cause_trouble(round, follower, sender);
    wait_until_equal(round, sender, follower);
    sending.join();
    end_readers(round, readers);
    EXPECT_EQ(follower.terminate(), 0) << follower.log();
    Finished verified =
        server_.run({"follow", round.database, round.replica, "--once", "--verify"}, {}, 120);
    EXPECT_EQ(verified.exit_code, 0) << verified.out << verified.err;
    EXPECT_EQ(StockReader(round.replica).query("PRAGMA integrity_check"), "[[\"ok\"]]");
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
  std::mt19937_64 random_{test_seed()};
  int kills_ = 0, restarts_ = 0, views_ = 0;
};

TEST_F(ReplicaTest, AReplicaIsAlwaysACommittedPrefix) {
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 3);
  int done = 0;
  ASSERT_TRUE(server_.start());
  for (; done < rounds && !HasFailure(); ++done) {
    ASSERT_TRUE(server_.restart());
    Round round = prepare(done, 300, 6);
    if (HasFailure()) break;
    run_round(round);
    server_.request("DELETE", "/v1/databases/" + round.database);
  }
  fmt::print(
      "{} rounds: the follower killed {} times, the server ended {} times, {} views checked\n",
      done, kills_, restarts_, views_);
  EXPECT_GT(views_, 0);
}

// The server has thrown away what the follower missed: pages are compared, and few travel.
TEST_F(ReplicaTest, AFollowerThatWasAwayForLongFetchesOnlyWhatDiffers) {
  server_.set_options({"--log-bytes-max", "1"});
  ASSERT_TRUE(server_.start());
  server_.create("shop");
  server_.query("shop", "CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)");
  server_.query("shop",
                "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 200) "
                "INSERT INTO t "
                "SELECT x, randomblob(200000) FROM c");
  std::string replica = folder_ / "replica.db";
  ASSERT_EQ(server_.run({"follow", "shop", replica, "--once"}).exit_code, 0);
  StockReader reader(replica);
  EXPECT_EQ(reader.query("SELECT count(*) FROM t WHERE length(b) = 200000"), "[[200]]");
  // One row of 200 (0.5 % of the pages), until the journal has left its first files behind.
  for (int i = 0; i < 800 && !HasFailure(); ++i)
    server_.query("shop", "UPDATE t SET b = randomblob(200000) WHERE id = 77");
  std::uint64_t before = server_.metric("http_sent_bytes_total");
  Finished followed = server_.run({"follow", "shop", replica, "--once", "--json"});
  std::uint64_t wire = server_.metric("http_sent_bytes_total") - before,
                size = std::filesystem::file_size(replica);
  ASSERT_EQ(followed.exit_code, 0) << followed.out;
  EXPECT_NE(followed.out.find("\"event\":\"resync\""), std::string::npos) << followed.out;
  fmt::print("{} of {} bytes came over the wire\n", wire, size);
  EXPECT_LT(wire, size / 20);
  const std::string head = "SELECT hex(substr(b, 1, 20)) FROM t WHERE id = 77";
  EXPECT_EQ(reader.query(head), server_.query("shop", head));
  EXPECT_EQ(server_.run({"follow", "shop", replica, "--once", "--verify"}).exit_code, 0);
}

}  // namespace
}  // namespace offprint::testing
