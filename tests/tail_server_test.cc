// offprint serve --tail: a program that knows nothing of Offprint writes its own file; what is
// hosted, and a replica of that, is always a state that it committed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "sqlite/connection.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::HasSubstr;

// Holds in every committed state of tail_writer.py.
constexpr char kInvariant[] =
    "SELECT number, rows = (SELECT count(*) FROM row) AND bytes = (SELECT "
    "coalesce(sum(length(content)), 0) FROM row) AND number >= (SELECT coalesce(max(number), 0) "
    "FROM row) FROM state";

// Pages of a file that may be written to, one state of it. Page 1 without what SQLite and Offprint
// count there.
std::vector<std::string> pages_of(const std::string& path) {
  std::vector<std::string> pages;
  auto file = sqlite::Connection::open(path, {.busy_timeout_ms = 10'000});
  if (!file) return {file.error().message()};
  auto select = file->prepare("SELECT data FROM sqlite_dbpage ORDER BY pgno");
  if (!select) return {select.error().message()};
  for (;;) {
    auto row = select->step();
    if (!row) return {row.error().message()};
    if (!*row) break;
    pages.emplace_back(as_text(select->column_blob(0)));
  }
  if (pages.empty() || pages[0].size() < 100) return pages;
  for (auto [from, count] : {std::pair{24, 4}, std::pair{40, 4}, std::pair{92, 8}})
    std::fill_n(pages[0].begin() + from, count, '\0');
  return pages;
}

class TailServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ / "app");
    options_ = {"--tail", "orders=" + path_};
  }
  void start() {
    server_.set_options(options_);
    ASSERT_TRUE(server_.start());
  }
  template <class Condition>
  static bool comes(Condition condition, double seconds = 60) {
    for (Deadline until = in_seconds(seconds); SteadyClock::now() < until;) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  std::string info() {
    auto answer = server_.request("GET", "/v1/databases/orders");
    return answer ? answer->body : "";
  }
  std::unique_ptr<Process> start_writer(std::uint64_t seed) {
    Process::Options options;
    options.arguments = {"python3", test_script("tail_writer.py"), path_, std::to_string(seed)};
    options.stderr_path = folder_ / "writer.log";
    options.pipe_input = true;
    auto writer = std::make_unique<Process>(options);
    EXPECT_EQ(writer->read_line(in_seconds(30)), "ready") << file_text(folder_ / "writer.log");
    return writer;
  }
  // Its last number.
  std::string finish(Process& writer) {
    writer.close_input();
    std::string line = writer.read_line(in_seconds(60)).value_or("");
    EXPECT_EQ(writer.wait(in_seconds(30)), 0) << file_text(folder_ / "writer.log");
    ::testing::Test::RecordProperty("writer", line);
    std::printf("the program: %s\n", line.c_str());
    std::size_t at = line.find(": ");
    return at == std::string::npos ? "" : line.substr(at + 2, line.find(',') - at - 2);
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_ / "app/program.db";
  std::vector<std::string> options_;
  ServerProcess server_{folder_};
};

// What a reader of the replica sees: never less than before, and always a whole commit.
class PrefixReader {
 public:
  explicit PrefixReader(const std::string& file) : reader_(file) {}
  void look() {
    std::string row = reader_.query(kInvariant);
    if (row.starts_with("error: no such table")) return;  // before the first commit
    long number = 0;
    int holds = 0;
    ASSERT_EQ(std::sscanf(row.c_str(), "[[%ld,%d]]", &number, &holds), 2) << row;
    EXPECT_EQ(holds, 1) << row;
    EXPECT_GE(number, number_);
    number_ = number;
  }
  long number() const { return number_; }

 private:
  StockReader reader_;
  long number_ = 0;
};

TEST_F(TailServerTest, AReplicaIsAlwaysACommittedPrefixWhileEverythingIsKilled) {
  const std::uint64_t seed = test_seed();
  std::mt19937_64 random(seed);
  start();
  auto writer = start_writer(seed);
  FollowerProcess follower(folder_, server_.database_url("orders"), folder_ / "replica.db");
  follower.start();
  ASSERT_TRUE(comes([&] { return std::filesystem::exists(follower.file()); })) << server_.log();
  PrefixReader reader(follower.file());
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 8);
  for (int round = 0; round < rounds; ++round) {
    Deadline until = in_seconds(0.2 + static_cast<double>(random() % 1000) / 1000);
    while (SteadyClock::now() < until) reader.look();
    if (random() % 3 == 0) {  // the program dies in the middle of whatever it does
      writer->kill();
      writer = start_writer(seed + static_cast<std::uint64_t>(round) + 1);
    }
    if (random() % 2 == 0) {
      server_.kill();
      if (random() % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
      ASSERT_TRUE(server_.restart());
    }
  }
  std::string number = finish(*writer);
  bool caught_up = comes([&] {
    reader.look();
    return std::to_string(reader.number()) == number;
  });
  EXPECT_TRUE(caught_up) << reader.number() << " of " << number << "\n" << info();
  EXPECT_TRUE(comes([&] { return pages_of(follower.file()) == pages_of(path_); }));
  EXPECT_THAT(server_.query("orders", kInvariant), HasSubstr("[" + number + ",1]"));
  server_.kill();  // what it recovers is checked by its checksum
  ASSERT_TRUE(server_.restart());
  EXPECT_THAT(server_.query("orders", kInvariant), HasSubstr("[" + number + ",1]"));
  EXPECT_THAT(info(), ::testing::Not(HasSubstr("stopped")));
}

}  // namespace
}  // namespace offprint::testing
