#include "cluster/cluster_node.h"

#include <algorithm>
#include <thread>

#include <fmt/format.h>

namespace offprint::cluster {

namespace {

constexpr std::chrono::milliseconds kLookEvery{1};
constexpr std::chrono::milliseconds kHoldWritesMax{50};  // then those that wait go on for a moment
constexpr std::chrono::milliseconds kInteractiveMax{2'000};
constexpr std::chrono::milliseconds kHandOverMax{4'000};
constexpr std::chrono::milliseconds kLeaveMax{500};
constexpr std::int64_t kHeardMaxMs = 3'000;  // a primary says something several times a second

}  // namespace

Result<std::unique_ptr<ClusterNode>> ClusterNode::create(Options options) {
  std::unique_ptr<ClusterNode> node(new ClusterNode(std::move(options)));
  const Options& given = node->options_;
  PeerConnections::Options peers;
  peers.cluster = given.cluster;
  peers.self = given.self;
  peers.listen = given.peer_listen;
  peers.secret = given.secret;
  OFFPRINT_TRY_ASSIGN(node->peers_, PeerConnections::create(peers));
  ClusteredStore::Options store;
  store.log.cluster = given.cluster;
  store.log.self = given.self;
  store.log.on_fatal = given.on_fatal;
  if (given.guardian != nullptr) {
    given.guardian->begin(MemberId{given.self.log_id});
    store.log.acts_in = [page = given.guardian](std::uint32_t, Epoch epoch) {
      page->acts_in(epoch);
    };
  }
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
  const ReplicatedLog::Status found = log.status(0);
  Roster::Options roster;
  roster.cluster = options_.cluster;
  roster.self = {options_.self,
                 options_.peer_listen.substr(0, options_.peer_listen.rfind(':') + 1) +
                     std::to_string(peers_->port()),
                 options_.url};
  roster.replicas = options_.replicas;
  roster.may_begin = options_.begins == found.member.epoch && found.last_epoch.value == 0;
  roster.begins_with_own = roster.may_begin && found.member.last.value != 0;
  roster.first_epoch = Epoch{found.member.epoch.value + 1};
  roster.refused = options_.on_refused;
  roster.heard = [this](const NodeRecord& node) {
    if (node.member == options_.self) return;
    if (options_.guardian != nullptr) options_.guardian->know(node.member.node, node.peer_address);
    peers_->set_peer(node.member, node.peer_address);
  };
  OFFPRINT_TRY_ASSIGN(auto coordinator, create_etcd_coordinator(options_.etcd));
  fills_ = std::make_unique<FillSource>(*store_side_, store);
  peers_->start(
      {.received = [&log](MemberId from,
                          PeerMessage message) { log.received(from, std::move(message)); },
       .connected = [&log](MemberId member) { log.connected(member); },
       .asks_for_fill = [this](std::shared_ptr<FillSink> sink) { fills_->fill(std::move(sink)); }});
  store_side_->run(store);
  roster_ = std::make_unique<Roster>(std::move(roster), std::move(coordinator));
  return {};
}

bool ClusterNode::has_all() {
  if (!store_side_->begun()) return false;
  if (is_primary()) return store_side_->store_leads();
  const ReplicatedLog::Status found = store_side_->log().status(0);
  return contains(found.record.in_sync, options_.self) && found.member.commit.value != 0 &&
         store_side_->taken() >= found.member.commit;
}

bool ClusterNode::needs_fill() {
  const ReplicatedLog::Status found = store_side_->log().status(0);
  return found.member.lacks_records || found.lacks_parts ||
         found.member.role == GroupMember::Role::kDamaged;
}

void ClusterNode::stop() {
  roster_.reset();
  if (peers_) peers_->stop();
  fills_.reset();
}

bool ClusterNode::has_other_primary() {
  const std::string primary = status().primary;
  return !primary.empty() && primary != options_.self.node;
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

Result<> ClusterNode::switch_over(const std::string& to) {
  std::lock_guard lock(handing_over_);
  const Deadline until = SteadyClock::now() + kHandOverMax;
  const Deadline interactive_until = SteadyClock::now() + kInteractiveMax;
  leaving_ = true;
  while (is_primary() && store_->set_leaving(true) > 0 && SteadyClock::now() < interactive_until)
    std::this_thread::sleep_for(kLookEvery);
  Result<> done = fail(Code::kNotPrimary, "another node is primary");
  if (is_primary()) done = fail(Code::kUnavailable, "no other node could take over in time");
  while (is_primary() && SteadyClock::now() < until) {
    std::vector<RecordMember> candidates = store_side_->log().status(0).record.in_sync;
    std::erase_if(candidates, [&](const RecordMember& member) {
      return member == options_.self || (!to.empty() && member.node != to);
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
  if (options_.guardian != nullptr && has_other_primary()) options_.guardian->rest();
  store_side_->log().leave();
  const Deadline until = SteadyClock::now() + kLeaveMax;
  while (SteadyClock::now() < until) {
    const auto in_sync = store_side_->log().status(0).record.in_sync;
    if (!contains(in_sync, options_.self)) return;
    std::this_thread::sleep_for(kLookEvery);
  }
}

bool ClusterNode::is_primary() { return store_side_->leads().has_value(); }

ClusterStatus ClusterNode::status() {
  const ReplicatedLog::Status found = store_side_->log().status(0);
  const GroupRecord& record = found.record;
  ClusterStatus status;
  status.epoch = record.epoch;
  status.lineage = record.lineage;
  status.min_in_sync = record.min_in_sync;
  status.forced = record.state == GroupRecord::State::kForced;
  for (const RecordMember& member : record.replicas) {
    const bool in_sync = contains(record.in_sync, member);
    auto url = roster_ ? roster_->url_of(member.node) : std::nullopt;
    status.nodes.push_back({member.node, std::move(url).value_or(""), in_sync});
    if (member.log_id == found.member.primary.value) status.primary = member.node;
  }
  return status;
}

Result<> ClusterNode::remove(const std::string& node) {
  OFFPRINT_TRY_ASSIGN(bool lives, roster_->lives(node));
  if (lives) {
    return fail(Code::kConflict, fmt::format("node '{}' runs, or did a few seconds ago: stop it "
                                             "first, or it comes back",
                                             node));
  }
  return roster_->change_record([&](GroupRecord record) -> Result<GroupRecord> {
    auto named = [&](const RecordMember& member) { return member.node == node; };
    if (std::ranges::any_of(record.in_sync, named)) {
      return fail(Code::kConflict, fmt::format("node '{}' is in sync still, and too few others "
                                               "are",
                                               node));
    }
    if (std::erase_if(record.replicas, named) == 0)
      return fail(Code::kNotFound, fmt::format("no node '{}' has a copy", node));
    record.min_in_sync = std::min(record.min_in_sync, least_in_sync(record.replicas.size()));
    return record;
  });
}

std::int64_t ClusterNode::age_ms() {
  const GroupMember::Status found = store_side_->log().status(0).member;
  const Time age = found.leads ? Time{} : boot_time() - found.heard_at;
  return std::max<std::int64_t>(0,
                                std::chrono::duration_cast<std::chrono::milliseconds>(age).count());
}

// Where requests for the primary would be answered now.
bool ClusterNode::reaches_primary() {
  const GroupMember::Status found = store_side_->log().status(0).member;
  if (is_primary()) return store_side_->store_leads() && found.role == GroupMember::Role::kPrimary;
  return primary_url().has_value() && age_ms() < kHeardMaxMs;
}

bool ClusterNode::is_of_use() {
  const Deadline now = SteadyClock::now();
  if (reaches_primary()) of_use_until_ = now + kOfUseAfter;
  return now < of_use_until_.load();
}

std::optional<std::string> ClusterNode::primary_url() {
  const std::string node = status().primary;
  const bool is_self = node == options_.self.node;
  // What this node could not do it is not asked for again before it can.
  if (is_self && (leaving_ || !is_primary() || !store_side_->log().may_answer(0)))
    return std::nullopt;
  return node.empty() || !roster_ ? std::nullopt : roster_->url_of(node);
}

}  // namespace offprint::cluster
