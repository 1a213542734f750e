// offprint restore: an SQLite file from a database's archive.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "archive/restore.h"
#include "base/clock.h"
#include "main/archive_command.h"
#include "main/commands.h"
#include "main/progress.h"
#include "main/remote.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

struct RestoreArguments {
  std::string archive, file, at;
  bool force = false, json = false;
};

std::optional<archive::RestoreTarget> parse_target(const std::string& text) {
  if (text.empty()) return archive::Newest{};
  if (std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; })) {
    TxId txid;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), txid.value);
    if (error != std::errc() || txid.value == 0) return std::nullopt;
    return txid;
  }
  if (auto bookmark = Bookmark::parse(text)) return *bookmark;
  if (auto time = parse_rfc3339(text)) return archive::AtTime{*time};
  return std::nullopt;
}

Result<archive::Restored> restore(const RestoreArguments& arguments, archive::ObjectStore& store,
                                  const archive::RestoreTarget& target) {
  StatusLine line;
  ProgressBar bar(line, "restore", ProgressBar::Unit::kPages);
  archive::RestoreOptions options;
  options.replace = arguments.force;
  options.progress = [&](std::uint64_t done, std::uint64_t total) { bar.update(done, total); };
  options.cancelled = &cancelled_by_signals();
  return archive::restore_file(store, "", target, arguments.file, options);
}

int report_failure(const RestoreArguments& arguments, const Error& error) {
  bool is_there = error.code() == Code::kConflict && !arguments.force;
  std::fprintf(stderr, "offprint: %s%s\n", error.message().c_str(),
               is_there ? "\n--force replaces it; no program may have it open." : "");
  return archive_exit_code(error);
}

std::string checksum_text(const archive::Restored& restored) {
  return fmt::format("{:016x}", restored.checksum.value);
}

void print_json(const RestoreArguments& arguments, const archive::Restored& restored) {
  std::string line = R"({"file":)";
  server::append_json_string(line, arguments.file);
  line += fmt::format(R"(,"txid":{},"time":"{}","checksum":"{}","proven":{},"page_size":{})",
                      restored.txid.value, format_rfc3339(restored.timestamp_ms),
                      checksum_text(restored), restored.proven, restored.page_size);
  line += fmt::format(R"(,"page_count":{},"archive_files":{},"archive_bytes":{},"bookmark":)",
                      restored.page_count, restored.files, restored.bytes);
  line += restored.bookmark ? fmt::format(R"("{}")", restored.bookmark->text()) : "null";
  std::printf("%s}\n", line.c_str());
}

void print_text(const RestoreArguments& arguments, const archive::Restored& restored) {
  std::printf("%s is the database at txid %llu of %s: %s in %u pages, checksum %s%s\n",
              arguments.file.c_str(), static_cast<unsigned long long>(restored.txid.value),
              format_rfc3339(restored.timestamp_ms).c_str(),
              size_text(std::uint64_t{restored.page_size} * restored.page_count).c_str(),
              restored.page_count, checksum_text(restored).c_str(),
              restored.proven ? " as archived" : " (the archive has none to compare)");
  if (restored.bookmark) std::printf("bookmark %s\n", restored.bookmark->text().c_str());
}

int run(const RestoreArguments& arguments) {
  const auto target = parse_target(arguments.at);
  if (!target) {
    return report_usage(fmt::format(
        "--at '{}' is no transaction's number, no bookmark and no time like 2026-11-22T10:00:00Z",
        arguments.at));
  }
  auto store = open_archive(arguments.archive);
  if (!store && store.error().code() == Code::kInvalid)
    return report_usage(store.error().message());
  if (!store) return report_failure(arguments, store.error());
  const auto restored = restore(arguments, **store, *target);
  if (!restored) return report_failure(arguments, restored.error());
  if (arguments.json) {
    print_json(arguments, *restored);
  } else {
    print_text(arguments, *restored);
  }
  return kExitDone;
}

}  // namespace

void add_restore(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("restore", "Makes an SQLite file from a database's archive.");
  command->footer(
      "Exit codes: 0 done, 1 failed (the archive is damaged, has no such moment, FILE is there), 2 "
      "usage, 3 unreachable, 4 refused.");
  auto arguments = std::make_shared<RestoreArguments>();
  command
      ->add_option("ARCHIVE_URL", arguments->archive,
                   "of one database: file:///FOLDER or s3://BUCKET/PREFIX")
      ->required();
  command->add_option("FILE", arguments->file, "the SQLite file to make")->required();
  command->add_option("--at", arguments->at,
                      "which moment: a time (2026-11-22T10:00:00Z), a bookmark or a transaction's "
                      "number; without it the newest");
  command->add_flag("--force", arguments->force, "replace FILE if it is there");
  command->add_flag("--json", arguments->json, "what was restored, as one line of JSON");
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace offprint
