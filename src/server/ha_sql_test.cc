// HA-SQLite's words in /query.
#include "server/ha_sql.h"

#include <gtest/gtest.h>

#include "server/store_testing.h"

namespace offprint::server {
namespace {

using testing::between;

class HaSql : public testing::RoutesTest {};

TEST_F(HaSql, NamesTheDatabaseInTheStatement) {
  EXPECT_NE(post("/query", R"_({"sql":"HA CREATE DB shop"})_").find("\"results\":[{\"columns\":[]"),
            std::string::npos);
  post("/query", R"_({"sql":"ha create db ?;","args":["a/b"]})_");
  EXPECT_TRUE(store->info(*database::DatabaseName::parse("shop")));
  EXPECT_TRUE(store->info(*database::DatabaseName::parse("a/b")));
  post("/query", R"_({"sql":"HA CREATE DB shop"})_", 409);
  post("/query", R"_(["HA USE shop","CREATE TABLE t(v)","INSERT INTO t VALUES (1)"])_");
  post("/query", R"_({"sql":"ha  use\n\"shop\" ; INSERT INTO t VALUES (?)","args":[2]})_");
  EXPECT_NE(
      post("/db/a/b/query", R"_({"sql":"HA USE ?; SELECT sum(v) + ? FROM t","args":["shop",10]})_")
          .find("[[13]]"),
      std::string::npos);
  Response response = ask("POST", "/query", R"_({"sql":"HA USE shop; SELECT 1"})_");
  EXPECT_NE(
      response.headers.find(store->info(*database::DatabaseName::parse("shop"))->bookmark.text()),
      std::string::npos);
  post("/query", R"_({"sql":"HA USE none; SELECT 1"})_", 404);
}

TEST_F(HaSql, SnapshotsAndRestores) {
  create("shop");
  create("other");
  auto count = [&](const std::string& name) {
    return between(post("/db/" + name + "/query", R"_({"sql":"SELECT count(*) FROM t"})_"),
                   "\"rows\":", ",\"changes");
  };
  post("/db/shop/query", R"_(["CREATE TABLE t(v)","INSERT INTO t VALUES (1)"])_");
  post("/db/other/query", R"_(["CREATE TABLE t(v)"])_");
  post("/db/shop/query", R"_({"sql":"HA SNAPSHOT shop TO before"})_");
  post("/db/shop/query", R"_({"sql":"ha snapshot ? to ?;","args":["shop","again"]})_");
  post("/db/shop/query", R"_({"sql":"DELETE FROM t"})_");
  std::string bookmark = store->info(*database::DatabaseName::parse("shop"))->bookmark.text();
  post("/db/shop/query", R"_({"sql":"HA RESTORE shop FROM before"})_");
  EXPECT_EQ(count("shop"), "[[1]]");
  post("/db/shop/query", R"_({"sql":"HA RESTORE ? FROM ?","args":["shop",")_" + bookmark + "\"]}");
  EXPECT_EQ(count("shop"), "[[0]]");
  post("/query", R"_({"sql":"HA RESTORE other FROM 'shop'"})_");
  post("/db/shop/query", R"_({"sql":"HA RESTORE shop FROM 'tag:again'"})_");
  EXPECT_EQ(count("shop"), "[[1]]");
  EXPECT_EQ(count("other"), "[[0]]");
  post("/db/shop/query", R"_({"sql":"HA SNAPSHOT shop TO before"})_", 409);
  post("/db/shop/query", R"_({"sql":"HA RESTORE shop FROM nothing"})_", 404);
  for (const char* body :
       {R"_({"sql":"HA SNAPSHOT shop"})_", R"_({"sql":"HA SNAPSHOT shop FROM x"})_",
        R"_({"sql":"HA RESTORE shop TO x"})_", R"_({"sql":"HA RESTORE shop FROM x; SELECT 1"})_",
        R"_({"sql":"HA RESTORE shop FROM ?"})_"})
    EXPECT_EQ(ask("POST", "/db/shop/query", body).status, 400) << body;
}

TEST_F(HaSql, SaysWhatIsWrong) {
  create("shop");
  for (const char* body :
       {R"_({"sql":"HA"})_", R"_({"sql":"HA USE"})_", R"_({"sql":"HA USE shop"})_",
        R"_({"sql":"HA USE Shop; SELECT 1"})_", R"_({"sql":"HA USE shop SELECT 1"})_",
        R"_({"sql":"HA USE ?; SELECT 1"})_", R"_({"sql":"HA USE ?; SELECT 1","args":[1]})_",
        R"_({"sql":"HA USE 'shop; SELECT 1"})_", R"_({"sql":"HA CREATE TABLE t"})_",
        R"_({"sql":"HA CREATE DB x; SELECT 1"})_", R"_(["SELECT 1","HA USE shop"])_",
        R"_(["HA CREATE DB y","SELECT 1"])_", R"_({"sql":"HA CREATE DB z","args":[1]})_",
        R"_({"sql":"HA USE shop; HA USE other; SELECT 1"})_"})
    EXPECT_EQ(ask("POST", "/db/shop/query", body).status, 400) << body;
  EXPECT_FALSE(store->info(*database::DatabaseName::parse("y")));
  EXPECT_FALSE(store->info(*database::DatabaseName::parse("z")));
}

}  // namespace
}  // namespace offprint::server
