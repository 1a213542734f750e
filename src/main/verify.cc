// offprint verify: whether a database's archive is sound.
#include "archive/verify.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

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

struct VerifyArguments {
  std::string archive;
  std::string scratch = std::filesystem::temp_directory_path().string();
  bool json = false;
};

void print_json(const archive::Verified& verified) {
  std::string line = fmt::format(R"({{"sound":{},"files":{},"bytes":{},"moments":[)",
                                 verified.damage.empty(), verified.files, verified.bytes);
  for (const archive::Restored& moment : verified.moments) {
    if (line.back() == '}') line += ',';
    line += fmt::format(R"({{"txid":{},"time":"{}","checksum":"{:016x}","proven":{}}})",
                        moment.txid.value, format_rfc3339(moment.timestamp_ms),
                        moment.checksum.value, moment.proven);
  }
  line += R"(],"damage":[)";
  for (std::size_t i = 0; i < verified.damage.size(); ++i) {
    if (i > 0) line += ',';
    server::append_json_string(line, verified.damage[i]);
  }
  std::printf("%s]}\n", line.c_str());
}

void print_text(const archive::Verified& verified) {
  std::printf("%zu files, %s, read to their ends\n", verified.files,
              size_text(verified.bytes).c_str());
  for (const archive::Restored& moment : verified.moments) {
    std::printf("%s txid %llu of %s, checksum %016llx\n", moment.proven ? "proven  " : "restored",
                static_cast<unsigned long long>(moment.txid.value),
                format_rfc3339(moment.timestamp_ms).c_str(),
                static_cast<unsigned long long>(moment.checksum.value));
  }
  for (const std::string& each : verified.damage) std::printf("DAMAGED  %s\n", each.c_str());
}

int run(const VerifyArguments& arguments) {
  auto store = open_archive(arguments.archive);
  if (!store && store.error().code() == Code::kInvalid)
    return report_usage(store.error().message());
  auto verified = [&]() -> Result<archive::Verified> {
    if (!store) return fail(store.error());
    StatusLine line;
    ProgressBar bar(line, "verify", ProgressBar::Unit::kSteps);
    archive::VerifyOptions options;
    options.scratch = arguments.scratch;
    options.progress = [&](std::uint64_t done, std::uint64_t total) { bar.update(done, total); };
    options.cancelled = &cancelled_by_signals();
    return archive::verify_archive(**store, "", options);
  }();
  if (!verified) {
    std::fprintf(stderr, "offprint: %s\n", verified.error().message().c_str());
    return archive_exit_code(verified.error());
  }
  if (arguments.json) {
    print_json(*verified);
  } else {
    print_text(*verified);
  }
  return verified->damage.empty() ? kExitDone : kExitFailed;
}

}  // namespace

void add_verify(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "verify", "Proves that a database's archive is sound, by reading and restoring it.");
  command->footer("Exit codes: 0 sound, 1 damaged, 2 usage, 3 unreachable, 4 refused.");
  auto arguments = std::make_shared<VerifyArguments>();
  command
      ->add_option("ARCHIVE_URL", arguments->archive,
                   "of one database: file:///FOLDER or s3://BUCKET/PREFIX")
      ->required();
  command->add_option("--scratch", arguments->scratch, "a folder with space for the database")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "what was found, as one line of JSON");
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace offprint
