// Reading what a database was: how long the first row takes and the ones after it, beside the same
// read of what it is. Usage: history_bench [FOLDER] [MIB of the database] [ROUNDS]
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/figures.h"
#include "bench/floors.h"
#include "bench/processes.h"
#include "bench/writer.h"

namespace {

using namespace offprint;
using namespace offprint::bench;

std::string bookmark_of(Http& http) {
  const std::string answer = http.sql("big", "SELECT 1");
  const std::string key = "\"bookmark\":\"";
  const std::size_t at = answer.find(key);
  if (at == std::string::npos) {
    fmt::print(stderr, "no bookmark: {}\n", answer);
    std::exit(1);
  }
  const std::size_t from = at + key.size();
  return answer.substr(from, answer.find('"', from) - from);
}

double took_ms(Http& http, const std::string& sql, const std::string& at) {
  const auto start = Clock::now();
  std::vector<std::string> headers;
  if (!at.empty()) headers.push_back("Offprint-At: " + at);
  http.sql("big", sql, std::move(headers));
  return seconds_since(start) * 1e3;
}

// A moment, what it is called, and how many transactions came after it.
struct Moment {
  std::string name, bookmark;
};

// Of a bookmark, as far as a benchmark goes.
std::uint64_t txid_of(const std::string& bookmark) {
  return std::strtoull(bookmark.substr(18, 8).c_str(), nullptr, 16);
}

// One after the other, each a transaction of its own; a little more than that.
void commit_some(Server& server, std::uint64_t transactions) {
  const std::uint64_t before = txid_of(bookmark_of(server.http()));
  while (txid_of(bookmark_of(server.http())) < before + transactions)
    load(server.url(), "insert", 1, 0.2, {"--database", "big"});
}

// Small transactions that each change some pages here and there.
void update_some(Http& http, int transactions) {
  for (int i = 0; i < transactions; ++i) {
    http.sql("big",
             fmt::format("UPDATE t SET n = n + 1 WHERE id IN ({}, {}, {})", 1 + i * 7919 % 99'991,
                         1 + i * 104'729 % 99'991, 1 + i * 1'299'709 % 99'991));
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string folder = std::filesystem::absolute(argc > 1 ? argv[1] : "history-bench");
  const double mib = argc > 2 ? std::atof(argv[2]) : default_mib();
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 2;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const std::string source = folder + "/source.db";
  make_database(source, mib * (1 << 20));
  Server server(folder, "data");
  Http& http = server.http();
  run({program(), "db", "import", "big", source, "--server", server.url()}, folder + "/import.log");
  std::filesystem::remove(source);
  commit_some(server, 1);  // its table of rows to read is there
  std::vector<Moment> moments;
  moments.push_back({"20,000 inserts and 1,000 updates later", bookmark_of(http)});
  commit_some(server, 19'000);
  moments.push_back({"1,000 inserts and 1,000 updates later", bookmark_of(http)});
  commit_some(server, 1'000);
  moments.push_back({"1,000 updates later", bookmark_of(http)});
  update_some(http, 1'000);
  fmt::print("reading a database of {:.0f} MiB as it was, one row by its key:\n", mib);
  std::vector<double> now;
  for (int i = 0; i < 100; ++i)
    now.push_back(took_ms(http, fmt::format("SELECT name FROM t WHERE id = {}", 100 + i), ""));
  fmt::print("  as it is                                  {}\n", latencies(now));
  for (const Moment& moment : moments) {
    std::vector<double> first, later;
    for (int round = 0; round < rounds; ++round) {
      first.push_back(took_ms(http, "SELECT name FROM t WHERE id = 77", moment.bookmark));
      for (int i = 0; i < 30; ++i) {
        later.push_back(took_ms(http, fmt::format("SELECT name FROM t WHERE id = {}", 100 + i),
                                moment.bookmark));
      }
      // What is kept of that moment goes with the next commits and some time.
      std::this_thread::sleep_for(std::chrono::milliseconds(10'500));
    }
    fmt::print("  {:41} first {:.0f} ms, {:.2f} ms afterwards\n", moment.name, median(first),
               median(later));
  }
  fmt::print("  the server has {:.0f} MiB of memory\n", memory_mib(server.pid()));
  std::filesystem::remove_all(folder);
}
