// offprint tail: a program's own file, archived without a server.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "main/archiving.h"
#include "main/commands.h"
#include "main/remote.h"
#include "main/tailing.h"
#include "server/client_streams.h"
#include "server/service.h"

namespace offprint {
namespace {

struct TailCommand {
  std::string file, name, data = "./data", log_level = "info";
  bool set_wal = false;
  ArchiveOptions archive;
};

// The file's name without what follows its last point, as far as a database can have it.
std::string default_name(const std::string& file) {
  std::string name = std::filesystem::path(file).stem().string();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return name;
}

Result<> tail_until_signal(const TailCommand& options, const sigset_t& signals) {
  database::StoreOptions store_options;
  store_options.directory = options.data;
  OFFPRINT_TRY_ASSIGN(auto store, database::Store::open(store_options));
  OFFPRINT_TRY_ASSIGN(auto key,
                      server::load_stream_key(FileSystem::real(), options.data + "/stream.key"));
  server::ClientStreams streams(key, {});
  server::Service service{*store, streams, {}};  // nobody is served
  Archiving archiving;
  OFFPRINT_TRY(archiving.start(options.archive, options.data, *store, service, false));
  TailOptions tail;
  tail.files = {options.name + "=" + options.file};
  tail.set_wal = options.set_wal;
  Tailing tailing;
  OFFPRINT_TRY(tailing.start(tail, options.data, *store, nullptr, false));
  std::printf("offprint: database '%s' follows %s and goes to %s\n", options.name.c_str(),
              options.file.c_str(), options.archive.url.c_str());
  std::fflush(stdout);
  sigwaitinfo(&signals, nullptr);
  log::info("stopping; once more ends at once");
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  tailing.stop();
  archiving.stop();
  return {};
}

int run(TailCommand& options) {
  if (options.name.empty()) options.name = default_name(options.file);
  if (auto name = database::DatabaseName::parse(options.name); !name)
    return report_usage(name.error().message() + "; give the database a name with --name");
  log::set_up(options.log_level);
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  if (Result<> done = tail_until_signal(options, signals); !done) {
    std::fprintf(stderr, "offprint: %s\n", done.error().message().c_str());
    return kExitFailed;
  }
  return kExitDone;
}

}  // namespace

void add_tail(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "tail",
      "Archives FILE, a program's own SQLite file, while the program uses it; serves nothing.");
  auto options = std::make_shared<TailCommand>();
  command->add_option("FILE", options->file, "the program's file, in WAL mode")->required();
  Settings settings(*command, false);
  settings
      .add("archive", options->archive.url,
           "URL of the archive: file:///FOLDER or s3://BUCKET/PREFIX")
      ->required();
  command->add_option("--name", options->name, "of the database; FILE's own name without its end");
  command->add_option("--data", options->data, "folder of what is kept between starts")
      ->capture_default_str();
  command->add_flag("--set-wal", options->set_wal, "turn FILE into WAL mode where it is not");
  add_archive_times(settings, options->archive);
  command->add_option("--log-level", options->log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace offprint
