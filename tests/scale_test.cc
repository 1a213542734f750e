// Large imports in little memory, and many databases that cost nothing while nobody uses them.
// OFFPRINT_TEST_LARGE=1 takes the full sizes.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

bool is_large() { return std::getenv("OFFPRINT_TEST_LARGE") != nullptr; }

constexpr std::uint64_t kMemoryKib = 300 << 10;

class ScaleTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(server_.start()); }

  // An SQLite file of about this size, of BLOBs that nothing compresses.
  std::string make_file(int mebibytes) {
    std::string file = folder_ / "large.db";
    StockReader writer(file, "mode=rwc");
    EXPECT_EQ(writer.query("PRAGMA journal_mode = OFF"), "[[\"off\"]]");
    EXPECT_EQ(writer.query("PRAGMA synchronous = OFF"), "[]");
    EXPECT_EQ(writer.query("CREATE TABLE blobs (id INTEGER PRIMARY KEY, b BLOB)"), "[]");
    EXPECT_EQ(writer.query(fmt::format("WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 "
                                       "FROM c WHERE x < {}) INSERT "
                                       "INTO blobs SELECT x, randomblob(1048576) FROM c",
                                       mebibytes),
                           600),
              "[]");
    return file;
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

TEST_F(ScaleTest, ALargeImportNeedsLittleMemory) {
  const int mebibytes = is_large() ? 2048 : 200;
  std::string file = make_file(mebibytes);
  Finished done = server_.run({"db", "import", "large", file}, {}, 500);
  ASSERT_EQ(done.exit_code, 0) << done.err << server_.log();
  EXPECT_EQ(server_.query("large", "SELECT count(*), sum(length(b)) FROM blobs"),
            fmt::format("[[{},{}]]", mebibytes,
                        std::uint64_t{1048576} * static_cast<unsigned>(mebibytes)));
  std::uint64_t peak = process_memory_kib(server_.pid(), "VmHWM");
  fmt::print("{} MiB imported; the server's memory was at most {} MiB\n", mebibytes, peak >> 10);
  EXPECT_LT(peak, kMemoryKib);
  // It is there after a crash, and goes on to a follower.
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(server_.query("large", "SELECT count(*) FROM blobs"), fmt::format("[[{}]]", mebibytes));
  std::uint64_t recovery_peak = process_memory_kib(server_.pid(), "VmHWM");
  Finished followed =
      server_.run({"follow", "large", folder_ / "replica.db", "--once", "--verify"}, {}, 500);
  EXPECT_EQ(followed.exit_code, 0) << followed.err;
  fmt::print("recovery: at most {} MiB; with a follower {} MiB\n", recovery_peak >> 10,
             process_memory_kib(server_.pid(), "VmHWM") >> 10);
  EXPECT_LT(process_memory_kib(server_.pid(), "VmHWM"), kMemoryKib);
}

double milliseconds_of(const std::function<void()>& work) {
  Deadline begin = SteadyClock::now();
  work();
  return std::chrono::duration<double, std::milli>(SteadyClock::now() - begin).count();
}

// Its size must not show: when it is opened, and to those who write while it is copied.
TEST_F(ScaleTest, ALargeDatabaseIsOpenedFollowedAndExported) {
  const int mebibytes = is_large() ? 10'240 : 256;
  std::string file = make_file(mebibytes);
  double import_ms = milliseconds_of([&] {
    ASSERT_EQ(server_.run({"db", "import", "large", file}, {}, 900).exit_code, 0) << server_.log();
  });
  std::filesystem::remove(file);
  server_.query("large", "CREATE TABLE small(v)");
  ASSERT_EQ(server_.terminate(60), 0);
  ASSERT_TRUE(server_.start());
  double open_ms =
      milliseconds_of([&] { EXPECT_EQ(server_.query("large", "SELECT * FROM small"), "[]"); });

  // One client that writes on and on: how long its slowest answers took, in ms.
  auto p99_while = [&](const std::function<void()>& work) {
    std::atomic<bool> stop{false};
    std::vector<double> took;
    std::thread writer([&] {
      HttpConnection client(server_.port());
      while (!stop) {
        took.push_back(milliseconds_of([&] {
          auto answer =
              client.request("POST", "/db/large/query", sql_body("INSERT INTO small VALUES(1)"));
          EXPECT_TRUE(answer && answer->status == 200);
        }));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    work();
    stop = true;
    writer.join();
    std::sort(took.begin(), took.end());
    return took[took.size() * 99 / 100];
  };
  double alone = p99_while([] { std::this_thread::sleep_for(std::chrono::seconds(5)); });
  std::uint64_t memory = process_memory_kib(server_.pid(), "VmRSS");
  std::string copy = folder_ / "copy.db";
  double export_ms = 0;
  double beside = p99_while([&] {
    export_ms = milliseconds_of([&] {
      Finished done = server_.run({"db", "export", "large", copy}, {}, 900);
      ASSERT_EQ(done.exit_code, 0) << done.err;
    });
  });
  std::uint64_t more = process_memory_kib(server_.pid(), "VmHWM") - memory;
  EXPECT_GE(std::filesystem::file_size(copy), static_cast<std::uint64_t>(mebibytes) << 20);
  std::filesystem::remove(copy);
  double follow_ms = milliseconds_of([&] {
    Finished followed = server_.run({"follow", "large", folder_ / "replica.db", "--once"}, {}, 900);
    EXPECT_EQ(followed.exit_code, 0) << followed.err;
  });
  fmt::print(
      "{} MiB: import {:.1f} s, first query after a start {:.1f} ms, export {:.1f} s, follow "
      "{:.1f} "
      "s\nwrites: p99 {:.2f} ms alone, {:.2f} ms beside the export; {} MiB more memory\n",
      mebibytes, import_ms / 1000, open_ms, export_ms / 1000, follow_ms / 1000, alone, beside,
      more >> 10);
  EXPECT_LT(open_ms, 100);
  EXPECT_LT(more, 64U << 10);
}

TEST_F(ScaleTest, ALargeImportIsAllOrNothingUnderKill) {
  const int mebibytes = is_large() ? 300 : 40;
  std::string file = make_file(mebibytes);
  Deadline start = SteadyClock::now();
  ASSERT_EQ(server_.run({"db", "import", "whole", file}, {}, 120).exit_code, 0);
  double whole_s = std::chrono::duration<double>(SteadyClock::now() - start).count();
  int found = 0;
  const int rounds = 8;
  for (int round = 0; round < rounds; ++round) {
    std::string name = fmt::format("large{}", round);
    Process::Options options;
    options.arguments = {program(), "db", "import", name, file, "--server", server_.url()};
    options.stdout_path = options.stderr_path = folder_ / "import.log";
    Process import(options);
    // From before its first byte to after its end.
    import.wait(in_seconds(whole_s * (round + 0.3) / (rounds - 1)));
    server_.kill();
    bool acknowledged = import.wait(in_seconds(30)) == 0;
    ASSERT_TRUE(server_.restart());
    auto info = server_.request("GET", "/v1/databases/" + name);
    bool exists = info && info->status == 200;
    EXPECT_TRUE(exists || !acknowledged);
    if (!exists) continue;
    std::string tables = server_.query(name, "SELECT count(*) FROM sqlite_schema");
    EXPECT_TRUE(tables == "[[1]]" || (tables == "[[0]]" && !acknowledged)) << tables;
    if (tables != "[[1]]") continue;
    ++found;
    EXPECT_EQ(server_.query(name, "SELECT count(*) FROM blobs"), fmt::format("[[{}]]", mebibytes));
    EXPECT_EQ(server_.query(name, "PRAGMA quick_check"), "[[\"ok\"]]");
  }
  fmt::print("{} imports killed at growing moments: {} there whole, the others not at all\n",
             rounds, found);
}

TEST_F(ScaleTest, ManyIdleDatabasesCostNothing) {
  const int count = is_large() ? 1000 : 200;
  server_.set_options({"--idle-close-ms", "1000"});
  ASSERT_TRUE(server_.restart());
  for (int i = 0; i < count; ++i) {
    std::string name = fmt::format("tenant/t{}", i);
    server_.create(name);
    server_.query(name, "CREATE TABLE t (a)");
    server_.query(name, "INSERT INTO t VALUES (1)");
    if (HasFailure()) return;
  }
  auto database_files = [&] {
    std::vector<std::string> files = process_open_files(server_.pid());
    return std::count_if(files.begin(), files.end(), [](const std::string& path) {
      return path.find("/databases/") != std::string::npos &&
             path.find("/0000000000000000.") == std::string::npos;
    });
  };
  for (Deadline end = in_seconds(60); database_files() > 0 && SteadyClock::now() < end;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(database_files(), 0);
  double before = process_cpu_seconds(server_.pid());
  std::this_thread::sleep_for(std::chrono::seconds(5));
  double spent = process_cpu_seconds(server_.pid()) - before;
  std::uint64_t memory = process_memory_kib(server_.pid(), "VmRSS");
  fmt::print("{} idle databases: {:.1f} MiB, {:.1f} % of a core, no open file\n", count,
             static_cast<double>(memory) / 1024, spent / 5 * 100);
  EXPECT_LE(spent, 0.02);  // two ticks of the clock in 5 s
  EXPECT_LE(memory, 60U << 10);
  // And they are all there.
  EXPECT_EQ(server_.query(fmt::format("tenant/t{}", count - 1), "SELECT a FROM t"), "[[1]]");
}

}  // namespace
}  // namespace offprint::testing
