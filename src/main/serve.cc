// offprint serve: one node.
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include <CLI/CLI.hpp>

#include "base/log.h"
#include "database/store.h"
#include "main/commands.h"
#include "main/settings.h"
#include "server/http_server.h"
#include "server/router.h"
#include "server/service.h"

namespace offprint {
namespace {

constexpr std::uint64_t kDescriptorsReserved = 1000;
constexpr std::chrono::seconds kStopMax{14};  // requests have 10 s

struct ServeOptions {
  std::string data = "./data";
  std::string log_level = "info";
  bool insecure = false;
  server::HttpServerOptions http;
  server::ServiceOptions service;
  database::StoreOptions store;
};

int failed(const Error& error, int exit_code) {
  std::fprintf(stderr, "offprint: %s\n", error.message().c_str());
  return exit_code;
}

// Signals wait in the process until somebody takes them; threads started from here on inherit that.
sigset_t hold_back_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

// Connections never take the descriptors that databases and the journal need.
void leave_descriptors(std::uint64_t files, std::size_t& connections_max) {
  std::uint64_t most = files - std::min(kDescriptorsReserved, files / 2);
  if (files == 0 || most >= connections_max) return;
  log::info("the system allows {} open files: at most {} connections, not {}", files, most,
            connections_max);
  connections_max = most;
}

void wait_for_signal(const sigset_t& set) {
  int signal = 0;
  sigwait(&set, &signal);
  log::info("stopping ({}); once more ends at once", signal == SIGINT ? "SIGINT" : "SIGTERM");
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

// What SQLite does in one step nobody can end. Leaving it is safe: after a crash, too, everything
// acknowledged is there.
void leave_what_does_not_end() {
  std::thread([] {
    std::this_thread::sleep_for(kStopMax);
    log::warn("stopped without waiting for statements that do not end");
    std::fflush(nullptr);
    std::_Exit(kExitFailed);
  }).detach();
}

// Uploads that an earlier run left behind.
Result<> clean_directory(FileSystem& files, const std::string& directory) {
  OFFPRINT_TRY(files.create_directories(directory));
  OFFPRINT_TRY_ASSIGN(auto names, files.list(directory));
  for (const std::string& name : names) OFFPRINT_TRY(files.remove(directory + "/" + name));
  return {};
}

Result<> serve_until_signal(ServeOptions& options, const sigset_t& signals) {
  options.store.directory = options.data;
  options.store.node_name = options.service.node_name;
  options.service.spool_directory = options.data + "/uploads";
  options.service.version = OFFPRINT_VERSION;
  OFFPRINT_TRY_ASSIGN(auto store, database::Store::open(options.store));
  OFFPRINT_TRY(clean_directory(FileSystem::real(), options.service.spool_directory));
  OFFPRINT_TRY_ASSIGN(auto key,
                      server::load_stream_key(FileSystem::real(), options.data + "/stream.key"));
  server::ClientStreams streams(key, {});
  server::Service service{*store, streams, options.service};
  server::Router router(service);
  server::HttpServer http(options.http, router);
  service.http_counters = [&http] { return http.counters(); };
  OFFPRINT_TRY(http.start());
  std::printf("offprint: listening on http://%s, data in %s\n", http.address().c_str(),
              options.data.c_str());
  std::fflush(stdout);
  wait_for_signal(signals);
  leave_what_does_not_end();
  service.jobs.stop();
  http.stop();
  store.reset();  // answers what is left, while `http` can still be told
  log::info("stopped");
  return {};
}

int run(ServeOptions& options, Settings& settings) {
  if (Result<> loaded = settings.load_file(); !loaded) return failed(loaded.error(), kExitUsage);
  Result<server::ListenAddress> listen = server::parse_listen_address(options.http.address);
  if (!listen) return failed(listen.error(), kExitUsage);
  if (!listen->loopback && !options.insecure) {
    std::fprintf(stderr,
                 "offprint: %s can be reached from other machines, and nothing here asks who is "
                 "there: anybody could "
                 "read and write all databases. Listen on 127.0.0.1, or add --insecure if the "
                 "network is yours.\n",
                 options.http.address.c_str());
    return kExitUsage;
  }
  log::set_up(options.log_level);
  ::mallopt(M_ARENA_MAX, 4);  // many threads that come and go must not each keep memory
  sigset_t signals = hold_back_signals();
  leave_descriptors(server::raise_file_limit(), options.http.connections_max);
  if (Result<> served = serve_until_signal(options, signals); !served)
    return failed(served.error(), kExitFailed);
  return kExitDone;
}

void add_timeout(Settings& settings, const std::string& key, int& value_ms,
                 const std::string& help) {
  settings.add(key, value_ms, help)->check(CLI::Range(1, 86'400'000));
}

}  // namespace

void add_serve(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("serve", "Hosts databases over HTTP: one node, no other service.");
  auto options = std::make_shared<ServeOptions>();
  auto settings = std::make_shared<Settings>(*command);
  settings->add("data", options->data, "folder of everything that is kept");
  settings->add("listen", options->http.address, "HOST:PORT; port 0 takes a free one");
  settings->add_switch("insecure", options->insecure, "listen where other machines can connect");
  settings->add("node_name", options->service.node_name, "this server's name in answers");
  settings->add("allow_origin", options->service.allowed_origins,
                "origin of web pages that may send requests (https://app.example); * for any; can "
                "be repeated");
  settings->add("log_level", options->log_level, "trace, debug, info, warn, error or off")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}));
  settings
      ->add("io_threads", options->http.io_threads,
            "threads that talk to clients; 0: one a core, at most 4")
      ->check(CLI::Range(0, 64));
  settings->add("writer_threads", options->store.writer_threads, "threads that write, at most")
      ->check(CLI::Range(1, 1024));
  settings->add("connections_max", options->http.connections_max,
                "connections at once; beyond it 503");
  settings->add("body_bytes_max", options->service.body_bytes_max, "size of a request's body");
  settings->add("response_bytes_max", options->service.response_bytes_max, "size of a result");
  server::ConnectionLimits& limits = options->http.limits;
  add_timeout(*settings, "request_timeout_ms", options->service.request_timeout_ms,
              "statements are interrupted after this");
  add_timeout(*settings, "idle_timeout_ms", limits.idle_timeout_ms,
              "a connection without a request for so long is closed");
  add_timeout(*settings, "head_timeout_ms", limits.head_timeout_ms,
              "a request's head must arrive within this");
  add_timeout(*settings, "body_timeout_ms", limits.body_timeout_ms,
              "a request whose body stands still for so long is given up");
  add_timeout(*settings, "write_timeout_ms", limits.write_timeout_ms,
              "a client that takes nothing of its answer for so long is cut");
  settings->add("transaction_idle_ms", options->store.transaction_idle_ms,
                "an interactive transaction without a request for so long is rolled back");
  add_timeout(*settings, "copy_timeout_ms", options->store.copy_timeout_ms,
              "a dump or export that was not taken within this is cut off");
  settings->add("idle_close_ms", options->store.idle_close_ms,
                "an unused database's files are closed after this");
  settings->add("log_bytes_max", options->store.log_bytes_max,
                "recent transactions kept for followers, in bytes");
  command->callback([options, settings, &exit_code] { exit_code = run(*options, *settings); });
}

}  // namespace offprint
