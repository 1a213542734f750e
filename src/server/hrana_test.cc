// Hrana over the routes and a real store: exact answers, conditions, streams and their batons.
#include <gtest/gtest.h>

#include "server/hrana.h"
#include "server/store_testing.h"

namespace offprint::server {
namespace {

using testing::between;
using testing::stable;

class HranaTest : public testing::RoutesTest {
 protected:
  HranaTest() { options.transaction_idle_ms = 300; }
  void SetUp() override {
    RoutesTest::SetUp();
    create("h");
  }
  static std::string execute(const std::string& sql, const std::string& more = {}) {
    return R"_({"type":"execute","stmt":{"sql":")_" + sql + "\"" + more + "}}";
  }
  static std::string pipeline(const std::string& requests, const std::string& baton = {}) {
    return "{\"baton\":" + (baton.empty() ? "null" : "\"" + baton + "\"") + ",\"requests\":[" +
           requests + "]}";
  }
  std::string run(const std::string& requests, const std::string& baton = {}, int status = 200) {
    return post("/db/h/v2/pipeline", pipeline(requests, baton), status);
  }
  static std::string baton_of(const std::string& answer) {
    return between(answer, "\"baton\":\"", "\"");
  }
  // The only value of the first row of the first result.
  std::string value(const std::string& sql) {
    return between(run(execute(sql) + R"_(,{"type":"close"})_"), "\"rows\":[[", "]]");
  }
};

TEST_F(HranaTest, ExecuteIsExact) {
  EXPECT_EQ(
      stable(run(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)") +
                 R"_(,{"type":"close"})_")),
      R"_({"results":[{"type":"ok","response":{"type":"execute","result":{"cols":[],"rows":[],)_"
      R"_("affected_row_count":0,"last_insert_rowid":"0","replication_index":"1","rows_read":#,)_"
      R"_("rows_written":#,"query_duration_ms":#}}},{"type":"ok","response":{"type":"close"}}],)_"
      R"_("baton":null,"base_url":null})_");
  EXPECT_EQ(
      stable(run(execute("INSERT INTO t VALUES (7,'a'),(8,'b')") + R"_(,{"type":"close"})_")),
      R"_({"results":[{"type":"ok","response":{"type":"execute","result":{"cols":[],"rows":[],)_"
      R"_("affected_row_count":2,"last_insert_rowid":"8","replication_index":"2","rows_read":#,)_"
      R"_("rows_written":#,"query_duration_ms":#}}},{"type":"ok","response":{"type":"close"}}],)_"
      R"_("baton":null,"base_url":null})_");
  EXPECT_EQ(
      stable(run(execute("SELECT id, v, 1.0 AS f, NULL, x'00ff10' FROM t WHERE id = 7") +
                 R"_(,{"type":"close"})_")),
      R"_({"results":[{"type":"ok","response":{"type":"execute","result":{"cols":[{"name":"id",)_"
      R"_("decltype":"INTEGER"},{"name":"v","decltype":"TEXT"},{"name":"f","decltype":null},)_"
      R"_({"name":"NULL","decltype":null},{"name":"x'00ff10'","decltype":null}],"rows":[[)_"
      R"_({"type":"integer","value":"7"},{"type":"text","value":"a"},{"type":"float","value":1.0},)_"
      R"_({"type":"null"},{"type":"blob","base64":"AP8Q"}]],"affected_row_count":0,"last_insert_rowid":null,)_"
      R"_("replication_index":"2","rows_read":#,"rows_written":#,"query_duration_ms":#}}},)_"
      R"_({"type":"ok","response":{"type":"close"}}],"baton":null,"base_url":null})_");
}

TEST_F(HranaTest, ArgumentsOfEveryKind) {
  std::string args =
      R"_(,"args":[{"type":"null"},{"type":"integer","value":"-9223372036854775808"},{"type":"float","value":2.5},)_"
      R"_({"type":"text","value":"q\"\u0000é"},{"type":"blob","base64":"AP8="},{"type":"float","value":null}])_";
  EXPECT_EQ(
      between(run(execute("SELECT ?,?,?,?,?,?", args) + R"_(,{"type":"close"})_"),
              "\"rows\":", "],\"aff"),
      R"_([[{"type":"null"},{"type":"integer","value":"-9223372036854775808"},{"type":"float","value":2.5},)_"
      R"_({"type":"text","value":"q\"\u0000é"},{"type":"blob","base64":"AP8"},{"type":"null"}])_");
  for (const char* name : {":a", "@a", "$a"}) {
    for (const char* given : {"a", name}) {
      std::string named = R"_(,"named_args":[{"name":")_" + std::string(given) +
                          R"_(","value":{"type":"integer","value":"5"}}])_";
      EXPECT_NE(run(execute("SELECT " + std::string(name), named))
                    .find(R"_({"type":"integer","value":"5"})_"),
                std::string::npos);
    }
  }
}

TEST_F(HranaTest, ErrorsStayInTheirPlace) {
  run(execute("CREATE TABLE t(id INTEGER PRIMARY KEY)"));
  std::string answer =
      run(execute("INSERT INTO t VALUES (1)") + "," + execute("INSERT INTO t VALUES (1)") + "," +
          execute("INSERT INTO t VALUES (2)") + "," + execute("SELEC") + "," +
          execute("SELECT 1; SELECT 2") + "," + execute("SELECT ?") + "," + execute(" -- nothing"));
  EXPECT_NE(
      answer.find(
          R"_({"type":"error","error":{"message":"SQLite error: UNIQUE constraint failed: t.id",)_"
          R"_("code":"SQLITE_CONSTRAINT","extended_code":"SQLITE_CONSTRAINT_PRIMARYKEY"}})_"),
      std::string::npos)
      << answer;
  for (const char* code :
       {"SQLITE_ERROR", "SQL_MANY_STATEMENTS", "ARGS_INVALID", "SQL_NO_STATEMENT"}) {
    EXPECT_NE(answer.find("\"code\":\"" + std::string(code) + "\""), std::string::npos) << code;
  }
  EXPECT_EQ(value("SELECT count(*) FROM t"), R"_({"type":"integer","value":"2"})_");
}

TEST_F(HranaTest, BothKindsOfArgumentsAreAnErrorInBand) {
  std::string both =
      R"_(,"args":[{"type":"null"}],"named_args":[{"name":"a","value":{"type":"null"}}])_";
  EXPECT_NE(run(execute("SELECT ?", both)).find("ARGS_BOTH_POSITIONAL_AND_NAMED"),
            std::string::npos);
}

TEST_F(HranaTest, TrailingSemicolonIsNoSecondStatement) {
  EXPECT_NE(run(execute("SELECT 1 ; -- done\\n ;")).find("\"type\":\"ok\""), std::string::npos);
}

TEST_F(HranaTest, WantRows) {
  EXPECT_NE(run(execute("SELECT 1 AS a", ",\"want_rows\":false"))
                .find(R"_("cols":[{"name":"a","decltype":null}],"rows":[],)_"),
            std::string::npos);
}

TEST_F(HranaTest, BatchConditions) {
  run(execute("CREATE TABLE t(id INTEGER PRIMARY KEY)"));
  auto step = [](const std::string& condition, const std::string& sql) {
    return "{\"condition\":" + condition + R"_(,"stmt":{"sql":")_" + sql + "\"}}";
  };
  std::string ok0 = R"_({"type":"ok","step":0})_";
  std::string error0 = R"_({"type":"error","step":0})_";
  std::string error1 = R"_({"type":"error","step":1})_";
  std::string skipped_is_error = R"_({"type":"error","step":2})_";
  std::string steps =
      step("null", "INSERT INTO t VALUES (1)") + "," +            // 0 runs
      step(ok0, "INSERT INTO t VALUES (1)") + "," +               // 1 fails
      step(error0, "INSERT INTO t VALUES (2)") + "," +            // 2 skipped
      step(error1, "INSERT INTO t VALUES (3)") + "," +            // 3 runs
      step(skipped_is_error, "INSERT INTO t VALUES (4)") + "," +  // 4 runs
      step(R"_({"type":"not","cond":)_" + ok0 + "}", "INSERT INTO t VALUES (5)") +
      "," +  // 5 skipped
      step(R"_({"type":"and","conds":[)_" + ok0 + "," + error1 + "]}", "INSERT INTO t VALUES (6)") +
      "," + step(R"_({"type":"and","conds":[]})_", "INSERT INTO t VALUES (7)") + "," +
      step(R"_({"type":"or","conds":[]})_", "INSERT INTO t VALUES (8)") + "," +  // 8 skipped
      step(R"_({"type":"or","conds":[)_" + error0 + "," + ok0 + "]}", "INSERT INTO t VALUES (9)") +
      "," + step(R"_({"type":"is_autocommit"})_", "BEGIN") + "," +
      step(R"_({"type":"is_autocommit"})_", "INSERT INTO t VALUES (11)") + "," +  // skipped
      step(R"_({"type":"not","cond":{"type":"is_autocommit"}})_", "COMMIT");
  std::string answer = run(R"_({"type":"batch","batch":{"steps":[)_" + steps + "]}}");
  EXPECT_EQ(value("SELECT group_concat(id,' ') FROM (SELECT id FROM t ORDER BY id)"),
            R"_({"type":"text","value":"1 3 4 6 7 9"})_");
  std::string errors =
      between(answer, "\"step_errors\":", ",\"replication_index\":\"2\"}}}],\"baton\"");
  EXPECT_TRUE(errors.starts_with("[null,{\"message\"")) << errors;
  EXPECT_TRUE(errors.ends_with("},null,null,null,null,null,null,null,null,null,null,null]"))
      << errors;
}

TEST_F(HranaTest, FailedBatchOfAStockClientLeavesNothing) {
  run(execute("CREATE TABLE t(id INTEGER PRIMARY KEY)"));
  auto ok = [](int step) { return R"_({"type":"ok","step":)_" + std::to_string(step) + "}"; };
  std::string steps = R"_({"stmt":{"sql":"BEGIN IMMEDIATE"}},{"condition":)_" + ok(0) +
                      R"_(,"stmt":{"sql":"INSERT INTO t VALUES (1)"}},{"condition":)_" + ok(1) +
                      R"_(,"stmt":{"sql":"INSERT INTO t VALUES (1)"}},{"condition":)_" + ok(2) +
                      R"_(,"stmt":{"sql":"COMMIT"}},{"condition":{"type":"not","cond":)_" + ok(3) +
                      R"_(},"stmt":{"sql":"ROLLBACK"}})_";
  run(R"_({"type":"batch","batch":{"steps":[)_" + steps + R"_(]}},{"type":"close"})_");
  EXPECT_EQ(value("SELECT count(*) FROM t"), R"_({"type":"integer","value":"0"})_");
}

TEST_F(HranaTest, SequenceDescribeAndAutocommit) {
  EXPECT_NE(
      run(R"_({"type":"sequence","sql":"CREATE TABLE t(a INT, b); INSERT INTO t VALUES (1,2); SELECT * FROM t;"})_")
          .find(R"_({"type":"ok","response":{"type":"sequence"}})_"),
      std::string::npos);
  EXPECT_NE(
      run(R"_({"type":"describe","sql":"SELECT a, b+:x FROM t WHERE b = ?"})_")
          .find(
              R"_({"type":"describe","result":{"params":[{"name":":x"},{"name":null}],"cols":[{"name":"a",)_"
              R"_("decltype":"INT"},{"name":"b+:x","decltype":null}],"is_explain":false,"is_readonly":true}})_"),
      std::string::npos);
  EXPECT_NE(
      run(R"_({"type":"describe","sql":"EXPLAIN DELETE FROM t"})_").find("\"is_explain\":true"),
      std::string::npos);
  EXPECT_NE(run(R"_({"type":"get_autocommit"})_").find("\"is_autocommit\":true"),
            std::string::npos);
  EXPECT_NE(
      run(execute("BEGIN") + R"_(,{"type":"get_autocommit"})_").find("\"is_autocommit\":false"),
      std::string::npos);
}

TEST_F(HranaTest, StoredSql) {
  std::string answer = run(
      R"_({"type":"store_sql","sql_id":1,"sql":"SELECT 42"},{"type":"execute","stmt":{"sql_id":1}})_");
  EXPECT_NE(answer.find("\"value\":\"42\""), std::string::npos);
  std::string baton = baton_of(answer);
  answer = run(R"_({"type":"execute","stmt":{"sql":null,"sql_id":1,"args":[]}})_", baton);
  EXPECT_NE(answer.find("\"value\":\"42\""), std::string::npos);
  run(R"_({"type":"close_sql","sql_id":1},{"type":"close_sql","sql_id":9},{"type":"execute","stmt":{"sql_id":1}})_",
      baton_of(answer), 400);
  run(R"_({"type":"store_sql","sql_id":1,"sql":"a"},{"type":"store_sql","sql_id":1,"sql":"b"})_",
      {}, 400);
  std::string long_text(hrana::kStoredTextBytesMax + 1, ' ');
  EXPECT_NE(run(R"_({"type":"store_sql","sql_id":1,"sql":")_" + long_text + "\"}")
                .find("SQL_STORE_TOO_LARGE"),
            std::string::npos);
}

TEST_F(HranaTest, WrongRequestsAreRefusedAsAWhole) {
  run(execute("CREATE TABLE t(id)"));
  for (
      const char* requests : {
          R"_({"type":"close"},{"type":"get_autocommit"})_",
          R"_({"type":"fly"})_",
          R"_({"type":"execute"})_",
          R"_({"type":"execute","stmt":{}})_",
          R"_({"type":"execute","stmt":{"sql":"SELECT 1","sql_id":1}})_",
          R"_({"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"integer","value":"1.5"}]}})_",
          R"_({"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"integer","value":"9223372036854775808"}]}})_",
          R"_({"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"blob","base64":"***"}]}})_",
          R"_({"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"},"condition":{"type":"ok","step":0}}]}})_",
          R"_({"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"},"condition":{"type":"ok","step":-1}}]}})_",
          R"_({"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"},"condition":{"type":"maybe"}}]}})_",
      }) {
    std::string inserted = execute("INSERT INTO t VALUES (1)");
    std::string answer = run(inserted + "," + requests, {}, 400);
    EXPECT_NE(answer.find("\"error\":\""), std::string::npos);
    EXPECT_NE(answer.find("\"message\":\""), std::string::npos);
    EXPECT_NE(answer.find("\"code\":\""), std::string::npos);
  }
  for (const char* body :
       {"", "{", "[]", "{}", "{\"requests\":1}", "null", "{\"requests\":[],\"baton\":7}"}) {
    post("/db/h/v3/pipeline", body, 400);
  }
  EXPECT_EQ(value("SELECT count(*) FROM t"), R"_({"type":"integer","value":"0"})_")
      << "nothing of them may have run";
}

TEST_F(HranaTest, DeepConditionsAreRefused) {
  std::string condition = R"_({"type":"is_autocommit"})_";
  for (int i = 0; i < 5000; ++i) condition = R"_({"type":"not","cond":)_" + condition + "}";
  run(R"_({"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"},"condition":)_" + condition +
          "}]}}",
      {}, 400);
}

TEST_F(HranaTest, InteractiveTransaction) {
  run(execute("CREATE TABLE t(id INTEGER PRIMARY KEY)"));
  std::string baton =
      baton_of(run(execute("BEGIN IMMEDIATE") + "," + execute("INSERT INTO t VALUES (1)")));
  EXPECT_EQ(streams->pinned_count(), 1u);
  EXPECT_EQ(value("SELECT count(*) FROM t"), R"_({"type":"integer","value":"0"})_");
  std::string answer =
      run(execute("SELECT count(*) FROM t") + R"_(,{"type":"get_autocommit"})_", baton);
  EXPECT_NE(answer.find("\"value\":\"1\""), std::string::npos);
  EXPECT_NE(answer.find("\"is_autocommit\":false"), std::string::npos);
  std::string second = baton_of(answer);
  EXPECT_NE(second, baton);
  run(execute("SELECT 1"), baton, 400);  // used before
  answer = run(execute("COMMIT"), second);
  EXPECT_EQ(value("SELECT count(*) FROM t"), R"_({"type":"integer","value":"1"})_");
  EXPECT_EQ(streams->pinned_count(), 0u);
  run(execute("SELECT 1") + R"_(,{"type":"close"})_", baton_of(answer));
}

TEST_F(HranaTest, ClosedStreamRollsBack) {
  run(execute("CREATE TABLE t(id INTEGER PRIMARY KEY)"));
  for (const std::string& last : {std::string(R"_({"type":"close"})_"),
                                  execute("INSERT INTO t VALUES (2)") + R"_(,{"type":"close"})_"}) {
    std::string baton = baton_of(run(execute("BEGIN") + "," + execute("INSERT INTO t VALUES (1)")));
    EXPECT_NE(run(last, baton).find("\"baton\":null"), std::string::npos);
    EXPECT_EQ(value("SELECT count(*) FROM t"), R"_({"type":"integer","value":"0"})_");
  }
}

TEST_F(HranaTest, IdleTransactionTimesOut) {
  run(execute("CREATE TABLE t(id INTEGER PRIMARY KEY)"));
  std::string baton = baton_of(run(execute("BEGIN") + "," + execute("INSERT INTO t VALUES (1)")));
  // A write that waits its turn is answered when the idle transaction is gone.
  EXPECT_NE(run(execute("INSERT INTO t VALUES (2)")).find("\"type\":\"ok\""), std::string::npos);
  std::string answer = run(execute("COMMIT"), baton, 404);
  EXPECT_NE(answer.find("\"code\":\"TRANSACTION_TIMEOUT\""), std::string::npos) << answer;
  EXPECT_EQ(value("SELECT group_concat(id) FROM t"), R"_({"type":"text","value":"2"})_");
}

TEST_F(HranaTest, StatelessBatonLivesThroughARestart) {
  std::string stateless = baton_of(run(execute("CREATE TABLE t(id)")));
  std::string pinned = baton_of(run(execute("BEGIN") + "," + execute("INSERT INTO t VALUES (1)")));
  std::string stored = baton_of(run(R"_({"type":"store_sql","sql_id":1,"sql":"SELECT 1"})_"));
  close();
  open();
  EXPECT_NE(run(execute("SELECT count(*) FROM t"), stateless).find("\"value\":\"0\""),
            std::string::npos);
  EXPECT_NE(run(execute("SELECT 1"), stateless).find("\"type\":\"ok\""),
            std::string::npos);  // and at any time
  EXPECT_NE(run(execute("COMMIT"), pinned, 404).find("TRANSACTION_TIMEOUT"), std::string::npos);
  EXPECT_NE(run(execute("SELECT 1"), stored, 404).find("STREAM_EXPIRED"), std::string::npos);
}

TEST_F(HranaTest, ForgedBatonsAreRefused) {
  std::string baton = baton_of(run(execute("SELECT 1")));
  create("other");
  post("/db/other/v2/pipeline", pipeline(execute("SELECT 1"), baton), 400);
  for (std::size_t i = 0; i < baton.size(); ++i) {
    std::string forged = baton;
    forged[i] = forged[i] == 'A' ? 'B' : 'A';
    run(execute("SELECT 1"), forged, 400);
  }
  for (const char* text : {"x", "AAAA", "é"}) run(execute("SELECT 1"), text, 400);
  run(execute("SELECT 1"), baton + "A", 400);
  run(execute("SELECT 1"), std::string(100'000, 'A'), 400);
}

TEST_F(HranaTest, UnknownDatabase) {
  std::string answer = post("/db/nope/v2/pipeline", pipeline(execute("SELECT 1")), 404);
  EXPECT_NE(answer.find("\"code\":\"NOT_FOUND\""), std::string::npos);
  EXPECT_NE(answer.find("\"error\":\""), std::string::npos)
      << "the plain form, which Go's client reads";
}

TEST_F(HranaTest, TooLargeResult) {
  service->options.response_bytes_max = 10'000;
  std::string answer = run(execute("SELECT zeroblob(9000)") + "," +
                           execute("SELECT zeroblob(9000)") + "," + execute("SELECT 5"));
  EXPECT_NE(answer.find("\"code\":\"RESPONSE_TOO_LARGE\""), std::string::npos);
}

TEST_F(HranaTest, AnswersCarryBookmarkAndServer) {
  Response response = ask("POST", "/db/h/v2/pipeline", pipeline(execute("CREATE TABLE t(id)")));
  EXPECT_NE(response.headers.find("Offprint-Served-By: local\r\n"), std::string::npos);
  std::string bookmark = between(response.headers, "Offprint-Bookmark: ", "\r\n");
  ASSERT_TRUE(Bookmark::parse(bookmark));
  EXPECT_EQ(ask("POST", "/db/h/v2/pipeline", pipeline(execute("SELECT 1")),
                "Offprint-Bookmark: " + bookmark + "\r\n")
                .status,
            200);
  EXPECT_EQ(ask("POST", "/db/h/v2/pipeline", pipeline(execute("SELECT 1")),
                "Offprint-Read: sometimes\r\n")
                .status,
            400);
}

TEST(ClientStreamsTest, ForgetsTheOldest) {
  ClientStreams streams(StreamKey{}, {.pinned_max = 2, .stored_bytes_max = 1000, .idle_ms = 10});
  auto pin = [&](const std::string& text) {
    ClientStreams::Stream stream;
    stream.state.stored[1] = text;
    return streams.put(stream, "d");
  };
  EXPECT_TRUE(pin("a"));
  auto second = pin("b");
  ASSERT_TRUE(second);
  EXPECT_FALSE(pin("c")) << "too many";
  EXPECT_TRUE(streams.take(*second, "d"));
  EXPECT_FALSE(pin(std::string(1000, 'x'))) << "too large";
  EXPECT_EQ(streams.pinned_count(), 1u);
  streams.expire(SteadyClock::now() + std::chrono::seconds(1));
  EXPECT_EQ(streams.pinned_count(), 0u);
}

}  // namespace
}  // namespace offprint::server
