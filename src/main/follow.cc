// offprint follow: a live copy of a database in a plain SQLite file.
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "main/commands.h"
#include "main/follow_report.h"
#include "main/lag_watch.h"
#include "main/remote.h"
#include "main/stop_signals.h"
#include "replica/follower.h"

namespace offprint {
namespace {

struct FollowOptions {
  RemoteOptions remote;
  std::string database, file;
  bool once = false, verify = false, json = false;
  std::int64_t max_lag_ms = 0;  // 0: whatever it is
};

// Heartbeats come each second.
constexpr std::int64_t kMaxLagLeastMs = 1'500;

std::atomic<replica::Follower*> running_follower{nullptr};

void on_signal(int) {
  if (replica::Follower* follower = running_follower.load()) follower->stop();
}

struct Ending {
  int exit_code = kExitDone;
  std::string outcome, message;
};

Ending ending_of(const FollowOptions& options, const Result<replica::FollowerOutcome>& result,
                 bool differed, bool file_existed) {
  if (result) {
    switch (*result) {
      case replica::FollowerOutcome::kDropped:
        return {kExitDropped, "dropped",
                fmt::format("{} was dropped on the server; {} stays as it was last",
                            options.database, options.file)};
      case replica::FollowerOutcome::kStopped:
        if (options.once)
          return {kExitFailed, "stopped", "stopped before " + options.file + " had caught up"};
        return {kExitDone, "stopped", ""};
      case replica::FollowerOutcome::kCaughtUp:
        if (!differed) return {kExitDone, "caught_up", ""};
        return {kExitFailed, "differed",
                options.file + " differed from the primary; it has been mended"};
    }
  }
  const Error& error = result.error();
  switch (error.code()) {
    case Code::kNotFound:
      if (file_existed) {
        return {kExitDropped, "dropped",
                fmt::format("{} is no longer on the server; {} stays as it was last",
                            options.database, options.file)};
      }
      return {kExitFailed, "failed",
              error.message() +
                  "\n`offprint db list` shows which databases there are; `offprint db create NAME` "
                  "makes one."};
    case Code::kUnavailable:
      return {kExitUnreachable, "unreachable",
              error.message() +
                  "\nIs the server running? Without --once, `offprint follow` waits for it."};
    case Code::kUnauthorized:
      return {kExitRefused, "refused",
              error.message() + "\nGive a token with --token or OFFPRINT_TOKEN."};
    case Code::kForbidden:
      return {kExitRefused, "refused", error.message()};
    default:
      return {kExitFailed, "failed", error.message()};
  }
}

template <class Report>
Ending follow(const FollowOptions& options, const std::string& url, Report& report) {
  std::error_code ignored;
  bool file_existed = std::filesystem::exists(options.file, ignored);
  replica::FollowerOptions follower_options;
  follower_options.url = url;
  follower_options.file = options.file;
  follower_options.token = options.remote.token;
  follower_options.ca_file = options.remote.ca_file;
  follower_options.once = options.once;
  follower_options.verify = options.verify;
  LagWatch watch(report, std::chrono::milliseconds(options.max_lag_ms), [] { on_signal(0); });
  auto follower = replica::Follower::create(std::move(follower_options), watch);
  if (!follower) return {kExitUsage, "usage", follower.error().message()};
  running_follower = follower->get();
  handle_stop_signals(on_signal);
  Result<replica::FollowerOutcome> result = (*follower)->run();
  running_follower = nullptr;
  if (auto lag = watch.stopped_at()) {
    return {kExitLagging, "lagging",
            fmt::format("{} is {} ms behind {}, more than --max-lag", options.file, lag->count(),
                        options.database)};
  }
  return ending_of(options, result, report.differed(), file_existed);
}

int run(const FollowOptions& options) {
  Result<std::string> url = database_url(options.remote, options.database);
  if (!url) return report_usage(url.error().message());
  if (options.max_lag_ms != 0 && options.max_lag_ms < kMaxLagLeastMs)
    return report_usage("--max-lag is 1500ms at least: the server tells its state each second");
  log::set_up("warn");
  Ending ending;
  if (options.json) {
    FollowJson report;
    ending = follow(options, *url, report);
    report.ended(ending.outcome, ending.message);
  } else {
    FollowText report(options.file);
    ending = follow(options, *url, report);
  }
  std::fflush(stdout);
  if (!ending.message.empty()) std::fprintf(stderr, "offprint: %s\n", ending.message.c_str());
  return ending.exit_code;
}

}  // namespace

void add_follow(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("follow", "Keeps FILE a live, read-only copy of a database.");
  command->footer(
      "Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable (only with --once), 4 refused (a "
      "token, or a FILE "
      "that is not ours), 5 the database was dropped, 6 FILE became older "
      "than --max-lag.");
  auto options = std::make_shared<FollowOptions>();
  command
      ->add_option("URL", options->database,
                   "of the database: http://HOST/db/NAME; or its name on --server")
      ->required();
  command->add_option("FILE", options->file, "the SQLite file to make or go on with")->required();
  command->add_flag("--once", options->once, "catch up, then exit");
  command->add_flag("--verify", options->verify,
                    "read all of FILE and compare it with the primary's checksum");
  command
      ->add_option("--max-lag", options->max_lag_ms,
                   "end with code 6 when FILE, once it has caught up, is older than that: 2s")
      ->transform(CLI::AsNumberWithUnit(
          std::map<std::string, std::int64_t>{{"ms", 1}, {"s", 1'000}, {"min", 60'000}},
          CLI::AsNumberWithUnit::UNIT_REQUIRED));
  command->add_flag("--json", options->json, "one event a line instead of the status line");
  add_server_option(*command, options->remote);
  add_token_option(*command, options->remote);
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace offprint
