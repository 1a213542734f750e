#include "main/clustering.h"

#include <algorithm>
#include <ctime>

#include "archive/s3_signature.h"
#include "base/bytes.h"
#include "base/file_system.h"
#include "base/log.h"
#include "server/http_server.h"

namespace offprint {
namespace {

constexpr int kSecretMin = 16;                   // bytes
constexpr int kReportEvery = 50;                 // looks at whether it has begun
constexpr std::chrono::seconds kHandOverMax{4};  // interactive transactions have 2 s of them

Result<std::string> read_secret(const std::string& path) {
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(FileSystem::real(), path, 4096));
  std::string secret(as_text(bytes));
  while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r')) secret.pop_back();
  if (secret.size() >= kSecretMin) return secret;
  return fail(Code::kInvalid, path + ": a cluster's secret has at least 16 bytes");
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
  settings.add("replicas", options.replicas, "so many nodes have a copy")->check(CLI::Range(1, 7));
}

Result<> Clustering::prepare(const ClusterOptions& options, const std::string& data,
                             const std::string& listen, database::StoreOptions& store) {
  if (options.cluster.empty())
    return cluster::ClusterNode::check_is_alone(FileSystem::real(), data);
  if (options.node.empty() || options.etcd.endpoints.empty())
    return fail(Code::kInvalid, "--cluster wants --node NAME and --etcd URL");
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
  cluster::ClusterNode::Options node;
  node.cluster = options.cluster;
  node.node = options.node;
  node.data = data;
  node.peer_listen = options.peer_listen;
  node.url = options.advertise.empty() ? "http://" + listen : options.advertise;
  if (!options.secret_file.empty()) {
    OFFPRINT_TRY_ASSIGN(node.secret, read_secret(options.secret_file));
  }
  const std::string known_to_all = "offprint streams 1\n" + node.cluster + "\n" + node.secret;
  const Bytes key = archive::sha256(as_bytes(known_to_all));
  std::ranges::copy(key, stream_key_.begin());
  node.etcd = options.etcd;
  node.replicas = options.replicas;
  node.on_fatal = [](const Error&) {
    std::fflush(nullptr);
    std::_Exit(1);  // what is durable is found at the next start
  };
  OFFPRINT_TRY_ASSIGN(node_, cluster::ClusterNode::create(FileSystem::real(), std::move(node)));
  store.common_log = &node_->common_log();
  return {};
}

Result<bool> Clustering::start(database::Store& store, const sigset_t& signals) {
  if (!node_) return true;
  OFFPRINT_TRY(node_->start(store));
  const timespec moment = {0, 20'000'000};
  for (int looks = 1; !node_->has_all(); ++looks) {
    if (looks % (kReportEvery * 5) == kReportEvery)
      log::info("waiting for the other nodes: what they committed is not known here yet");
    const int signal = sigtimedwait(&signals, nullptr, &moment);
    if (signal == SIGINT || signal == SIGTERM) return false;
  }
  return true;
}

server::StreamKey Clustering::stream_key(const server::StreamKey& own) const {
  return node_ ? stream_key_ : own;
}

void Clustering::apply(server::Service& service) {
  if (!node_) return;
  cluster::ForwarderOptions options;
  options.answer_timeout_ms = service.options.request_timeout_ms + 10'000;
  forwarder_ = std::make_unique<cluster::PrimaryForwarder>(
      options, [node = node_.get()] { return node->primary_url(); },
      service.options.request_timeout_ms);
  service.forwarder = forwarder_.get();
  service.is_follower = [node = node_.get()] { return !node->is_primary(); };
  service.copy_age_ms = [node = node_.get()](const auto&) { return node->age_ms(); };
  service.cluster_hand_over = [node = node_.get()](const std::string& to) {
    return node->hand_over(kHandOverMax, to);
  };
  service.cluster_status = [node = node_.get()] { return node->status(); };
}

void Clustering::hand_over() {
  if (!node_ || !node_->is_primary()) return;
  if (auto done = node_->hand_over(kHandOverMax); !done)
    log::warn("this node stops as primary: {}", done.error().message());
}

void Clustering::stop() {
  forwarder_.reset();
  if (!node_) return;
  node_->leave();
  node_->stop();
}

}  // namespace offprint
