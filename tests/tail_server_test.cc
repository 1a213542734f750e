// offprint serve --tail: a program that knows nothing of Offprint writes its own file; what is
// hosted, and a replica of that, is always a state that it committed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
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
    if (truncates_) options.arguments.emplace_back("truncates");
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

  void expect_prefixes_while_everything_is_killed();

  TemporaryFolder folder_;
  bool truncates_ = false;  // the program empties its -wal after each commit
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

void TailServerTest::expect_prefixes_while_everything_is_killed() {
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

TEST_F(TailServerTest, AReplicaIsAlwaysACommittedPrefixWhileEverythingIsKilled) {
  expect_prefixes_while_everything_is_killed();
}

// Each commit is in a -wal that is gone when the next one comes.
TEST_F(TailServerTest, AReplicaIsACommittedPrefixOfAProgramThatTruncatesAtEachCommit) {
  truncates_ = true;
  expect_prefixes_while_everything_is_killed();
}

// Many programs at work: what they wrote is there soon, by their -wal alone.
TEST_F(TailServerTest, ManyActiveFilesAtOnce) {
  const bool large = number_from_environment("OFFPRINT_TEST_LARGE", 0) > 0;
  const int count = large ? 300 : 60;
  std::vector<sqlite::Connection> programs;
  options_.clear();
  for (int i = 0; i < count; ++i) {
    const std::string path = fmt::format("{}/app/{}.db", folder_.path(), i);
    auto file = sqlite::Connection::open(path, {.create = true, .busy_timeout_ms = 10'000});
    ASSERT_TRUE(file && file->query_text("PRAGMA journal_mode=WAL"));
    ASSERT_TRUE(file->execute("PRAGMA synchronous=OFF; CREATE TABLE t(a INTEGER PRIMARY KEY)"));
    programs.push_back(*std::move(file));
    options_.insert(options_.end(), {"--tail", fmt::format("d{}={}", i, path)});
  }
  start();
  const auto all = static_cast<std::uint64_t>(count);
  ASSERT_TRUE(comes([&] { return server_.metric("tail_following") == all; }, 120));
  const double cpu = process_cpu_seconds(server_.pid());
  int commits = 0;
  for (Deadline until = in_seconds(3); SteadyClock::now() < until; ++commits) {
    for (sqlite::Connection& each : programs)
      ASSERT_TRUE(each.execute("INSERT INTO t DEFAULT VALUES"));
  }
  const std::string wanted = fmt::format("[[{}]]", commits);
  for (int i = 0; i < count; ++i) {
    const std::string name = fmt::format("d{}", i);
    EXPECT_TRUE(comes([&] { return server_.query(name, "SELECT max(a) FROM t") == wanted; }));
  }
  std::printf("%d files, %d commits each: %.1f us of CPU a commit, %.1f MiB\n", count, commits,
              (process_cpu_seconds(server_.pid()) - cpu) / (commits * count) * 1e6,
              static_cast<double>(process_memory_kib(server_.pid(), "VmHWM")) / 1024);
  EXPECT_EQ(server_.metric("tail_comparisons_total"), all);
  EXPECT_LE(process_memory_kib(server_.pid(), "VmHWM"), large ? 400u << 10 : 200u << 10);
}

TEST_F(TailServerTest, IsSeenAndOnlyRead) {
  start();
  EXPECT_THAT(info(), HasSubstr("\"state\":\"waiting\""));
  StockReader program(path_, "mode=rwc");
  program.query("PRAGMA journal_mode=WAL");
  program.query("CREATE TABLE t(a)");
  ASSERT_TRUE(comes([&] { return info().find("\"state\":\"following\"") != std::string::npos; }));
  program.query("INSERT INTO t VALUES('one')");
  EXPECT_TRUE(comes([&] {
    auto answer = server_.request("POST", "/db/orders/query", R"({"sql":"SELECT a FROM t"})");
    return answer && answer->body.find("one") != std::string::npos;
  }));
  auto refused = server_.request("POST", "/db/orders/query", R"({"sql":"DELETE FROM t"})");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 403);
  EXPECT_THAT(refused->body, HasSubstr("DATABASE_TAILED"));
  EXPECT_THAT(refused->body, HasSubstr(path_));
  EXPECT_EQ(server_.metric("tail_following"), 1u);
  EXPECT_GE(server_.metric("tail_transactions_total"), 1u);
  // Without --tail it stays what it was, and read-only.
  ASSERT_EQ(server_.terminate(), 0);
  server_.set_options({});
  ASSERT_TRUE(server_.start());
  EXPECT_THAT(info(), HasSubstr("\"state\":\"stopped\""));
  EXPECT_THAT(server_.query("orders", "SELECT a FROM t"), HasSubstr("one"));
  refused = server_.request("POST", "/db/orders/query", R"({"sql":"DELETE FROM t"})");
  EXPECT_EQ(refused->status, 403);
}

// A part of a program's own file, followed elsewhere: also over VACUUM, a change of the schema and
// another database in the file's place.
TEST_F(TailServerTest, APartOfAProgramsFileIsPublished) {
  auto program = std::make_unique<StockReader>(path_, "mode=rwc");
  for (const char* sql :
       {"PRAGMA journal_mode=WAL", "CREATE TABLE t(id INTEGER PRIMARY KEY, tenant, v, secret)",
        "INSERT INTO t VALUES(1, 7, 'a', 'SECRET'), (2, 8, 'b', 'SECRET')"})
    program->query(sql);
  start();
  ASSERT_TRUE(comes([&] { return info().find("\"state\":\"following\"") != std::string::npos; }));
  std::ofstream(folder_ / "definition.sql")
      << "CREATE PUBLICATION p(tenant INTEGER) AS TABLE t(id, v) WHERE tenant = :tenant";
  Finished published = server_.run({"publish", "create", "orders", folder_ / "definition.sql"});
  ASSERT_EQ(published.exit_code, 0) << published.err;
  FollowerProcess follower(folder_, server_.database_url("orders/pub/p?tenant=7"),
                           folder_ / "part.db");
  follower.start();
  auto expect_soon = [&](const std::string& rows) {
    std::string found;
    EXPECT_TRUE(comes([&] {
      found = StockReader(follower.file()).query("SELECT id, v FROM t ORDER BY id");
      return found == rows;
    })) << found;
  };
  expect_soon("[[1,\"a\"]]");
  program->query("UPDATE t SET tenant = 15 - tenant");
  expect_soon("[[2,\"b\"]]");
  program->query(
      "INSERT INTO t SELECT value, 8, hex(randomblob(3000)), 'SECRET' FROM "
      "json_each('[10,11,12,13,14,15]')");
  program->query("DELETE FROM t WHERE tenant = 8");
  program->query("VACUUM");
  program->query("INSERT INTO t VALUES(3, 7, 'c', 'SECRET')");
  expect_soon("[[2,\"b\"],[3,\"c\"]]");
  program->query("ALTER TABLE t ADD COLUMN more");
  program->query("UPDATE t SET v = 'd' WHERE id = 3");
  expect_soon("[[2,\"b\"],[3,\"d\"]]");
  const std::string other = folder_ / "app/other.db";
  StockReader(other, "mode=rwc").query("CREATE TABLE t(id INTEGER PRIMARY KEY, tenant, v)");
  StockReader(other, "mode=rw").query("INSERT INTO t VALUES(9, 7, 'another')");
  StockReader(other, "mode=rw").query("PRAGMA journal_mode=WAL");
  program.reset();  // and all of its -wal is in the file
  ASSERT_TRUE(comes([&] {
    std::error_code none;
    const auto size = std::filesystem::file_size(path_ + "-wal", none);
    return none || size == 0;
  }));
  std::filesystem::rename(other, path_);
  expect_soon("[[9,\"another\"]]");
  EXPECT_EQ(file_text(follower.file()).find("SECRET"), std::string::npos);
}

TEST_F(TailServerTest, TheCommandArchivesAFile) {
  StockReader program(path_, "mode=rwc");
  program.query("PRAGMA journal_mode=WAL");
  program.query("CREATE TABLE t(a)");
  Process::Options options;
  options.arguments = {testing::program(),
                       "tail",
                       path_,
                       "--archive",
                       "file://" + folder_ / "archive",
                       "--data",
                       folder_ / "tail",
                       "--archive-sync-ms",
                       "10",
                       "--archive-snapshots-ms",
                       "100"};
  options.stderr_path = folder_ / "tail.log";
  Process tail(options);
  EXPECT_THAT(tail.read_line(in_seconds(30)).value_or(""), HasSubstr("follows"));
  for (int i = 0; i < 10; ++i) program.query(fmt::format("INSERT INTO t VALUES({})", i));
  const std::string restored = folder_ / "restored.db";
  EXPECT_TRUE(comes([&] {
    Finished done =
        run_program({testing::program(), "restore", "file://" + folder_ / "archive" + "/program",
                     restored, "--force"});
    if (done.exit_code != 0) return false;
    auto file = sqlite::Connection::open(restored, {});
    return file && file->query_int("SELECT count(*) FROM t").value_or(0) == 10;
  })) << file_text(folder_ / "tail.log");
  EXPECT_TRUE(comes([&] {
    return std::filesystem::exists(folder_ / "archive" + "/program/ltx/9");
  })) << "a snapshot, as often as it is told";
  tail.signal(SIGTERM);
  EXPECT_EQ(tail.wait(in_seconds(30)), 0);
}

// Files in which nothing happens: all of them with OFFPRINT_TEST_LARGE.
TEST_F(TailServerTest, IdleFilesCostLittle) {
  const bool large = number_from_environment("OFFPRINT_TEST_LARGE", 0) > 0;
  const int count = large ? 1000 : 100;
  options_.clear();
  for (int i = 0; i < count; ++i) {
    std::string path = fmt::format("{}/app/{}.db", folder_.path(), i);
    auto file = sqlite::Connection::open(path, {.create = true});
    ASSERT_TRUE(file && file->query_text("PRAGMA journal_mode=WAL"));
    ASSERT_TRUE(file->execute("CREATE TABLE t(a); INSERT INTO t VALUES(1)"));
    options_.insert(options_.end(), {"--tail", fmt::format("d{}={}", i, path)});
  }
  options_.insert(options_.end(), {"--idle-close-ms", "500"});
  start();
  const auto all = static_cast<std::uint64_t>(count);
  ASSERT_TRUE(comes([&] { return server_.metric("tail_following") == all; }, 120));
  ASSERT_TRUE(comes([&] { return server_.metric("databases_open") == 0; }, 60));
  // They come to rest one after the other; then nothing happens for as long as is measured.
  double used = 1;
  constexpr int kSeconds = 5;
  for (Deadline until = in_seconds(90); used / kSeconds >= 0.01 && SteadyClock::now() < until;) {
    double before = process_cpu_seconds(server_.pid());
    std::this_thread::sleep_for(std::chrono::seconds(kSeconds));
    used = process_cpu_seconds(server_.pid()) - before;
  }
  std::uint64_t memory_kib = process_memory_kib(server_.pid(), "VmRSS");
  std::printf("%d idle files: %.1f MiB, %.2f %% of a core\n", count,
              static_cast<double>(memory_kib) / 1024, used / kSeconds * 100);
  EXPECT_LE(memory_kib, 100u << 10);
  EXPECT_LT(used / kSeconds, 0.01);
}

}  // namespace
}  // namespace offprint::testing
