// Interactive transactions over HTTP: a stream of pipelines that keeps a transaction open between
// requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

constexpr int kIdleMs = 1500;

// One client's stream on a database.
class Stream {
 public:
  Stream(std::uint16_t port, std::string database)
      : database_(std::move(database)), connection_(port) {}

  // The answer's body; "cut" when the connection broke.
  std::string execute(const std::string& sql) {
    return send(R"([{"type":"execute","stmt":{"sql":)" + json_quoted(sql) + "}}]");
  }
  std::string close() { return send(R"([{"type":"close"}])"); }
  // The client's machine is gone: no goodbye on HTTP.
  void disappear() { connection_.close(); }
  int status() const { return status_; }

 private:
  std::string send(const std::string& requests) {
    std::string body = "{\"baton\":" + (baton_.empty() ? "null" : json_quoted(baton_)) +
                       ",\"requests\":" + requests + "}";
    auto answer = connection_.request("POST", "/db/" + database_ + "/v2/pipeline", body);
    status_ = answer ? answer->status : 0;
    if (!answer) return "cut";
    baton_ = json_field(answer->body, "baton");
    if (baton_ == "null") baton_.clear();
    return answer->body;
  }

  const std::string database_;
  HttpConnection connection_;
  std::string baton_;
  int status_ = 0;
};

class TransactionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(server_.start());
    server_.create("bank");
    server_.query("bank", "CREATE TABLE account (id INTEGER PRIMARY KEY, n INT NOT NULL)");
    server_.query("bank", "INSERT INTO account VALUES (1, 100), (2, 100)");
  }
  std::string accounts() { return server_.query("bank", "SELECT n FROM account"); }

  TemporaryFolder folder_;
  ServerProcess server_{folder_, {"--transaction-idle-ms", std::to_string(kIdleMs)}};
};

using ::testing::HasSubstr;

bool failed(const std::string& body) {
  return body.find("\"type\":\"error\"") != std::string::npos;
}

TEST_F(TransactionTest, IsSeenByOthersOnlyAfterItsCommit) {
  Stream stream(server_.port(), "bank");
  EXPECT_FALSE(failed(stream.execute("BEGIN")));
  EXPECT_FALSE(failed(stream.execute("UPDATE account SET n = n - 30 WHERE id = 1")));
  EXPECT_EQ(accounts(), "[[100],[100]]");
  EXPECT_FALSE(failed(stream.execute("UPDATE account SET n = n + 30 WHERE id = 2")));
  EXPECT_FALSE(failed(stream.execute("COMMIT")));
  EXPECT_EQ(accounts(), "[[70],[130]]");
  stream.close();
}

TEST_F(TransactionTest, ARollbackLeavesNothing) {
  Stream stream(server_.port(), "bank");
  stream.execute("BEGIN");
  EXPECT_FALSE(failed(stream.execute("DELETE FROM account")));
  EXPECT_FALSE(failed(stream.execute("ROLLBACK")));
  EXPECT_EQ(accounts(), "[[100],[100]]");
  stream.execute("BEGIN");
  EXPECT_FALSE(failed(stream.execute("DELETE FROM account")));
  stream.close();
  EXPECT_EQ(accounts(), "[[100],[100]]");
}

// The second waits for the first, and then works on what the first left.
TEST_F(TransactionTest, TwoClientsTakeTurns) {
  Stream first(server_.port(), "bank");
  ASSERT_FALSE(failed(first.execute("BEGIN IMMEDIATE")));
  ASSERT_FALSE(failed(first.execute("UPDATE account SET n = n * 2 WHERE id = 1")));
  std::string begun, updated, committed;
  std::thread other([&] {
    Stream second(server_.port(), "bank");
    begun = second.execute("BEGIN IMMEDIATE");
    updated = second.execute("UPDATE account SET n = n + 1 WHERE id = 1");
    committed = second.execute("COMMIT");
    second.close();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_FALSE(failed(first.execute("COMMIT")));
  other.join();
  EXPECT_FALSE(failed(begun)) << begun;
  EXPECT_FALSE(failed(updated)) << updated;
  EXPECT_FALSE(failed(committed)) << committed;
  EXPECT_EQ(accounts(), "[[201],[100]]");
  first.close();
}

// A transaction that has read cannot write on top of what came since: it is told so, and has
// changed nothing.
TEST_F(TransactionTest, AStaleReaderIsRefusedItsWrite) {
  Stream stale(server_.port(), "bank");
  ASSERT_FALSE(failed(stale.execute("BEGIN")));
  EXPECT_THAT(stale.execute("SELECT n FROM account WHERE id = 1"), HasSubstr("100"));
  auto other =
      server_.request("POST", "/db/bank/query", sql_body("UPDATE account SET n = 7 WHERE id = 1"));
  ASSERT_TRUE(other.has_value());
  std::string update = stale.execute("UPDATE account SET n = n + 1 WHERE id = 1");
  std::string commit = stale.execute("COMMIT");
  stale.close();
  if (other->status == 200) {
    EXPECT_TRUE(failed(update) || failed(commit)) << update << commit;
    EXPECT_EQ(accounts(), "[[7],[100]]");
  } else {  // the reader held the write slot: then the other one was refused in time
    EXPECT_EQ(accounts(), "[[101],[100]]");
  }
}

TEST_F(TransactionTest, AnIdleOneIsRolledBackAndTold) {
  Stream idle(server_.port(), "bank");
  ASSERT_FALSE(failed(idle.execute("BEGIN IMMEDIATE")));
  ASSERT_FALSE(failed(idle.execute("DELETE FROM account")));
  std::this_thread::sleep_for(std::chrono::milliseconds(kIdleMs + 700));
  EXPECT_EQ(accounts(), "[[100],[100]]");
  EXPECT_EQ(server_.query("bank", "UPDATE account SET n = 5 WHERE id = 1"), "[]");
  std::string late = idle.execute("INSERT INTO account VALUES (9, 9)");
  EXPECT_TRUE(idle.status() != 200 || failed(late)) << late;
  EXPECT_THAT(late, HasSubstr("TRANSACTION_TIMEOUT"));
  EXPECT_EQ(accounts(), "[[5],[100]]");
}

TEST_F(TransactionTest, AClientThatDisappearsBlocksNobodyForLong) {
  {
    Stream gone(server_.port(), "bank");
    ASSERT_FALSE(failed(gone.execute("BEGIN IMMEDIATE")));
    ASSERT_FALSE(failed(gone.execute("DELETE FROM account")));
    gone.disappear();
  }
  Deadline start = SteadyClock::now();
  EXPECT_EQ(server_.query("bank", "UPDATE account SET n = 5 WHERE id = 1"), "[]");
  double seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  EXPECT_LT(seconds, kIdleMs / 1000.0 + 5);
  EXPECT_EQ(accounts(), "[[5],[100]]");
}

TEST_F(TransactionTest, AKilledServerRollsItBack) {
  Stream stream(server_.port(), "bank");
  ASSERT_FALSE(failed(stream.execute("BEGIN IMMEDIATE")));
  ASSERT_FALSE(failed(stream.execute("DELETE FROM account")));
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(accounts(), "[[100],[100]]");
  std::string late = stream.execute("COMMIT");  // on a connection that is cut
  late = stream.execute("COMMIT");
  EXPECT_TRUE(stream.status() != 200 || failed(late)) << late;
  EXPECT_EQ(accounts(), "[[100],[100]]");
}

// Transfers by several clients at once: whatever is refused, the sum stays.
TEST_F(TransactionTest, ManyClientsKeepTheSum) {
  std::vector<std::thread> clients;
  std::atomic<int> committed = 0;
  for (int client = 0; client < 6; ++client) {
    clients.emplace_back([&, client] {
      for (int i = 0; i < 10; ++i) {
        Stream stream(server_.port(), "bank");
        bool ok = !failed(stream.execute(i % 2 == 0 ? "BEGIN IMMEDIATE" : "BEGIN")) &&
                  stream.status() == 200;
        for (int id : {1, 2}) {
          int change = (id == 1 ? -1 : 1) * (client + 1);
          ok = ok &&
               !failed(stream.execute(
                   fmt::format("UPDATE account SET n = n + {} WHERE id = {}", change, id))) &&
               stream.status() == 200;
        }
        ok = !failed(stream.execute(ok ? "COMMIT" : "ROLLBACK")) && ok && stream.status() == 200;
        committed += ok ? 1 : 0;
        stream.close();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(server_.query("bank", "SELECT sum(n) FROM account"), "[[200]]");
  EXPECT_GT(committed, 30);
}

}  // namespace
}  // namespace offprint::testing
