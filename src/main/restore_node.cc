// offprint restore-node: a whole data folder from a node's archive.
#include "archive/node_restore.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "main/archive_command.h"
#include "main/commands.h"
#include "main/progress.h"
#include "main/remote.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

using archive::NodeDatabase;

// As a shell takes it for one word.
std::string shell_word(const std::string& text) {
  constexpr std::string_view kPlain = "_./:=-+,@%";
  const bool is_plain = !text.empty() && std::ranges::all_of(text, [&](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || kPlain.contains(c);
  });
  if (is_plain) return text;
  std::string word = "'";
  for (char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

struct NodeArguments {
  std::string archive, directory, at;
  int jobs = 4;
  bool without_damaged = false, json = false;
};

const char* state_text(NodeDatabase::State state) {
  switch (state) {
    case NodeDatabase::State::kRestored:
      return "restored";
    case NodeDatabase::State::kThere:
      return "there";
    case NodeDatabase::State::kEmpty:
      return "empty";
    case NodeDatabase::State::kDamaged:
      return "damaged";
    case NodeDatabase::State::kLeftOut:
      return "left out";
  }
  return "";
}

void print_json(const NodeDatabase& database) {
  std::string line = R"({"database":)";
  server::append_json_string(line, database.name);
  line += fmt::format(R"(,"state":"{}")", state_text(database.state));
  if (database.bookmark.lineage != Lineage{})
    line += fmt::format(R"(,"bookmark":"{}")", database.bookmark.text());
  if (const auto& restored = database.restored) {
    line +=
        fmt::format(R"(,"txid":{},"time":"{}","size_bytes":{},"checksum":"{:016x}","proven":{})",
                    restored->txid.value, format_rfc3339(restored->timestamp_ms),
                    std::uint64_t{restored->page_size} * restored->page_count,
                    restored->checksum.value, restored->proven);
  }
  if (!database.note.empty()) {
    line += R"(,"note":)";
    server::append_json_string(line, database.note);
  }
  std::printf("%s}\n", line.c_str());
  std::fflush(stdout);
}

void print_text(const NodeDatabase& database) {
  std::string line = fmt::format("{:<9} {}", state_text(database.state), database.name);
  if (const auto& restored = database.restored) {
    line += fmt::format("  txid {} of {}, {}{}", restored->txid.value,
                        format_rfc3339(restored->timestamp_ms),
                        size_text(std::uint64_t{restored->page_size} * restored->page_count),
                        restored->proven ? ", proven" : "");
  }
  if (!database.note.empty()) line += ": " + database.note;
  std::printf("%s\n", line.c_str());
}

void print_end(const NodeArguments& arguments, const archive::NodeRestored& done) {
  auto count = [&](NodeDatabase::State state) {
    return std::ranges::count(done.databases, state, &NodeDatabase::state);
  };
  const auto restored = count(NodeDatabase::State::kRestored);
  const auto there = count(NodeDatabase::State::kThere);
  const auto empty = count(NodeDatabase::State::kEmpty);
  const auto damaged = count(NodeDatabase::State::kDamaged);
  const auto left_out = count(NodeDatabase::State::kLeftOut);
  if (arguments.json) {
    std::string line = fmt::format(
        R"({{"done":{},"restored":{},"there":{},"empty":{},"damaged":{},"left_out":{},"catalog":{})",
        done.is_complete(), restored, there, empty, damaged, left_out, done.has_catalog);
    line += R"(,"dropped":[)";
    for (std::size_t i = 0; i < done.dropped.size(); ++i) {
      if (i > 0) line += ',';
      server::append_json_string(line, done.dropped[i]);
    }
    line += R"(],"lost_tags":[)";
    for (std::size_t i = 0; i < done.lost_tags.size(); ++i) {
      if (i > 0) line += ',';
      server::append_json_string(line, done.lost_tags[i]);
    }
    std::printf("%s]}\n", line.c_str());
    return;
  }
  for (const std::string& tag : done.lost_tags) std::printf("lost      tag %s\n", tag.c_str());
  for (const std::string& name : done.dropped)
    std::printf("dropped   %s: the node had dropped it; offprint restore makes a file of it\n",
                name.c_str());
  if (!done.has_catalog)
    std::printf(
        "the archive has no list of databases: limits, revoked tokens and usage are gone\n");
  if (!done.is_complete()) {
    std::printf(
        "%s is not complete: bring the damaged objects back and run this again, or go on "
        "without these databases: --without-damaged\n",
        arguments.directory.c_str());
    return;
  }
  std::printf(
      "%s has %ld databases, %ld of them empty. To go on:\n  offprint serve --data %s "
      "--archive %s --archive-take-over\n",
      arguments.directory.c_str(), restored + there + empty, empty,
      shell_word(arguments.directory).c_str(), shell_word(arguments.archive).c_str());
}

Result<archive::NodeRestored> restore_node(const NodeArguments& arguments,
                                           archive::ObjectStore& store) {
  StatusLine line;
  ProgressBar bar(line, "restore-node");
  archive::NodeRestoreOptions options;
  options.directory = arguments.directory;
  options.jobs = arguments.jobs;
  options.without_damaged = arguments.without_damaged;
  if (!arguments.at.empty()) options.at_ms = parse_rfc3339(arguments.at);
  options.restored = [&](const NodeDatabase& database) {
    if (arguments.json) return print_json(database);
    line.clear();
    print_text(database);
  };
  options.progress = [&](std::uint64_t done, std::uint64_t total) { bar.update(done, total); };
  options.cancelled = &cancelled_by_signals();
  return archive::restore_node(store, options);
}

int run(const NodeArguments& arguments) {
  if (!arguments.at.empty() && !parse_rfc3339(arguments.at)) {
    return report_usage(
        fmt::format("--at '{}' is no time like 2026-11-22T10:00:00Z", arguments.at));
  }
  auto store = open_archive(arguments.archive);
  if (!store && store.error().code() == Code::kInvalid)
    return report_usage(store.error().message());
  auto done =
      store ? restore_node(arguments, **store) : Result<archive::NodeRestored>(fail(store.error()));
  if (!done) {
    std::fprintf(stderr, "offprint: %s\n", done.error().message().c_str());
    return archive_exit_code(done.error());
  }
  print_end(arguments, *done);
  return done->is_complete() ? kExitDone : kExitFailed;
}

}  // namespace

void add_restore_node(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("restore-node", "Makes a server's whole data folder from its archive.");
  command->footer(
      "It may be interrupted and run again. Exit codes: 0 done, 1 failed (objects are damaged, the "
      "folder has something else), 2 usage, 3 unreachable, 4 refused.");
  auto arguments = std::make_shared<NodeArguments>();
  command
      ->add_option("ARCHIVE_URL", arguments->archive,
                   "of the server: file:///FOLDER or s3://BUCKET/PREFIX")
      ->required();
  command->add_option("DIR", arguments->directory, "the data folder to make: absent or empty")
      ->required();
  command->add_option("--at", arguments->at,
                      "all databases as they were at a time (2026-11-22T10:00:00Z); without it the "
                      "newest");
  command->add_option("--jobs", arguments->jobs, "databases at once; each takes up to 50 MiB")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_flag("--without-damaged", arguments->without_damaged,
                    "leave out databases that cannot be restored; without it they are named, and "
                    "the folder is not complete");
  command->add_flag("--json", arguments->json, "what was restored, as lines of JSON");
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace offprint
