// HA-SQLite's words in /query.
#include "server/ha_sql.h"

#include <filesystem>
#include <fstream>

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

TEST_F(HaSql, ObjectsAreNamedByUrls) {
  create("shop");
  auto run = [&](const std::string& sql, int status = 200) {
    Response response = ask("POST", "/db/shop/query", "{\"sql\":\"" + sql + "\"}");
    EXPECT_EQ(response.status, status) << sql << ": " << response.body;
    return response.body;
  };
  auto read = [&](const std::string& name) {
    return between(run("HA USE " + name + "; SELECT group_concat(v) FROM t"),
                   "\"rows\":", ",\"changes");
  };
  run("CREATE TABLE t(v)");
  run("INSERT INTO t VALUES (1)");
  const std::string place = "file://" + directory + "/objects";
  const std::string object = place + "/a/shop.db";
  EXPECT_NE(run("HA SNAPSHOT shop TO " + object, 403).find("OBJECTS_NOT_ALLOWED"),
            std::string::npos);
  auto objects = archive::NamedObjects::open({place}, directory + "/scratch").value();
  service->objects = objects.get();
  run("HA SNAPSHOT shop TO " + object);
  {
    auto file = sqlite::Connection::open(directory + "/objects/a/shop.db", {.read_only = true});
    EXPECT_EQ(file.value().query_text("SELECT group_concat(v) FROM t").value(), "1");
  }
  run("INSERT INTO t VALUES (2)");
  const std::string newer = place + "/newer.db";
  run("HA SNAPSHOT shop TO '" + newer + "'");
  const auto before = store->info(*database::DatabaseName::parse("shop"))->bookmark;
  run("HA RESTORE shop FROM " + object);
  EXPECT_EQ(read("shop"), "[[\"1\"]]");
  const auto after = store->info(*database::DatabaseName::parse("shop"))->bookmark;
  EXPECT_EQ(after.txid.value, before.txid.value + 1) << "it goes on in its history";
  EXPECT_EQ(after.epoch.value, before.epoch.value + 1);
  run("HA RESTORE copy FROM " + newer);
  EXPECT_EQ(read("copy"), "[[\"1,2\"]]");
  // Another page size.
  {
    auto file = sqlite::Connection::open(directory + "/objects/large.db", {.create = true});
    ASSERT_TRUE(file.value().execute(
        "PRAGMA page_size=16384; CREATE TABLE t(v); INSERT INTO t VALUES(7); PRAGMA "
        "journal_mode=WAL"));
  }
  run("HA RESTORE shop FROM " + place + "/large.db");
  EXPECT_EQ(read("shop"), "[[\"7\"]]");
  EXPECT_EQ(between(run("PRAGMA integrity_check"), "\"rows\":", ",\"changes"), "[[\"ok\"]]");
  run("INSERT INTO t VALUES (8)");
  EXPECT_EQ(read("shop"), "[[\"7,8\"]]");
  // What is wrong changes nothing.
  std::ofstream(directory + "/objects/text.db") << std::string(5000, 'x');
  run("HA RESTORE shop FROM " + place + "/text.db", 400);
  run("HA RESTORE shop FROM " + place + "/none.db", 404);
  run("HA RESTORE shop FROM " + place + "/../secret.db", 400);
  run("HA RESTORE shop FROM file:///etc/passwd", 403);
  run("HA SNAPSHOT shop TO " + place + "/", 400);
  run("HA SNAPSHOT shop TO " + place + "2/a.db", 403);
  EXPECT_EQ(read("shop"), "[[\"7,8\"]]");
  EXPECT_TRUE(std::filesystem::is_empty(directory + "/scratch"));
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
