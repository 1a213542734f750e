// Large scripts and files of rows into a database with content: all or nothing over kill -9, in
// little memory, while others read and write elsewhere.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

// Of 1,000 bytes each; OFFPRINT_TEST_LARGE=1: a script of more than 1 GiB.
const int kRows = std::getenv("OFFPRINT_TEST_LARGE") != nullptr ? 1'100'000 : 110'000;

class ImportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(server_.start());
    server_.create("shop");
    server_.query("shop", "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)");
    server_.query("shop", "INSERT INTO t VALUES (-1, 'kept')");
    script_ = "BEGIN TRANSACTION;\n";
    std::string filler(960, 'x');
    for (int i = 0; i < kRows; ++i)
      script_ += fmt::format("INSERT INTO t VALUES ({},'{}{}');\n", i, i, filler);
    script_ += "COMMIT;\n";
    ASSERT_GT(script_.size(), static_cast<std::size_t>(kRows) * 960);
  }
  std::string start_import(const std::string& parameters = "format=sql") {
    auto answer = server_.request("POST", "/db/shop/import?async=1&" + parameters, script_);
    EXPECT_TRUE(answer && answer->status == 202) << (answer ? answer->body : "no answer");
    return answer ? json_field(answer->body, "job") : "";
  }
  // Until the job has read so many bytes, or has ended; its last state.
  std::string wait_for(const std::string& job, std::uint64_t bytes) {
    auto late = std::chrono::steady_clock::now() + std::chrono::seconds(240);
    std::string state = "none";
    while (std::chrono::steady_clock::now() < late) {
      auto answer = server_.request("GET", "/v1/jobs/" + job);
      if (!answer) break;
      state = json_field(answer->body, "state");
      bool ended = state != "running" && state != "waiting";
      if (ended || std::stoull(json_field(answer->body, "bytes_done")) >= bytes) return state;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ADD_FAILURE() << "the job does not go on: " << state;
    return state;
  }
  std::string bookmark() {
    return json_field(server_.request("GET", "/v1/databases/shop")->body, "bookmark");
  }
  // Peak of its memory, in MiB.
  std::uint64_t peak_mib() const { return process_memory_kib(server_.pid(), "VmHWM") / 1024; }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
  std::string script_;
};

TEST_F(ImportTest, AKilledServerHasNothingOfIt) {
  const std::string before = bookmark();
  for (std::uint64_t part : {1U, 4U, 7U}) {
    std::string job = start_import();
    EXPECT_EQ(wait_for(job, script_.size() * part / 8), "running");
    server_.kill();
    ASSERT_TRUE(server_.restart());
    EXPECT_EQ(server_.query("shop", "SELECT count(*), min(v) FROM t"), "[[1,\"kept\"]]");
    EXPECT_EQ(server_.query("shop", "PRAGMA integrity_check"), "[[\"ok\"]]");
    EXPECT_EQ(bookmark(), before);
    EXPECT_EQ(server_.request("GET", "/v1/jobs/" + job)->status, 404);
  }
}

TEST_F(ImportTest, OthersGoOnAndMemoryIsBounded) {
  server_.create("other");
  server_.query("other", "CREATE TABLE t(v)");
  std::string job = start_import();
  EXPECT_EQ(wait_for(job, script_.size() / 2), "running");
  EXPECT_EQ(server_.query("shop", "SELECT count(*) FROM t"), "[[1]]");
  auto refused = server_.request("POST", "/db/shop/query", sql_body("DELETE FROM t"));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 503);
  EXPECT_NE(refused->body.find("IMPORT_RUNNING"), std::string::npos) << refused->body;
  EXPECT_EQ(server_.query("other", "INSERT INTO t VALUES (1) RETURNING v"), "[[1]]");
  EXPECT_EQ(wait_for(job, ~std::uint64_t{0}), "done");
  EXPECT_EQ(server_.query("shop", "SELECT count(*), sum(length(v)) > 100000000 FROM t"),
            fmt::format("[[{},1]]", kRows + 1));
  EXPECT_LT(peak_mib(), 128U);
  server_.kill();  // what was answered stays
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(server_.query("shop", "SELECT count(*) FROM t"), fmt::format("[[{}]]", kRows + 1));
}

TEST_F(ImportTest, RowsAreAllThereOrNoneInLittleMemory) {
  script_ = "v,id\r\n";
  std::string filler(960, 'x');
  for (int i = 0; i < kRows; ++i) script_ += fmt::format("\"{}\n{}\",{}\r\n", i, filler, i);
  ASSERT_GT(script_.size(), static_cast<std::size_t>(kRows) * 960);
  const std::string before = bookmark();
  std::string job = start_import("format=csv&table=t");
  EXPECT_EQ(wait_for(job, script_.size() / 2), "running");
  auto refused = server_.request("POST", "/db/shop/query", sql_body("DELETE FROM t"));
  EXPECT_TRUE(refused && refused->body.find("IMPORT_RUNNING") != std::string::npos);
  server_.kill();
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(server_.query("shop", "SELECT count(*), min(v) FROM t"), "[[1,\"kept\"]]");
  EXPECT_EQ(bookmark(), before);
  job = start_import("format=csv&table=t");
  EXPECT_EQ(wait_for(job, ~std::uint64_t{0}), "done");
  for (const char* format : {"csv", "jsonl"}) {
    auto rows = server_.request("GET", std::string("/db/shop/export?table=t&format=") + format);
    ASSERT_TRUE(rows);
    EXPECT_EQ(rows->status, 200);
    EXPECT_GT(rows->body.size(), static_cast<std::size_t>(kRows) * 960);
  }
  EXPECT_LT(peak_mib(), 128U);
}

}  // namespace
}  // namespace offprint::testing
