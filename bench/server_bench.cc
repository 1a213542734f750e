// The whole path, with real processes on loopback: requests over HTTP, a follower's lag, reading a
// replica's file, idle databases, bytes on disk; each beside its baseline of the same run. Usage:
// server_bench [FOLDER] [SECONDS] (the program to measure: OFFPRINT_PROGRAM)
#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/figures.h"
#include "bench/floors.h"
#include "bench/processes.h"

namespace {

using namespace offprint;
using namespace offprint::bench;

// Of the device that a folder is on, by everybody. (A process's own write_bytes count whole folios,
// up to 2 MiB for one byte.)
double written_bytes(const std::string& folder) {
  struct stat status{};
  if (::stat(folder.c_str(), &status) != 0) return 0;
  std::string text = read_all(
      fmt::format("/sys/dev/block/{}:{}/stat", major(status.st_dev), minor(status.st_dev)));
  unsigned long long sectors = 0;
  std::sscanf(text.c_str(), "%*u %*u %*u %*u %*u %*u %llu", &sectors);
  return 512 * static_cast<double>(sectors);
}

void measure_requests(const std::string& url, double sqlite_floor, double seconds) {
  Measured empty = load(url, "empty", 64, seconds);
  fmt::print("empty request, 64 clients: {:7.0f}/s, p50 {:.0f} us, {:.1f} us of server CPU\n",
             empty.rate, empty.p50_us, empty.cpu_us);
  Measured empty_one = load(url, "empty", 1, seconds);
  for (int clients : {1, 64}) {
    Measured insert = load(url, "insert", clients, seconds);
    fmt::print(
        "durable insert, {:2} clients: {:7.0f}/s = {:.2f} x SQLite FULL in process, p50 {:.0f} us, "
        "p99 {:.0f} us, "
        "{:.1f} us of server CPU\n",
        clients, insert.rate, insert.rate / sqlite_floor, insert.p50_us, insert.p99_us,
        insert.cpu_us);
    if (clients == 1) {
      fmt::print("  one client: p50 is {:.2f} x (an empty request + SQLite's commit)\n",
                 insert.p50_us / (empty_one.p50_us + 1e6 / sqlite_floor));
    }
  }
  Measured batch = load(url, "batch", 16, seconds);
  fmt::print("100-row inserts, 16 clients: {:.0f} rows/s, {:.1f} us of server CPU a request\n",
             batch.rate * 100, batch.cpu_us);
  Measured read = load(url, "read", 64, seconds);
  fmt::print(
      "point select, 64 clients: {:7.0f}/s = {:.2f} x an empty request, p50 {:.0f} us, p99 {:.0f} "
      "us, {:.1f} us of "
      "server CPU\n",
      read.rate, read.rate / empty.rate, read.p50_us, read.p99_us, read.cpu_us);
}

// What the other protocols cost beside /query, and many databases beside one. Each figure is the
// median of some rounds, in which all take turns.
void measure_protocols(const std::string& url, double seconds) {
  constexpr int kRounds = 3;
  std::vector<double> plain, hrana, d1;
  for (int round = 0; round < kRounds; ++round) {
    plain.push_back(load(url, "read", 64, seconds, {"--api", "plain"}).cpu_us);
    hrana.push_back(load(url, "read", 64, seconds, {"--api", "hrana"}).cpu_us);
    d1.push_back(load(url, "read", 64, seconds, {"--api", "d1"}).cpu_us);
  }
  fmt::print(
      "server CPU of a point select: /query {:.1f} us, Hrana's /v2/pipeline {:.1f} us = {:.2f} x, "
      "D1's /query {:.1f} us = {:.2f} x\n",
      median(plain), median(hrana), median(hrana) / median(plain), median(d1),
      median(d1) / median(plain));
  const Measured many = load(url, "insert", 64, 2 * seconds, {"--databases", "1000"});
  fmt::print(
      "durable insert into 1,000 databases in turn, 64 clients: {:.0f}/s, p50 {:.0f} us, p99 "
      "{:.0f} us, {:.1f} us of server CPU\n",
      many.rate, many.p50_us, many.p99_us, many.cpu_us);
}

// Reads of a copy that carry a bookmark which it has reached, beside those that carry none.
void measure_copy(const std::string& primary, const std::string& folder, double seconds) {
  Server copy(folder, "copy", {"--follow", primary});
  std::vector<double> without, with, ratios;
  for (int round = 0; round < 5; ++round) {
    without.push_back(
        load(copy.url(), "read", 64, seconds, {"--api", "plain", "--primary", primary}).cpu_us);
    with.push_back(
        load(copy.url(), "read", 64, seconds, {"--api", "plain", "--primary", primary, "--session"})
            .cpu_us);
    ratios.push_back(with.back() / without.back());
  }
  fmt::print(
      "server CPU of a point select of a copy: {:.2f} us, with a bookmark that it has reached "
      "{:.2f} "
      "us = {:.3f} x\n",
      median(without), median(with), median(ratios));
}

// From the acknowledgement of a commit until a stock connection to the replica's file sees it.
void measure_lag(Http& http, const std::string& url, const std::string& folder) {
  http.post("/v1/databases", "{\"name\":\"lag\"}");
  http.sql("lag", "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)");
  http.sql("lag",
           "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < "
           "100000) "
           "SELECT i, 'name of a row', i FROM c");
  std::string file = folder + "/replica.db";
  Child follower({program(), "follow", url + "/db/lag", file, "--json"}, folder + "/follow.log");
  for (auto start = Clock::now();
       read_all(folder + "/follow.log").find("caught_up") == std::string::npos;) {
    if (seconds_since(start) > 60) std::exit(1);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  sqlite::Connection::Options options;
  options.read_only = true;
  auto reader = sqlite::Connection::open(file, options).value();
  auto select = reader.prepare("SELECT max(id) FROM t").value();
  std::vector<double> lags;
  for (std::int64_t i = 1; i <= 300; ++i) {
    http.sql("lag", "INSERT INTO t(name, n) VALUES('x', 1)");
    auto acknowledged = Clock::now();
    for (bool seen = false; !seen;) {
      auto row = select.step();
      seen = row && *row && select.column_int(0) >= 100'000 + i;
      select.reset();
      if (seconds_since(acknowledged) > 10) std::exit(1);
    }
    lags.push_back(seconds_since(acknowledged) * 1e3);
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
  std::sort(lags.begin(), lags.end());
  fmt::print(
      "acknowledged -> visible in a replica's file, idle: p50 {:.2f} ms, p90 {:.2f}, p99 {:.2f}\n",
      lags[150], lags[270], lags[297]);
  std::string plain = folder + "/plain-copy.db";
  check(reader.execute(fmt::format("VACUUM INTO '{}'", plain).c_str()));
  double replica_rate = point_select_rate(file, 100'000, 1);
  double plain_rate = point_select_rate(plain, 100'000, 1);
  fmt::print("point select in the replica's file: {:.0f}/s = {:.2f} x a plain SQLite file\n",
             replica_rate, replica_rate / plain_rate);
}

// What reaches the disk, checkpoints included, once the journal's segments are used again (each is
// filled with zeros when it is made). Means something where nobody else uses the disk.
void measure_bytes(const std::string& folder, double seconds) {
  Server server(folder, "bytes", {"--log-bytes-max", "1"});
  const std::string& url = server.url();
  Http& http = server.http();
  auto start = Clock::now();
  while (http.metric("journal_bytes_total") < 300e6 && seconds_since(start) < 90)
    load(url, "batch", 16, 1);
  for (int clients : {1, 64}) {
    double bytes = written_bytes(folder);
    double transactions = http.metric("requests_write_total");
    load(url, "insert", clients, 2 * seconds);
    fmt::print(
        "one-row commits, {:2} clients: {:.0f} bytes written to the disk each\n", clients,
        (written_bytes(folder) - bytes) / (http.metric("requests_write_total") - transactions));
  }
}

void measure_idle(const std::string& folder) {
  Server server(folder, "idle");
  Http& http = server.http();
  auto start = Clock::now();
  for (int i = 0; i < 1000; ++i) {
    http.post("/v1/databases", fmt::format("{{\"name\":\"d{}\"}}", i));
    http.sql(fmt::format("d{}", i), "CREATE TABLE t(a)");
  }
  double made = seconds_since(start);
  std::string process = fmt::format("/proc/{}", server.pid());
  auto descriptors = [&] {
    auto entries = std::filesystem::directory_iterator(process + "/fd");
    return std::distance(begin(entries), end(entries));
  };
  for (auto wait = Clock::now(); descriptors() > 40 && seconds_since(wait) < 60;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  std::this_thread::sleep_for(std::chrono::seconds(12));  // threads that have nothing to do end
  double before = cpu_seconds(server.pid());
  std::this_thread::sleep_for(std::chrono::seconds(5));
  fmt::print(
      "1,000 databases made and written in {:.1f} s; idle: {:.0f} MiB, {} descriptors, {:.1f} % of "
      "a core\n",
      made, memory_mib(server.pid()), descriptors(),
      (cpu_seconds(server.pid()) - before) / 5 * 100);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::string folder = argc > 1 ? argv[1] : "server-bench";
  double seconds = argc > 2 ? std::atof(argv[2]) : 2;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  double floor = fdatasync_rate(folder, 1);
  double plain = sqlite_rate(folder, seconds);
  fmt::print("baselines: fdatasync {:.0f}/s, SQLite in process, WAL and FULL {:.0f}/s\n", floor,
             plain);
  {
    Server server(folder, "data");
    measure_requests(server.url(), plain, seconds);
    measure_protocols(server.url(), seconds);
    measure_copy(server.url(), folder, seconds);
    measure_lag(server.http(), server.url(), folder);
  }
  measure_bytes(folder, seconds);
  measure_idle(folder);
  std::filesystem::remove_all(folder);
}
