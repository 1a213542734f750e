#include "main/clustering.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include <unistd.h>

#include <fmt/format.h>

#include "archive/s3_signature.h"
#include "base/bytes.h"
#include "base/file_system.h"
#include "base/log.h"
#include "cluster/joining.h"
#include "server/http_server.h"

namespace offprint {
namespace {

constexpr int kSecretMin = 16;    // bytes
constexpr int kReportEvery = 50;  // looks at whether it has begun
constexpr std::chrono::milliseconds kLookEvery{20};

bool is_to_stop(const sigset_t& signals, std::chrono::milliseconds wait) {
  const timespec time = {static_cast<time_t>(wait.count() / 1000),
                         static_cast<long>(wait.count() % 1000) * 1'000'000};
  const int signal = sigtimedwait(&signals, nullptr, &time);
  if (signal == SIGINT || signal == SIGTERM) kill(getpid(), signal);  // for whoever asks next
  return signal == SIGINT || signal == SIGTERM;
}

}  // namespace

void add_cluster_settings(Settings& settings, ClusterOptions& options) {
  settings.add("cluster", options.cluster,
               "name of the cluster that this node is part of; --node and --etcd go with it");
  settings.add("node", options.node, "this node's name in the cluster");
  settings.add("peer_listen", options.peer_listen, "HOST:PORT for the other nodes of the cluster");
  settings.add("advertise", options.advertise,
               "URL at which clients and other nodes reach this node; else made of --listen");
  settings.add("etcd", options.etcd.endpoints, "URL of an etcd server; can be repeated")
      ->delimiter(',');
  settings.add("cluster_secret", options.secret_file,
               "file with the secret that all nodes of the cluster know");
  settings.add("cluster_ca", options.ca_file,
               "PEM file with the certificates that the other nodes' https is to be checked by");
  settings
      .add("reads", options.reads,
           "where a read that does not say it is answered: by the primary, or by any node")
      ->check(CLI::IsMember({"primary", "any"}));
  settings.add("replicas", options.replicas, "so many nodes have a copy")->check(CLI::Range(1, 7));
  settings.add_switch("guardian", options.has_guardian,
                      "a second small process tells the other nodes of the cluster at once when "
                      "this one has died");
}

Result<std::string> read_secret(const ClusterOptions& options) {
  const std::string& path = options.secret_file;
  if (path.empty()) return std::string();
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(FileSystem::real(), path, 4096));
  std::string secret(as_text(bytes));
  while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r')) secret.pop_back();
  if (secret.size() >= kSecretMin) return secret;
  return fail(Code::kInvalid, path + ": a cluster's secret has at least 16 bytes");
}

static Result<> check(const ClusterOptions& options, const std::string& listen) {
  if (options.node.empty() || options.etcd.endpoints.empty())
    return fail(Code::kInvalid, "--cluster wants --node NAME and --etcd URL");
  for (const std::string* name : {&options.cluster, &options.node}) {
    if (cluster::is_cluster_name(*name)) continue;
    return fail(
        Code::kInvalid,
        fmt::format("'{}' names no cluster or node: 1 to 63 of [a-z0-9._-], first a letter or "
                    "digit",
                    *name));
  }
  OFFPRINT_TRY_ASSIGN(auto clients, server::parse_listen_address(listen));
  OFFPRINT_TRY_ASSIGN(auto peers, server::parse_listen_address(options.peer_listen));
  if (options.secret_file.empty() && (!clients.loopback || !peers.loopback)) {
    return fail(
        Code::kInvalid,
        "a cluster on several machines has a secret: --cluster-secret FILE, the same on all "
        "of them");
  }
  if (options.advertise.empty() && listen.ends_with(":0"))
    return fail(Code::kInvalid,
                "a cluster's node listens on a port that stays: --listen HOST:PORT");
  return {};
}

Result<Clustering::Next> Clustering::prepare(const ClusterOptions& options, const std::string& data,
                                             const std::string& listen, bool anew,
                                             const sigset_t& signals,
                                             database::StoreOptions& store) {
  FileSystem& files = FileSystem::real();
  if (options.cluster.empty()) {
    OFFPRINT_TRY(cluster::check_is_alone(files, data));
    return Next::kGoOn;
  }
  OFFPRINT_TRY(check(options, listen));
  cluster::ClusterNode::Options node;
  node.cluster = options.cluster;
  node.peer_listen = options.peer_listen;
  node.url = options.advertise.empty() ? (options.https ? "https://" : "http://") + listen
                                       : options.advertise;
  ca_file_ = options.ca_file;
  reads_anywhere_ = options.reads == "any";
  OFFPRINT_TRY_ASSIGN(node.secret, read_secret(options));
  node.guardian = options.guardian_page;
  const std::string known_to_all = "offprint streams 1\n" + node.cluster + "\n" + node.secret;
  const Bytes key = archive::sha256(as_bytes(known_to_all));
  std::ranges::copy(key, stream_key_.begin());
  node.etcd = options.etcd;
  node.replicas = options.replicas;
  node.on_fatal = [data](const Error& error) {
    // What the others decided does not fit what is here.
    if (error.code() == Code::kCorrupt) (void)cluster::note_damage(FileSystem::real(), data, error);
    std::fflush(nullptr);
    std::_Exit(1);  // what is durable is found at the next start
  };
  node.on_refused = [data](const Error&) {
    (void)cluster::FolderOwner::remove(FileSystem::real(), data);
    std::fflush(nullptr);
    std::_Exit(1);
  };
  OFFPRINT_TRY_ASSIGN(bool is_single_nodes, cluster::is_single_nodes(files, data));
  // What an older version left is brought to this one's formats.
  if (is_single_nodes) OFFPRINT_TRY(database::Store::open(store));
  cluster::JoinOptions join{
      options.cluster,
      options.node,
      data,
      node.secret,
      options.etcd,
      [&signals](std::chrono::milliseconds time) { return is_to_stop(signals, time); }};
  OFFPRINT_TRY_ASSIGN(auto owner,
                      anew ? cluster::join_anew(files, join) : cluster::join_cluster(files, join));
  if (!owner) return Next::kStop;
  node.self = owner->member;
  node.begins = owner->begins;
  OFFPRINT_TRY_ASSIGN(node_, cluster::ClusterNode::create(std::move(node)));
  store.common_log = &node_->common_log();
  return Next::kGoOn;
}

Result<Clustering::Next> Clustering::start(database::Store& store, const sigset_t& signals) {
  if (!node_) return Next::kGoOn;
  OFFPRINT_TRY(node_->start(store));
  for (int looks = 1; !node_->has_all(); ++looks) {
    if (looks % (kReportEvery * 5) == kReportEvery)
      log::info("waiting for the other nodes: what they committed is not known here yet");
    if (node_->needs_fill()) return Next::kFill;
    if (is_to_stop(signals, kLookEvery)) return Next::kStop;
  }
  return Next::kGoOn;
}

server::StreamKey Clustering::stream_key(const server::StreamKey& own) const {
  return node_ ? stream_key_ : own;
}

void Clustering::apply(server::Service& service) {
  if (!node_) return;
  cluster::ForwarderOptions options;
  options.ca_file = ca_file_;
  options.answer_timeout_ms = service.options.request_timeout_ms + 10'000;
  forwarder_ = std::make_unique<cluster::PrimaryForwarder>(
      options, [node = node_.get()] { return node->primary_url(); },
      service.options.request_timeout_ms);
  service.forwarder = forwarder_.get();
  service.is_follower = [node = node_.get()] { return !node->is_primary(); };
  service.copy_age_ms = [node = node_.get()](const auto&) { return node->age_ms(); };
  service.cluster = node_.get();
  service.options.reads_anywhere = reads_anywhere_;
}

void Clustering::hand_over() {
  if (!node_ || !node_->is_primary()) return;
  if (auto done = node_->switch_over(""); !done)
    log::warn("this node stops as primary: {}", done.error().message());
}

void Clustering::stop() {
  forwarder_.reset();
  if (!node_) return;
  node_->leave();
  node_->stop();
}

}  // namespace offprint
