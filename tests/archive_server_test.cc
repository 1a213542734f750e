// A server whose databases go to an archive: what it promised is there when it stops, is killed, or
// comes back.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "sqlite/connection.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class ArchiveServerTest : public ::testing::Test {
 protected:
  void start(std::vector<std::string> options = {}) {
    options.insert(options.end(), {"--archive", "file://" + archive_});
    server_.set_options(options);
    ASSERT_TRUE(server_.start());
  }
  template <class Condition>
  static bool comes(Condition condition) {
    for (Deadline until = in_seconds(30); SteadyClock::now() < until;) {
      if (condition()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }
  Finished restore(const std::string& name, std::vector<std::string> options = {}) {
    std::vector<std::string> arguments = {"restore", "file://" + archive_ + "/" + name, restored_,
                                          "--force"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return server_.run(arguments);
  }
  // One value of the restored file.
  std::string read(const std::string& sql) {
    auto file = sqlite::Connection::open(restored_, {});
    if (!file) return file.error().message();
    auto value = file->query_text(sql.c_str());
    return value ? *value : value.error().message();
  }
  bool is_behind() { return server_.metric("archive_databases_behind") > 0; }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
  const std::string archive_ = folder_ / "archive";
  const std::string restored_ = folder_ / "restored.db";
};

TEST_F(ArchiveServerTest, AKilledServerBringsTheRest) {
  start({"--archive-sync-ms", "100"});
  server_.create("orders");
  server_.query("orders", "CREATE TABLE t(i INTEGER PRIMARY KEY, v)");
  int acknowledged = 0;
  for (int round = 0; round < 6; ++round) {
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      HttpConnection client(server_.port());
      while (!stop) {
        auto answer = client.request("POST", "/db/orders/query",
                                     sql_body("INSERT INTO t(v) VALUES(hex(randomblob(200)))"));
        if (!answer || answer->status != 200) return;
        ++acknowledged;
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(150 + 90 * round));
    server_.kill();
    stop = true;
    writer.join();
    // What is there is a state that was.
    Finished restored = restore("orders");
    if (restored.exit_code == 0) {
      EXPECT_EQ(read("PRAGMA integrity_check"), "ok");
      EXPECT_EQ(read("SELECT count(*) = ifnull(max(i), 0) FROM t"), "1");
      EXPECT_LE(std::stoi(read("SELECT count(*) FROM t")), acknowledged + 1);
    } else {
      EXPECT_EQ(round, 0) << restored.err;  // before the first object
    }
    ASSERT_TRUE(server_.start());
    acknowledged = std::stoi(server_.query("orders", "SELECT count(*) FROM t").substr(2));
  }
  EXPECT_TRUE(comes([&] { return !is_behind(); }));
  server_.kill();
  Finished restored = restore("orders");
  ASSERT_EQ(restored.exit_code, 0) << restored.err;
  EXPECT_EQ(read("SELECT count(*) FROM t"), std::to_string(acknowledged));
}

TEST_F(ArchiveServerTest, EveryCommitCanBeRestoredWhenEachGoesThereAtOnce) {
  start({"--archive-sync-ms", "0"});
  server_.create("shop/orders");
  server_.query("shop/orders", "CREATE TABLE t(i INTEGER PRIMARY KEY)");
  for (int i = 1; i <= 20; ++i) {
    server_.query("shop/orders", "INSERT INTO t DEFAULT VALUES");
    ASSERT_TRUE(comes([&] { return !is_behind(); }));
  }
  for (int txid : {1, 7, 21}) {
    Finished restored = restore("shop/orders", {"--at", std::to_string(txid), "--json"});
    ASSERT_EQ(restored.exit_code, 0) << restored.err;
    EXPECT_THAT(restored.out, HasSubstr("\"proven\":true"));
    EXPECT_EQ(read("SELECT count(*) FROM t"), std::to_string(txid - 1));
  }
  auto bookmark =
      json_field(server_.request("GET", "/v1/databases/shop%2Forders")->body, "bookmark");
  EXPECT_EQ(restore("shop/orders", {"--at", bookmark}).exit_code, 0);
  EXPECT_EQ(server_.terminate(), 0);
  EXPECT_EQ(restore("shop/orders").exit_code, 0);
  EXPECT_EQ(read("SELECT count(*) FROM t"), "20");

  const std::string url = "file://" + archive_ + "/shop/orders";
  Finished sound = server_.run({"verify", url, "--scratch", folder_ / "."});
  EXPECT_EQ(sound.exit_code, 0) << sound.out << sound.err;
  EXPECT_THAT(sound.out, HasSubstr("proven   txid 21"));
  const std::string file = archive_ + "/shop/orders/ltx/0/0000000000000007-0000000000000007.ltx";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  Finished damaged = server_.run({"verify", url, "--scratch", folder_ / "."});
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_THAT(damaged.out, HasSubstr("0000000000000007-0000000000000007.ltx: "));
}

TEST_F(ArchiveServerTest, AnotherServersArchiveAndWrongPlacesAreRefused) {
  start();
  TemporaryFolder other;
  auto serve = [&](const std::string& url) {
    return server_.run(
        {"serve", "--data", other / "data", "--listen", "127.0.0.1:0", "--archive", url}, {}, 20);
  };
  Finished second = serve("file://" + archive_);
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, HasSubstr("two nodes cannot share one"));
  Finished wrong = serve("ftp://somewhere");
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_THAT(wrong.err, HasSubstr("file:///"));
  EXPECT_EQ(server_.terminate(), 0);
  start();  // the same one again
}

// The disk of the archive goes away and comes back.
TEST_F(ArchiveServerTest, WritesGoOnWithoutTheArchive) {
  start({"--archive-sync-ms", "0"});
  server_.create("orders");
  server_.query("orders", "CREATE TABLE t(i INTEGER PRIMARY KEY)");
  ASSERT_TRUE(comes([&] { return !is_behind(); }));
  std::filesystem::rename(archive_, archive_ + ".away");
  {
    std::ofstream(archive_) << "no folder";
  }
  server_.query("orders", "INSERT INTO t DEFAULT VALUES");
  EXPECT_TRUE(comes([&] { return server_.metric("archive_failures_total") > 0; }));
  EXPECT_TRUE(is_behind());
  EXPECT_EQ(server_.query("orders", "INSERT INTO t DEFAULT VALUES RETURNING i"), "[[2]]");
  std::filesystem::remove(archive_);
  std::filesystem::rename(archive_ + ".away", archive_);
  EXPECT_TRUE(comes([&] { return !is_behind(); }));
  EXPECT_EQ(restore("orders").exit_code, 0);
  EXPECT_EQ(read("SELECT count(*) FROM t"), "2");
}

// It is started again and again meanwhile: the archive is its own all the same.
TEST_F(ArchiveServerTest, StartsBesideAnArchiveThatIsAwayKeepItItsOwn) {
  start({"--archive-sync-ms", "0"});
  server_.create("orders");
  server_.query("orders", "CREATE TABLE t(i INTEGER PRIMARY KEY)");
  ASSERT_TRUE(comes([&] { return !is_behind(); }));
  server_.kill();
  std::filesystem::rename(archive_, archive_ + ".away");
  {
    std::ofstream(archive_) << "no folder";
  }
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(server_.start());
    server_.query("orders", "INSERT INTO t DEFAULT VALUES");
    server_.kill();
  }
  std::filesystem::remove(archive_);
  std::filesystem::rename(archive_ + ".away", archive_);
  ASSERT_TRUE(server_.start());
  EXPECT_TRUE(comes([&] { return !is_behind(); }));
  EXPECT_EQ(restore("orders").exit_code, 0);
  EXPECT_EQ(read("SELECT count(*) FROM t"), "3");
  // What it was called meanwhile is forgotten.
  const std::string owners = file_text(server_.data() + "/archive.owner");
  EXPECT_EQ(std::ranges::count(owners, '\n'), 1);
}

// What was acknowledged is in the archive, whatever becomes of the server and its disk.
TEST_F(ArchiveServerTest, WhoAsksForItWaitsForTheArchive) {
  start({"--archive-wait", "--archive-sync-ms", "3600000"});
  server_.create("orders");
  server_.query("orders", "CREATE TABLE t(i INTEGER PRIMARY KEY, v)");
  for (int round = 0; round < 3; ++round) {
    std::atomic<int> acknowledged{0};
    std::vector<std::thread> writers;
    for (int i = 0; i < 16; ++i) {
      writers.emplace_back([&] {
        HttpConnection client(server_.port());
        while (auto answer = client.request("POST", "/db/orders/query",
                                            sql_body("INSERT INTO t(v) VALUES(1)"))) {
          if (answer->status == 200) ++acknowledged;
        }
      });
    }
    EXPECT_TRUE(comes([&] { return acknowledged > 200 * (round + 1); }));
    const std::uint64_t puts = server_.metric("archive_puts_total");
    server_.kill();
    for (std::thread& writer : writers) writer.join();
    EXPECT_LT(puts, static_cast<std::uint64_t>(acknowledged)) << "they share what is put";
    ASSERT_EQ(restore("orders").exit_code, 0);
    EXPECT_GE(std::stoi(read("SELECT count(*) FROM t")), acknowledged);
    ASSERT_TRUE(server_.start());
    server_.query("orders", "DELETE FROM t");
  }
  // An interactive transaction too.
  HttpConnection client(server_.port());
  auto pipeline = [&](const std::string& baton, const std::string& sql) {
    auto answer = client.request(
        "POST", "/db/orders/v2/pipeline",
        fmt::format(R"({{"baton":{},"requests":[{{"type":"execute","stmt":{{"sql":"{}"}}}}]}})",
                    baton, sql));
    return answer->body;
  };
  std::string begun = pipeline("null", "BEGIN");
  std::string baton = json_quoted(json_field(begun, "baton"));
  begun = pipeline(baton, "INSERT INTO t(v) VALUES(7)");
  EXPECT_THAT(pipeline(json_quoted(json_field(begun, "baton")), "COMMIT"), HasSubstr("\"ok\""));
  server_.kill();
  ASSERT_EQ(restore("orders").exit_code, 0);
  EXPECT_EQ(read("SELECT v FROM t"), "7");
}

TEST_F(ArchiveServerTest, RestoresForksAndImportsWaitForItToo) {
  start({"--archive-wait", "--archive-sync-ms", "3600000"});
  server_.create("orders");
  server_.query("orders", "CREATE TABLE t(i INTEGER PRIMARY KEY)");
  server_.query("orders", "INSERT INTO t DEFAULT VALUES");
  const std::string then =
      json_field(server_.run({"db", "info", "orders", "--json"}).out, "bookmark");
  server_.query("orders", "INSERT INTO t DEFAULT VALUES");
  auto outlives_the_server = [&](const std::vector<std::string>& arguments,
                                 const std::string& name) {
    Finished done = server_.run(arguments);
    server_.kill();
    EXPECT_EQ(done.exit_code, 0) << done.err;
    Finished restored = restore(name);
    EXPECT_EQ(restored.exit_code, 0) << restored.err;
    EXPECT_EQ(read("SELECT count(*) FROM t"), "1");
    ASSERT_TRUE(server_.start());
  };
  outlives_the_server({"db", "restore", "orders", "--at", then}, "orders");
  outlives_the_server({"db", "fork", "orders", "forked"}, "forked");
  std::filesystem::rename(restored_, restored_ + ".import");
  outlives_the_server({"db", "import", "imported", restored_ + ".import"}, "imported");
  // It stands, but for the promise.
  std::filesystem::rename(archive_, archive_ + ".away");
  {
    std::ofstream(archive_) << "no folder";
  }
  ASSERT_EQ(server_.run({"db", "set", "orders", "durability=archive"}).exit_code, 0);
  server_.kill();
  server_.set_options({"--archive", "file://" + archive_, "--archive-wait-ms", "300"});
  ASSERT_TRUE(server_.start());
  Finished unknown = server_.run({"db", "restore", "orders", "--at",
                                  then.substr(0, 8) + "-00000000-00000001" + then.substr(26)});
  EXPECT_NE(unknown.exit_code, 0);
  EXPECT_THAT(unknown.err, HasSubstr("not in the archive"));
  EXPECT_EQ(server_.query("orders", "SELECT count(*) FROM t"), "[[0]]");
}

TEST_F(ArchiveServerTest, OneDatabaseWaitsForAnArchiveThatIsDead) {
  start({"--archive-wait-ms", "300"});
  server_.create("orders");
  server_.create("others");
  server_.query("orders", "CREATE TABLE t(i INTEGER PRIMARY KEY)");
  Finished set = server_.run({"db", "set", "orders", "durability=archive", "retention_days=90"});
  ASSERT_EQ(set.exit_code, 0) << set.err;
  EXPECT_THAT(set.out, HasSubstr(R"("durability":"archive","retention_days":90)"));
  server_.query("orders", "INSERT INTO t DEFAULT VALUES");
  std::filesystem::rename(archive_, archive_ + ".away");
  {
    std::ofstream(archive_) << "no folder";
  }
  auto insert = [&](const std::string& name) {
    return server_.request("POST", "/db/" + name + "/query",
                           sql_body(name == "orders" ? "INSERT INTO t DEFAULT VALUES"
                                                     : "CREATE TABLE IF NOT EXISTS t(i)"));
  };
  Deadline begin = SteadyClock::now();
  auto unknown = insert("orders");
  EXPECT_GE(SteadyClock::now() - begin, 300ms);
  EXPECT_EQ(unknown->status, 500);
  EXPECT_THAT(unknown->body, HasSubstr("UNKNOWN"));
  EXPECT_THAT(unknown->body, HasSubstr("not in the archive"));
  EXPECT_EQ(insert("others")->status, 200) << "those that do not wait go on";
  EXPECT_EQ(server_.query("orders", "SELECT count(*) FROM t"), "[[2]]") << "it stands";
  server_.kill();
  std::filesystem::remove(archive_);
  std::filesystem::rename(archive_ + ".away", archive_);
  ASSERT_TRUE(server_.start());
  EXPECT_TRUE(comes([&] { return insert("orders")->status == 200; }));
  server_.kill();
  ASSERT_EQ(restore("orders").exit_code, 0);
  EXPECT_GE(std::stoi(read("SELECT count(*) FROM t")), 3);
  // Without an archive nothing is acknowledged that was to be there.
  server_.set_options({});
  ASSERT_TRUE(server_.start());
  EXPECT_EQ(insert("orders")->status, 500);
  EXPECT_EQ(server_.run({"db", "set", "orders", "durability=disk"}).exit_code, 0);
  EXPECT_EQ(insert("orders")->status, 200);
  EXPECT_EQ(server_.run({"db", "set", "orders", "durability=archive"}).exit_code, 1);
}

// A service that takes connections and says nothing.
TEST_F(ArchiveServerTest, AServerStopsBesideADeadService) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(listener, 64), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::setenv("AWS_ACCESS_KEY_ID", "key-id", 1);
  ::setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
  server_.set_options(
      {"--archive",
       fmt::format("s3://bucket/x?endpoint=http://127.0.0.1:{}", ntohs(address.sin_port)),
       "--archive-sync-ms", "0", "--archive-wait-ms", "60000"});
  ASSERT_TRUE(server_.start());
  for (const char* name : {"orders", "waits"}) {
    server_.create(name);
    server_.query(name, "CREATE TABLE t(i INTEGER PRIMARY KEY)");
  }
  EXPECT_EQ(server_.run({"db", "set", "waits", "durability=archive"}).exit_code, 0);
  std::thread waiting([&] {
    HttpConnection client(server_.port());
    auto answer = client.request("POST", "/db/waits/query", sql_body("INSERT INTO t VALUES(1)"));
    EXPECT_TRUE(!answer || answer->status == 500);
  });
  EXPECT_TRUE(comes([&] { return server_.query("waits", "SELECT count(*) FROM t") == "[[1]]"; }));
  Deadline begin = SteadyClock::now();
  EXPECT_EQ(server_.terminate(20), 0);
  EXPECT_LT(SteadyClock::now() - begin, 14s);
  waiting.join();
  ::close(listener);
  ASSERT_TRUE(server_.start());
  EXPECT_EQ(server_.query("waits", "SELECT count(*) FROM t"), "[[1]]");
  server_.kill();
}

// What was dropped comes back, and goes on where it was.
TEST_F(ArchiveServerTest, ADatabaseIsMadeOfItsArchive) {
  start({"--archive-sync-ms", "0"});
  server_.create("shop/orders");
  server_.query("shop/orders", "CREATE TABLE t(i INTEGER PRIMARY KEY)");
  server_.query("shop/orders", "INSERT INTO t VALUES(1), (2)");
  ASSERT_TRUE(comes([&] { return !is_behind(); }));
  Finished taken = server_.run({"db", "create", "shop/orders", "--from-archive"});
  EXPECT_EQ(taken.exit_code, 1) << "it is there";
  EXPECT_EQ(server_.run({"db", "drop", "shop/orders"}).exit_code, 0);
  Finished made = server_.run({"db", "create", "shop/orders", "--from-archive"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_EQ(server_.query("shop/orders", "INSERT INTO t VALUES(3) RETURNING i"), "[[3]]");
  ASSERT_TRUE(comes([&] { return !is_behind(); }));
  server_.kill();
  ASSERT_TRUE(server_.start());
  EXPECT_EQ(server_.query("shop/orders", "SELECT count(*) FROM t"), "[[3]]");
  ASSERT_EQ(restore("shop/orders", {"--at", "2"}).exit_code, 0);
  EXPECT_EQ(read("SELECT count(*) FROM t"), "2");
  ASSERT_EQ(restore("shop/orders").exit_code, 0);
  EXPECT_EQ(read("SELECT count(*) FROM t"), "3");
  EXPECT_EQ(server_.run({"db", "create", "nothing", "--from-archive"}).exit_code, 1);
  EXPECT_EQ(server_.request("GET", "/v1/databases/nothing")->status, 404);
}

}  // namespace
}  // namespace offprint::testing
