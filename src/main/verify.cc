// offprint verify: whether a database's archive is sound.
#include "archive/verify.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "archive/chain.h"
#include "archive/node_layout.h"
#include "base/clock.h"
#include "main/archive_command.h"
#include "main/commands.h"
#include "main/progress.h"
#include "main/remote.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

struct VerifyArguments {
  std::string archive, name;
  std::string server_archive;  // where names are looked for
  std::string scratch = std::filesystem::temp_directory_path().string();
  bool json = false;
};

// `name`: empty for an archive that was given by its own URL.
void print_json(const std::string& name, const archive::Verified& verified) {
  std::string line = "{";
  if (!name.empty()) {
    line += R"("database":)";
    server::append_json_string(line, name);
    line += ',';
  }
  line += fmt::format(R"("sound":{},"files":{},"bytes":{},"moments":[)", verified.damage.empty(),
                      verified.files, verified.bytes);
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

void print_text(const std::string& name, const archive::Verified& verified) {
  if (!name.empty()) std::printf("%s: ", name.c_str());
  std::printf("%zu files, %s, read to their ends\n", verified.files,
              size_text(verified.bytes).c_str());
  const archive::Restored* before = nullptr;  // the newest moment may be a snapshot's
  for (const archive::Restored& moment : verified.moments) {
    if (before != nullptr && before->txid == moment.txid) continue;
    before = &moment;
    std::printf("%s txid %llu of %s, checksum %016llx\n", moment.proven ? "proven  " : "restored",
                static_cast<unsigned long long>(moment.txid.value),
                format_rfc3339(moment.timestamp_ms).c_str(),
                static_cast<unsigned long long>(moment.checksum.value));
  }
  for (const std::string& each : verified.damage) std::printf("DAMAGED  %s\n", each.c_str());
}

// The names whose archives are to be proven; one empty name: the URL is that of a database.
Result<std::vector<std::string>> names_of(const VerifyArguments& arguments,
                                          archive::ObjectStore& store) {
  if (!arguments.name.empty()) return std::vector{arguments.name};
  OFFPRINT_TRY_ASSIGN(auto files, archive::list_files(store, ""));
  if (!files.empty()) return std::vector<std::string>{""};
  OFFPRINT_TRY_ASSIGN(auto content, archive::read_node_content(store));
  std::vector<std::string> names;
  if (content.has_catalog) names.push_back(database::DatabaseName::catalog().text());
  for (const auto& [name, place] : content.databases) names.push_back(name);
  if (names.empty()) names.emplace_back();  // there is nothing, which it says
  return names;
}

Result<bool> verify_all(const VerifyArguments& arguments, archive::ObjectStore& store) {
  bool is_sound = true;
  OFFPRINT_TRY_ASSIGN(auto names, names_of(arguments, store));
  for (const std::string& name : names) {
    std::string prefix;
    if (!name.empty()) {
      OFFPRINT_TRY_ASSIGN(auto parsed, archive::parse_archived_name(name));
      prefix = archive::archive_prefix(parsed);
    }
    auto verified = [&] {
      StatusLine line;
      ProgressBar bar(line, name.empty() ? "verify" : "verify " + name, ProgressBar::Unit::kSteps);
      archive::VerifyOptions options;
      options.scratch = arguments.scratch;
      options.progress = [&](std::uint64_t done, std::uint64_t total) { bar.update(done, total); };
      options.cancelled = &cancelled_by_signals();
      return archive::verify_archive(store, prefix, options);
    }();
    if (!verified) return fail(verified.error());
    if (arguments.json) {
      print_json(name, *verified);
    } else {
      print_text(name, *verified);
    }
    is_sound &= verified->damage.empty();
  }
  return is_sound;
}

// `offprint verify orders` is about the archive that the server's settings name.
bool take_name(VerifyArguments& arguments) {
  const bool is_name = arguments.name.empty() && !arguments.archive.contains("://");
  if (!is_name) return true;
  arguments.name = std::exchange(arguments.archive, arguments.server_archive);
  return !arguments.archive.empty();
}

int run(VerifyArguments arguments) {
  if (!take_name(arguments)) {
    return report_usage(fmt::format(
        "'{0}' is a name: say which archive it is in (--archive URL, or OFFPRINT_ARCHIVE), or give "
        "its own: file:///FOLDER/{0} or s3://BUCKET/PREFIX/{0}",
        arguments.name));
  }
  auto store = open_archive(arguments.archive);
  if (!store && store.error().code() == Code::kInvalid)
    return report_usage(store.error().message());
  auto is_sound = store ? verify_all(arguments, **store) : Result<bool>(fail(store.error()));
  if (!is_sound) {
    std::fprintf(stderr, "offprint: %s\n", is_sound.error().message().c_str());
    return archive_exit_code(is_sound.error());
  }
  return *is_sound ? kExitDone : kExitFailed;
}

}  // namespace

void add_verify(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "verify", "Proves that archives are sound, by reading and restoring them.");
  command->footer("Exit codes: 0 sound, 1 damaged, 2 usage, 3 unreachable, 4 refused.");
  auto arguments = std::make_shared<VerifyArguments>();
  command
      ->add_option(
          "ARCHIVE_URL", arguments->archive,
          "of a database or a server: file:///FOLDER or s3://BUCKET/PREFIX; or the NAME of "
          "a database in --archive")
      ->required();
  command->add_option("NAME", arguments->name,
                      "of a server's archive this database; without it all of them");
  command
      ->add_option("--archive", arguments->server_archive,
                   "URL of the server's archive, where only a NAME is given")
      ->envname("OFFPRINT_ARCHIVE");
  command->add_option("--scratch", arguments->scratch, "a folder with space for the database")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "what was found, as one line of JSON");
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace offprint
