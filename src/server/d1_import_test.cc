// D1's import: init, upload, ingest, poll. docs/protocol/d1.md, "Import".
#include <thread>

#include <gtest/gtest.h>

#include <openssl/evp.h>

#include "server/signed_target.h"
#include "server/store_testing.h"

namespace offprint::server {
namespace {

using testing::between;

std::string md5(const std::string& text) {
  std::uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), digest, &size, EVP_md5(), nullptr);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    hex += "0123456789abcdef"[digest[i] >> 4];
    hex += "0123456789abcdef"[digest[i] & 15];
  }
  return hex;
}

class D1Import : public testing::RoutesTest {
 protected:
  void SetUp() override {
    RoutesTest::SetUp();
    create("d");
  }
  std::string import(const std::string& body, int status = 200) {
    auto client = send("POST", "/client/v4/accounts/a/d1/database/d/import", body);
    Response response = client->wait();
    EXPECT_EQ(response.status, status) << response.body;
    return testing::read_all(response, client);
  }
  std::string act(const std::string& action, const std::string& etag, int status = 200) {
    return import(R"_({"action":")_" + action + R"_(","etag":")_" + etag + R"_("})_", status);
  }
  // The path of the address to upload to.
  std::string upload_target(const std::string& etag) {
    std::string answer = act("init", etag);
    EXPECT_NE(answer.find(etag + ".sql"), std::string::npos) << answer;
    return between(answer, "\"upload_url\":\"http://x", "\"");
  }
  void upload(const std::string& script) {
    Response response = ask("PUT", upload_target(md5(script)), script);
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(between(response.headers, "ETag: \"", "\"\r\n"), md5(script));
  }
  // The last answer about an import that `answer` tells of.
  std::string wait_for_end(std::string answer) {
    auto deadline = SteadyClock::now() + std::chrono::seconds(20);
    while (answer.find("\"status\":\"active\"") != std::string::npos) {
      if (SteadyClock::now() > deadline) {
        ADD_FAILURE() << answer;
        break;
      }
      std::string bookmark = between(answer, "\"at_bookmark\":\"", "\"");
      answer = import(R"_({"action":"poll","current_bookmark":")_" + bookmark + R"_("})_");
    }
    return answer;
  }
  std::string run(const std::string& script) {
    upload(script);
    return wait_for_end(act("ingest", md5(script)));
  }
  std::string count(const std::string& table) {
    return between(post("/db/d/query", "{\"sql\":\"SELECT count(*) FROM " + table + "\"}"),
                   "\"rows\":[[", "]]");
  }
  std::string bookmark() {
    return store->info(*database::DatabaseName::parse("d"))->bookmark.text();
  }
  // A helper thread may hold a file a moment longer than its upload lasts.
  void expect_spooled(std::size_t expected) {
    auto deadline = SteadyClock::now() + std::chrono::seconds(20);
    for (;;) {
      std::size_t count = 0;
      for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        if (entry.path().filename().string().starts_with("upload-")) ++count;
      }
      if (count == expected) return;
      if (SteadyClock::now() > deadline) {
        ADD_FAILURE() << count << " files, not " << expected;
        return;
      }
      std::this_thread::yield();
    }
  }
};

TEST_F(D1Import, AScriptFromInitToTheEnd) {
  std::string before = bookmark();
  std::string done =
      run("CREATE TABLE t(v);\nINSERT INTO t VALUES (1), ('a;b');\nINSERT INTO t VALUES (3);\n");
  EXPECT_NE(
      done.find(R"_("type":"import","at_bookmark":")_" + before + "\",\"status\":\"complete\""),
      std::string::npos)
      << done;
  EXPECT_NE(done.find(R"_("result":{"final_bookmark":")_" + bookmark() +
                      "\",\"num_queries\":3,\"meta\":{"),
            std::string::npos)
      << done;
  EXPECT_NE(done.find("\"changed_db\":true,\"size_after\":8192"), std::string::npos) << done;
  EXPECT_EQ(count("t"), "3");
  expect_spooled(0u);
  // The same again is another import, as somebody asked for it; the database has content now.
  std::string again = run("INSERT INTO t VALUES (4);");
  EXPECT_NE(again.find("\"complete\""), std::string::npos) << again;
  EXPECT_EQ(count("t"), "4");
}

TEST_F(D1Import, AFailureLeavesNothing) {
  run("CREATE TABLE t(v PRIMARY KEY);");
  std::string before = bookmark();
  std::string failed = run("INSERT INTO t VALUES (1);\nINSERT INTO t VALUES (1);\n");
  EXPECT_NE(failed.find("\"status\":\"error\",\"errors\":[\""), std::string::npos) << failed;
  EXPECT_NE(failed.find("UNIQUE constraint failed: t.v"), std::string::npos) << failed;
  EXPECT_EQ(bookmark(), before);
  EXPECT_EQ(count("t"), "0");
  expect_spooled(0u);
  EXPECT_NE(run("CREATE TABL x(v);").find("syntax error"), std::string::npos);
}

TEST_F(D1Import, WhatWasDoneIsNotDoneAgain) {
  const std::string script = "CREATE TABLE t(v);";
  // Whoever lost the connection after the upload begins again: the file is there.
  upload(script);
  std::string resumed = wait_for_end(act("init", md5(script)));
  EXPECT_NE(resumed.find("\"complete\""), std::string::npos) << resumed;
  // Uploading twice replaces.
  const std::string next = "INSERT INTO t VALUES (1);";
  std::string target = upload_target(md5(next));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ask("PUT", target, next).status, 200);
  expect_spooled(1u);
  wait_for_end(act("ingest", md5(next)));
  EXPECT_EQ(count("t"), "1");
  // A repeated ingest of one that is over finds no file.
  EXPECT_NE(act("ingest", md5(next), 404).find("init again"), std::string::npos);
}

TEST_F(D1Import, Refusals) {
  const std::string script = "CREATE TABLE t(v);";
  std::string target = upload_target(md5(script));
  Response other = ask("PUT", target, "CREATE TABLE u(v);");
  EXPECT_EQ(other.status, 400) << other.body;
  EXPECT_EQ(ask("PUT", target.substr(0, target.find('?')), script).status, 403);
  std::string changed = target;
  changed.replace(changed.find(md5(script)), 32, md5("x"));
  EXPECT_EQ(ask("PUT", changed, "x").status, 403);
  EXPECT_EQ(ask("GET", target).status, 405);
  EXPECT_EQ(ask("PUT", target, "").status, 400);
  expect_spooled(0u);
  act("ingest", md5(script), 404);
  act("init", "short", 400);
  act("init", std::string(32, 'G'), 400);
  act("dance", md5(script), 400);
  import("{\"action\":\"poll\",\"current_bookmark\":\"x\"}", 404);
  for (const char* body : {"", "[]", "{}", "{\"action\":1}"}) import(body, 400);
  store->drop(*database::DatabaseName::parse("d")).value();
  EXPECT_EQ(ask("PUT", target, script).status, 404);
}

TEST_F(D1Import, UploadsThatNobodyUsesAreLimited) {
  for (std::size_t i = 0; i < d1::Imports::kKeptMax; ++i)
    upload("SELECT " + std::to_string(i) + ";");
  const std::string more = "SELECT 'one more';";
  Response refused = ask("PUT", upload_target(md5(more)), more);
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_NE(refused.headers.find("Retry-After"), std::string::npos);
  expect_spooled(d1::Imports::kKeptMax);
}

TEST_F(D1Import, CanBeCancelledAsAJob) {
  std::string script = "CREATE TABLE t(v);\n";
  for (int i = 0; i < 300'000; ++i) script += "INSERT INTO t VALUES (" + std::to_string(i) + ");\n";
  upload(script);
  std::string before = bookmark();
  auto client = send("POST", "/client/v4/accounts/a/d1/database/d/import",
                     R"_({"action":"ingest","etag":")_" + md5(script) + R"_("})_");
  Response response = client->wait();
  ASSERT_EQ(service->jobs.list().size(), 1u);
  EXPECT_TRUE(service->jobs.cancel(service->jobs.list().front().id));
  std::string ended = wait_for_end(testing::read_all(response, client));
  EXPECT_NE(ended.find("CANCELLED"), std::string::npos) << ended;
  EXPECT_EQ(bookmark(), before);
}

TEST_F(D1Import, AServerThatStopsBeginsNone) {
  const std::string script = "CREATE TABLE t(v);";
  upload(script);
  service->jobs.stop();
  std::string refused = act("ingest", md5(script));
  EXPECT_NE(refused.find("\"status\":\"error\""), std::string::npos) << refused;
  expect_spooled(0u);
}

}  // namespace
}  // namespace offprint::server
