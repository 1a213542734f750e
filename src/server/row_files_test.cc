// Rows of tables as CSV and JSON lines, out of databases and into them, over HTTP.
#include <bit>
#include <cmath>
#include <random>

#include <gmock/gmock.h>

#include "server/json_writer.h"
#include "server/token_testing.h"

namespace offprint::server::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

std::string escaped(const std::string& text) {
  std::string result;
  for (char c : text) result += fmt::format("%{:02x}", static_cast<unsigned char>(c));
  return result;
}

// Values as SQL writes them, many of them with what CSV and JSON treat in their own way.
class RandomValues {
 public:
  explicit RandomValues(unsigned seed) : random_(seed) {}

  std::string value() {
    switch (random_() % 6) {
      case 0:
        return "NULL";
      case 1:
        return std::to_string(static_cast<std::int64_t>(random_()) >> (random_() % 64));
      case 2: {
        double real = std::bit_cast<double>(random_());
        return std::isfinite(real) ? fmt::format("{:.17e}", real) : "0.5";
      }
      case 3: {
        std::string blob = "x'";
        for (auto left = random_() % 4; left > 0; --left)
          blob += fmt::format("{:02x}", random_() % 256);
        return blob + "'";
      }
      default:
        return text();
    }
  }

 private:
  std::string text() {
    static constexpr std::string_view kPieces[] = {"a",
                                                   "''",
                                                   "\"",
                                                   ",",
                                                   ";",
                                                   "\r",
                                                   "\n",
                                                   "7",
                                                   "-",
                                                   ".",
                                                   "e9",
                                                   " ",
                                                   "é",
                                                   "\t",
                                                   "{}",
                                                   "\xEF\xBB\xBF",
                                                   "0",
                                                   "1e5",
                                                   "\xF0\x9F\x98\x80",
                                                   "x''00''",
                                                   "NULL",
                                                   "|",
                                                   ":",
                                                   ""};
    std::string quoted = "'";
    for (auto left = random_() % 5; left > 0; --left)
      quoted += kPieces[random_() % std::size(kPieces)];
    return quoted + (random_() % 9 == 0 ? "' || char(0) || 'z'" : "'");
  }

  std::mt19937_64 random_;
};

class RowFilesTest : public RoutesTest {
 protected:
  void SetUp() override {
    RoutesTest::SetUp();
    create("q");
  }
  std::string sql(const std::string& text) {
    std::string body = "{\"sql\":";
    append_json_string(body, text);
    return post("/db/q/query", body + "}");
  }
  std::string rows(const std::string& text) {
    std::string answer = sql(text);
    std::size_t from = answer.find("\"rows\":") + 7;
    int depth = 0;
    std::size_t end = from;
    do {
      depth += answer[end] == '[' ? 1 : answer[end] == ']' ? -1 : 0;
      ++end;
    } while (depth > 0);
    return answer.substr(from, end - from);
  }
  std::string get(const std::string& parameters) {
    auto client = send("GET", "/db/q/export?" + parameters);
    Response response = client->wait();
    EXPECT_EQ(response.status, 200) << response.body;
    return read_all(response, client);
  }
  std::string refused(const std::string& parameters, int status) {
    Response response = ask("GET", "/db/q/export?" + parameters);
    EXPECT_EQ(response.status, status) << parameters << response.body;
    EXPECT_FALSE(response.stream);
    return between(response.body, "\"message\":\"", "\"}");
  }
  std::string put(const std::string& parameters, const std::string& body, int status = 200) {
    std::string answer = post("/db/q/import?" + parameters, body, status);
    return status == 200 ? "rows " + between(answer, "\"rows\":", ",")
                         : between(answer, "\"message\":\"", "\"}");
  }
};

TEST_F(RowFilesTest, ExportsCsv) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, \"a,b\" TEXT, r REAL, any, twice AS (id * 2))");
  sql("INSERT INTO t VALUES (9223372036854775807, '', 0.1, NULL), (1, 'x', 2.0, x'00ff'), "
      "(2, 'a\"b,c' || char(13, 10) || 'd', 1e300, ''), (3, '7', NULL, '7'), (4, NULL, -9e999, 7), "
      "(5, ' x', 5, 'x''0A''')");
  auto client = send("GET", "/db/q/export?format=csv&table=t");
  Response response = client->wait();
  EXPECT_EQ(response.content_type, "text/csv; charset=utf-8");
  EXPECT_THAT(response.headers, HasSubstr("Offprint-Bookmark: "));
  const std::string rows_text =
      "1,x,2.0,x'00ff'\r\n2,\"a\"\"b,c\r\nd\",1e+300,\"\"\r\n3,\"7\",,\"7\"\r\n4,,-9e999,7\r\n"
      "5,\" x\",5.0,\"x'0A'\"\r\n9223372036854775807,\"\",0.1,\r\n";
  EXPECT_EQ(read_all(response, client), "id,\"a,b\",r,any\r\n" + rows_text);
  EXPECT_EQ(get("format=csv&table=T&header=0"), rows_text);
  EXPECT_EQ(get("format=csv&query=" +
                escaped("SELECT id, twice FROM t WHERE id < 3 ORDER BY 1 DESC") + "&delimiter=tab"),
            "id\ttwice\r\n2\t4\r\n1\t2\r\n");
  EXPECT_EQ(get("format=csv&query=SELECT+1+WHERE+0"), "1\r\n");
}

TEST_F(RowFilesTest, ExportsJsonLines) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, \"a\"\"b\", r REAL)");
  sql("INSERT INTO t VALUES (1, x'00ff', 9e999), (2, 'é' || char(10), 2.0), (3, NULL, NULL)");
  auto client = send("GET", "/db/q/export?format=jsonl&table=t");
  Response response = client->wait();
  EXPECT_EQ(response.content_type, "application/x-ndjson");
  EXPECT_EQ(read_all(response, client),
            "{\"id\":1,\"a\\\"b\":{\"base64\":\"AP8=\"},\"r\":null}\n"
            "{\"id\":2,\"a\\\"b\":\"é\\n\",\"r\":2.0}\n"
            "{\"id\":3,\"a\\\"b\":null,\"r\":null}\n");
  EXPECT_EQ(get("format=jsonl&query=SELECT+1+AS+a+WHERE+0"), "");
  EXPECT_THAT(refused("format=jsonl&query=SELECT+1+AS+a,2+AS+a", 400), HasSubstr("two columns"));
}

TEST_F(RowFilesTest, WhatIsNoExportIsRefused) {
  sql("CREATE TABLE t(v)");
  sql("CREATE VIRTUAL TABLE f USING fts5(body)");
  sql("CREATE VIEW v AS SELECT 1 AS one");
  for (const char* parameters : {"",
                                 "format=csv",
                                 "format=xls&table=t",
                                 "format=csv&table=t&query=SELECT+1",
                                 "format=csv&table=t&header=2",
                                 "format=csv&table=t&delimiter=x",
                                 "format=csv&query=SELECT+1;SELECT+2",
                                 "format=csv&query=DELETE+FROM+t",
                                 "format=csv&query=BEGIN",
                                 "format=csv&query=COMMIT",
                                 "format=csv&query=VACUUM",
                                 "format=csv&query=SELECT+?",
                                 "format=csv&query=PRAGMA+user_version=5",
                                 "format=csv&query=PRAGMA+foreign_keys=OFF",
                                 "format=csv&query=--",
                                 "format=csv&query=SELEC",
                                 "format=csv&query=INSERT+INTO+t+VALUES(1)+RETURNING+v",
                                 "format=csv&query=SELECT+*+FROM+pragma_incremental_vacuum",
                                 "format=csv&query=SELECT+json('x')",
                                 "format=csv&table=sqlite_schema",
                                 "format=csv&table=f_data"})
    refused(parameters, 400);
  refused("format=csv&query=" + escaped("ATTACH 'x' AS y"), 403);
  refused("format=csv&table=none", 404);
  EXPECT_EQ(ask("GET", "/db/none/export?format=csv&table=t").status, 404);
  EXPECT_EQ(ask("POST", "/db/q/export?format=csv&table=t").status, 405);
  EXPECT_EQ(rows("SELECT count(*) FROM t"), "[[0]]");
  EXPECT_EQ(get("format=csv&table=v"), "one\r\n1\r\n");
  sql("INSERT INTO f VALUES ('hello')");
  EXPECT_EQ(get("format=csv&table=f"), "body\r\nhello\r\n");
}

TEST_F(RowFilesTest, AnExportShowsOneStateWhileWritesGoOn) {
  sql("CREATE TABLE t(v)");
  sql("INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) "
      "SELECT i FROM n");
  auto client = send("GET", "/db/q/export?format=csv&header=0&table=t");
  Response response = client->wait();
  std::string bookmark = between(ask("GET", "/v1/databases/q").body, "\"bookmark\":\"", "\"");
  EXPECT_THAT(response.headers, HasSubstr("Offprint-Bookmark: " + bookmark));
  sql("DELETE FROM t");
  std::string text = read_all(response, client);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 100'000);
}

TEST_F(RowFilesTest, LimitsOfTheDatabaseCount) {
  sql("CREATE TABLE t(v)");
  sql("INSERT INTO t VALUES (1), (2), (3)");
  EXPECT_EQ(
      ask("PATCH", "/v1/databases/q", R"({"limits":{"rows_max":2,"statement_ms_max":50}})").status,
      200);
  EXPECT_EQ(get("format=csv&table=t&header=0"), "1\r\n2\r\n3\r\n");
  EXPECT_THAT(get("format=csv&header=0&query=SELECT+v+FROM+t"), EndsWith("(cut off)"));
  const std::string endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) ";
  refused("format=csv&query=" + escaped(endless + "SELECT sum(i) FROM n"), 503);
}

TEST_F(RowFilesTest, ImportsCsvByNameAndByPosition) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT DEFAULT 'none', n NUMERIC, any)");
  EXPECT_EQ(put("format=csv&table=t",
                "\xEF\xBB\xBFNAME,id,any\r\n007,1,007\r\n\"\",2,\"7\"\r\n,3,7\r\n\r\n"
                "\"two\nlines\",4,x'00fF'\r\n1.50,5,1.50\r\n"),
            "rows 5");
  EXPECT_EQ(rows("SELECT id, name, typeof(any), any FROM t"),
            R"([[1,"007","text","007"],[2,"","text","7"],[3,null,"integer",7],)"
            R"([4,"two\nlines","blob",{"base64":"AP8="}],[5,"1.50","real",1.5]])");
  EXPECT_EQ(put("format=csv&table=t&header=0&delimiter=%3b", "6;x;007;\n7;y;\"1e2\";z"), "rows 2");
  EXPECT_EQ(put("format=csv&table=t", "id\n8\n"), "rows 1");
  EXPECT_EQ(rows("SELECT id, name, n, any FROM t WHERE id > 5"),
            R"([[6,"x",7,null],[7,"y",100,"z"],[8,"none",null,null]])");
}

TEST_F(RowFilesTest, ImportsJsonLines) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT DEFAULT 'none', any)");
  EXPECT_EQ(put("format=jsonl&table=t",
                "\xEF\xBB\xBF{\"id\":1,\"any\":{\"base64\":\"AP8=\"}}\r\n\n"
                "{\"ANY\":true,\"id\":2,\"v\":null}\n{}\n"
                "{\"any\":[1, {\"a\":\"b\"}],\"v\":\"\\u0000x\"}\n"
                "{\"any\":{\"base64\":1},\"v\":5}\n{\"any\":1.0}\n{\"any\":18446744073709551616}"),
            "rows 7");
  EXPECT_EQ(rows("SELECT id, v, any, typeof(any) FROM t"),
            R"([[1,"none",{"base64":"AP8="},"blob"],[2,null,1,"integer"],[3,"none",null,"null"],)"
            R"([4,"\u0000x","[1,{\"a\":\"b\"}]","text"],[5,"5","{\"base64\":1}","text"],)"
            R"([6,"none",1.0,"real"],[7,"none",18446744073709551616.0,"real"]])");
}

TEST_F(RowFilesTest, ErrorsNameTheLineAndNothingStays) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL, made AS (id))");
  sql("CREATE TABLE c(p REFERENCES t(id))");
  sql("INSERT INTO t VALUES (1, 'kept')");
  auto csv = [&](const std::string& body) { return put("format=csv&table=t", body, 400); };
  EXPECT_EQ(csv("id,v\n2,\"a\n\nb\"\n1,c\n"), "line 5: UNIQUE constraint failed: t.id");
  EXPECT_EQ(csv("id,v\n2,\n"), "line 2: NOT NULL constraint failed: t.v");
  EXPECT_EQ(csv("id,w\n2,3\n"), "line 2: there is no column 'w' in table 't'");
  EXPECT_EQ(csv("id,made\n2,3\n"), "line 2: column 'made' is a generated one");
  EXPECT_EQ(csv("id,Id\n2,3\n"), "line 2: column 'Id' comes twice");
  EXPECT_EQ(csv("id,\n2,3\n"), "line 1: column 2 has no name");
  EXPECT_EQ(csv("id,v\n2,3\n4\n"), "line 3: 1 fields, but 2 columns");
  EXPECT_EQ(csv("id,v\n2,3\n4,\"5\n"), "line 3: a quoted field begins here and never ends");
  EXPECT_EQ(csv("id,v\nx,3\n"), "line 2: datatype mismatch");
  EXPECT_EQ(csv("\n\n"), "there is nothing in this file");
  EXPECT_EQ(put("format=csv&table=t&header=0", "2,3,4\n", 400), "line 1: 3 fields, but 2 columns");
  auto json = [&](const std::string& body) { return put("format=jsonl&table=t", body, 400); };
  EXPECT_EQ(json("{\"v\":1}\n\n{\"w\":1}"), "line 3: there is no column 'w' in table 't'");
  EXPECT_EQ(json("{\"v\":1,\"V\":2}"), "line 1: column 'V' comes twice");
  EXPECT_EQ(json("{\"v\":1}\n[1]\n"), "line 2: a row is a JSON object on one line");
  EXPECT_THAT(json("{\"v\":1}\n{\"v\":\n1}\n"), HasSubstr("line 2: the row is no JSON"));
  EXPECT_THAT(json("{\"v\":{\"base64\":\"?\"}}"), HasSubstr("line 1: what stands in"));
  EXPECT_EQ(put("format=csv&table=c", "p\n1\n77\n", 400),
            "FOREIGN KEY constraint failed: the row with rowid 2 of 'c' refers to no row of 't'");
  EXPECT_EQ(rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM c)"), "[[1,0]]");
  sql("CREATE VIEW v AS SELECT 1");
  sql("CREATE VIRTUAL TABLE f USING fts5(body)");
  for (const char* table : {"v", "f_data", "sqlite_sequence", "sqlite_new"})
    put(std::string("format=csv&create=1&table=") + table, "a\n1\n", 400);
  put("format=csv&table=none", "a\n1\n", 404);
  put("format=csv", "a\n1\n", 400);
  put("format=csv&table=t&on_conflict=x", "a\n1\n", 400);
  put("format=csv&table=t", "", 400);
  EXPECT_EQ(post("/db/none/import?format=csv&table=t", "a\n", 404).find("line"), std::string::npos);
}

TEST_F(RowFilesTest, ConflictsAreIgnoredOrReplaced) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  sql("INSERT INTO t VALUES (1, 'old')");
  EXPECT_EQ(put("format=csv&table=t&on_conflict=ignore", "id,v\n1,new\n2,new\n"), "rows 1");
  EXPECT_EQ(rows("SELECT v FROM t"), R"([["old"],["new"]])");
  EXPECT_EQ(put("format=jsonl&table=t&on_conflict=replace", "{\"id\":1,\"v\":\"newer\"}"),
            "rows 1");
  EXPECT_EQ(rows("SELECT v FROM t"), R"([["newer"],["new"]])");
}

TEST_F(RowFilesTest, MakesTheTable) {
  EXPECT_EQ(put("format=csv&table=a%22b&create=1", "x,\"y z\"\n1,007\n2.5,\n"), "rows 2");
  EXPECT_EQ(rows("SELECT *, typeof(x) FROM \"a\"\"b\""),
            R"([[1,"007","integer"],[2.5,null,"real"]])");
  EXPECT_EQ(put("format=csv&table=a%22b&create=1", "x\n3\n"), "rows 1");
  EXPECT_EQ(put("format=csv&table=p&create=1&header=0", "1,2\n"), "rows 1");
  EXPECT_EQ(rows("SELECT c1, c2 FROM p"), "[[1,2]]");
  EXPECT_EQ(put("format=jsonl&table=j&create=1", "{\"a\":1}\n{\"b\":2}\n{\"a\":3,\"b\":4}"),
            "rows 3");
  EXPECT_EQ(rows("SELECT a, b FROM j"), "[[1,null],[null,2],[3,4]]");
  put("format=jsonl&table=k&create=1", "{}\n", 400);
  put("format=csv&table=k&create=1", "a,b\n1\n", 400);
  EXPECT_EQ(rows("SELECT count(*) FROM sqlite_schema WHERE name = 'k'"), "[[0]]");
  EXPECT_EQ(put("format=csv&table=only_header&create=1", "a,b\n"), "rows 0");
}

TEST_F(RowFilesTest, ChildrenMayComeBeforeTheirParents) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, parent REFERENCES t(id))");
  EXPECT_EQ(put("format=csv&table=t", "id,parent\n1,2\n2,\n"), "rows 2");
}

// Every value that a column of any kind holds comes back as it was.
TEST_F(RowFilesTest, RandomRowsComeBack) {
  RandomValues random(11);
  const std::string schema =
      "(i INTEGER, r REAL, t TEXT, n NUMERIC, b BLOB, any, \"odd \"\" ,name\" VARCHAR(3), d DATE)";
  sql("CREATE TABLE source" + schema);
  sql("CREATE TABLE one(v)");
  std::string insert = "INSERT INTO source VALUES ";
  std::string insert_one = "INSERT INTO one VALUES ";
  for (int row = 0; row < 3'000; ++row) {
    insert += row == 0 ? "(" : ",(";
    for (int column = 0; column < 8; ++column) insert += (column == 0 ? "" : ",") + random.value();
    insert += ")";
    insert_one += (row == 0 ? "(" : ",(") + random.value() + ")";
  }
  sql(insert);
  sql(insert_one);
  const std::string columns =
      "SELECT i, r, t, n, b, any, \"odd \"\" ,name\", d, typeof(i), typeof(r), "
      "typeof(t), typeof(n), typeof(b), typeof(any), typeof(d) FROM ";
  const std::string expected = rows(columns + "source");
  for (const std::string& form :
       {std::string("format=csv"), std::string("format=csv&header=0&delimiter=tab"),
        std::string("format=csv&delimiter=%3b"), std::string("format=jsonl")}) {
    sql("DROP TABLE IF EXISTS target");
    sql("CREATE TABLE target" + schema);
    EXPECT_EQ(put(form + "&table=target", get(form + "&table=source")), "rows 3000");
    ASSERT_EQ(rows(columns + "target"), expected) << form;
    // One column: a row of NULL is an empty line.
    sql("DROP TABLE IF EXISTS one_target");
    if (form.find("header=0") != std::string::npos || form == "format=jsonl")
      sql("CREATE TABLE one_target(v)");
    EXPECT_EQ(put(form + "&create=1&table=one_target", get(form + "&table=one")), "rows 3000");
    ASSERT_EQ(rows("SELECT v, typeof(v) FROM one_target"), rows("SELECT v, typeof(v) FROM one"))
        << form;
  }
}

class RowRightsTest : public TokenRoutesTest {
 protected:
  void SetUp() override {
    TokenRoutesTest::SetUp();
    for (const char* statement :
         {"CREATE TABLE orders(id INTEGER PRIMARY KEY, x)", "INSERT INTO orders VALUES (1, 2)",
          "CREATE TABLE secret(id, x)", "INSERT INTO secret VALUES (1, 123454321)",
          "CREATE VIEW shown AS SELECT * FROM secret"})
      EXPECT_EQ(sql_as(admin, "shop/orders", statement).status, 200);
  }
  Response export_as(const std::string& token, const std::string& parameters) {
    auto client = send("GET", "/db/shop/orders/export?format=csv&" + parameters, "",
                       "Authorization: Bearer " + token + "\r\n");
    Response response = client->wait();
    if (response.status == 200) response.body = read_all(response, client);
    return response;
  }
};

TEST_F(RowRightsTest, AnExportReadsWhatItsTokenMayRead) {
  std::string token = issuer.acl(R"({"db":"shop/orders","t":{"orders":["data_read"]}})");
  EXPECT_EQ(export_as(token, "table=orders").body, "id,x\r\n1,2\r\n");
  EXPECT_EQ(export_as(token, "query=SELECT+x+FROM+orders").body, "x\r\n2\r\n");
  for (const char* parameters :
       {"table=secret", "table=shown", "table=sqlite_schema", "query=SELECT+*+FROM+secret",
        "query=SELECT+o.id+FROM+orders+o+NATURAL+JOIN+secret", "query=SELECT+count(*)+FROM+secret",
        "query=SELECT+*+FROM+sqlite_schema", "query=SELECT+*+FROM+dbstat",
        "query=PRAGMA+table_list", "query=SELECT+(SELECT+max(x)+FROM+secret)+FROM+orders"}) {
    Response response = export_as(token, parameters);
    EXPECT_EQ(response.status, 403) << parameters << response.body;
    EXPECT_THAT(response.body, HasSubstr("TOKEN_FORBIDS")) << parameters;
    EXPECT_THAT(response.body, Not(HasSubstr("123454321"))) << parameters;
  }
  std::string adds = issuer.acl(R"({"db":"shop/orders","t":{"orders":["data_add"]}})");
  EXPECT_EQ(export_as(adds, "table=orders").status, 403);
  std::string reads = issuer.acl(R"({"db":"shop/*","a":["data_read"]})");
  EXPECT_EQ(export_as(reads, "table=shown").body, "id,x\r\n1,123454321\r\n");
  std::string subscribes = issuer.acl(R"({"db":"*","a":["subscribe","snapshot"]})");
  EXPECT_EQ(export_as(subscribes, "table=orders").status, 403);
}

TEST_F(RowRightsTest, AnImportNeedsAdmin) {
  std::string writes = issuer.acl(
      R"({"db":"shop/*","a":["data_read","data_add","data_update","data_delete","schema_add"]})");
  const std::string target = "/db/shop/orders/import?format=csv&table=orders";
  EXPECT_EQ(ask_as(writes, "POST", target, "id,x\n7,8\n").status, 403);
  EXPECT_EQ(ask_as(admin, "POST", target, "id,x\n7,8\n").status, 200);
}

TEST_F(RowRightsTest, ARevokedTokensExportIsCut) {
  sql_as(admin, "shop/orders",
         "INSERT INTO orders(x) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
         "LIMIT 200000) SELECT hex(randomblob(20)) FROM n");
  std::string token = issuer.acl(R"({"db":"shop/*","a":["data_read"]})", R"(,"jti":"one")");
  auto client = send("GET", "/db/shop/orders/export?format=jsonl&table=orders", "",
                     "Authorization: Bearer " + token + "\r\n");
  Response response = client->wait();
  ASSERT_EQ(response.status, 200);
  EXPECT_EQ(ask_as(admin, "POST", "/v1/tokens/revoke", R"({"jti":"one"})").status, 200);
  EXPECT_EQ(read_all(response, client), "(cut off)");
}

}  // namespace
}  // namespace offprint::server::testing
