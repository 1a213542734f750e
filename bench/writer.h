#pragma once

#include <string>

#include "sqlite/connection.h"

namespace offprint::bench {

// A program that writes its own SQLite file: one row each commit, WAL, with a busy timeout. It is a
// process of its own, so what it costs is its own.
struct WriterOptions {
  std::string file;  // made, with its table, where it is not there
  const char* synchronous = "NORMAL";
  double per_second = 0;  // commits, evenly; 0: one after the other
  double seconds = 1;
};
struct Written {
  double commits = 0;
  double per_second = 0;
  double cpu_us = 0;              // its own CPU for each commit
  double p50_us = 0, p99_us = 0;  // of a commit: from when it was due, at a rate
};
Written write_own_file(const WriterOptions& options);

// A connection of this process to such a file.
sqlite::Connection open_own_file(const std::string& file, const char* synchronous);

// How large a database is to be where one of some size is measured: OFFPRINT_BENCH_MIB, else 256.
double default_mib();

// A file with a table t(id, name, n) of `bytes` bytes about, whose pages neither repeat nor are
// pure noise. WAL mode, closed.
void make_database(const std::string& file, double bytes);

}  // namespace offprint::bench
