// A whole node from its archive: everything is as it was, whenever the restore was interrupted, and
// the node goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "sqlite/connection.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

// Of which the clock of transactions has no smaller part.
constexpr auto kMoment = 2ms;

class NodeRestoreTest : public ::testing::Test {
 protected:
  void start(ServerProcess& server, std::vector<std::string> options = {}) {
    options.insert(options.end(), {"--archive", url(), "--archive-sync-ms", "50"});
    server.set_options(options);
    ASSERT_TRUE(server.start());
  }
  // Of the archive of one database.
  std::string url(const std::string& name = {}) const {
    return "file://" + archive_ + (name.empty() ? "" : "/" + name);
  }
  template <class Condition>
  static bool comes(Condition condition) {
    for (Deadline until = in_seconds(30); SteadyClock::now() < until;) {
      if (condition()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }
  bool all_archived(ServerProcess& server) {
    return comes([&] { return server.metric("archive_databases_behind") == 0; });
  }
  Finished restore_node(std::vector<std::string> options = {}) {
    std::vector<std::string> arguments = {"restore-node", url(), second_.data()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return first_.run(arguments);
  }
  static std::string info(ServerProcess& server, const std::string& name,
                          const std::string& field) {
    return json_field(server.request("GET", "/v1/databases/" + name)->body, field);
  }
  static void fill(ServerProcess& server, const std::string& name, int rows) {
    server.create(name);
    server.query(name, "CREATE TABLE t(i INTEGER PRIMARY KEY, v)");
    for (int i = 0; i < rows; ++i)
      server.query(name, "INSERT INTO t(v) VALUES(hex(randomblob(300)))");
  }
  static std::string content(ServerProcess& server, const std::string& name) {
    return server.query(name, "SELECT count(*), group_concat(v) FROM t");
  }

  // The archive of a database, or all of it.
  void expect_sound(const std::string& name) {
    std::vector<std::string> arguments = {"verify", url(), "--scratch", folder_.path()};
    if (!name.empty()) arguments.push_back(name);
    Finished sound = first_.run(arguments);
    EXPECT_EQ(sound.exit_code, 0) << sound.out << sound.err;
    EXPECT_THAT(sound.out, HasSubstr(name));
  }

  TemporaryFolder folder_, second_folder_;
  ServerProcess first_{folder_}, second_{second_folder_};
  const std::string archive_ = folder_ / "archive";
};

// Forks, and what began with content.
TEST_F(NodeRestoreTest, WhatBeganFilledIsThereToo) {
  start(first_);
  fill(first_, "orders", 5);
  ASSERT_EQ(first_.run({"db", "fork", "orders", "fork"}).exit_code, 0);
  first_.create("schema", R"_(,"schema":"CREATE TABLE t(v); INSERT INTO t VALUES ('1')")_");
  ASSERT_TRUE(all_archived(first_));
  const std::string orders = content(first_, "orders");
  ASSERT_EQ(first_.terminate(), 0);
  Finished restored = restore_node({"--json"});
  ASSERT_EQ(restored.exit_code, 0) << restored.out << restored.err;
  EXPECT_THAT(restored.out, HasSubstr(R"("restored":3,"there":0,"empty":0)"));
  start(second_, {"--archive-take-over"});
  EXPECT_EQ(content(second_, "orders"), orders);
  EXPECT_EQ(content(second_, "fork"), orders);
  EXPECT_EQ(content(second_, "schema"), "[[1,\"1\"]]");
  // What it says can be pasted into a shell.
  const std::string place = second_folder_ / "what's left & more";
  Finished said = first_.run({"restore-node", url(), place});
  EXPECT_EQ(said.exit_code, 0) << said.err;
  const auto end = place.find('\'');
  EXPECT_THAT(said.out, HasSubstr("--data '" + place.substr(0, end) + "'\\''" +
                                  place.substr(end + 1) + "' --archive " + url()));
}

TEST_F(NodeRestoreTest, EverythingIsThereAndGoesOn) {
  start(first_);
  fill(first_, "orders", 20);
  fill(first_, "shop", 5);
  first_.create("never");
  fill(first_, "gone", 1);
  ASSERT_TRUE(all_archived(first_));
  EXPECT_EQ(first_.run({"db", "drop", "gone"}).exit_code, 0);
  auto limited = first_.request("PATCH", "/v1/databases/shop", R"({"limits":{"rows_max":7}})");
  ASSERT_EQ(limited->status, 200) << limited->body;
  const std::string replica = folder_ / "replica.db";
  auto follow = [&](ServerProcess& server) {
    return server.run({"follow", server.database_url("orders"), replica, "--once"});
  };
  ASSERT_EQ(follow(first_).exit_code, 0);
  ASSERT_TRUE(all_archived(first_));
  const std::string orders = content(first_, "orders"), shop = content(first_, "shop");
  const std::string lineage = info(first_, "orders", "lineage");
  // The archive stands still; what comes now is lost.
  std::filesystem::rename(archive_, archive_ + ".away");
  {
    std::ofstream(archive_) << "no folder";
  }
  const std::string then = info(first_, "orders", "bookmark");
  first_.query("orders", "INSERT INTO t(v) VALUES('lost')");
  // Another epoch, which the archive does not know of.
  ASSERT_EQ(first_.run({"db", "restore", "orders", "--at", then}).exit_code, 0);
  first_.query("orders", "INSERT INTO t(v) VALUES('lost')");
  ASSERT_EQ(follow(first_).exit_code, 0);
  const std::string lost = info(first_, "orders", "bookmark");
  first_.kill();
  std::filesystem::remove(archive_);
  std::filesystem::rename(archive_ + ".away", archive_);

  Finished restored = restore_node({"--json"});
  ASSERT_EQ(restored.exit_code, 0) << restored.out << restored.err;
  EXPECT_THAT(restored.out, HasSubstr(R"("dropped":["gone"])"));
  EXPECT_THAT(restored.out, HasSubstr(R"("restored":2,"there":0,"empty":1)"));
  start(second_, {"--archive-take-over"});
  EXPECT_EQ(content(second_, "orders"), orders);
  EXPECT_EQ(content(second_, "shop"), shop);
  EXPECT_EQ(info(second_, "orders", "lineage"), lineage);
  EXPECT_EQ(lost.substr(0, 8), "00000001");
  EXPECT_GT(info(second_, "orders", "bookmark").substr(0, 8), "00000400");
  EXPECT_THAT(second_.request("GET", "/v1/databases/shop")->body, HasSubstr("\"rows_max\":7"));
  // What was lost does not count as reached when as many transactions have come again.
  for (int i = 0; i < 5; ++i) second_.query("orders", "INSERT INTO t(v) VALUES('new')");
  HttpConnection client(second_.port());
  auto read = [&](const std::string& bookmark) {
    return client
        .request("POST", "/db/orders/query", sql_body("SELECT count(*) FROM t"),
                 "Offprint-Read: " + bookmark + "\r\n")
        ->status;
  };
  EXPECT_EQ(read(lost), 409);
  EXPECT_EQ(read("00000000-00000000-00000003-" + lineage), 200);
  EXPECT_EQ(read(info(second_, "orders", "bookmark")), 200);
  // A replica that has what was lost becomes what the node has.
  Finished followed = follow(second_);
  ASSERT_EQ(followed.exit_code, 0) << followed.err;
  auto file = sqlite::Connection::open(replica, {}).value();
  EXPECT_EQ(file.query_text("SELECT count(*) || ' ' || sum(v = 'lost') FROM t").value(), "25 0");
  // The archive goes on in the same place.
  second_.query("never", "CREATE TABLE t(i INTEGER PRIMARY KEY, v)");
  ASSERT_TRUE(all_archived(second_));
  for (const char* name : {"", "orders", "shop", "never", "_catalog"}) expect_sound(name);
  EXPECT_EQ(first_.run({"verify", url(), "nothing"}).exit_code, 1);
  EXPECT_FALSE(std::filesystem::exists(archive_ + "/_offprint/dropped")) << second_.log();
}

// Killed again and again: what it does at last is what it would have done at once.
TEST_F(NodeRestoreTest, AnInterruptedRestoreGoesOn) {
  start(first_);
  constexpr int kDatabases = 12;
  for (int i = 0; i < kDatabases; ++i) fill(first_, fmt::format("d{}", i), i % 4 + 1);
  ASSERT_TRUE(all_archived(first_));
  std::vector<std::string> contents;
  for (int i = 0; i < kDatabases; ++i) contents.push_back(content(first_, fmt::format("d{}", i)));
  first_.kill();
  std::mt19937 random(7);
  bool was_refused = false;
  for (int i = 0; i < 15; ++i) {
    Process::Options options;
    options.arguments = {program(), "restore-node", url(), second_.data(), "--jobs", "2"};
    Process restore(options);
    const std::string marker = second_.data() + "/restoring";
    if (i == 0) {
      EXPECT_TRUE(comes([&] { return std::filesystem::exists(marker); }));
    } else {
      const auto time = std::chrono::milliseconds(static_cast<int>(random() % 60) * i);
      if (restore.wait(SteadyClock::now() + time)) break;
    }
    restore.kill();
    if (was_refused || !std::filesystem::exists(marker)) continue;
    Finished served =
        first_.run({"serve", "--data", second_.data(), "--listen", "127.0.0.1:0"}, {}, 20);
    EXPECT_EQ(served.exit_code, 1);
    EXPECT_THAT(served.err, HasSubstr("run offprint restore-node again"));
    was_refused = true;
  }
  EXPECT_TRUE(was_refused);
  if (std::filesystem::exists(second_.data() + "/restoring")) {
    Finished other = restore_node({"--at", "2026-11-22T10:00:00Z"});
    EXPECT_EQ(other.exit_code, 1);
    EXPECT_THAT(other.err, HasSubstr("for another moment"));
    Finished restored = restore_node();
    ASSERT_EQ(restored.exit_code, 0) << restored.out << restored.err;
  }
  Finished again = restore_node();
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.err, HasSubstr("is not empty"));
  start(second_, {"--archive-take-over"});
  for (int i = 0; i < kDatabases; ++i) {
    const std::string name = fmt::format("d{}", i);
    EXPECT_EQ(content(second_, name), contents[static_cast<std::size_t>(i)]);
    EXPECT_GT(info(second_, name, "bookmark").substr(0, 8), "00000400");
    EXPECT_EQ(second_.query(name, "PRAGMA integrity_check"), "[[\"ok\"]]");
  }
}

TEST_F(NodeRestoreTest, AnEarlierMomentIsRestored) {
  start(first_);
  fill(first_, "orders", 3);
  fill(first_, "gone", 2);
  ASSERT_TRUE(all_archived(first_));
  const std::string orders = content(first_, "orders"), gone = content(first_, "gone");
  std::this_thread::sleep_for(kMoment);
  const std::string then = format_rfc3339(unix_time_ms());
  std::this_thread::sleep_for(kMoment);
  first_.query("orders", "DELETE FROM t");
  EXPECT_EQ(first_.run({"db", "drop", "gone"}).exit_code, 0);
  fill(first_, "gone", 1);  // another one of that name
  fill(first_, "later", 1);
  ASSERT_TRUE(all_archived(first_));
  first_.kill();
  Finished restored = restore_node({"--at", then});
  ASSERT_EQ(restored.exit_code, 0) << restored.out << restored.err;
  EXPECT_THAT(restored.out, Not(HasSubstr("later")));
  start(second_, {"--archive-take-over"});
  EXPECT_EQ(content(second_, "orders"), orders);
  EXPECT_EQ(content(second_, "gone"), gone);
  EXPECT_EQ(second_.request("GET", "/v1/databases/later")->status, 404);
  // What the archive has of later moments moves aside, and it goes on from the restored ones.
  second_.query("orders", "INSERT INTO t(v) VALUES('new')");
  ASSERT_TRUE(all_archived(second_));
  EXPECT_EQ(first_.run({"verify", url("orders"), "--scratch", folder_.path()}).exit_code, 0);
  EXPECT_TRUE(std::filesystem::exists(archive_ + "/_offprint/dropped"));
}

// Tags outlive the log and what the archive keeps of its transactions.
TEST_F(NodeRestoreTest, TagsAreThereToo) {
  start(first_);
  fill(first_, "orders", 5);
  auto tag = [&](const std::string& how, const std::string& name) {
    ASSERT_EQ(first_.run({"db", "snapshot", "orders", how, name}).exit_code, 0) << name;
  };
  for (const char* each : {"before", "again", "damaged", "dropped"}) tag("--tag", each);
  const std::string tags = archive_ + "/_offprint/tags";
  auto count = [&] {
    std::error_code none;
    return std::distance(std::filesystem::directory_iterator(tags, none), {});
  };
  EXPECT_TRUE(comes([&] { return count() == 4; }));
  first_.query("orders", "DELETE FROM t WHERE i > 2");
  tag("--drop", "dropped");
  tag("--drop", "again");
  tag("--tag", "again");
  EXPECT_TRUE(comes([&] { return count() == 3; }));
  ASSERT_TRUE(all_archived(first_));
  first_.kill();
  for (const auto& each : std::filesystem::directory_iterator(tags)) {
    if (each.path().string().find("damaged") == std::string::npos) continue;
    std::fstream file(each.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(200);
    file << "damage";
  }
  Finished restored = restore_node();
  ASSERT_EQ(restored.exit_code, 0) << restored.out << restored.err;
  EXPECT_THAT(restored.out, HasSubstr("lost      tag damaged: "));
  start(second_, {"--archive-take-over"});
  auto rows_at = [&](const std::string& moment) {
    return second_.run({"sql", "orders", "SELECT count(*) AS n FROM t", "--at", moment, "--json"})
        .out;
  };
  EXPECT_THAT(rows_at("tag:before"), HasSubstr("5"));
  EXPECT_THAT(rows_at("tag:again"), HasSubstr("2"));
  const std::string listed = second_.request("GET", "/v1/databases/orders/history/tags")->body;
  EXPECT_THAT(listed, Not(HasSubstr("dropped")));
  EXPECT_THAT(listed, Not(HasSubstr("damaged")));
  ASSERT_EQ(second_.run({"db", "restore", "orders", "--at", "tag:before"}).exit_code, 0);
  EXPECT_EQ(second_.query("orders", "SELECT count(*) FROM t"), "[[5]]");
  ASSERT_TRUE(all_archived(second_));
  EXPECT_EQ(count(), 3);  // the damaged one goes when its time is over
}

// A server whose log has nothing of it lists what its archive can restore, page after page.
TEST_F(NodeRestoreTest, TheArchiveGoesOnWithTheHistory) {
  start(first_);
  first_.create("orders");
  first_.query("orders", "CREATE TABLE t(i INTEGER PRIMARY KEY, v)");
  for (int i = 0; i < 6; ++i) {
    first_.query("orders", "INSERT INTO t(v) VALUES('row')");
    ASSERT_TRUE(all_archived(first_));  // each by itself
  }
  first_.query("orders", "CREATE TABLE other AS SELECT 1 AS a");
  ASSERT_TRUE(all_archived(first_));
  ASSERT_EQ(first_.terminate(), 0);
  ASSERT_EQ(restore_node().exit_code, 0);
  start(second_, {"--archive-take-over"});
  second_.query("orders", "INSERT INTO t(v) VALUES('new')");
  ASSERT_TRUE(all_archived(second_));
  std::vector<std::string> txids;
  std::string next;
  int pages = 0, archived = 0;
  do {
    auto page = second_.request("GET", "/v1/databases/orders/history?limit=2&details=1" +
                                           (next.empty() ? "" : "&before=" + next));
    ASSERT_EQ(page->status, 200) << page->body;
    EXPECT_THAT(page->body, Not(HasSubstr("archive_error")));
    const std::string& body = page->body;
    for (std::size_t at = 0; (at = body.find("{\"txid\":", at)) != std::string::npos; ++at) {
      txids.push_back(body.substr(at + 8, body.find(',', at) - at - 8));
      archived += body.find("\"archived\"", at) < body.find('}', at);
      const std::string each = body.substr(at, body.find('}', at) - at);
      EXPECT_THAT(
          each, HasSubstr(fmt::format("\"tables\":[\"{}\"]", txids.back() == "8" ? "other" : "t")));
      const bool changes_schema =
          txids.back() == "8" || each.find("\"first_txid\":1,") != std::string::npos;
      EXPECT_THAT(each, HasSubstr(fmt::format("\"schema_changed\":{}", changes_schema)));
      const std::string bookmark = json_field(body.substr(at), "bookmark");
      Finished then = second_.run({"sql", "orders", "SELECT count(*) FROM t", "--at", bookmark});
      EXPECT_EQ(then.exit_code, 0) << bookmark << then.err;
    }
    std::size_t at = body.find("\"next\":");
    next = at == std::string::npos ? "" : body.substr(at + 7, body.find('}', at) - at - 7);
  } while (!next.empty() && ++pages < 20);
  EXPECT_TRUE(next.empty());
  EXPECT_EQ(txids.size(), std::set<std::string>(txids.begin(), txids.end()).size());
  EXPECT_GE(txids.size(), 8u);
  EXPECT_GE(archived, 7);
  EXPECT_EQ(txids.front(), "9");
  EXPECT_THAT(second_.run({"db", "history", "orders"}).out, HasSubstr("archive"));
  {
    std::ofstream(archive_ + "/orders/offprint/history") << "no history";
  }
  Finished rest = second_.run({"db", "history", "orders"});
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("log"));
  EXPECT_THAT(rest.err, HasSubstr("is left out"));
}

// Archives of before lists of databases were archived.
TEST_F(NodeRestoreTest, WithoutAListTheDatabasesAreFound) {
  start(first_);
  fill(first_, "orders", 3);
  fill(first_, "shop", 2);
  ASSERT_TRUE(all_archived(first_));
  const std::string orders = content(first_, "orders");
  first_.kill();
  std::filesystem::remove_all(archive_ + "/_offprint/catalog");
  Finished restored = restore_node();
  ASSERT_EQ(restored.exit_code, 0) << restored.out << restored.err;
  EXPECT_THAT(restored.out, HasSubstr("no list of databases"));
  start(second_, {"--archive-take-over"});
  EXPECT_EQ(content(second_, "orders"), orders);
  EXPECT_GT(info(second_, "shop", "bookmark").substr(0, 8), "00000400");
}

TEST_F(NodeRestoreTest, DamageIsNamedAndCanBeLeftOut) {
  start(first_);
  fill(first_, "orders", 3);
  fill(first_, "shop", 2);
  ASSERT_TRUE(all_archived(first_));
  first_.kill();
  for (const auto& file : std::filesystem::directory_iterator(archive_ + "/shop/ltx/0"))
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  Finished damaged = restore_node();
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_THAT(damaged.out, HasSubstr("damaged   shop: shop/ltx/0/"));
  EXPECT_THAT(damaged.out, HasSubstr("is not complete"));
  Finished without = restore_node({"--without-damaged", "--json"});
  ASSERT_EQ(without.exit_code, 0) << without.out << without.err;
  EXPECT_THAT(without.out, HasSubstr(R"("there":1,"empty":0,"damaged":0,"left_out":1)"));
  start(second_, {"--archive-take-over"});
  EXPECT_EQ(second_.query("orders", "SELECT count(*) FROM t"), "[[3]]");
  EXPECT_EQ(second_.request("GET", "/v1/databases/shop")->status, 404);
}

TEST_F(NodeRestoreTest, ANameIsVerifiedInTheServersArchive) {
  start(first_);
  fill(first_, "orders", 3);
  ASSERT_TRUE(all_archived(first_));
  const Finished named =
      first_.run({"verify", "orders", "--archive", url(), "--scratch", folder_.path()});
  EXPECT_EQ(named.exit_code, 0) << named.err;
  EXPECT_THAT(named.out, HasSubstr("proven"));
  EXPECT_EQ(first_.run({"verify", "nothing", "--archive", url()}).exit_code, 1);
  Finished unknown = first_.run({"verify", "orders"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("OFFPRINT_ARCHIVE"));
}

}  // namespace
}  // namespace offprint::testing
