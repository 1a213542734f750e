#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <fmt/format.h>

#include "base/file_system.h"
#include "sqlite/connection.h"

// What a machine can do without us: the baselines of a run.
namespace offprint::bench {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline void check(const Result<>& result) {
  if (result) return;
  fmt::print(stderr, "{}\n", result.error().message());
  std::exit(1);
}

// 4 KiB overwrites of a preallocated file, each with fdatasync, per second.
inline double fdatasync_rate(const std::string& folder, double seconds) {
  auto file = FileSystem::real().open(folder + "/floor", FileSystem::Mode::kCreate).value();
  Bytes block(4096, 1);
  for (int i = 0; i < 4096; ++i) check(file->write_at(static_cast<std::uint64_t>(i) * 4096, block));
  check(file->sync());
  auto start = Clock::now();
  std::uint64_t count = 0;
  for (; seconds_since(start) < seconds; ++count) {
    check(file->write_at(count % 4096 * 4096, block));
    check(file->sync());
  }
  return static_cast<double>(count) / seconds_since(start);
}

// Single-row commits of SQLite in process, WAL and synchronous=FULL, per second.
inline double sqlite_rate(const std::string& folder, double seconds) {
  sqlite::Connection::Options options;
  options.create = true;
  auto db = sqlite::Connection::open(folder + "/plain.db", options).value();
  check(
      db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
                 "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)"));
  auto insert = db.prepare("INSERT INTO t(name, n) VALUES('name of a row', ?1)").value();
  auto start = Clock::now();
  std::int64_t count = 0;
  for (; seconds_since(start) < seconds; ++count) {
    insert.bind(1, count);
    check(insert.run());
  }
  return static_cast<double>(count) / seconds_since(start);
}

// Point SELECTs by key with one prepared statement, per second, in the first `rows` rows of table
// t.
inline double point_select_rate(const std::string& path, std::int64_t rows, double seconds) {
  sqlite::Connection::Options options;
  options.read_only = true;
  auto db = sqlite::Connection::open(path, options).value();
  auto select = db.prepare("SELECT name, n FROM t WHERE id = ?1").value();
  auto start = Clock::now();
  std::int64_t count = 0;
  for (; seconds_since(start) < seconds; ++count) {
    select.bind(1, count * 7919 % rows + 1);
    check(select.run());
  }
  return static_cast<double>(count) / seconds_since(start);
}

}  // namespace offprint::bench
