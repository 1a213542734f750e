// Change feeds and live queries over the routes and a real store.
#include <map>
#include <random>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <simdjson.h>

#include "server/store_testing.h"
#include "server/token_testing.h"

namespace offprint::server {
namespace {

// Reads a stream of lines as a connection would.
class Lines {
 public:
  Lines(std::shared_ptr<testing::FakeClient> client, Response response)
      : client_(std::move(client)), stream_(std::move(response.stream)), text_(response.body) {
    EXPECT_EQ(response.status, 200) << response.body;
    if (stream_) stream_->start(client_);
  }
  // The next line; nothing at the end.
  std::optional<std::string> any() {
    for (const auto end = SteadyClock::now() + std::chrono::seconds(20);;) {
      if (std::size_t at = text_.find('\n'); at != std::string::npos) {
        std::string line = text_.substr(0, at);
        text_.erase(0, at + 1);
        return line;
      }
      if (ended_ || !stream_) return std::nullopt;
      if (SteadyClock::now() > end) {
        ADD_FAILURE() << "nothing comes";
        return std::nullopt;
      }
      auto state = stream_->fill(text_);
      ended_ = state == BodyStream::State::kEnd || state == BodyStream::State::kFailed;
      if (state == BodyStream::State::kWait)
        client_->wait_for_wake_or(std::chrono::milliseconds(200));
    }
  }
  // The next one that is no watermark.
  std::string next() {
    for (;;) {
      auto line = any();
      if (!line) return {};
      if (!line->starts_with("{\"watermark\"")) return *line;
    }
  }
  void stop() { stream_.reset(); }

 private:
  std::shared_ptr<testing::FakeClient> client_;
  std::unique_ptr<BodyStream> stream_;
  std::string text_;
  bool ended_ = false;
};

std::string field(const std::string& line, const std::string& name) {
  return testing::between(line, "\"" + name + "\":\"", "\"");
}

class FeedsTest : public testing::RoutesTest {
 protected:
  void SetUp() override {
    RoutesTest::SetUp();
    create("a");
  }
  // Runs statements as one transaction; its bookmark.
  std::string all(const std::vector<std::string>& statements) {
    std::string body = "[";
    for (const std::string& sql : statements) {
      if (body.size() > 1) body += ',';
      body += "{\"sql\":\"" + sql + "\"}";
    }
    return field(post("/db/a/query", body + "]"), "bookmark");
  }
  std::string exec(const std::string& sql) { return all({sql}); }
  Lines changes(const std::string& parameters, const std::string& fields = {}) {
    auto client = send("GET", "/db/a/changes" + parameters, "", fields);
    return Lines(client, client->wait());
  }
  Lines live(const std::string& body) {
    auto client = send("POST", "/db/a/live", body);
    return Lines(client, client->wait());
  }
};

TEST_F(FeedsTest, OneLineForEachTransaction) {
  const std::string start = exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  all({"INSERT INTO t VALUES (1,9223372036854775807)", "INSERT INTO t VALUES (2,x'00ff')"});
  all({"UPDATE t SET v=9e999 WHERE id=1", "DELETE FROM t WHERE id=2", "INSERT INTO t VALUES (3,1)",
       "DELETE FROM t WHERE id=3"});
  Lines lines = changes("?since=" + start);
  const std::string first = lines.next(), second = lines.next();
  EXPECT_EQ(field(first, "prev"), start);
  EXPECT_EQ(field(second, "prev"), field(first, "at"));
  EXPECT_EQ(testing::between(first, "\"changes\":", "]}"),
            R"([{"t":"t","op":"i","k":{"id":1},"a":{"id":1,"v":{"$i":"9223372036854775807"}}},)"
            R"({"t":"t","op":"i","k":{"id":2},"a":{"id":2,"v":{"$b":"AP8="}}})");
  EXPECT_EQ(testing::between(second, "\"changes\":", "]}"),
            R"([{"t":"t","op":"d","k":{"id":2},"b":{"id":2,"v":{"$b":"AP8="}}},)"
            R"({"t":"t","op":"u","k":{"id":1},"b":{"id":1,"v":{"$i":"9223372036854775807"}},)"
            R"("a":{"id":1,"v":{"$r":"inf"}}})");
  const std::string at = exec("INSERT INTO t VALUES (9,'x')");  // while it listens
  EXPECT_EQ(field(lines.next(), "at"), at);
}

TEST_F(FeedsTest, AFilterLeavesTransactionsOutAndTellsWhereItIs) {
  const std::string start = all({"CREATE TABLE t(a)", "CREATE TABLE u(a)"});
  Lines lines = changes("?tables=u&since=" + start);
  exec("INSERT INTO t VALUES (1)");
  const std::string skipped = exec("INSERT INTO t VALUES (2)");
  for (std::string seen; seen != skipped;) {
    auto line = lines.any();
    ASSERT_TRUE(line);
    ASSERT_TRUE(line->starts_with("{\"watermark\"")) << *line;
    seen = field(*line, "watermark");
  }
  const std::string at = all({"INSERT INTO t VALUES (3)", "INSERT INTO u VALUES (4)"});
  const std::string line = lines.next();
  EXPECT_EQ(field(line, "at"), at);
  EXPECT_EQ(line.find("\"t\":\"t\""), std::string::npos);
  EXPECT_NE(line.find("\"a\":{\"a\":4}"), std::string::npos);
}

TEST_F(FeedsTest, APollAnswersWhatIsThereOrWaits) {
  const std::string start = exec("CREATE TABLE t(a)");
  Lines none = changes("?wait=0&since=" + start);
  EXPECT_EQ(field(*none.any(), "watermark"), start);
  EXPECT_FALSE(none.any());
  Lines waits = changes("?wait=20000&since=" + start);
  const std::string at = exec("INSERT INTO t VALUES (1)");
  EXPECT_EQ(field(*waits.any(), "at"), at);
  EXPECT_EQ(field(*waits.any(), "watermark"), at);
  EXPECT_FALSE(waits.any());
  exec("INSERT INTO t VALUES (2)");
  Lines limited = changes("?wait=0&limit=1&since=" + start);
  EXPECT_EQ(field(*limited.any(), "at"), at);
  EXPECT_EQ(field(*limited.any(), "watermark"), at);
  EXPECT_FALSE(limited.any());
}

TEST_F(FeedsTest, EventsGoOnAfterTheLastOne) {
  const std::string start = exec("CREATE TABLE t(a)");
  const std::string one = exec("INSERT INTO t VALUES (1)");
  const std::string two = exec("INSERT INTO t VALUES (2)");
  const std::string accept = "Accept: text/event-stream\r\n";
  Lines every = changes("?since=" + start, accept);
  EXPECT_EQ(*every.any(), "id: " + one);
  EXPECT_NE(every.any()->find("data: {\"at\":\"" + one), std::string::npos);
  EXPECT_EQ(*every.any(), "");
  Lines rest = changes("?since=" + start, accept + "Last-Event-ID: " + one + "\r\n");
  EXPECT_EQ(*rest.any(), "id: " + two);
}

TEST_F(FeedsTest, APositionThatIsGoneIs410WithWhereToBegin) {
  const std::string now = exec("CREATE TABLE t(a)");
  std::string other = now;
  other.replace(other.size() - 4, 4, other.ends_with("0000") ? "1111" : "0000");
  for (const char* path : {"changes", "notify"}) {
    Response answer = ask("GET", fmt::format("/db/a/{}?since={}", path, other));
    EXPECT_EQ(answer.status, 410);
    EXPECT_EQ(field(answer.body, "code"), "CHANGES_GONE");
    EXPECT_EQ(field(answer.body, "snapshot"), "/db/a/snapshot");
    EXPECT_EQ(field(answer.body, "oldest"), now);
  }
  EXPECT_EQ(post("/db/a/live", R"({"sql":"SELECT * FROM t","since":")" + other + "\"}", 410)
                .find("{\"error\""),
            0u);
  EXPECT_EQ(ask("GET", "/db/a/changes?since=x").status, 400);
  EXPECT_EQ(ask("GET", "/db/b/changes").status, 404);
  EXPECT_EQ(ask("POST", "/db/a/changes").status, 405);
}

TEST_F(FeedsTest, ADroppedDatabaseEndsItsListeners) {
  exec("CREATE TABLE t(a)");
  Lines lines = changes("");
  Lines query = live(R"({"sql":"SELECT * FROM t"})");
  EXPECT_NE(query.next(), "");
  EXPECT_NE(query.next(), "");
  lines.any();
  ASSERT_TRUE(store->drop(*database::DatabaseName::parse("a")));
  EXPECT_EQ(field(lines.next(), "code"), "NOT_FOUND");
  EXPECT_FALSE(lines.any());
  EXPECT_EQ(field(query.next(), "code"), "NOT_FOUND");
}

TEST_F(FeedsTest, NotifyNamesTheTables) {
  const std::string start = all({"CREATE TABLE t(a)", "CREATE TABLE u(a)"});
  auto client = send("GET", "/db/a/notify?since=" + start);
  Lines lines(client, client->wait());
  all({"INSERT INTO t VALUES (1)", "INSERT INTO u VALUES (1)"});
  EXPECT_NE(lines.next().find(R"("changed":["t","u"]})"), std::string::npos);
}

// Many transactions that nobody read: memory for them has a bound, and no listener loses one.
TEST_F(FeedsTest, WhoIsSlowGetsAllOfItFromTheLog) {
  service->feeds.shared().kept_bytes_max = 100'000;
  const std::string start = exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  Lines slow = changes("?since=" + start);
  Lines quick = changes("?since=" + start);
  std::vector<std::string> written;
  for (int i = 0; i < 200; ++i) {
    written.push_back(exec(fmt::format("INSERT INTO t VALUES ({}, randomblob(4000))", i)));
    ASSERT_EQ(field(quick.next(), "at"), written.back());
  }
  EXPECT_LT(service->feeds.shared().bytes->load(), 400'000u);
  for (const std::string& at : written) ASSERT_EQ(field(slow.next(), "at"), at);
  EXPECT_LT(service->feeds.shared().bytes->load(), 2'000'000u);
}

// A listener that holds what nobody else needs, when memory is scarce: cut off, and he can go on.
TEST_F(FeedsTest, WhoIsStuckIsCutWhenMemoryIsScarce) {
  service->feeds.shared().kept_bytes_max = 1 << 20;
  service->feeds.shared().bytes_max = 3 << 20;
  const std::string start = exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  auto client = send("GET", "/db/a/changes?since=" + start);
  Response response = client->wait();
  response.stream->start(client);
  exec("INSERT INTO t VALUES (0, randomblob(3000000))");
  std::string part;
  while (part.size() < 1000) {  // in the middle of a line, and it takes no more
    if (response.stream->fill(part) == BodyStream::State::kWait)
      client->wait_for_wake_or(std::chrono::milliseconds(100));
  }
  Lines other = changes("?since=" + start);
  other.next();
  for (int i = 1; i < 8; ++i) {
    const std::string at = exec(fmt::format("INSERT INTO t VALUES ({}, randomblob(1000000))", i));
    ASSERT_EQ(field(other.next(), "at"), at);
  }
  for (;;) {
    auto state = response.stream->fill(part);
    if (state == BodyStream::State::kFailed) break;
    ASSERT_EQ(state, BodyStream::State::kMore) << "it was not cut";
    ASSERT_LT(part.size(), 3'500'000u) << "it was not cut";
  }
}

using FeedTokensTest = testing::TokenRoutesTest;

// Rows of tables that a token does not reach are told to nobody who has it.
TEST_F(FeedTokensTest, FeedsWantTheWholeDatabaseAndLiveQueriesTheirTables) {
  for (const char* sql : {"CREATE TABLE orders(id INTEGER PRIMARY KEY)", "CREATE TABLE secrets(a)",
                          "CREATE VIEW both AS SELECT id FROM orders, secrets"})
    ASSERT_EQ(sql_as(admin, "shop/orders", sql).status, 200);
  const std::string reader = issuer.acl(R"({"db":"shop/orders","t":{"orders":["data_read"]}})");
  const std::string reads = issuer.acl(R"({"db":"shop/orders","a":["data_read"]})");
  auto live = [&](const std::string& token, const std::string& sql) {
    return ask_as(token, "POST", "/db/shop/orders/live", R"({"sql":")" + sql + "\"}").status;
  };
  for (const char* path : {"changes?wait=0", "changes?tables=orders&wait=0", "notify?wait=0"}) {
    const std::string target = std::string("/db/shop/orders/") + path;
    EXPECT_EQ(ask_as(reader, "GET", target).status, 403);
    EXPECT_EQ(ask_as(reads, "GET", target).status, 403);
    EXPECT_EQ(ask("GET", target).status, 401);
    EXPECT_EQ(ask_as(shop, "GET", target).status, 200);
  }
  EXPECT_EQ(live(reads, "SELECT * FROM both"), 200);
  EXPECT_EQ(live(reader, "SELECT * FROM orders"), 200);
  EXPECT_EQ(live(reader, "SELECT * FROM secrets"), 403);
  EXPECT_EQ(live(reader, "SELECT * FROM both"), 403);
  EXPECT_EQ(live(reader, "SELECT id FROM orders WHERE id IN (SELECT a FROM secrets)"), 403);
}

// Whoever asks: of an instance each request brings a permission of its own.
TEST_F(FeedTokensTest, ListenersWithTheSameRightsShareAQuery) {
  ASSERT_EQ(sql_as(admin, "shop/orders", "CREATE TABLE orders(id INTEGER PRIMARY KEY)").status,
            200);
  const std::string reads = R"({"db":"shop/orders","a":["data_read"]})";
  const std::string reads_too = issuer.acl(reads + R"(,{"db":"other","a":["data_read"]})");
  const std::string adds = issuer.acl(R"({"db":"shop/orders","a":["data_read","data_add"]})");
  const auto& runs = service->feeds.shared().live_runs;
  std::vector<Response> listeners;
  for (const std::string& token : {issuer.acl(reads), reads_too, issuer.acl(reads), adds}) {
    listeners.push_back(ask_as(token, "POST", "/db/shop/orders/live", R"({"sql":"SELECT 1"})"));
    EXPECT_EQ(listeners.back().status, 200);
  }
  for (int i = 0; runs < 2 && i < 20'000; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(runs, 2u);
}

// --- live queries

TEST_F(FeedsTest, AQuerysResultAndThenItsDifferences) {
  all({"CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1,'a'),(2,'b')"});
  Lines lines =
      live(R"({"sql":"SELECT id, v FROM t WHERE id<? ORDER BY id DESC","args":[10],"key":["id"]})");
  EXPECT_EQ(lines.next(), R"({"columns":["id","v"]})");
  EXPECT_EQ(lines.next(), R"({"row":[2,"b"]})");
  EXPECT_EQ(lines.next(), R"({"row":[1,"a"]})");
  EXPECT_NE(lines.next().find("\"rows\":2}"), std::string::npos);
  const std::string at = all({"UPDATE t SET v='c' WHERE id=1", "DELETE FROM t WHERE id=2",
                              "INSERT INTO t VALUES (3,'d'),(30,'e')"});
  EXPECT_EQ(lines.next(), "{\"at\":\"" + at + R"(","del":[[2]],"put":[[1,"c"],[3,"d"]],"rows":2})");
  const std::string last = exec("ALTER TABLE t RENAME COLUMN v TO w");
  EXPECT_NE(lines.next().find("\"error\""), std::string::npos);
  Lines resumed = live(R"({"sql":"SELECT id FROM t WHERE id<10","since":")" + at + "\"}");
  EXPECT_EQ(resumed.next(), R"({"columns":["id"]})");
  const std::string further = exec("DELETE FROM t WHERE id=3");
  EXPECT_EQ(resumed.next(), "{\"at\":\"" + further + R"(","del":[[3]],"put":[],"rows":1})");
}

TEST_F(FeedsTest, ALiveQueryGoesOnFromAnEarlierState) {
  all({"CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1,'a'),(2,'b')"});
  const std::string at = exec("INSERT INTO t VALUES (3,'c')");
  exec("DELETE FROM t WHERE id=1");
  const std::string now = exec("UPDATE t SET v='x' WHERE id=2");
  close();
  open();
  Lines lines = live(R"({"sql":"SELECT * FROM t","key":["id"],"since":")" + at + "\"}");
  EXPECT_EQ(lines.next(), R"({"columns":["id","v"]})");
  EXPECT_EQ(lines.next(), "{\"at\":\"" + now + R"(","del":[[1]],"put":[[2,"x"]],"rows":2})");
}

TEST_F(FeedsTest, WhatCannotBeLiveIsRefused) {
  all({"CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1,1),(2,1)"});
  for (const char* body :
       {R"({"sql":"DELETE FROM t"})", R"({"sql":"SELECT 1; SELECT 2"})", R"({"sql":"BEGIN"})",
        R"({"sql":"SELECT v FROM t","key":["v"]})", R"({"sql":"SELECT v FROM t","key":["id"]})",
        R"({"sql":"SELECT * FROM nothing"})", R"({"sql":"SELECT ?"})", R"({"key":["id"]})"})
    post("/db/a/live", body, 400);
}

// What other systems got wrong: aggregates, tables in subqueries, the null side of an outer join.
TEST_F(FeedsTest, AggregatesSubqueriesAndOuterJoinsAreFollowed) {
  all({"CREATE TABLE a(id INTEGER PRIMARY KEY, v)", "CREATE TABLE b(id INTEGER PRIMARY KEY, a, w)",
       "INSERT INTO a VALUES (1,10),(2,20)", "INSERT INTO b VALUES (1,1,5)"});
  Lines sums = live(R"({"sql":"SELECT count(*) n, sum(v) s FROM a"})");
  Lines subquery = live(
      R"_({"sql":"SELECT id FROM a WHERE id IN (SELECT a FROM b WHERE w > 3)","key":["id"]})_");
  Lines join = live(R"({"sql":"SELECT a.id, b.w FROM a LEFT JOIN b ON b.a = a.id","key":["id"]})");
  for (Lines* lines : {&sums, &subquery, &join}) {
    while (lines->next().find("\"rows\":") == std::string::npos) continue;
  }
  exec("DELETE FROM b WHERE id=1");
  EXPECT_NE(subquery.next().find(R"("del":[[1]],"put":[],"rows":0)"), std::string::npos);
  EXPECT_NE(join.next().find(R"("del":[],"put":[[1,null]],"rows":2)"), std::string::npos);
  exec("INSERT INTO b VALUES (7,2,9)");
  EXPECT_NE(subquery.next().find(R"("put":[[2]],"rows":1)"), std::string::npos);
  EXPECT_NE(join.next().find(R"("put":[[2,9]],"rows":2)"), std::string::npos);
  exec("UPDATE a SET v=v+1 WHERE id=2");
  EXPECT_NE(sums.next().find(R"("del":[[2,30]],"put":[[2,31]],"rows":1)"), std::string::npos);
}

// Each result that is told is what the query answers there, and after the last transaction it is
// the newest: random queries and transactions.
class LiveModelTest : public FeedsTest, public ::testing::WithParamInterface<unsigned> {
 protected:
  std::multiset<std::string> rows_of(const std::string& array) {
    simdjson::dom::parser parser;
    auto rows = parser.parse(array);
    std::multiset<std::string> texts;
    for (auto row : rows.get_array()) texts.insert(simdjson::minify(row));
    return texts;
  }
  std::string statement() {
    const auto key = random_() % 400, other = random_() % 400;
    switch (random_() % 10) {
      case 0:
        return fmt::format("DELETE FROM t WHERE id={}", key);
      case 1:
        return fmt::format("UPDATE t SET v=v+1 WHERE id={}", key);
      case 2:
        return fmt::format("UPDATE u SET t={} WHERE id={}", key, other);
      case 3:
        return fmt::format("DELETE FROM u WHERE id BETWEEN {} AND {}", key, key + random_() % 30);
      case 4:
        return fmt::format("INSERT INTO d(body) VALUES ('word{} and {}')", random_() % 5, key);
      case 5:
        return fmt::format("DELETE FROM d WHERE rowid={}", random_() % 20);
      case 6:
        return fmt::format("INSERT OR REPLACE INTO u VALUES ({},{},'{}')", other, key,
                           std::string(random_() % 300, 'x'));
      default:
        return fmt::format("INSERT OR REPLACE INTO t VALUES ({},{},'{}')", key, random_() % 9,
                           std::string(random_() % 900, 'y'));
    }
  }
  std::mt19937 random_{GetParam()};
};

TEST_P(LiveModelTest, EachResultIsWhatTheQueryAnswersThere) {
  all({"CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)", "CREATE INDEX tv ON t(v)",
       "CREATE TABLE u(id INTEGER PRIMARY KEY, t, w) WITHOUT ROWID",
       "CREATE VIRTUAL TABLE d USING fts5(body)",
       "CREATE VIEW x AS SELECT id, v FROM t WHERE v>3"});
  const std::vector<std::string> queries = {
      "SELECT * FROM t WHERE id=7",
      "SELECT id, v FROM t WHERE v=3",
      "SELECT count(*), max(v), sum(id) FROM t",
      "SELECT id FROM t ORDER BY id DESC LIMIT 5",
      "SELECT t.id, u.id FROM t LEFT JOIN u ON u.t=t.id WHERE t.id<50",
      "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.t=t.id)",
      "SELECT rowid FROM d WHERE d MATCH 'word3'",
      "SELECT * FROM x",
      "SELECT v, count(*) FROM t GROUP BY v HAVING count(*)>3",
      "SELECT id FROM u WHERE id BETWEEN 100 AND 120",
      "SELECT * FROM pragma_page_count",
  };
  std::vector<Lines> lines;
  std::vector<std::multiset<std::string>> results(queries.size());
  std::vector<std::string> positions(queries.size());
  for (std::size_t i = 0; i < queries.size(); ++i) {
    lines.push_back(live("{\"sql\":\"" + queries[i] + "\"}"));
    for (;;) {
      const std::string line = lines[i].next();
      if (line.starts_with("{\"row\":"))
        results[i].merge(rows_of("[" + line.substr(7, line.size() - 8) + "]"));
      if (line.starts_with("{\"at\":")) break;
    }
  }
  for (int round = 0; round < 25; ++round) {
    std::string last;
    for (std::size_t n = random_() % 4 + 1; n > 0; --n) {
      std::vector<std::string> statements;
      for (std::size_t m = random_() % 5 + 1; m > 0; --m) statements.push_back(statement());
      last = all(statements);
    }
    for (std::size_t i = 0; i < queries.size(); ++i) {
      auto expected = [&](const std::string& at) {
        return rows_of("[" +
                       testing::between(post("/db/a/query", "{\"sql\":\"" + queries[i] + "\"}", 200,
                                             "Offprint-At: " + at + "\r\n"),
                                        "\"rows\":[", "],\"changes\"") +
                       "]");
      };
      const auto newest = expected(last);
      while (results[i] != newest) {
        const std::string line = lines[i].next();
        ASSERT_TRUE(line.starts_with("{\"at\":")) << line;
        for (const std::string& row : rows_of(testing::between(line, "\"del\":", ",\"put\""))) {
          auto found = results[i].find(row);
          ASSERT_NE(found, results[i].end()) << queries[i] << ": " << row;
          results[i].erase(found);
        }
        results[i].merge(rows_of(testing::between(line, "\"put\":", ",\"rows\"")));
        ASSERT_EQ(results[i], expected(field(line, "at"))) << queries[i] << "\n" << line;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, LiveModelTest, ::testing::Range(1u, 5u));

}  // namespace
}  // namespace offprint::server
