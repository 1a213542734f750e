// The management interface of libSQL's server.
#include <gmock/gmock.h>

#include "server/namespace_config.h"
#include "server/token_testing.h"

namespace offprint::server::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Namespaces : public RoutesTest {
 protected:
  std::string query(const std::string& name, const std::string& sql, int status = 200) {
    return post("/db/" + name + "/query", R"({"sql":")" + sql + "\"}", status);
  }
  std::string get(const std::string& target, int status = 200) {
    Response response = ask("GET", target);
    EXPECT_EQ(response.status, status) << response.body;
    return response.body;
  }
};

TEST(ByteSize, IsReadAndWrittenAsLibsqlsServerDoes) {
  struct Case {
    const char* text;
    std::uint64_t bytes;
  };
  for (const Case& one : {Case{"0", 0},
                          {"4096", 4096},
                          {"12 B", 12},
                          {"10MB", 10'000'000},
                          {"1.5 kb", 1500},
                          {"1GiB", 1ULL << 30},
                          {"2 k", 2000},
                          {"1000.0 PB", 1'000'000'000'000'000'000}}) {
    EXPECT_EQ(parse_byte_size(one.text), one.bytes) << one.text;
  }
  for (const char* bad : {"", "x", "-1", "1.2.3", "1 parsec", "MB", "99999999 PB"})
    EXPECT_FALSE(parse_byte_size(bad)) << bad;
  EXPECT_EQ(byte_size_text(1'500'000), "1.5 MB");
  EXPECT_EQ(byte_size_text(1'000'000'000'000'000'000), "1000.0 PB");
  for (std::uint64_t bytes : {1ULL, 999ULL, 1000ULL, 4096ULL, 123456789ULL, 1ULL << 40})
    EXPECT_EQ(parse_byte_size(byte_size_text(bytes)), bytes);
}

TEST_F(Namespaces, AreCreatedOnceAndDropped) {
  Response made = ask("POST", "/v1/namespaces/shop%2Forders/create", "{}");
  EXPECT_EQ(made.status, 200);
  EXPECT_EQ(made.body, "");
  query("shop/orders", "CREATE TABLE t(v)");
  EXPECT_THAT(post("/v1/namespaces/shop%2Forders/create", "{}", 400),
              HasSubstr("{\"error\":\"Namespace `shop/orders` already exists\""));
  Response dropped = ask("DELETE", "/v1/namespaces/shop%2Forders");
  EXPECT_EQ(dropped.status, 200);
  EXPECT_EQ(dropped.body, "");
  for (const char* body : {"", R"({"keep_backup":false})"}) {
    Response gone = ask("DELETE", "/v1/namespaces/shop%2Forders", body);
    EXPECT_EQ(gone.status, 404);
    EXPECT_THAT(gone.body, HasSubstr("{\"error\":\"Namespace `shop/orders` doesn't exist\""));
  }
}

TEST_F(Namespaces, WhatIsNotSupportedIsRefusedAndNothingMade) {
  for (const char* field :
       {R"("dump_url":"http://dumps.example.com/a.sql")", R"("dump_url":"file:///a.sql")",
        R"("heartbeat_url":"http://x.example.com")", R"("bottomless_db_id":"x")",
        R"("jwt_key":"x")", R"("shared_schema":true)", R"("shared_schema_name":"x")",
        R"("allow_attach":true)", R"("colour":"red")", R"("max_db_size":0)"}) {
    std::string name = between(field, "\"", "\"");
    EXPECT_THAT(post("/v1/namespaces/a/create", "{" + std::string(field) + "}", 400),
                HasSubstr(name))
        << field;
  }
  for (const char* field : {R"("max_db_size":"many")", R"("max_db_size":-1)", R"("block_writes":1)",
                            R"("block_reason":7)"})
    post("/v1/namespaces/a/create", "{" + std::string(field) + "}", 422);
  post("/v1/namespaces/a/create", "[", 400);
  get("/v1/databases/a", 404);
  post(
      "/v1/namespaces/a/create",
      R"({"txn_timeout_s":5,"max_row_size":1000,"durability_mode":"relaxed","shared_schema":false,)"
      R"("dump_url":null,"allow_attach":false,"max_db_size":"10MB","block_writes":true,)"
      R"("block_reason":"unpaid"})");
  EXPECT_THAT(get("/v1/databases/a"), HasSubstr(R"("size_bytes_max":10000000,)"));
  EXPECT_THAT(query("a", "CREATE TABLE t(v)", 403), HasSubstr("unpaid"));
  EXPECT_EQ(ask("DELETE", "/v1/namespaces/a", R"({"keep_backup":true})").status, 400);
  get("/v1/databases/a");
}

TEST_F(Namespaces, ConfigurationGoesThereAndBack) {
  create("a");
  std::string fresh = get("/v1/namespaces/a/config");
  EXPECT_EQ(fresh,
            "{\"block_reads\":false,\"block_writes\":false,\"block_reason\":null,"
            "\"max_db_size\":\"1000.0 PB\",\"heartbeat_url\":null,\"jwt_key\":null,"
            "\"allow_attach\":false,\"txn_timeout_s\":null,\"durability_mode\":\"strong\"}\n");
  EXPECT_EQ(post("/v1/namespaces/a/config", fresh), "");
  EXPECT_THAT(get("/v1/databases/a"), Not(HasSubstr("limits")));
  EXPECT_EQ(ask("PATCH", "/v1/databases/a", R"({"limits":{"rows_max":7}})").status, 200);
  post("/v1/namespaces/a/config",
       R"({"block_reads":true,"block_writes":true,"block_reason":"moved","max_db_size":4097})");
  EXPECT_THAT(query("a", "SELECT 1", 403), HasSubstr("moved"));
  std::string set = get("/v1/namespaces/a/config");
  EXPECT_THAT(set, HasSubstr("\"block_reason\":\"moved\",\"max_db_size\":\"4097 B\""));
  // The size stays when it is not named, a reason does not; limits with no name there stay.
  post("/v1/namespaces/a/config", R"({"block_reads":false,"block_writes":false})");
  EXPECT_THAT(get("/v1/databases/a"),
              HasSubstr(R"("limits":{"size_bytes_max":4097,"statement_ms_max":0,"rows_max":7,)"
                        R"("writes_blocked":false,"reads_blocked":false,"block_reason":"")"));
  EXPECT_THAT(post("/v1/namespaces/a/config", R"({"block_reads":false})", 422),
              HasSubstr("missing field `block_writes`"));
  post("/v1/namespaces/none/config", fresh, 404);
  get("/v1/namespaces/none/config", 404);
}

TEST_F(Namespaces, AForkIsACopyWithItsLimits) {
  post("/v1/namespaces/a/create", R"({"max_db_size":"10MB"})");
  query("a", "CREATE TABLE t AS SELECT 7 AS v");
  EXPECT_EQ(post("/v1/namespaces/a/fork/b%2Fc", ""), "");
  EXPECT_THAT(query("b/c", "SELECT v FROM t"), HasSubstr("[[7]]"));
  EXPECT_THAT(get("/v1/namespaces/b%2Fc/config"), HasSubstr("\"10.0 MB\""));
  query("a", "DROP TABLE t");
  EXPECT_THAT(query("b/c", "SELECT v FROM t"), HasSubstr("[[7]]"));
  EXPECT_THAT(post("/v1/namespaces/a/fork/b%2Fc", "{}", 400), HasSubstr("`b/c` already exists"));
  EXPECT_THAT(post("/v1/namespaces/none/fork/d", "", 404), HasSubstr("`none` doesn't exist"));
  EXPECT_THAT(post("/v1/namespaces/a/fork/d", R"({"timestamp":"2026-01-01"})", 400),
              HasSubstr("timestamp must be"));
  EXPECT_THAT(post("/v1/namespaces/a/fork/d", R"({"timestamp":"2026-01-01T00:00:00"})", 404),
              HasSubstr("no content at 2026-01-01T00:00:00.000Z"));
  get("/v1/databases/d", 404);
}

TEST_F(Namespaces, CheckpointBringsEverythingIntoTheFile) {
  options.checkpoint_frames = 1'000'000;
  close();
  open();
  create("a");
  query("a", "CREATE TABLE t AS SELECT 1 AS v");
  std::string file;
  for (const auto& entry : std::filesystem::directory_iterator(directory + "/data/databases")) {
    std::string path = entry.path().string();
    if (path.ends_with("1.db")) file = path;
  }
  auto before = std::filesystem::file_size(file);
  EXPECT_EQ(post("/v1/namespaces/a/checkpoint", ""), "");
  EXPECT_GT(std::filesystem::file_size(file), before);
  EXPECT_THAT(query("a", "SELECT v FROM t"), HasSubstr("[[1]]"));
  EXPECT_EQ(post("/v1/namespaces/a/checkpoint", ""), "");
  post("/v1/namespaces/none/checkpoint", "", 404);
}

TEST_F(Namespaces, StatsCount) {
  create("a");
  query("a", "CREATE TABLE t(v)");
  query("a", "INSERT INTO t VALUES (1),(2),(3)");
  query("a", "SELECT v FROM t");
  std::string stats = get("/v1/namespaces/a/stats");
  for (const char* field :
       {"\"id\":\"", "\"rows_written_count\":3,", "\"storage_bytes_used\":8192,",
        "\"write_requests_delegated\":0,", "\"replication_index\":2,", "\"query_count\":3,",
        "\"top_queries\":[{\"rows_written\":0,\"rows_read\":", "\"query\":\"SELECT v FROM t\"",
        "\"slowest_queries\":[{\"rows_written\":", "\"elapsed_ms\":",
        "\"embedded_replica_frames_replicated\":0,", "\"queries\":null}"})
    EXPECT_THAT(stats, HasSubstr(field));
  get("/v1/namespaces/none/stats", 404);
}

TEST_F(Namespaces, OtherAddressesAnswerNothing) {
  create("a");
  for (const char* target :
       {"/v1/namespaces", "/v1/namespaces/a/b/config", "/v1/namespaces/a/fork",
        "/v1/namespaces/a/fork/b/c", "/v1/namespaces/a/unknown", "/v1/namespaces/a/stats/top"})
    get(target, 404);
  get("/v1/namespaces/A/config", 400);
  get("/v1/namespaces/a", 405);
  get("/v1/namespaces/a/create", 405);
  EXPECT_EQ(ask("DELETE", "/v1/namespaces/a/config").status, 405);
  EXPECT_EQ(ask("POST", "/v1/namespaces/a/stats").status, 405);
}

class NamespaceRights : public TokenRoutesTest {};

TEST_F(NamespaceRights, AreThoseOfTheDatabases) {
  std::string reader = issuer.acl(R"({"db":"*","a":["data_read"]})");
  EXPECT_EQ(ask_as(reader, "GET", "/v1/namespaces/shop%2Forders/config").status, 200);
  EXPECT_EQ(ask_as(reader, "GET", "/v1/namespaces/shop%2Forders/stats").status, 200);
  std::string config = R"({"block_reads":false,"block_writes":false})";
  for (const char* target :
       {"/v1/namespaces/shop%2Forders/config", "/v1/namespaces/shop%2Forders/checkpoint",
        "/v1/namespaces/shop%2Fnew/create", "/v1/namespaces/shop%2Forders/fork/shop%2Fnew"}) {
    EXPECT_EQ(ask_as(reader, "POST", target, config).status, 403) << target;
  }
  EXPECT_EQ(ask_as(reader, "DELETE", "/v1/namespaces/shop%2Forders").status, 403);
  EXPECT_EQ(ask_as(shop, "POST", "/v1/namespaces/shop%2Forders/fork/shop%2Fnew").status, 200);
  // Neither into somebody else's names nor out of them.
  EXPECT_EQ(ask_as(shop, "POST", "/v1/namespaces/shop%2Forders/fork/bank%2Fnew").status, 403);
  EXPECT_EQ(ask_as(shop, "POST", "/v1/namespaces/bank%2Faccounts/fork/shop%2Fb").status, 403);
  EXPECT_EQ(ask_as(shop, "GET", "/v1/namespaces/bank%2Faccounts/stats").status, 403);
  std::string maker = issuer.acl(R"({"db":"shop/*","a":["admin"]})");
  EXPECT_EQ(ask_as(maker, "POST", "/v1/namespaces/shop%2Forders/fork/shop%2Fb").status, 403);
  EXPECT_EQ(ask_as(maker, "GET", "/v1/namespaces/shop%2Forders/stats").status, 403);
  EXPECT_EQ(ask_as(admin, "POST", "/v1/namespaces/bank%2Fnew/create", "{}").status, 200);
}

}  // namespace
}  // namespace offprint::server::testing
