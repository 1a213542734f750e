#include "cluster/cluster_node.h"

#include <algorithm>
#include <array>
#include <thread>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/random.h"

namespace offprint::cluster {
namespace {

constexpr std::string_view kHead = "offprint-node 1\n";
constexpr std::chrono::milliseconds kLookEvery{1};
constexpr std::chrono::milliseconds kHoldWritesMax{50};  // then those that wait go on for a moment
constexpr std::chrono::milliseconds kInteractiveMax{2'000};
constexpr std::chrono::milliseconds kLeaveMax{500};

// Which member of which cluster a data folder is: DATA/node, docs/format/cluster-records.md.
struct FolderOwner {
  std::string cluster;
  RecordMember member;
};
// Nothing: of none.
Result<std::optional<FolderOwner>> owner_of(FileSystem& files, const std::string& data) {
  const std::string path = data + "/node";
  OFFPRINT_TRY_ASSIGN(bool is_there, files.exists(path));
  if (!is_there) return std::nullopt;
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(files, path, 4096));
  std::string_view text = as_text(bytes);
  if (!text.starts_with(kHead))
    return fail(Code::kInvalid, path + " was written by a newer version");
  text.remove_prefix(kHead.size());
  text = text.substr(0, text.find('\n'));
  const std::size_t space = text.find(' ');
  auto member =
      space != std::string_view::npos ? RecordMember::parse(text.substr(space + 1)) : std::nullopt;
  if (!member) return fail(Code::kCorrupt, path + " is damaged");
  return FolderOwner{std::string(text.substr(0, space)), *member};
}

Result<RecordMember> member_of_folder(FileSystem& files, const ClusterNode::Options& options) {
  OFFPRINT_TRY(files.create_directories(options.data));
  OFFPRINT_TRY_ASSIGN(auto owner, owner_of(files, options.data));
  if (!owner) {
    OFFPRINT_TRY_ASSIGN(bool is_used, files.exists(options.data + "/journal"));
    if (is_used) {
      return fail(Code::kInvalid, options.data +
                                      " holds the databases of a single node: a cluster does not "
                                      "take it over yet; give the node an empty folder");
    }
    RecordMember member{options.node, 0};
    while (member.log_id == 0) {
      std::array<std::uint8_t, 8> bytes{};
      fill_random(bytes);
      member.log_id = load_be<std::uint64_t>(bytes.data());
    }
    const std::string text = fmt::format("{}{} {}\n", kHead, options.cluster, member.text());
    OFFPRINT_TRY(write_file_atomically(files, options.data + "/node", as_bytes(text)));
    return member;
  }
  if (owner->cluster != options.cluster || owner->member.node != options.node) {
    return fail(
        Code::kInvalid,
        fmt::format("{} is the folder of node {} of cluster {}: start it as that one, or give "
                    "this one a folder of its own",
                    options.data, owner->member.node, owner->cluster));
  }
  return owner->member;
}

}  // namespace

Result<> ClusterNode::check_is_alone(FileSystem& files, const std::string& data) {
  OFFPRINT_TRY_ASSIGN(auto owner, owner_of(files, data));
  if (!owner) return {};
  return fail(Code::kInvalid,
              fmt::format("{} is a folder of a cluster: add --cluster {} --node {} and --etcd URL",
                          data, owner->cluster, owner->member.node));
}

Result<std::unique_ptr<ClusterNode>> ClusterNode::create(FileSystem& files, Options options) {
  for (const std::string* name : {&options.cluster, &options.node}) {
    if (is_cluster_name(*name)) continue;
    return fail(
        Code::kInvalid,
        fmt::format("'{}' names no cluster or node: 1 to 63 of [a-z0-9._-], first a letter or "
                    "digit",
                    *name));
  }
  std::unique_ptr<ClusterNode> node(new ClusterNode(std::move(options)));
  const Options& given = node->options_;
  OFFPRINT_TRY_ASSIGN(node->self_, member_of_folder(files, given));
  PeerConnections::Options peers;
  peers.cluster = given.cluster;
  peers.self = node->self_;
  peers.listen = given.peer_listen;
  peers.secret = given.secret;
  OFFPRINT_TRY_ASSIGN(node->peers_, PeerConnections::create(peers));
  ClusteredStore::Options store;
  store.log.cluster = given.cluster;
  store.log.self = node->self_;
  store.log.on_fatal = given.on_fatal;
  OFFPRINT_TRY_ASSIGN(store.coordinator, create_etcd_coordinator(given.etcd));
  store.transport = node->peers_.get();
  store.on_fatal = given.on_fatal;
  node->store_side_ = std::make_unique<ClusteredStore>(std::move(store));
  return node;
}

ClusterNode::~ClusterNode() { stop(); }

Result<> ClusterNode::start(database::Store& store) {
  store_ = &store;
  ReplicatedLog& log = store_side_->log();
  const auto status = log.status(0).member;
  Roster::Options roster;
  roster.cluster = options_.cluster;
  roster.self = {self_,
                 options_.peer_listen.substr(0, options_.peer_listen.rfind(':') + 1) +
                     std::to_string(peers_->port()),
                 options_.url};
  roster.replicas = options_.replicas;
  roster.may_begin = status.epoch.value == 0 && status.last.value == 0;
  roster.heard = [this](const NodeRecord& node) {
    if (node.member != self_) peers_->set_peer(node.member, node.peer_address);
  };
  OFFPRINT_TRY_ASSIGN(auto coordinator, create_etcd_coordinator(options_.etcd));
  peers_->start(
      {.received = [&log](MemberId from,
                          PeerMessage message) { log.received(from, std::move(message)); },
       .connected = [&log](MemberId member) { log.connected(member); }});
  store_side_->run(store);
  roster_ = std::make_unique<Roster>(std::move(roster), std::move(coordinator));
  return {};
}

bool ClusterNode::has_all() {
  if (!store_side_->begun()) return false;
  if (is_primary()) return true;
  const ReplicatedLog::Status found = store_side_->log().status(0);
  return std::ranges::find(found.record.in_sync, self_) != found.record.in_sync.end() &&
         found.member.commit.value != 0 && store_side_->taken() >= found.member.commit;
}

void ClusterNode::stop() {
  roster_.reset();
  if (peers_) peers_->stop();
}

bool ClusterNode::has_other_primary() {
  const std::string primary = status().primary;
  return !primary.empty() && primary != options_.node;
}

// While writes wait the log comes to rest, and one who is in sync has all of it.
bool ClusterNode::try_hand_over(const std::vector<RecordMember>& candidates) {
  const Deadline until = SteadyClock::now() + kHoldWritesMax;
  bool done = false;
  store_side_->set_held(true);
  while (!done && SteadyClock::now() < until) {
    for (const RecordMember& member : candidates)
      done = done || store_side_->log().hand_over(0, member).has_value();
    if (!done) std::this_thread::sleep_for(kLookEvery);
  }
  store_side_->set_held(false);
  return done;
}

Result<> ClusterNode::hand_over(std::chrono::milliseconds time, const std::string& to) {
  std::lock_guard lock(handing_over_);
  const Deadline until = SteadyClock::now() + time;
  const Deadline interactive_until = SteadyClock::now() + std::min(time, kInteractiveMax);
  leaving_ = true;
  while (is_primary() && store_->set_leaving(true) > 0 && SteadyClock::now() < interactive_until)
    std::this_thread::sleep_for(kLookEvery);
  Result<> done = fail(Code::kNotPrimary, "another node is primary");
  if (is_primary()) done = fail(Code::kUnavailable, "no other node could take over in time");
  while (is_primary() && SteadyClock::now() < until) {
    std::vector<RecordMember> candidates = store_side_->log().status(0).record.in_sync;
    std::erase_if(candidates, [&](const RecordMember& member) {
      return member == self_ || (!to.empty() && member.node != to);
    });
    if (candidates.empty() && !to.empty()) {
      done = fail(Code::kNotFound, fmt::format("no node '{}' is in sync", to));
      break;
    }
    if (candidates.empty() || !try_hand_over(candidates)) {
      std::this_thread::sleep_for(kLookEvery);
      continue;
    }
    // Until the other one is heard of, or this one is primary after all.
    while (!has_other_primary() && !store_side_->log().status(0).member.leads &&
           SteadyClock::now() < until)
      std::this_thread::sleep_for(kLookEvery);
  }
  if (!is_primary() && has_other_primary()) done = {};
  store_->set_leaving(false);
  leaving_ = false;
  return done;
}

void ClusterNode::leave() {
  if (is_primary()) return;
  store_side_->log().leave();
  const Deadline until = SteadyClock::now() + kLeaveMax;
  while (SteadyClock::now() < until) {
    const auto in_sync = status().in_sync;
    if (std::ranges::find(in_sync, options_.node) == in_sync.end()) return;
    std::this_thread::sleep_for(kLookEvery);
  }
}

bool ClusterNode::is_primary() { return store_side_->leads().has_value(); }

ClusterNode::Status ClusterNode::status() {
  const ReplicatedLog::Status found = store_side_->log().status(0);
  Status status;
  status.epoch = found.record.epoch;
  for (const RecordMember& member : found.record.in_sync) status.in_sync.push_back(member.node);
  for (const RecordMember& member : found.record.replicas) {
    if (member.log_id == found.member.primary.value) status.primary = member.node;
  }
  return status;
}

std::int64_t ClusterNode::age_ms() {
  const GroupMember::Status found = store_side_->log().status(0).member;
  const Time age = found.leads ? Time{} : boot_time() - found.heard_at;
  return std::max<std::int64_t>(0,
                                std::chrono::duration_cast<std::chrono::milliseconds>(age).count());
}

std::optional<std::string> ClusterNode::primary_url() {
  const std::string node = status().primary;
  if (node == options_.node && (leaving_ || !is_primary())) return std::nullopt;
  return node.empty() || !roster_ ? std::nullopt : roster_->url_of(node);
}

}  // namespace offprint::cluster
