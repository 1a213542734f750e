// offprint doctor: whether the machine, a server and its cluster are what they should be.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/resource.h>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "base/file_system.h"
#include "base/machine.h"
#include "cluster/coordinator_now.h"
#include "cluster/etcd_coordinator.h"
#include "main/commands.h"
#include "main/remote.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

constexpr int kFlushes = 50;
constexpr std::chrono::microseconds kTooFastFlush{15}, kSlowFlush{20'000};
constexpr std::chrono::milliseconds kClockFor{1'500};
constexpr double kClockWarns = 500, kClockFails = 50'000;  // ppm; leases allow for 5 %
constexpr std::uint64_t kFreeWarns = std::uint64_t{1} << 30;
constexpr rlim_t kFilesWanted = 4'096;

struct DoctorOptions {
  RemoteOptions remote;
  std::string data;
  cluster::EtcdOptions etcd;
  bool asks_server = false, json = false;
};

// What was looked at, and what was found.
class Findings {
 public:
  enum class Level { kOk, kWarning, kProblem };
  explicit Findings(bool json) : json_(json) {}

  void add(Level level, const std::string& what, const std::string& found) {
    has_problem_ |= level == Level::kProblem;
    if (json_) {
      std::string line = fmt::format("{{\"level\":\"{}\",\"check\":", word(level));
      server::append_json_string(line, what);
      line += ",\"found\":";
      server::append_json_string(line, found);
      std::puts((line + "}").c_str());
    } else {
      std::printf("%-8s %-10s %s\n", word(level), what.c_str(), found.c_str());
    }
    std::fflush(stdout);
  }
  bool has_problem() const { return has_problem_; }

 private:
  static const char* word(Level level) {
    if (level == Level::kOk) return "ok";
    return level == Level::kWarning ? "warning" : "problem";
  }
  const bool json_;
  bool has_problem_ = false;
};
using Level = Findings::Level;

std::string milliseconds(std::chrono::microseconds time) {
  return fmt::format("{:.2f} ms", static_cast<double>(time.count()) / 1000);
}

void look_at_disk(const std::string& directory, Findings& findings) {
  auto kind = file_system_of(directory);
  if (!kind) return findings.add(Level::kProblem, "disk", kind.error().message());
  std::string text = fmt::format("{} is on {}, {} GiB of {} GiB free", directory, kind->name,
                                 kind->free_bytes >> 30, kind->size_bytes >> 30);
  if (kind->is_volatile) {
    findings.add(Level::kProblem, "disk",
                 text + ": in memory, nothing is left after a restart of the machine");
  } else if (kind->is_shared) {
    findings.add(Level::kWarning, "disk",
                 text + ": SQLite wants a local disk, whose locks and mappings can be relied on");
  } else {
    findings.add(kind->free_bytes < kFreeWarns ? Level::kWarning : Level::kOk, "disk", text);
  }
  auto flushes = measure_flushes(directory, kFlushes);
  if (!flushes) return findings.add(Level::kProblem, "flush", flushes.error().message());
  text = fmt::format("fdatasync of 4 KiB: median {}, longest {}", milliseconds(flushes->median),
                     milliseconds(flushes->longest));
  const bool is_too_fast = flushes->median < kTooFastFlush && !kind->is_volatile;
  if (is_too_fast)
    text += ": faster than disks are; make sure that what is flushed survives a power loss";
  if (flushes->median > kSlowFlush) text += ": slow, and each commit waits for one";
  const bool is_fine = !is_too_fast && flushes->median <= kSlowFlush;
  findings.add(is_fine ? Level::kOk : Level::kWarning, "flush", text);
}

void look_at_machine(Findings& findings) {
  const double drift = clock_drift_ppm(kClockFor);
  const double off = drift < 0 ? -drift : drift;
  const Level level = off > kClockFails   ? Level::kProblem
                      : off > kClockWarns ? Level::kWarning
                                          : Level::kOk;
  findings.add(
      level, "clock",
      fmt::format("runs {:+.0f} ppm beside the oscillator; leases allow for 50,000", drift));
  if (!wall_clock_is_kept()) {
    findings.add(Level::kWarning, "time",
                 "nobody keeps the wall clock right (NTP): times of the history and expiries of "
                 "tokens go by it");
  }
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    findings.add(files.rlim_max < kFilesWanted ? Level::kWarning : Level::kOk, "files",
                 fmt::format("{} may be open at once", files.rlim_max));
  }
}

void look_at_etcd(const cluster::EtcdOptions& all, Findings& findings) {
  for (const std::string& endpoint : all.endpoints) {
    cluster::EtcdOptions one = all;
    one.endpoints = {endpoint};
    const auto begun = SteadyClock::now();
    auto coordinator = cluster::create_etcd_coordinator(one);
    auto read = coordinator ? cluster::read_now(**coordinator, "/offprint-doctor")
                            : fail(coordinator.error());
    const auto took =
        std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now() - begun);
    findings.add(read ? Level::kOk : Level::kProblem, "etcd",
                 read ? fmt::format("{} answers in {}", endpoint, milliseconds(took))
                      : fmt::format("{}: {}", endpoint, read.error().message()));
  }
}

Result<std::string> get(Remote& remote, const std::string& url) {
  HttpCall call;
  call.url = url;
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  return std::move(answer.body);
}

// Its version; nothing: it does not answer.
std::optional<std::string> look_at_server(Remote& remote, const std::string& name,
                                          const std::string& url, Findings& findings) {
  const auto begun = SteadyClock::now();
  auto answer = get(remote, url + "/version");
  if (!answer) {
    findings.add(Level::kProblem, name, answer.error().message());
    return std::nullopt;
  }
  const auto took =
      std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now() - begun);
  server::JsonReader reader;
  auto root = reader.parse(*answer);
  const std::string version = root ? json_text(*root, "version") : "";
  auto ready = get(remote, url + "/health?ready=1");
  findings.add(ready ? Level::kOk : Level::kProblem, name,
               fmt::format("{}: version {}, answers in {}{}", url, version, milliseconds(took),
                           ready ? "" : ", and is not ready: " + ready.error().message()));
  return version;
}

struct ToldNode {
  std::string name, role, url;
};
struct ToldCluster {
  std::vector<ToldNode> nodes;
  std::string primary, least;
  bool is_forced = false;
};

// Nothing: it is no answer to GET /v1/cluster.
std::optional<ToldCluster> cluster_in(const std::string& answer) {
  server::JsonReader reader;
  std::string text = answer;
  auto root = reader.parse(text);
  simdjson::dom::array nodes;
  if (!root || (*root)["nodes"].get(nodes) != simdjson::SUCCESS) return std::nullopt;
  ToldCluster told;
  for (simdjson::dom::element node : nodes)
    told.nodes.push_back(
        {json_text(node, "node"), json_text(node, "role"), json_text(node, "url")});
  told.primary = json_text(*root, "primary");
  told.least = json_text(*root, "min_in_sync");
  told.is_forced = json_text(*root, "forced") == "true";
  return told;
}

void look_at_cluster(Remote& remote, const std::string& url, const std::string& version,
                     Findings& findings) {
  auto answer = get(remote, url + "/v1/cluster");
  if (!answer && answer.error().code() == Code::kNotFound) return;  // a node alone
  if (!answer) return findings.add(Level::kWarning, "cluster", answer.error().message());
  auto told = cluster_in(*answer);
  if (!told) return findings.add(Level::kProblem, "cluster", url + " does not tell of its cluster");
  std::size_t in_sync = 0;
  for (const ToldNode& node : told->nodes) {
    in_sync += node.role != "behind" ? 1 : 0;
    if (node.role == "behind")
      findings.add(Level::kWarning, node.name, "is behind: a commit does not wait for it");
    if (node.url.empty()) {
      findings.add(Level::kProblem, node.name, "nothing was heard of it");
      continue;
    }
    auto its = look_at_server(remote, node.name, node.url, findings);
    if (its && *its != version) {
      findings.add(Level::kWarning, node.name,
                   "has version " + *its + ", " + url + " has " + version);
    }
  }
  const bool has_primary = !told->primary.empty();
  std::string text = has_primary ? told->primary + " is primary" : "no primary is known";
  text += fmt::format(", {} in sync, a commit is on {} at least", in_sync, told->least);
  if (in_sync <= 1) text += ": one disk has what is acknowledged now";
  if (told->is_forced) text += "; the last failover was forced";
  findings.add(!has_primary  ? Level::kProblem
               : in_sync > 1 ? Level::kOk
                             : Level::kWarning,
               "cluster", text);
}

int run(const DoctorOptions& options) {
  Findings findings(options.json);
  look_at_machine(findings);
  if (!options.data.empty()) look_at_disk(options.data, findings);
  look_at_etcd(options.etcd, findings);
  if (options.asks_server) {
    auto url = parse_url(options.remote.server);
    if (!url) return report_usage(url.error().message());
    Remote remote(options.remote);
    if (auto version = look_at_server(remote, "server", *url, findings))
      look_at_cluster(remote, *url, *version, findings);
  }
  return findings.has_problem() ? kExitFailed : kExitDone;
}

}  // namespace

void add_doctor(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command = app.add_subcommand(
      "doctor", "Looks at this machine's disk and clock, and at a server with its cluster.");
  command->add_option("--data", options->data, "folder whose disk is measured")
      ->check(CLI::ExistingDirectory);
  command->add_option("--etcd", options->etcd.endpoints, "URL of an etcd server; can be repeated")
      ->delimiter(',');
  add_server_option(*command, options->remote);
  add_token_option(*command, options->remote);
  command->add_flag("--json", options->json, "a line of JSON for each finding");
  command->callback([command, options, &exit_code] {
    options->asks_server = command->get_option("--server")->count() > 0;
    exit_code = run(*options);
  });
}

}  // namespace offprint
