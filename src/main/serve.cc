// offprint serve: one node, alone or in a cluster.
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
#include "cluster/forwarder.h"
#include "database/store.h"
#include "main/archiving.h"
#include "main/clustering.h"
#include "main/commands.h"
#include "main/guardian.h"
#include "main/role_watch.h"
#include "main/security.h"
#include "main/settings.h"
#include "main/tailing.h"
#include "publication/publications.h"
#include "replica/node_follower.h"
#include "server/cluster_instances.h"
#include "server/http_server.h"
#include "server/instance_relay.h"
#include "server/revocations.h"
#include "server/router.h"
#include "server/service.h"

namespace offprint {
namespace {

constexpr std::uint64_t kDescriptorsReserved = 1000;
constexpr std::chrono::seconds kStopMax{14};  // requests have 10 s
constexpr std::chrono::milliseconds kEchoMax{1'000};
// A node of a cluster is stopped while its clients work on.
constexpr int kStopQuietMs = 1'000;

// Of instances of publications.
struct InstanceOptions {
  int rest_ms = 3'600'000;   // an hour
  int drop_ms = 86'400'000;  // a day
  publication::Quota quota;

  publication::Publications::Options options() const {
    publication::Publications::Options result;
    result.rest_instance_after = std::chrono::milliseconds(rest_ms);
    result.drop_instance_after = std::chrono::milliseconds(drop_ms);
    // What is set to a second is looked at more often than that.
    result.sweep_every = std::min<std::chrono::milliseconds>(
        result.sweep_every, std::chrono::milliseconds(std::max(rest_ms / 2, 10)));
    result.quota = quota;
    return result;
  }
  server::InstanceRelay::Options relay_options() const {
    const publication::Publications::Options own = options();
    return {own.rest_instance_after, own.drop_instance_after, own.sweep_every};
  }
};

struct ServeOptions {
  InstanceOptions instances;
  std::string data = "./data";
  std::string log_level = "info";
  bool insecure = false;
  replica::NodeFollowerOptions follow;  // its URL is empty: this is a primary
  server::HttpServerOptions http;
  server::ServiceOptions service;
  database::StoreOptions store;
  SecurityOptions security;
  ArchiveOptions archive;
  TailOptions tail;
  ClusterOptions cluster;
};

int failed(const Error& error, int exit_code) {
  std::fprintf(stderr, "offprint: %s\n", error.message().c_str());
  return exit_code;
}

// Signals wait in the process until somebody takes them; threads started from here on inherit that.
sigset_t hold_back_signals(bool has_files) {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  if (has_files) sigaddset(&set, SIGHUP);
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

// Looks once a second at what may have changed, where there is anything, and at SIGHUP. False: no
// signal ended it; the node's folder is of no use any more.
bool wait_for_signal(const sigset_t& set, Security& security, Clustering& clustering,
                     bool is_guarded) {
  const timespec second = {1, 0};
  const bool looks = security.tls() || clustering.is_used();
  int signal = SIGHUP;
  while (signal != SIGINT && signal != SIGTERM) {
    signal = looks ? sigtimedwait(&set, nullptr, &second) : sigwaitinfo(&set, nullptr);
    security.look_for_changes();
    if (clustering.needs_fill()) return false;
  }
  log::info("stopping ({}); once more ends at once", signal == SIGINT ? "SIGINT" : "SIGTERM");
  if (!is_guarded) pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return true;
}

// A signal to all processes of a group comes twice to one that has a guardian: that is one order.
void take_no_echo(const sigset_t& set) {
  const timespec now = {0, 0};
  std::this_thread::sleep_for(kEchoMax);
  while (sigtimedwait(&set, nullptr, &now) > 0) continue;
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

// What SQLite does in one step nobody can end. Leaving it is safe: after a crash, too, everything
// acknowledged is there.
void leave_what_does_not_end(const sigset_t& signals, bool is_guarded) {
  std::thread([signals, is_guarded, until = SteadyClock::now() + kStopMax] {
    if (is_guarded) take_no_echo(signals);
    std::this_thread::sleep_until(until);
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

// What a data folder holds copies of. Served as a primary, or with another primary's transactions,
// they would go another way without anybody noticing.
Result<> check_what_is_followed(FileSystem& files, const std::string& data,
                                const std::string& url) {
  const std::string path = data + "/follows";
  OFFPRINT_TRY_ASSIGN(bool marked, files.exists(path));
  OFFPRINT_TRY_ASSIGN(bool used, files.exists(data + "/journal"));
  if (!marked && url.empty()) return {};
  if (!marked && used) {
    return fail(Code::kInvalid, data + " holds databases of its own; give copies another folder");
  }
  if (!marked) {
    OFFPRINT_TRY(files.create_directories(data));
    return write_file_atomically(files, path, as_bytes("offprint-follows 1\n" + url + "\n"));
  }
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(files, path, 64 << 10));
  std::string_view text = as_text(bytes);
  if (!text.starts_with("offprint-follows 1\n"))
    return fail(Code::kInvalid, path + " was written by a newer version");
  text.remove_prefix(text.find('\n') + 1);
  std::string followed(text.substr(0, text.find('\n')));
  if (url.empty()) {
    return fail(Code::kInvalid,
                data + " holds copies of " + followed + ": add --follow " + followed);
  }
  return {};  // the primary may have got another address; its lineages tell whether it is the same
}

// A node that has copies: the thread that keeps them, and the way to the primary.
struct Following {
  std::unique_ptr<cluster::Forwarder> forwarder;
  std::unique_ptr<replica::NodeFollower> follower;
  std::unique_ptr<server::InstanceRelay> relay;

  Result<> start(const ServeOptions& options, database::Store& store, server::Service& service) {
    if (options.follow.url.empty()) return {};
    cluster::ForwarderOptions forward;
    forward.url = options.follow.url;
    forward.ca_file = options.follow.ca_file;
    forward.answer_timeout_ms = options.service.request_timeout_ms + 10'000;
    OFFPRINT_TRY_ASSIGN(forwarder, cluster::Forwarder::create(forward));
    replica::NodeFollowerOptions follow = options.follow;
    follow.spool_directory = options.service.spool_directory;
    follow.on_revocation = [&service](const database::Revocation& revocation) -> Result<> {
      if (service.revocations == nullptr) return {};  // nobody is asked for tokens here
      return service.revocations->add(revocation);
    };
    OFFPRINT_TRY_ASSIGN(follower, replica::NodeFollower::create(follow, store));
    service.forwarder = forwarder.get();
    service.options.primary = options.follow.url;
    service.copy_age_ms = [this](const auto& name) {
      return name.is_instance() ? relay->age_ms(name) : follower->age_ms(name);
    };
    service.follower_status = [this] { return follower->status(); };
    OFFPRINT_TRY(start_relay(options, follow, service));
    follower->start();
    return {};
  }
  Result<> start_relay(const ServeOptions& options, replica::NodeFollowerOptions follow,
                       server::Service& service) {
    follow.on_revocation = {};  // the other one hears them
    follow.spool_directory = options.data + "/relaying";
    OFFPRINT_TRY(clean_directory(FileSystem::real(), follow.spool_directory));
    OFFPRINT_TRY_ASSIGN(relay, server::InstanceRelay::create(service, std::move(follow),
                                                             options.instances.relay_options()));
    service.source_of = [this](const auto& name) { return relay->source_of(name); };
    relay->start();
    return {};
  }
  void stop() {
    if (relay) relay->stop();
    if (follower) follower->stop();
  }
};

// A node that keeps what its databases publish; of a cluster that is the primary.
class Publishing {
 public:
  void start(const ServeOptions& options, database::Store& store, server::Service& service,
             Clustering& clustering) {
    if (!options.follow.url.empty()) return;
    publication::Publications::Options own = options.instances.options();
    own.leads = !clustering.is_used();
    publications_ = std::make_unique<publication::Publications>(store, own);
    service.publications = publications_.get();
    service.source_of = [this](const auto& name) { return publications_->reached(name); };
    if (!clustering.is_used()) return;
    instances_ = std::make_unique<server::ClusterInstances>(service, own.rest_instance_after);
    role_ = std::make_unique<RoleWatch>(
        clustering.node(), options.cluster.cluster,
        [this](const std::string&, bool) -> Result<> {
          publications_->lead();
          return {};
        },
        [this] { publications_->follow(); });
  }
  // Where instances are asked for; null: at service.publications alone.
  server::InstanceHost* host() { return instances_.get(); }
  void stop() {
    if (role_) role_->stop();
    if (instances_) instances_->stop();
    if (publications_) publications_->stop();
  }

 private:
  std::unique_ptr<publication::Publications> publications_;
  std::unique_ptr<server::ClusterInstances> instances_;
  std::unique_ptr<RoleWatch> role_;
};

// What a cluster does not have yet.
Result<> check_goes_with_cluster(const ServeOptions& options) {
  if (options.cluster.cluster.empty()) return {};
  const char* other = !options.follow.url.empty()   ? "--follow"
                      : !options.tail.files.empty() ? "--tail"
                                                    : nullptr;
  if (other == nullptr) return {};
  return fail(Code::kInvalid, std::string("--cluster and ") + other + " do not go together");
}

// What settings say of each other.
Result<> settle(ServeOptions& options) {
  options.store.directory = options.data;
  options.store.node_name = options.service.node_name;
  options.service.spool_directory = options.data + "/uploads";
  options.service.version = OFFPRINT_VERSION;
  options.store.copies = !options.follow.url.empty();
  options.service.socket_idle_ms = options.http.limits.idle_timeout_ms;
  options.cluster.https = options.security.has_tls();
  if (!options.cluster.node.empty()) options.service.node_name = options.cluster.node;
  OFFPRINT_TRY(check_what_is_followed(FileSystem::real(), options.data, options.follow.url));
  return check_goes_with_cluster(options);
}

// Until a signal comes, or the folder has to be filled. `anew`: it has to be now.
Result<Clustering::Next> serve_once(ServeOptions& options, const sigset_t& signals, bool anew) {
  using Next = Clustering::Next;
  OFFPRINT_TRY(settle(options));
  Clustering clustering;
  OFFPRINT_TRY_ASSIGN(Next next,
                      clustering.prepare(options.cluster, options.data, options.http.address, anew,
                                         signals, options.store));
  if (next != Next::kGoOn) return next;
  auto opened = database::Store::open(options.store);
  if (!opened && opened.error().code() == Code::kCorrupt && clustering.is_used()) {
    log::error("{} cannot be used: {}", options.data, opened.error().message());
    return Next::kFill;
  }
  OFFPRINT_TRY_ASSIGN(auto store, std::move(opened));
  OFFPRINT_TRY_ASSIGN(next, clustering.start(*store, signals));
  if (next != Next::kGoOn) {
    clustering.stop();
    return next;
  }
  OFFPRINT_TRY(clean_directory(FileSystem::real(), options.service.spool_directory));
  OFFPRINT_TRY_ASSIGN(auto key,
                      server::load_stream_key(FileSystem::real(), options.data + "/stream.key"));
  server::ClientStreams streams(clustering.stream_key(key), {});
  server::Service service{*store, streams, options.service};
  OFFPRINT_TRY_ASSIGN(auto security, Security::load(options.security, *store));
  security->apply(service);
  clustering.apply(service);
  Following following;
  OFFPRINT_TRY(following.start(options, *store, service));
  Archiving archiving;
  OFFPRINT_TRY(
      archiving.start(options.archive, options.data, *store, service, clustering.is_used()));
  RoleWatch role(
      clustering.node(), options.cluster.cluster,
      [&](const std::string& group, bool forced) { return archiving.lead(group, forced); },
      [&] { archiving.follow(false); });
  Tailing tailing;
  OFFPRINT_TRY(tailing.start(options.tail, options.data, *store, &service, service.has_copies()));
  Publishing publishing;
  publishing.start(options, *store, service, clustering);
  options.http.tls = security->tls();
  if (!options.cluster.cluster.empty()) options.http.stop_quiet_ms = kStopQuietMs;
  server::Router router(service, following.relay ? following.relay.get() : publishing.host());
  server::HttpServer http(options.http, router);
  service.http_counters = [&http] { return http.counters(); };
  OFFPRINT_TRY(http.start());
  std::printf("offprint: listening on http%s://%s, data in %s\n", security->tls() ? "s" : "",
              http.address().c_str(), options.data.c_str());
  std::fflush(stdout);
  const bool is_guarded = options.cluster.guardian_page != nullptr;
  next = wait_for_signal(signals, *security, clustering, is_guarded) ? Next::kStop : Next::kFill;
  if (next == Next::kStop) leave_what_does_not_end(signals, is_guarded);
  service.stopping = true;
  role.stop();
  if (clustering.is_used()) archiving.follow(true);  // before another one writes it
  clustering.hand_over();
  archiving.stop_waiting();
  service.jobs.stop();
  http.stop();
  service.feeds.stop();
  following.stop();
  tailing.stop();
  publishing.stop();
  archiving.stop();
  clustering.stop();
  store.reset();  // answers what is left, while `http` and the primary can still be told
  log::info("stopped");
  return next;
}

Result<> serve_until_signal(ServeOptions& options, const sigset_t& signals) {
  bool anew = false;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto next, serve_once(options, signals, anew));
    if (next == Clustering::Next::kStop) return {};
    log::warn(
        "from what this node has there is no way to what the others have: it is filled again");
    anew = true;
  }
}

int run(ServeOptions& options, Settings& settings) {
  if (Result<> loaded = settings.load_file(); !loaded) return failed(loaded.error(), kExitUsage);
  Result<server::ListenAddress> listen = server::parse_listen_address(options.http.address);
  if (!listen) return failed(listen.error(), kExitUsage);
  bool asks = options.security.asks_for_tokens();
  if (!listen->loopback && !asks && !options.insecure) {
    std::fprintf(stderr,
                 "offprint: %s can be reached from other machines, and nothing here asks who is "
                 "there: anybody could "
                 "read and write all databases. Ask for tokens (--auth-keys), listen on 127.0.0.1, "
                 "or add --insecure if the network is yours.\n",
                 options.http.address.c_str());
    return kExitUsage;
  }
  if (options.cluster.has_guardian && options.cluster.cluster.empty()) {
    std::fprintf(stderr, "offprint: --guardian tells a cluster: it goes with --cluster\n");
    return kExitUsage;
  }
  log::set_up(options.log_level);
  if (!listen->loopback && asks && !options.security.has_tls())
    log::warn("without TLS (--tls-cert) whoever sees the traffic sees the tokens");
  ::mallopt(M_ARENA_MAX, 4);  // many threads that come and go must not each keep memory
  sigset_t signals = hold_back_signals(options.security.has_tls());
  std::unique_ptr<cluster::GuardianPage> page;
  if (options.cluster.has_guardian) {
    auto guarded = run_guarded(options.cluster);
    if (!guarded) return failed(guarded.error(), kExitFailed);
    page = *std::move(guarded);
    options.cluster.guardian_page = page.get();
  }
  leave_descriptors(server::raise_file_limit(), options.http.connections_max);
  if (Result<> served = serve_until_signal(options, signals); !served)
    return failed(served.error(), kExitFailed);
  return kExitDone;
}

void add_timeout(Settings& settings, const std::string& key, int& value_ms,
                 const std::string& help) {
  settings.add(key, value_ms, help)->check(CLI::Range(1, 86'400'000));
}

void add_instance_settings(Settings& settings, InstanceOptions& instances) {
  settings
      .add("instance_rest_ms", instances.rest_ms,
           "an instance of a publication that nobody asked for or followed for so long is "
           "kept up no longer, until somebody asks again")
      ->check(CLI::Range(1, 2'000'000'000));
  settings.add("instance_drop_ms", instances.drop_ms, "after so long more its files go, too")
      ->check(CLI::Range(1, 2'000'000'000));
  settings.add("instance_bytes_max", instances.quota.size_bytes_max,
               "size of an instance's file: it stops before it grows beyond; 0: no limit");
  settings.add("instance_rows_per_minute_max", instances.quota.rows_per_minute_max,
               "rows that change in an instance: it stops when there are more; 0: no limit");
}

void add_key_settings(Settings& settings, database::StoreOptions& store) {
  settings
      .add("idempotency_age_ms", store.key_age_max_ms,
           "what became of a request with an Idempotency-Key is kept for so long")
      ->check(CLI::Range(1'000, 2'000'000'000));
  settings
      .add("idempotency_keys_max", store.keys_max,
           "of the newest so many such requests of a database, at most")
      ->check(CLI::Range(16, 100'000'000));
  settings.add(
      "idempotency_answer_bytes_max", store.key_answer_bytes_max,
      "size of an answer that is kept; of larger ones it is known that they were committed");
}

void add_follow_settings(Settings& settings, ServeOptions& options) {
  settings.add("follow", options.follow.url,
               "URL of another node: serve copies of its databases, pass writes on to it");
  settings.add("follow_match", options.follow.match,
               "which of them: a name, or a prefix with *; can be repeated");
  settings.add("follow_token", options.follow.token, "token that it wants");
  settings.add("follow_ca", options.follow.ca_file,
               "PEM file with the certificates that its https is to be checked by");
  settings
      .add("follow_wait_ms", options.store.copy_wait_ms,
           "a read waits here so long for its bookmark, then it is the primary's")
      ->check(CLI::Range(0, 600'000));
}

}  // namespace

void add_serve(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "serve", "Hosts databases over HTTP: one node, or several with --cluster.");
  auto options = std::make_shared<ServeOptions>();
  auto settings = std::make_shared<Settings>(*command);
  settings->add("data", options->data, "folder of everything that is kept");
  settings->add("listen", options->http.address, "HOST:PORT; port 0 takes a free one");
  settings->add_switch("insecure", options->insecure, "listen where other machines can connect");
  add_follow_settings(*settings, *options);
  add_archive_settings(*settings, options->archive);
  add_tail_settings(*settings, options->tail);
  add_security_settings(*settings, options->security);
  add_cluster_settings(*settings, options->cluster);
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
  settings->add("cursor_bytes_max", options->service.cursor_bytes_max,
                "size of a cursor's results");
  settings->add("spool_bytes_max", options->service.spool_bytes_max,
                "size of all results that wait on the disk for their clients");
  settings->add_switch("host_label", options->service.host_label,
                       "at the root, the first label of Host names the database");
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
  settings
      ->add("slow_ms", options->store.slow_ms,
            "a statement that takes so long is logged, 60 a minute at most; 0: none")
      ->check(CLI::Range(0, 86'400'000));
  settings->add("idle_close_ms", options->store.idle_close_ms,
                "an unused database's files are closed after this");
  settings->add("log_bytes_max", options->store.log_bytes_max,
                "recent transactions are kept, in bytes");
  add_key_settings(*settings, options->store);
  add_instance_settings(*settings, options->instances);
  command->callback([options, settings, &exit_code] { exit_code = run(*options, *settings); });
}

}  // namespace offprint
