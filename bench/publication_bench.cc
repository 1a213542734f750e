// Publications: what a changed row costs, with one instance and with many; how soon a commit is in
// a consumer's file; what the source's writer notices. Usage: publication_bench [FOLDER]
// [TRANSACTIONS] [TENANTS]
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "bench/figures.h"
#include "bench/floors.h"
#include "bench/processes.h"

namespace {

using namespace offprint;
using namespace offprint::bench;

constexpr int kRowsOfOne = 100;  // a transaction changes those of one tenant

class Source {
 public:
  Source(Server& server, int tenants) : server_(server), tenants_(tenants) {
    http().post("/v1/databases", R"({"name":"a"})");
    sql("CREATE TABLE t(id INTEGER PRIMARY KEY, tenant INT, n INT, filler TEXT)");
    sql("CREATE TABLE u(id INTEGER PRIMARY KEY, tenant INT, n INT, filler TEXT)");
    for (const char* table : {"t", "u"}) {
      sql(
          fmt::format("WITH RECURSIVE r(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM r WHERE i<{}) "
                      "INSERT INTO {} SELECT i, i/{}, 0, printf('%080d', i) FROM r",
                      tenants * kRowsOfOne - 1, table, kRowsOfOne));
      sql(fmt::format("CREATE INDEX {0}_tenant ON {0}(tenant)",
                      table));  // an instance is made by it
    }
    http().post("/v1/databases/a/publications",
                R"({"definition":"CREATE PUBLICATION p(tenant INTEGER) AS )"
                R"(TABLE t(id, n, filler) WHERE tenant = :tenant"})");
  }
  Http& http() { return server_.http(); }
  void sql(const std::string& text) { http().sql("a", text); }
  void open(int tenant) { (void)http().get(fmt::format("/db/a/pub/p@v1?tenant={}", tenant)); }
  // Until the instances are at the source's newest state.
  void settle() {
    for (const auto start = Clock::now(); seconds_since(start) < 60;) {
      const std::string state = text_after(http().get("/v1/databases/a"), "\"bookmark\":\"");
      const std::string there =
          text_after(http().get("/v1/databases/a/publications"), "\"source\":\"");
      if (there.empty() || there == state) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    fmt::print(stderr, "the instances do not get there\n");
    std::exit(1);
  }
  // Microseconds of the server's CPU for a changed row, all that follows from it included.
  double cost(const std::string& table, int transactions) {
    settle();
    const double before = cpu_seconds(server_.pid());
    for (int i = 0; i < transactions; ++i) {
      const int tenant = i % tenants_;
      sql(fmt::format("UPDATE {} SET n = n + 1 WHERE id BETWEEN {} AND {}", table,
                      tenant * kRowsOfOne, tenant * kRowsOfOne + kRowsOfOne - 1));
    }
    settle();
    return (cpu_seconds(server_.pid()) - before) * 1e6 / transactions / kRowsOfOne;
  }
  // Single rows, one transaction after the other: milliseconds of each.
  std::vector<double> writes(int count) {
    std::vector<double> took;
    for (int i = 0; i < count; ++i) {
      const auto begin = Clock::now();
      sql(fmt::format("UPDATE t SET n = n + 1 WHERE id = {}", i % kRowsOfOne));
      took.push_back(seconds_since(begin) * 1e3);
    }
    return took;
  }

 private:
  static std::string text_after(const std::string& text, const std::string& key) {
    const std::size_t at = text.find(key);
    if (at == std::string::npos) return "";
    const std::size_t from = at + key.size();
    return text.substr(from, text.find('"', from) - from);
  }

  Server& server_;
  const int tenants_;
};

// From the request that writes until a program with the file open sees it.
std::vector<double> until_in_file(Source& source, const std::string& file, int count) {
  sqlite::Connection::Options options;
  options.read_only = true;
  auto reader = sqlite::Connection::open(file, options).value();
  auto select = reader.prepare("SELECT n FROM t WHERE id = 5").value();
  auto value = [&] {
    auto row = select.step();
    const std::int64_t n = row && *row ? select.column_int(0) : -1;
    select.reset();
    return n;
  };
  std::vector<double> took;
  for (int i = 0; i < count; ++i) {
    const std::int64_t before = value();
    source.sql("UPDATE t SET n = n + 1 WHERE id = 5");
    const auto committed = Clock::now();
    while (value() == before) {
      if (seconds_since(committed) > 20) {
        fmt::print(stderr, "a commit does not get into the file\n");
        std::exit(1);
      }
    }
    took.push_back(seconds_since(committed) * 1e3);
  }
  return took;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string folder = std::filesystem::absolute(argc > 1 ? argv[1] : "publication-bench");
  const int transactions = argc > 2 ? std::atoi(argv[2]) : 300;
  const int tenants = argc > 3 ? std::atoi(argv[3]) : 1'000;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  Server server(folder, "server");
  Source source(server, tenants);
  source.cost("t", 50);
  const double bare = source.cost("t", transactions);
  const double bare_other = source.cost("u", transactions);
  fmt::print("CPU for a changed row, without instances: {:.1f} us\n", bare);
  const std::vector<double> alone = source.writes(500);  // just before: the rest is the same
  source.open(0);
  const std::vector<double> beside = source.writes(500);
  fmt::print("writes of one row: {}; beside an instance that has it: {} (median {:.2f} x)\n",
             latencies(alone), latencies(beside), median(beside) / median(alone));
  const double outside = source.cost("u", transactions);
  fmt::print("more for a row of a table that is not published: {:.1f} us\n", outside - bare_other);
  fmt::print("more for a row of another tenant, mostly: {:.1f} us\n",
             source.cost("t", transactions) - bare);
  {
    const std::string file = folder + "/copy.db";
    Child follower({program(), "follow", server.url() + "/db/a/pub/p@v1?tenant=0", file},
                   folder + "/follow.log");
    for (const auto start = Clock::now();
         !std::filesystem::exists(file) && seconds_since(start) < 20;)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    until_in_file(source, file, 20);
    fmt::print("from a commit of the source to a consumer's file: {}\n",
               latencies(until_in_file(source, file, 300)));
  }
  const auto begin = Clock::now();
  for (int i = 1; i < tenants; ++i) source.open(i);
  fmt::print("{} instances made in {:.1f} s\n", tenants, seconds_since(begin));
  source.cost("t", transactions / 3);
  fmt::print("more for a row, each in one of {} instances: {:.1f} us\n", tenants,
             source.cost("t", transactions) - bare);
  fmt::print("more for a row of a table that is not published: {:.1f} us\n",
             source.cost("u", transactions) - bare_other);
  fmt::print("memory: {:.0f} MiB\n", memory_mib(server.pid()));
}
