// offprint react: a service's own SQL for each row of its replicas that changes.
#include <atomic>
#include <cstdio>
#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "base/log.h"
#include "consumer/reactions.h"
#include "main/commands.h"
#include "main/remote.h"
#include "main/stop_signals.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

struct ReactOptions {
  std::string file, forget;
  bool once = false, json = false;
  int interval_ms = 0;
};

std::atomic<consumer::Reactions*> running_reactions{nullptr};

void on_signal(int) {
  if (consumer::Reactions* reactions = running_reactions.load()) reactions->stop();
}

void print(const ReactOptions& options, const std::vector<consumer::ReactionCounts>& all) {
  for (const consumer::ReactionCounts& counts : all) {
    if (options.json) {
      std::string line = "{\"event\":\"reacted\",\"name\":";
      server::append_json_string(line, counts.name);
      line += fmt::format(",\"inserted\":{},\"updated\":{},\"deleted\":{},\"bookmark\":",
                          counts.inserted, counts.updated, counts.deleted);
      server::append_json_string(line, counts.bookmark);
      std::printf("%s}\n", line.c_str());
    } else {
      std::printf("%s: %llu inserted, %llu updated, %llu deleted\n", counts.name.c_str(),
                  static_cast<unsigned long long>(counts.inserted),
                  static_cast<unsigned long long>(counts.updated),
                  static_cast<unsigned long long>(counts.deleted));
    }
  }
  std::fflush(stdout);
}

Result<> react(const ReactOptions& options, consumer::Reactions& reactions) {
  for (;;) {
    auto done = reactions.run();
    const bool may_wait = !options.once && !done && done.error().code() == Code::kBusy;
    if (!done && !may_wait) return fail(done.error());
    if (done) print(options, *done);
    if (options.once) return {};
    OFFPRINT_TRY_ASSIGN(bool goes_on, reactions.wait(options.interval_ms));
    if (!goes_on) return {};
  }
}

int report_wrong_use(const Error& error) {
  return error.code() == Code::kInvalid ? report_usage(error.message()) : report(error);
}

int run(const ReactOptions& options) {
  auto spec = consumer::read_consumer_spec(options.file);
  if (!spec) return report_wrong_use(spec.error());
  auto reactions = consumer::Reactions::open(*spec);
  if (!reactions) return report_wrong_use(reactions.error());
  if (!options.forget.empty()) {
    auto forgotten = (*reactions)->forget(options.forget);
    if (!forgotten) return report(forgotten.error());
    return *forgotten ? kExitDone : report_usage("there is no on_row named " + options.forget);
  }
  running_reactions = reactions->get();
  handle_stop_signals(on_signal);
  Result<> done = react(options, **reactions);
  running_reactions = nullptr;
  return done ? kExitDone : report(done.error());
}

}  // namespace

void add_react(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "react", "Runs SQL of one's own for each row of a replica that changes, exactly once.");
  auto options = std::make_shared<ReactOptions>();
  command->add_option("SPEC", options->file, "a .toml: docs/guides/consumers.md")->required();
  command->add_flag("--once", options->once, "run what there is to run, then exit");
  command->add_flag("--json", options->json, "one object a line");
  command
      ->add_option("--interval-ms", options->interval_ms,
                   "wait so long between two looks; changes of that time are seen as one")
      ->capture_default_str()
      ->check(CLI::Range(0, 3'600'000));
  command->add_option("--forget", options->forget,
                      "forget what the on_row of that name has seen, and exit: all rows are new");
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace offprint
