// Requests with an Idempotency-Key happen once, however often the server is killed and they are
// sent: docs/protocol/http.md, "Once only".
//
// Clients count: each request adds one and answers the sum, so what they are told must be 1, 2, 3 …
// without a gap and nothing twice. OFFPRINT_TEST_ROUNDS says how often the server is killed,
// OFFPRINT_TEST_SEED repeats a run.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

constexpr int kClients = 8;

struct Form {
  const char* path;
  const char* before;
  const char* after;
  const char* answers_after;  // what stands before the sum in an answer
};
constexpr Form kForms[] = {
    {"/db/c/query", R"({"sql":")", R"("})", R"("rows":[[)"},
    {"/db/c/query", R"(["UPDATE c SET m=m+1",")", R"("])", R"("rows":[[)"},
    {"/db/c/v2/pipeline",
     R"({"requests":[{"type":"execute","stmt":{"sql":"UPDATE c SET m=m+1"}},)"
     R"({"type":"execute","stmt":{"sql":")",
     R"("}},{"type":"close"}]})", R"("rows":[[{"type":"integer","value":")"},
    {"/db/c/v1/execute", R"({"stmt":{"sql":")", R"("}})",
     R"("rows":[[{"type":"integer","value":")"},
};

class Counter {
 public:
  Counter(int number, std::uint16_t port, std::uint64_t seed)
      : number_(number), random_(seed), connection_(port, 10) {}

  void run(const std::atomic<bool>& stop) {
    for (int i = 0; !stop; ++i) {
      const Form& form = kForms[random_() % std::size(kForms)];
      const std::string key = fmt::format("{}-{}", number_, i);
      const std::string body =
          std::string(form.before) + "UPDATE c SET n=n+1 RETURNING n" + form.after;
      const std::string answer = until_answered(form.path, body, key);
      const std::size_t at = answer.find(form.answers_after);
      const std::int64_t sum =
          at == std::string::npos
              ? -1
              : std::strtoll(answer.c_str() + at + std::string(form.answers_after).size(), nullptr,
                             10);
      if (!told_.emplace(sum, key).second) surprise_ += fmt::format("{} twice; ", sum);
      if (random_() % 5 == 0 && until_answered(form.path, body, key) != answer)
        surprise_ += key + " was answered in two ways; ";
    }
  }
  const std::map<std::int64_t, std::string>& told() const { return told_; }
  const std::string& surprise() const { return surprise_; }
  int repeated() const { return repeated_; }

 private:
  std::string until_answered(const std::string& path, const std::string& body,
                             const std::string& key) {
    for (;;) {
      auto answer = connection_.request("POST", path, body, "Idempotency-Key: " + key + "\r\n");
      if (answer && answer->status == 200) return answer->body;
      if (answer && answer->status != 503) surprise_ += answer->body;
      if (!connection_.refused()) ++repeated_;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  const int number_;
  std::mt19937_64 random_;
  HttpConnection connection_;
  std::map<std::int64_t, std::string> told_;
  std::string surprise_;
  int repeated_ = 0;
};

TEST(OnceTest, WhateverIsKilled) {
  TemporaryFolder folder;
  ServerProcess server(folder);
  ASSERT_TRUE(server.start());
  server.create("c");
  server.query("c", "CREATE TABLE c(n, m)");
  server.query("c", "INSERT INTO c VALUES(0, 0)");
  std::mt19937_64 random(test_seed());
  std::atomic<bool> stop = false;
  std::vector<std::unique_ptr<Counter>> counters;
  std::vector<std::thread> threads;
  for (int c = 0; c < kClients; ++c) {
    counters.push_back(std::make_unique<Counter>(c, server.port(), random()));
    threads.emplace_back([&stop, counter = counters.back().get()] { counter->run(stop); });
  }
  for (auto round = number_from_environment("OFFPRINT_TEST_ROUNDS", 6); round > 0; --round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50 + random() % 400));
    server.kill();
    ASSERT_TRUE(server.start());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  std::map<std::int64_t, std::string> told;
  int repeated = 0;
  for (const auto& counter : counters) {
    EXPECT_EQ(counter->surprise(), "");
    for (const auto& [sum, key] : counter->told())
      EXPECT_TRUE(told.emplace(sum, key).second) << sum << " was told twice: " << key;
    repeated += counter->repeated();
  }
  ASSERT_FALSE(told.empty());
  fmt::print("{} requests, {} of them sent again without an answer\n", told.size(), repeated);
  EXPECT_GT(repeated, 0);
  EXPECT_EQ(told.begin()->first, 1);
  EXPECT_EQ(told.rbegin()->first, static_cast<std::int64_t>(told.size()));
  EXPECT_EQ(server.query("c", "SELECT n FROM c"), fmt::format("[[{}]]", told.size()));
}

}  // namespace
}  // namespace offprint::testing
