// Yesterday's files: what a server of an earlier version left behind, killed, is recovered and
// served, and its replicas go on. tests/formats/make made the archives. What is newer
// is refused: JournalDamage.NewerFormatsAreRefusedUntouched and its like beside the code.
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CompatibilityTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string archive = test_script("formats/" + GetParam() + ".tar.gz");
    Finished extracted =
        run_program({"tar", "-xzf", archive, "-C", folder_ / "", "--no-same-owner"}, {}, {}, 60);
    ASSERT_EQ(extracted.exit_code, 0) << extracted.err;
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

TEST_P(CompatibilityTest, AKilledServersFolderIsRecovered) {
  ASSERT_TRUE(server_.start());
  EXPECT_EQ(server_.query("shop/orders", "SELECT count(*), sum(amount) FROM orders"),
            "[[1990,990721.5]]");
  EXPECT_EQ(server_.query("shop/orders", "SELECT count(*), sum(id), max(v) FROM big"),
            "[[80000,3200040000,\"value 9999 of the big table\"]]");
  EXPECT_EQ(server_.query("shop/orders", "SELECT body FROM notes WHERE notes MATCH 'words'"),
            "[[\"first words\"]]");
  EXPECT_EQ(server_.query("shop/orders", "PRAGMA page_size"), "[[1024]]");
  EXPECT_EQ(server_.query("shop/orders", "PRAGMA integrity_check"), "[[\"ok\"]]");
  EXPECT_EQ(server_.query("plain", "SELECT group_concat(v) FROM t"), "[[\"one,two\"]]");
  EXPECT_EQ(server_.request("GET", "/v1/databases/gone")->status, 404);
  auto info = server_.request("GET", "/v1/databases/shop%2Forders");
  EXPECT_THAT(info->body, HasSubstr("\"foreign_keys\":false"));
  EXPECT_THAT(info->body, HasSubstr("\"auto_vacuum\":2"));
  server_.query("shop/orders", "INSERT INTO orders VALUES (5000, 'new', 1)");
  // What its catalog did not know is kept there now.
  ASSERT_EQ(server_.request("PATCH", "/v1/databases/plain", R"({"limits":{"rows_max":9}})")->status,
            200);
  server_.kill();
  ASSERT_TRUE(server_.restart());
  EXPECT_THAT(server_.request("GET", "/v1/databases/plain")->body, HasSubstr("\"rows_max\":9"));
  EXPECT_EQ(server_.query("plain", "SELECT group_concat(v) FROM t"), "[[\"one,two\"]]");
}

TEST_P(CompatibilityTest, AReplicaGoesOnWithoutACopy) {
  ASSERT_TRUE(server_.start());
  std::string replica = folder_ / "replica.db";
  Finished followed =
      server_.run({"follow", "shop/orders", replica, "--once", "--verify", "--json"});
  EXPECT_EQ(followed.exit_code, 0) << followed.err;
  EXPECT_THAT(followed.out, HasSubstr("\"event\":\"applied\""));
  EXPECT_THAT(followed.out, HasSubstr("\"equal\":true"));
  EXPECT_THAT(followed.out, Not(HasSubstr("\"event\":\"resync\"")));
  EXPECT_THAT(followed.out, Not(HasSubstr("\"snapshot\":true")));
  EXPECT_EQ(StockReader(replica).query("SELECT count(*) FROM big"), "[[80000]]");
}

// Since catalog format 8 there are publications.
class PublishedYesterdayTest : public CompatibilityTest {};

TEST_P(PublishedYesterdayTest, GoesOnForItsFollowers) {
  ASSERT_TRUE(server_.start());
  EXPECT_THAT(server_.request("GET", "/v1/databases/source/publications/part@v1")->body,
              HasSubstr("\"state\":\"published\""));
  std::string part = folder_ / "part.db";
  Finished followed = server_.run({"follow", server_.url() + "/db/source/pub/part@v1?least=2", part,
                                   "--once", "--verify", "--json"});
  EXPECT_EQ(followed.exit_code, 0) << followed.err;
  EXPECT_THAT(followed.out, HasSubstr("\"event\":\"applied\""));
  EXPECT_THAT(followed.out, Not(HasSubstr("\"event\":\"resync\"")));
  EXPECT_EQ(StockReader(part).query("SELECT group_concat(v) FROM t"), "[[\"two,three\"]]");
  // What its catalog did not know is kept there now.
  ASSERT_EQ(server_
                .request("PUT", "/v1/databases/source/publications/part@v1/consumers/reports",
                         R"({"queries":[{"name":"q","sql":"SELECT v FROM t"}]})")
                ->status,
            200);
  ASSERT_EQ(server_
                .request("PATCH", "/v1/databases/source/publications/part@v1",
                         R"({"size_bytes_max":1000000})")
                ->status,
            200);
  server_.kill();
  ASSERT_TRUE(server_.restart());
  const std::string body =
      server_.request("GET", "/v1/databases/source/publications/part@v1")->body;
  EXPECT_THAT(body, HasSubstr("\"reads\":{\"t\":[\"v\"]}"));
  EXPECT_THAT(body, HasSubstr("\"size_bytes_max\":1000000"));
}

INSTANTIATE_TEST_SUITE_P(Versions, PublishedYesterdayTest, ::testing::Values("0.1-catalog-8"),
                         [](const auto&) { return std::string("of_0_1_catalog_8"); });

INSTANTIATE_TEST_SUITE_P(
    Versions, CompatibilityTest,
    ::testing::Values("0.1", "0.1-catalog-2", "0.1-catalog-4", "0.1-catalog-7", "0.1-catalog-8"),
    [](const auto& archive) {
      std::string name = "of_" + archive.param;
      std::replace_if(name.begin(), name.end(), [](char c) { return c == '.' || c == '-'; }, '_');
      return name;
    });

}  // namespace
}  // namespace offprint::testing
