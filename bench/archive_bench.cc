// The archive: how soon a commit is in it, what it costs those who write, how fast a database comes
// back from it; beside the disk, and beside stock Litestream where that does the same. Usage:
// archive_bench [FOLDER] [MIB of the database that is restored] [ROUNDS]
#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/archive_watch.h"
#include "bench/figures.h"
#include "bench/floors.h"
#include "bench/litestream.h"
#include "bench/processes.h"
#include "bench/writer.h"

namespace {

using namespace offprint;
using namespace offprint::bench;

constexpr double kMib = 1 << 20;
constexpr char kInsert[] = "INSERT INTO t(name, n) VALUES('name of a row', 1)";
constexpr char kTable[] = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)";

// --- how soon a commit is there -----------------------------------------------------------------

// Somebody who commits, and the folder where it has to appear.
struct Path {
  std::string name;
  std::function<void()> commit;
  std::unique_ptr<ArchiveWatch> watch;
  std::vector<double> lags_ms;
};

// One commit at a time, at moments that have nothing to do with the archive's.
void measure_path(Path& path, int count, double pause_ms, unsigned seed) {
  std::minstd_rand random(seed);
  std::uniform_real_distribution<double> pause(0, pause_ms);
  for (int i = 0; i < count; ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(pause(random)));
    path.watch->drain();
    const std::uint64_t before = path.watch->newest();
    path.commit();
    const auto committed = Clock::now();
    const auto there = path.watch->wait_beyond(before);
    path.lags_ms.push_back(std::chrono::duration<double, std::milli>(there - committed).count());
  }
}

void measure_paths(std::vector<Path>& paths, int count, double pause_ms, bool together) {
  std::vector<std::thread> threads;
  unsigned seed = 1;
  for (Path& path : paths) {
    auto work = [&path, count, pause_ms, seed] { measure_path(path, count, pause_ms, seed); };
    ++seed;
    if (together) {
      threads.emplace_back(work);
    } else {
      work();
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (const Path& path : paths) fmt::print("  {:42}{}\n", path.name, latencies(path.lags_ms));
}

// `interval`: of the server's archive in ms, and of Litestream's settings; empty: the defaults.
void measure_lags(const std::string& folder, const std::optional<Litestream>& litestream,
                  const std::string& interval_ms, int count) {
  std::filesystem::create_directories(folder);
  const bool is_default = interval_ms.empty();
  auto tailed = open_own_file(folder + "/tailed.db", "FULL");
  std::vector<std::string> options = {"--archive", "file://" + folder + "/archive", "--tail",
                                      "tailed=" + folder + "/tailed.db"};
  if (!is_default) options.insert(options.end(), {"--archive-sync-ms", interval_ms});
  Server server(folder, "data", options);
  Http& http = server.http();
  http.post("/v1/databases", R"({"name":"hosted"})");
  http.sql("hosted", kTable);
  std::vector<Path> paths(2);
  paths[0] = {"Offprint, a hosted database:",
              [&] { http.sql("hosted", kInsert); },
              std::make_unique<ArchiveWatch>(folder + "/archive/hosted/ltx/0"),
              {}};
  paths[1] = {"Offprint, a program's own file:",
              [&] { check(tailed.execute(kInsert)); },
              std::make_unique<ArchiveWatch>(folder + "/archive/tailed/ltx/0"),
              {}};
  std::optional<sqlite::Connection> theirs;
  std::unique_ptr<Child> replicating;
  if (litestream) {
    theirs.emplace(open_own_file(folder + "/theirs.db", "FULL"));
    const std::string replicas = folder + "/replicas";
    replicating = std::make_unique<Child>(
        litestream->replicate({folder + "/theirs.db"}, replicas, is_default ? "" : "1ms"),
        folder + "/litestream.log");
    paths.push_back({fmt::format("Litestream, a program's own file{}:", is_default ? "" : ", 1 ms"),
                     [&] { check(theirs->execute(kInsert)); },
                     std::make_unique<ArchiveWatch>(replicas + "/theirs/ltx/0"),
                     {}});
  }
  measure_paths(paths, count, is_default ? 1'000 : 20, is_default);
  if (is_default) return;
  http.post("/v1/databases", R"({"name":"waiting","durability":"archive"})");
  http.sql("waiting", kTable);
  std::vector<double> took_ms;
  for (int i = 0; i < count; ++i) {
    const auto start = Clock::now();
    http.sql("waiting", kInsert);
    took_ms.push_back(seconds_since(start) * 1e3);
  }
  fmt::print("  a commit whose answer waits for the archive: {}\n", latencies(took_ms));
}

// --- what it costs ------------------------------------------------------------------------------

void measure_inserts(const std::string& folder, int rounds) {
  std::filesystem::create_directories(folder);
  Server without(folder, "without");
  Server with(folder, "with", {"--archive", "file://" + folder + "/archive"});
  for (int clients : {1, 64}) {
    std::vector<double> rates, costs, rate, cost;
    for (int round = 0; round < rounds; ++round) {
      const Measured alone = load(without.url(), "insert", clients, 2);
      const Measured archived = load(with.url(), "insert", clients, 2);
      rates.push_back(archived.rate / alone.rate);
      costs.push_back(archived.cpu_us / alone.cpu_us);
      rate.push_back(archived.rate);
      cost.push_back(archived.cpu_us);
    }
    fmt::print(
        "hosted inserts with an archive, {:2} clients: {:.0f}/s = {:.3f} x without, {:.1f} us of "
        "server CPU = {:.2f} x\n",
        clients, median(rate), median(rates), median(cost), median(costs));
  }
}

// --- restoring ----------------------------------------------------------------------------------

// Out of the page cache, so that they are read from the disk; nothing waits to be written, either.
void forget(const std::string& folder) {
  ::sync();
  const std::filesystem::recursive_directory_iterator files(folder);
  for (const auto& entry : files) {
    if (!entry.is_regular_file()) continue;
    const int file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    ::fdatasync(file);
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
  }
}

// `bytes` from `source` (or of no file) to a new file, in order and durable: MB/s.
double copy_rate(const std::string& source, const std::string& to, double bytes) {
  FileSystem& files = FileSystem::real();
  auto from = source.empty() ? nullptr : files.open(source, FileSystem::Mode::kRead).value();
  auto into = files.open(to, FileSystem::Mode::kCreate).value();
  Bytes piece(1 << 20, 0x5a);
  const auto start = Clock::now();
  double done = 0;
  for (std::uint64_t at = 0; done < bytes; at += piece.size()) {
    if (from && !from->read_at(at, piece)) std::exit(1);
    check(into->write_at(at, piece));
    done += static_cast<double>(piece.size());
  }
  check(into->sync());
  const double rate = done / 1e6 / seconds_since(start);
  into.reset();
  std::filesystem::remove(to);
  return rate;
}

void wait_for_archive(Http& http) {
  for (auto start = Clock::now(); http.metric("archive_databases_behind") > 0;) {
    if (seconds_since(start) > 300) {
      fmt::print(stderr, "the archive stays behind\n");
      std::exit(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// A database of that size in an archive, and then some thousand commits in some objects.
void fill_archive(const std::string& folder, const std::string& source, const std::string& url) {
  Server server(folder, "filled", {"--archive", url, "--archive-sync-ms", "200"});
  run({program(), "db", "import", "big", source, "--server", server.url()}, folder + "/import.log");
  wait_for_archive(server.http());
  load(server.url(), "insert", 4, 3, {"--database", "big"});
  wait_for_archive(server.http());
}

void measure_restores(const std::string& folder, const std::optional<Litestream>& litestream,
                      double mib, int rounds) {
  std::filesystem::create_directories(folder);
  const std::string source = folder + "/source.db", archive = folder + "/archive";
  make_database(source, mib * kMib);
  fill_archive(folder, source, "file://" + archive);
  const double bytes = size_of(source);
  std::vector<double> writes, copies, ours, theirs;
  const std::string out = folder + "/out.db";
  auto restore_rate = [&](const std::vector<std::string>& command) {
    forget(folder);
    const double rate = bytes / 1e6 / run(command, folder + "/restore.log");
    std::filesystem::remove(out);
    return rate;
  };
  for (int round = 0; round < rounds; ++round) {
    forget(folder);
    writes.push_back(copy_rate("", out, bytes));
    forget(folder);
    copies.push_back(copy_rate(source, out, bytes));
    ours.push_back(restore_rate({program(), "restore", "file://" + archive + "/big", out}));
    if (!litestream) continue;
    theirs.push_back(
        restore_rate({litestream->program, "restore", "-o", out, "file://" + archive + "/big"}));
  }
  const double disk = median(writes);
  fmt::print("restore of {:.0f} MB from a folder ({:.0f} MB), nothing of it in memory:\n",
             bytes / 1e6, size_of(archive + "/big") / 1e6);
  fmt::print("  the disk alone: writing {:.0f} MB/s, copying {:.0f} MB/s\n", disk, median(copies));
  fmt::print("  Offprint {:.0f} MB/s = {:.2f} x writing, {:.2f} x copying\n", median(ours),
             median(ours) / disk, median(ours) / median(copies));
  if (litestream) {
    fmt::print("  Litestream, of the same archive: {:.0f} MB/s; Offprint is {:.2f} x that\n",
               median(theirs), median(ours) / median(theirs));
  }
}

// versitygw, a stock S3 service that keeps objects in a folder: VERSITYGW names its program, else
// the one that `make test-interop` installed is taken. Nothing where there is none, which is said.
std::optional<std::string> find_gateway() {
  const char* named = std::getenv("VERSITYGW");
  std::string program = named == nullptr ? "build/tools/bin/versitygw" : named;
  if (::access(program.c_str(), X_OK) == 0) return program;
  fmt::print(
      "SKIPPED: NOTHING IS RESTORED FROM S3, {} CANNOT BE RUN (VERSITYGW=PROGRAM, or make "
      "test-interop installs it)\n",
      program);
  return std::nullopt;
}

std::uint16_t free_port() {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool found = ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(listener);
  if (!found) std::exit(1);
  return ntohs(address.sin_port);
}

// The largest of what is below a folder.
std::string largest_file(const std::string& folder) {
  std::string found;
  double bytes = -1;
  const std::filesystem::recursive_directory_iterator files(folder);
  for (const auto& entry : files) {
    if (!entry.is_regular_file() || static_cast<double>(entry.file_size()) <= bytes) continue;
    bytes = static_cast<double>(entry.file_size());
    found = entry.path();
  }
  return found;
}

void measure_s3(const std::string& folder, const std::string& gateway, double mib, int rounds) {
  const std::string root = folder + "/root", source = folder + "/source.db";
  std::filesystem::create_directories(root + "/bucket");
  std::filesystem::create_directories(folder + "/metadata");
  constexpr const char* kId = "archive-key";
  constexpr const char* kSecret = "archive-secret";
  for (auto [name, value] : {std::pair{"ROOT_ACCESS_KEY", kId},
                             {"ROOT_SECRET_KEY", kSecret},
                             {"AWS_ACCESS_KEY_ID", kId},
                             {"AWS_SECRET_ACCESS_KEY", kSecret}})
    ::setenv(name, value, 1);
  const std::string endpoint = fmt::format("http://127.0.0.1:{}", free_port());
  const Child service({gateway, "--port", endpoint.substr(7), "--quiet", "posix", "--sidecar",
                       folder + "/metadata", root},
                      folder + "/gateway.log");
  make_database(source, mib * kMib);
  fill_archive(folder, source, "s3://bucket/archive?endpoint=" + endpoint);
  const double bytes = size_of(source);
  const std::string largest = largest_file(root + "/bucket/archive/big");
  const std::string key = largest.substr(root.size()), out = folder + "/out";
  std::vector<double> downloads, ours;
  for (int round = 0; round < rounds; ++round) {
    forget(root);
    const double download =
        run({"/usr/bin/env", "curl", "--silent", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3",
             "--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--user",
             fmt::format("{}:{}", kId, kSecret), "--output", out, endpoint + key},
            folder + "/curl.log");
    downloads.push_back(size_of(out) / 1e6 / download);
    std::filesystem::remove(out);
    forget(root);
    ours.push_back(bytes / 1e6 /
                   run({program(), "restore", "s3://bucket/archive/big?endpoint=" + endpoint, out},
                       folder + "/restore.log"));
    std::filesystem::remove(out);
  }
  fmt::print(
      "restore from S3 (versitygw): {:.0f} MB/s of the database; curl gets its largest object "
      "({:.0f} MB) with {:.0f} MB/s: {:.2f} x that\n",
      median(ours), size_of(largest) / 1e6, median(downloads), median(ours) / median(downloads));
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string folder = std::filesystem::absolute(argc > 1 ? argv[1] : "archive-bench");
  const double mib = argc > 2 ? std::atof(argv[2]) : default_mib();
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 3;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const auto litestream = Litestream::find();
  fmt::print("committed -> an object in a folder, as set by default:\n");
  measure_lags(folder + "/lag", litestream, "", 8 * rounds);
  fmt::print("the same with --archive-sync-ms 0 and without pauses of others:\n");
  measure_lags(folder + "/fast", litestream, "0", 100 * rounds);
  measure_inserts(folder + "/inserts", rounds);
  measure_restores(folder + "/restore", litestream, mib, rounds);
  if (const auto gateway = find_gateway()) measure_s3(folder + "/s3", *gateway, mib, rounds);
  std::filesystem::remove_all(folder);
}
