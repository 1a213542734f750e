#include "bench/writer.h"

#include <array>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/figures.h"
#include "bench/floors.h"

namespace offprint::bench {
namespace {

double own_cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

Written write_in_this_process(const WriterOptions& options) {
  auto db = open_own_file(options.file, options.synchronous);
  auto insert = db.prepare("INSERT INTO t(name, n) VALUES('name of a row', ?1)").value();
  std::vector<double> took_us;
  took_us.reserve(1 << 20);
  const double cpu = own_cpu_seconds();
  const auto start = Clock::now();
  for (std::int64_t i = 0; seconds_since(start) < options.seconds; ++i) {
    auto due = Clock::now();
    if (options.per_second > 0) {
      due = start + std::chrono::duration_cast<Clock::duration>(
                        std::chrono::duration<double>(static_cast<double>(i) / options.per_second));
      std::this_thread::sleep_until(due);
    }
    insert.bind(1, i);
    check(insert.run());
    took_us.push_back(seconds_since(due) * 1e6);
  }
  Written written;
  const auto commits = static_cast<double>(took_us.size());
  written.commits = commits;
  written.per_second = commits / seconds_since(start);
  written.cpu_us = (own_cpu_seconds() - cpu) / commits * 1e6;
  written.p50_us = median(took_us);
  written.p99_us = quantile(took_us, 0.99);
  return written;
}

}  // namespace

sqlite::Connection open_own_file(const std::string& file, const char* synchronous) {
  sqlite::Connection::Options options;
  options.create = true;
  options.busy_timeout_ms = 10'000;
  auto db = sqlite::Connection::open(file, options).value();
  check(db.execute(fmt::format("PRAGMA journal_mode=WAL; PRAGMA synchronous={}; CREATE TABLE IF "
                               "NOT EXISTS t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)",
                               synchronous)
                       .c_str()));
  return db;
}

Written write_own_file(const WriterOptions& options) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) std::exit(1);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    const Written written = write_in_this_process(options);
    const bool told = ::write(ends[1], &written, sizeof written) == sizeof written;
    ::_exit(told ? 0 : 1);
  }
  ::close(ends[1]);
  Written written;
  const bool told = ::read(ends[0], &written, sizeof written) == sizeof written;
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (told && status == 0) return written;
  fmt::print(stderr, "the program that writes {} failed\n", options.file);
  std::exit(1);
}

double default_mib() {
  const char* mib = std::getenv("OFFPRINT_BENCH_MIB");
  return mib == nullptr ? 256 : std::atof(mib);
}

void make_database(const std::string& file, double bytes) {
  auto db = open_own_file(file, "OFF");
  constexpr double kRowBytes = 200;
  const auto rows = static_cast<std::int64_t>(bytes / kRowBytes);
  check(db.execute(
      fmt::format("INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
                  "WHERE i < {}) SELECT i, 'name of the row ' || i || ' ' || hex(randomblob(70)) "
                  "|| ' and what follows it', i FROM c; PRAGMA wal_checkpoint(TRUNCATE)",
                  rows)
          .c_str()));
}

}  // namespace offprint::bench
