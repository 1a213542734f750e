// A server that follows another one: what it does not have itself it gets from the primary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "server/websocket_testing.h"
#include "sqlite/connection.h"
#include "tests/lag_proxy.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

class CopyTest : public ::testing::Test {
 protected:
  void start(std::vector<std::string> primary_options = {},
             std::vector<std::string> copy_options = {}) {
    primary_.set_options(with({"--node-name", "primary"}, std::move(primary_options)));
    ASSERT_TRUE(primary_.start());
    way_ = std::make_unique<LagProxy>(primary_.port());
    copy_.set_options(
        with({"--node-name", "copy", "--follow", way_->url()}, std::move(copy_options)));
    ASSERT_TRUE(copy_.start());
  }
  static std::vector<std::string> with(std::vector<std::string> list,
                                       std::vector<std::string> more) {
    list.insert(list.end(), more.begin(), more.end());
    return list;
  }
  template <class Condition>
  static bool comes(Condition condition) {
    for (Deadline until = in_seconds(20); SteadyClock::now() < until;) {
      if (condition()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }
  bool has_copy(const std::string& name) {
    return comes([&] {
      auto here = copy_.request("GET", "/v1/databases/" + name);
      return here && here->status == 200;
    });
  }

  TemporaryFolder primary_folder_, copy_folder_;
  ServerProcess primary_{primary_folder_}, copy_{copy_folder_};
  std::unique_ptr<LagProxy> way_;
};

TEST_F(CopyTest, WhatItDoesNotHaveYetIsAskedOfThePrimary) {
  start();
  for (int i = 0; i < 20; ++i) {
    std::string name = fmt::format("new{}", i);
    primary_.create(name);
    EXPECT_EQ(copy_.query(name, "CREATE TABLE t(a)"), "[]");
    EXPECT_EQ(copy_.query(name, "INSERT INTO t VALUES(1) RETURNING a"), "[[1]]");
  }
  HttpConnection client(copy_.port());
  EXPECT_EQ(client.request("POST", "/db/nowhere/query", R"("SELECT 1")")->status, 404);
  EXPECT_EQ(client.request("GET", "/v1/databases/nowhere")->status, 404);
  EXPECT_EQ(client.request("GET", "/v1/jobs/nowhere")->status, 404);
}

TEST_F(CopyTest, NewDatabasesComeAtOnce) {
  start();
  primary_.create("first");
  ASSERT_TRUE(has_copy("first"));
  for (int i = 0; i < 5; ++i) {
    std::string name = fmt::format("next{}", i);
    Deadline begin = SteadyClock::now();
    primary_.create(name);
    ASSERT_TRUE(has_copy(name));
    EXPECT_LT(SteadyClock::now() - begin, 800ms) << "as if it had waited for a heartbeat";
  }
}

TEST_F(CopyTest, ANodeWithoutDatabasesIsFollowedWithoutEnd) {
  start();
  std::this_thread::sleep_for(4500ms);  // longer than the silence after which it connects again
  EXPECT_THAT(copy_.log(), Not(HasSubstr("trying again")));
  HttpConnection client(copy_.port());
  way_->set_cut(true);
  EXPECT_EQ(client.request("POST", "/db/nowhere/query", R"("SELECT 1")")->status, 503);
}

TEST_F(CopyTest, WebSocketsGoOnWithThePrimary) {
  start();
  primary_.create("d");
  ASSERT_TRUE(has_copy("d"));
  auto run = [](server::testing::TestWebSocket& socket, int id, const std::string& sql) {
    socket.send(fmt::format(
        R"({{"type":"request","request_id":{},"request":{{"type":"execute","stream_id":1,"stmt":{{"sql":"{}"}}}}}})",
        id, sql));
    return socket.read();
  };
  auto greet = [](server::testing::TestWebSocket& socket) {
    socket.send(R"({"type":"hello","jwt":null})");
    EXPECT_THAT(socket.read(), HasSubstr("hello_ok"));
    socket.send(
        R"({"type":"request","request_id":1,"request":{"type":"open_stream","stream_id":1}})");
    EXPECT_THAT(socket.read(), HasSubstr("response_ok"));
  };
  server::testing::TestWebSocket socket(copy_.port());
  ASSERT_EQ(socket.open("/db/d", "hrana3"), 101);
  EXPECT_EQ(socket.protocol, "hrana3");
  greet(socket);
  EXPECT_THAT(run(socket, 2, "CREATE TABLE t(a)"), HasSubstr("response_ok"));
  EXPECT_THAT(run(socket, 3, "BEGIN"), HasSubstr("response_ok"));
  EXPECT_THAT(run(socket, 4, "INSERT INTO t VALUES(zeroblob(3000000))"), HasSubstr("response_ok"));
  EXPECT_GT(run(socket, 5, "SELECT a FROM t").size(), 3'000'000u);
  EXPECT_THAT(run(socket, 6, "COMMIT"), HasSubstr("response_ok"));
  EXPECT_EQ(primary_.query("d", "SELECT length(a) FROM t"), "[[3000000]]");

  server::testing::TestWebSocket nowhere(copy_.port());
  EXPECT_EQ(nowhere.open("/db/nowhere", "hrana3"), 404);

  // The primary goes: so does the connection. New ones read what is here.
  primary_.kill();
  way_->set_cut(true);
  EXPECT_EQ(socket.read(), "");
  server::testing::TestWebSocket alone(copy_.port());
  ASSERT_EQ(alone.open("/db/d", "hrana3"), 101);
  greet(alone);
  EXPECT_THAT(run(alone, 2, "SELECT 7"), HasSubstr("\"7\""));
  EXPECT_THAT(run(alone, 3, "DELETE FROM t"), HasSubstr("NOT_PRIMARY"));
  EXPECT_EQ(copy_.terminate(), 0);
}

// While the copy sleeps, databases end and others of their names begin.
TEST_F(CopyTest, LivesOfOneNameDoNotPassEachOther) {
  start();
  constexpr int kNames = 20;
  auto name = [](int i) { return fmt::format("n{}", i); };
  auto fill = [&](int i, int life) {
    primary_.query(name(i), "CREATE TABLE t(life, b)");
    primary_.query(name(i), fmt::format("INSERT INTO t VALUES({}, randomblob(400000))", life));
  };
  for (int i = 0; i < kNames; ++i) {
    primary_.create(name(i));
    fill(i, 0);
  }
  for (int i = 0; i < kNames; ++i) ASSERT_TRUE(has_copy(name(i)));
  for (int life = 1; life < 4; ++life) {
    ASSERT_EQ(::kill(copy_.pid(), SIGSTOP), 0);
    for (int i = 0; i < kNames; ++i) {
      primary_.query(name(i), "INSERT INTO t VALUES('old', randomblob(300000))");
      EXPECT_EQ(primary_.request("DELETE", "/v1/databases/" + name(i))->status, 204);
      primary_.create(name(i));
      fill(i, life);
    }
    ASSERT_EQ(::kill(copy_.pid(), SIGCONT), 0);
    for (int i = 0; i < kNames; ++i) {
      auto there = primary_.request("GET", "/v1/databases/" + name(i));
      EXPECT_TRUE(comes([&] {
        auto here = copy_.request("GET", "/v1/databases/" + name(i));
        return here && json_field(here->body, "bookmark") == json_field(there->body, "bookmark");
      })) << name(i)
          << " in life " << life;
    }
  }
}

TEST_F(CopyTest, WhatChangesADatabaseHappensAtThePrimary) {
  start();
  for (const char* name : {"a", "b", "c"}) {
    primary_.create(name);
    ASSERT_TRUE(has_copy(name));
  }
  HttpConnection copy(copy_.port());
  const std::string d1 = "/client/v4/accounts/x/d1/database/";
  EXPECT_EQ(copy.request("DELETE", d1 + "a")->status, 200);
  EXPECT_EQ(primary_.request("GET", "/v1/databases/a")->status, 404);
  EXPECT_EQ(copy.request("PATCH", "/v1/databases/b", R"({"limits":{"rows_max":7}})")->status, 200);
  EXPECT_THAT(primary_.request("GET", "/v1/databases/b")->body, HasSubstr("rows_max"));
  EXPECT_EQ(copy.request("GET", d1 + "b")->body, primary_.request("GET", d1 + "b")->body);
  EXPECT_TRUE(comes([&] { return copy.request("GET", "/v1/databases/a")->status == 404; }));
}

TEST_F(CopyTest, OneThatCannotBeCopiedHoldsUpNoOther) {
  start();
  way_->set_cut(true);
  for (const char* name : {"a", "b", "c"}) {
    primary_.create(name);
    primary_.query(name, "CREATE TABLE t(a)");
  }
  EXPECT_EQ(
      primary_.request("PATCH", "/v1/databases/b", R"({"limits":{"reads_blocked":true}})")->status,
      200);
  way_->set_cut(false);
  EXPECT_TRUE(has_copy("a"));
  EXPECT_TRUE(has_copy("c"));
  EXPECT_EQ(copy_.request("GET", "/v1/databases/b")->status, 404);
  EXPECT_EQ(
      primary_.request("PATCH", "/v1/databases/b", R"({"limits":{"reads_blocked":false}})")->status,
      200);
  EXPECT_TRUE(has_copy("b"));
}

// What differs from the primary's is mended: one that began again meanwhile, at its first
// transaction too, and files that somebody else wrote to. One that cannot be mended does not keep
// the others from going on.
TEST_F(CopyTest, WhatDiffersIsMended) {
  start();
  for (const char* name : {"again", "blocked", "changed"}) {
    primary_.create(name);
    primary_.query(name, fmt::format("CREATE TABLE {}(a)", name));
    ASSERT_TRUE(has_copy(name));
    ASSERT_TRUE(comes([&] { return !copy_.file_with_table(name).empty(); }));
  }
  ASSERT_EQ(copy_.terminate(), 0);
  for (const char* name : {"blocked", "changed"}) {
    sqlite::Connection foreign = sqlite::Connection::open(copy_.file_with_table(name), {}).value();
    ASSERT_TRUE(foreign.execute(fmt::format("INSERT INTO {} VALUES('x')", name).c_str()));
  }
  ASSERT_EQ(primary_.request("DELETE", "/v1/databases/again")->status, 204);
  primary_.create("again");
  primary_.query("again", "CREATE TABLE again(a, b)");
  auto block = [&](const char* blocked) {
    return primary_.request("PATCH", "/v1/databases/blocked",
                            fmt::format(R"({{"limits":{{"reads_blocked":{}}}}})", blocked));
  };
  ASSERT_EQ(block("true")->status, 200);
  ASSERT_TRUE(copy_.start());
  auto copy_answers = [&](const std::string& name, const std::string& sql,
                          const std::string& rows) {
    return comes([&] {
      HttpConnection client(copy_.port());
      auto answer = client.request("POST", "/db/" + name + "/query", sql_body(sql));
      return answer && answer->status == 200 && answer->body.find(rows) != std::string::npos &&
             header_of(answer->head, "Offprint-Served-By") == "copy";
    });
  };
  EXPECT_TRUE(copy_answers("again", "SELECT count(b) FROM again", "[[0]]"));
  (void)copy_.request("POST", "/db/blocked/query", sql_body("SELECT 1"));  // opens it
  EXPECT_TRUE(
      comes([&] { return copy_.log().find("'blocked' cannot be fetched") != std::string::npos; }));
  EXPECT_TRUE(copy_answers("changed", "SELECT count(*) FROM changed", "[[0]]"));
  for (int i = 1; i <= 2; ++i) {
    primary_.query("changed", "INSERT INTO changed VALUES(1)");
    EXPECT_TRUE(copy_answers("changed", "SELECT count(*) FROM changed", fmt::format("[[{}]]", i)));
  }
  ASSERT_EQ(block("false")->status, 200);
  EXPECT_TRUE(copy_answers("blocked", "SELECT count(*) FROM blocked", "[[0]]"));
}

// The primary goes while connections are being handed over to it.
TEST_F(CopyTest, UpgradesThatFailLeaveNothingBehind) {
  start();
  primary_.create("d");
  ASSERT_TRUE(has_copy("d"));
  ASSERT_EQ(::kill(primary_.pid(), SIGSTOP), 0);
  std::vector<std::thread> clients;
  for (int i = 0; i < 10; ++i) {
    clients.emplace_back([&] {
      server::testing::TestWebSocket socket(copy_.port());
      EXPECT_EQ(socket.open("/db/d", "hrana3"), 500);
    });
  }
  std::this_thread::sleep_for(300ms);  // they are on their way; else they get the same answer
  primary_.kill();
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(copy_.terminate(), 0);
}

TEST_F(CopyTest, RevocationsReachCopies) {
  const std::string key = primary_folder_ / "key";
  ASSERT_EQ(primary_.run({"token", "keygen", key}).exit_code, 0);
  auto make_token = [&](std::vector<std::string> options) {
    Finished made = primary_.run(with({"token", "create", "--key", key}, std::move(options)));
    EXPECT_EQ(made.exit_code, 0) << made.err;
    return made.out.substr(0, made.out.find('\n'));
  };
  const std::string admin = make_token(
      {"--db", "*", "--admin", "--read", "--write", "--schema", "--subscribe", "--snapshot"});
  const std::string reader = make_token({"--db", "*", "--read", "--id", "r-1"});
  start({"--auth-keys", key + ".pub"}, {"--auth-keys", key + ".pub", "--follow-token", admin});
  HttpConnection primary(primary_.port());
  const std::string by_admin = "Authorization: Bearer " + admin + "\r\n";
  ASSERT_EQ(primary.request("POST", "/v1/databases", R"({"name":"d"})", by_admin)->status, 201);
  HttpConnection copy(copy_.port());
  auto status_of = [&](const std::string& token) {
    HttpConnection client(copy_.port());
    auto answer = client.request("POST", "/db/d/query", R"("SELECT 1")",
                                 "Authorization: Bearer " + token + "\r\n");
    return answer ? answer->status : 0;
  };
  ASSERT_TRUE(comes([&] {
    auto here = copy.request("GET", "/v1/databases/d", {}, by_admin);
    return here && here->status == 200;
  }));
  EXPECT_EQ(status_of(reader), 200);
  auto revoked = copy.request("POST", "/v1/tokens/revoke", R"({"jti":"r-1"})", by_admin);
  ASSERT_TRUE(revoked);
  EXPECT_EQ(revoked->status, 200) << revoked->body;
  EXPECT_THAT(primary.request("GET", "/v1/tokens/revoked", {}, by_admin)->body, HasSubstr("r-1"));
  EXPECT_TRUE(comes([&] { return status_of(reader) == 401; }));
  EXPECT_EQ(status_of(admin), 200);
  // All tokens of a database: the follower's own is among them, other databases go on.
  ASSERT_EQ(primary.request("POST", "/v1/databases", R"({"name":"other"})", by_admin)->status, 201);
  const std::string second = make_token({"--db", "*", "--read"});
  EXPECT_EQ(status_of(second), 200);
  auto closed = primary.request("POST", "/v1/tokens/revoke", R"({"database":"d"})", by_admin);
  ASSERT_EQ(closed->status, 200);
  EXPECT_TRUE(comes([&] { return status_of(second) == 403; }));
  ASSERT_EQ(
      primary.request("POST", "/db/other/query", sql_body("CREATE TABLE t(a)"), by_admin)->status,
      200);
  EXPECT_TRUE(comes([&] {
    HttpConnection client(copy_.port());
    auto answer = client.request("POST", "/db/other/query", sql_body("SELECT * FROM t"), by_admin);
    return answer && answer->status == 200 &&
           header_of(answer->head, "Offprint-Served-By") == "copy";
  }));
  // It knows so by itself.
  way_->set_cut(true);
  EXPECT_EQ(copy_.terminate(), 0);
  ASSERT_TRUE(copy_.start());
  EXPECT_EQ(status_of(reader), 401);
}

}  // namespace
}  // namespace offprint::testing
