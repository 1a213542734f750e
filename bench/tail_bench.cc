// Following programs' own files: how soon a commit is in a replica, what the program notices of it,
// and idle files; beside stock Litestream where that does the same. Usage: tail_bench [FOLDER]
// [SECONDS] [ROUNDS] [IDLE FILES]
#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "bench/figures.h"
#include "bench/floors.h"
#include "bench/litestream.h"
#include "bench/processes.h"
#include "bench/writer.h"

namespace {

using namespace offprint;
using namespace offprint::bench;

constexpr char kInsert[] = "INSERT INTO t(name, n) VALUES('name of a row', 1)";

// False: not within that time.
bool comes(const std::function<bool()>& condition, double seconds) {
  for (auto start = Clock::now(); !condition();) {
    if (seconds_since(start) > seconds) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

void must_come(const char* what, const std::function<bool()>& condition, double seconds) {
  if (comes(condition, seconds)) return;
  fmt::print(stderr, "{}: not within {} seconds\n", what, seconds);
  std::exit(1);
}

// --- how soon a commit is in a replica ----------------------------------------------------------

// The newest row of a replica. Litestream brings nothing into a file that a reader has open: its
// replica is opened anew for each look.
class Reader {
 public:
  Reader(const std::string& replica, bool stays_open)
      : replica_(replica), stays_open_(stays_open) {}
  std::int64_t newest() {
    if (!db_) {
      sqlite::Connection::Options options;
      options.read_only = true;
      db_.emplace(sqlite::Connection::open(replica_, options).value());
      auto prepared = db_->prepare("SELECT max(id) FROM t");
      if (prepared) select_ = *std::move(prepared);
    }
    std::int64_t id = 0;
    if (select_) {
      auto row = select_.step();
      if (row && *row) id = select_.column_int(0);
      select_.reset();
    }
    if (!stays_open_) {
      select_ = {};
      db_.reset();
    }
    return id;
  }

 private:
  const std::string replica_;
  const bool stays_open_;
  std::optional<sqlite::Connection> db_;
  sqlite::Statement select_;
};

// Empty: a commit did not become visible within 10 seconds.
std::vector<double> replica_lags(sqlite::Connection& program, Reader reader, double look_ms,
                                 int count) {
  std::minstd_rand random(1);
  std::vector<double> lags_ms;
  for (int i = 0; i < count; ++i) {
    check(program.execute(kInsert));
    const auto committed = Clock::now();
    const std::int64_t wanted = program.query_int("SELECT max(id) FROM t").value();
    while (reader.newest() < wanted) {
      if (seconds_since(committed) > 10) return {};
      std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(look_ms));
    }
    lags_ms.push_back(seconds_since(committed) * 1e3);
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + random() % 20));
  }
  return lags_ms;
}

void measure_replica(const std::string& folder, int count) {
  std::filesystem::create_directories(folder);
  auto file = open_own_file(folder + "/own.db", "NORMAL");
  check(file.execute(kInsert));
  Server server(folder, "data", {"--tail", "own=" + folder + "/own.db"});
  must_come(
      "the file is followed", [&] { return server.http().metric("tail_following") == 1; }, 60);
  const std::string replica = folder + "/replica.db";
  Child follower({program(), "follow", server.url() + "/db/own", replica}, folder + "/follow.log");
  must_come("the replica", [&] { return std::filesystem::exists(replica); }, 60);
  fmt::print("committed in a program's own file -> visible in a replica's file:\n");
  fmt::print("  Offprint                     {}\n",
             latencies(replica_lags(file, {replica, true}, 0.02, count)));
}

void measure_their_replica(const std::string& folder, const Litestream& litestream,
                           const std::string& interval, int count) {
  std::filesystem::create_directories(folder);
  auto file = open_own_file(folder + "/own.db", "NORMAL");
  check(file.execute(kInsert));
  const std::string replicas = folder + "/replicas", replica = folder + "/replica.db";
  Child replicating(litestream.replicate({folder + "/own.db"}, replicas, interval),
                    folder + "/replicate.log");
  must_come("Litestream", [&] { return std::filesystem::exists(replicas + "/own/ltx/0"); }, 60);
  Child follower({litestream.program, "restore", "-f", "-follow-interval",
                  interval.empty() ? "1s" : interval, "-o", replica, "file://" + replicas + "/own"},
                 folder + "/restore.log");
  must_come("Litestream's replica", [&] { return std::filesystem::exists(replica); }, 60);
  const auto lags = replica_lags(file, {replica, false}, 2, count);
  fmt::print("  Litestream, {:17}{}\n", interval.empty() ? "its defaults" : interval + " intervals",
             lags.empty() ? "not visible within 10 seconds" : latencies(lags));
}

// --- what the program notices -------------------------------------------------------------------

// Who looks on while a program writes a file.
struct Onlooker {
  std::string name, file;
  pid_t pid = 0;                                       // 0: nobody
  std::vector<double> rates, costs, p50, p99, own_us;  // of each round, the first two as ratios
};

struct Work {
  const char* name;
  WriterOptions options;
};

void measure_work(const Work& work, std::vector<Onlooker>& onlookers, int rounds) {
  Written alone;
  std::vector<double> alone_rates, alone_costs;
  for (Onlooker& each : onlookers) each = {each.name, each.file, each.pid, {}, {}, {}, {}, {}};
  for (int round = 0; round < rounds; ++round) {
    for (Onlooker& each : onlookers) {
      WriterOptions options = work.options;
      options.file = each.file;
      const double before = each.pid == 0 ? 0 : cpu_seconds(each.pid);
      const Written written = write_own_file(options);
      if (each.pid == 0) {
        alone = written;
        alone_rates.push_back(written.per_second);
        alone_costs.push_back(written.cpu_us);
      }
      // What is brought up to date afterwards is its work, too.
      std::this_thread::sleep_for(std::chrono::milliseconds(1'100));
      const double after = each.pid == 0 ? 0 : cpu_seconds(each.pid);
      each.rates.push_back(written.per_second / alone.per_second);
      each.costs.push_back(written.cpu_us / alone.cpu_us);
      each.p50.push_back(written.p50_us);
      each.p99.push_back(written.p99_us);
      each.own_us.push_back((after - before) / written.commits * 1e6);
    }
  }
  fmt::print(
      "{}: alone {:.0f} commits/s, {:.1f} us of its own CPU each, p50 {:.0f} us, p99 {:.0f}\n",
      work.name, median(alone_rates), median(alone_costs), median(onlookers[0].p50),
      median(onlookers[0].p99));
  for (const Onlooker& each : onlookers) {
    if (each.pid == 0) continue;
    fmt::print(
        "  {:24} commits/s x {:.3f}, own CPU x {:.3f}, p50 {:.0f} us, p99 {:.0f}; its CPU a "
        "commit: "
        "{:.1f} us\n",
        each.name, median(each.rates), median(each.costs), median(each.p50), median(each.p99),
        median(each.own_us));
  }
}

void measure_slowdown(const std::string& folder, const std::optional<Litestream>& litestream,
                      double seconds, int rounds) {
  std::filesystem::create_directories(folder);
  std::vector<Onlooker> onlookers(3);
  onlookers[0].name = "alone";
  onlookers[1].name = "Offprint follows";
  onlookers[2].name = "Offprint archives, too";
  if (litestream) onlookers.emplace_back().name = "Litestream";
  for (std::size_t i = 0; i < onlookers.size(); ++i) {
    onlookers[i].file = fmt::format("{}/own{}.db", folder, i);
    auto made = open_own_file(onlookers[i].file, "NORMAL");
  }
  Server follows(folder, "follows", {"--tail", "own=" + onlookers[1].file});
  Server archives(folder, "archives",
                  {"--tail", "own=" + onlookers[2].file, "--archive", "file://" + folder + "/a"});
  onlookers[1].pid = follows.pid();
  onlookers[2].pid = archives.pid();
  std::unique_ptr<Child> replicating;
  if (litestream) {
    replicating = std::make_unique<Child>(
        litestream->replicate({onlookers[3].file}, folder + "/r", ""), folder + "/replicate.log");
    onlookers[3].pid = replicating->pid();
    must_come("Litestream", [&] { return std::filesystem::exists(folder + "/r/own3/ltx/0"); }, 60);
  }
  for (Server* server : {&follows, &archives})
    must_come("following", [&] { return server->http().metric("tail_following") == 1; }, 60);
  fmt::print("what a program notices that writes its own file:\n");
  const std::vector<Work> works = {
      {"NORMAL, 2,000 commits/s",
       {.file = "", .synchronous = "NORMAL", .per_second = 2'000, .seconds = seconds}},
      {"OFF, as fast as it can", {.file = "", .synchronous = "OFF", .seconds = seconds}},
      {"NORMAL, as fast as it can", {.file = "", .synchronous = "NORMAL", .seconds = seconds}},
      {"FULL, as fast as it can", {.file = "", .synchronous = "FULL", .seconds = seconds}}};
  for (const Work& work : works) measure_work(work, onlookers, rounds);
}

// --- files in which nothing happens -------------------------------------------------------------

void report_idle(const char* name, std::size_t files, pid_t pid) {
  // They come to rest one after the other; the least of some measurements is what is left then.
  constexpr double kSeconds = 5;
  double least = 1e9;
  for (int i = 0; i < 6 && least / kSeconds >= 0.001; ++i) {
    const double before = cpu_seconds(pid);
    std::this_thread::sleep_for(std::chrono::duration<double>(kSeconds));
    least = std::min(least, cpu_seconds(pid) - before);
  }
  fmt::print("{} idle files, {}: {:.0f} MiB, {:.2f} % of a core\n", files, name, memory_mib(pid),
             least / kSeconds * 100);
}

void measure_idle(const std::string& folder, const std::optional<Litestream>& litestream,
                  int count) {
  std::filesystem::create_directories(folder);
  std::vector<std::string> files, options;
  for (int i = 0; i < count; ++i) {
    files.push_back(fmt::format("{}/d{}.db", folder, i));
    auto file = open_own_file(files.back(), "OFF");
    check(file.execute(kInsert));
    options.insert(options.end(), {"--tail", fmt::format("d{}={}", i, files.back())});
  }
  {
    Server server(folder, "data", options);
    Http& http = server.http();
    must_come("all are followed", [&] { return http.metric("tail_following") == count; }, 120);
    must_come("all are at rest", [&] { return http.metric("databases_open") == 0; }, 120);
    report_idle("Offprint", files.size(), server.pid());
  }
  if (!litestream) return;
  Child replicating(litestream->replicate(files, folder + "/replicas", ""),
                    folder + "/replicate.log");
  auto are_there = [&] {
    return std::ranges::all_of(files, [&](const std::string& file) {
      return std::filesystem::exists(folder + "/replicas/" +
                                     std::filesystem::path(file).stem().string());
    });
  };
  must_come("Litestream replicates all", are_there, 120);
  report_idle("Litestream", files.size(), replicating.pid());
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string folder = std::filesystem::absolute(argc > 1 ? argv[1] : "tail-bench");
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1.5;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 3;
  const int idle = argc > 4 ? std::atoi(argv[4]) : 1'000;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const auto litestream = Litestream::find();
  measure_replica(folder + "/replica", 100 * rounds);
  if (litestream) {
    measure_their_replica(folder + "/theirs", *litestream, "", 4 * rounds);
    measure_their_replica(folder + "/theirs-fast", *litestream, "1ms", 30 * rounds);
  }
  measure_slowdown(folder + "/slowdown", litestream, seconds, rounds);
  measure_idle(folder + "/idle", litestream, idle);
  std::filesystem::remove_all(folder);
}
