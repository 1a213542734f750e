#include "tests/protocol/world.h"

#include <algorithm>

#include <fmt/format.h>

#include "tests/protocol/probe.h"

namespace offprint::cluster {

std::string to_string(const Step& step) {
  static constexpr const char* kNames[] = {
      "time",      "tick",    "deliver",     "double",     "lose",        "propose",  "sync",
      "crash",     "restart", "cas apply",   "cas answer", "cas timeout", "cas fail", "late apply",
      "late lose", "read",    "read answer", "read fail",  "hand over",   "release"};
  return fmt::format("{} {} {}", kNames[static_cast<std::size_t>(step.kind)], step.node,
                     step.other);
}

// Takes down what a member wants done.
class World::NodeEffects final : public Effects {
 public:
  NodeEffects(World& world, std::size_t node) : world_(world), node_(node) {}

  Lsn send_records(MemberId to, const Append& message) override {
    put(to, message);
    return message.end();
  }
  void send(MemberId to, const Message& message) override { put(to, message); }
  void needs_fill(MemberId) override { world_.violate("a log that was never cut needs a fill"); }
  Lsn store(Command command, Lsn, const EpochRuns& runs) override {
    node().writes.push_back({Write::Kind::kRecords, command, runs, {}, {}});
    return runs.back().last;
  }
  void truncate(Command command, Lsn to) override {
    node().writes.push_back({Write::Kind::kTruncate, command, {}, to, {}});
  }
  void promise(Command command, Epoch epoch) override {
    node().writes.push_back({Write::Kind::kPromise, command, {}, {}, epoch});
  }
  void read_record() override {
    node().asks = true;
    node().saw.reset();
  }
  void compare_and_swap(const GroupView& next) override {
    if (node().cas) world_.violate("two compare-and-swaps at once");
    node().cas = Cas{next};
  }
  void committed(Lsn lsn) override { world_.note_committed(node_, lsn); }
  void changed() override {}
  void acts_in(Epoch epoch) override {
    if (epoch <= std::max(node().acted, node().called))
      world_.violate("an epoch is acted in again that was over");
    node().acted = epoch;
  }
  void put(MemberId to, const Message& message) {
    const auto* append = std::get_if<Append>(&message);
    if (append != nullptr && append->epoch > node().acted)
      world_.violate("its guardian does not know of an epoch in which it acts");
    std::size_t target = node_of(to);
    if (target >= world_.nodes_.size() || !world_.nodes_[target].member) return;
    if (world_.packets_.size() >= world_.options_.packets_max) return;  // lost
    world_.packets_.push_back(
        {static_cast<std::uint8_t>(node_), static_cast<std::uint8_t>(target), message});
  }

 private:
  Node& node() { return world_.nodes_[node_]; }

  World& world_;
  const std::size_t node_;
};

World::World(const WorldOptions& options) : options_(options) {
  record_.version = 1;
  record_.min_in_sync = options.min_in_sync;
  for (std::size_t i = 0; i < options.nodes; ++i) {
    record_.replicas.push_back(id_of(i));
    if (i < options.in_sync) record_.in_sync.push_back(id_of(i));
  }
  nodes_.resize(options.nodes);
  for (std::size_t i = 0; i < options.nodes; ++i) restart(i);
}

std::vector<Step> World::candidates() const {
  using Kind = Step::Kind;
  std::vector<Step> steps{{Kind::kTime}};
  auto add = [&](Kind kind, std::size_t node, std::size_t other = 0) {
    steps.push_back({kind, static_cast<std::uint8_t>(node), static_cast<std::uint8_t>(other)});
  };
  for (std::size_t i = 0; i < packets_.size(); ++i) {
    for (Kind kind : {Kind::kDeliver, Kind::kDouble, Kind::kLose}) add(kind, i);
  }
  for (std::size_t i = 0; i < late_.size(); ++i) {
    add(Kind::kLateApply, i);
    add(Kind::kLateLose, i);
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    for (Kind kind : {Kind::kTick, Kind::kPropose, Kind::kSync, Kind::kRestart, Kind::kCasApply,
                      Kind::kCasAnswer, Kind::kCasTimeout, Kind::kCasFail, Kind::kRead,
                      Kind::kReadAnswer, Kind::kReadFail}) {
      add(kind, i);
    }
    for (std::size_t late : {0U, 1U}) add(Kind::kRelease, i, late);
    for (std::size_t n = 0; n <= nodes_[i].writes.size(); ++n) add(Kind::kCrash, i, n);
    for (std::size_t to = 0; to < nodes_.size(); ++to) add(Kind::kHandOver, i, to);
  }
  return steps;
}

bool World::apply(const Step& step) {
  using Kind = Step::Kind;
  bool done = false;
  switch (step.kind) {
    case Kind::kTime:
      now_ += Time{1};
      done = true;
      break;
    case Kind::kDeliver:
    case Kind::kDouble:
    case Kind::kLose:
      done = apply_to_packet(step);
      break;
    case Kind::kLateApply:
    case Kind::kLateLose:
      if (step.node >= late_.size()) return false;
      if (step.kind == Kind::kLateApply) {
        Cas cas{late_[step.node]};
        apply_cas(cas);
      }
      late_.erase(late_.begin() + step.node);
      done = true;
      break;
    default:
      if (step.node >= nodes_.size()) return false;
      done = apply_to_node(step, nodes_[step.node]);
      break;
  }
  if (done && violation_.empty()) check();
  return done;
}

bool World::apply_to_packet(const Step& step) {
  if (step.node >= packets_.size()) return false;
  Packet packet = packets_[step.node];
  if (step.kind != Step::Kind::kDouble) packets_.erase(packets_.begin() + step.node);
  if (step.kind != Step::Kind::kLose) deliver(packet);
  return true;
}

void World::deliver(const Packet& packet) {
  Node& to = nodes_[packet.to];
  if (!to.member) return;
  NodeEffects effects(*this, packet.to);
  to.member->receive(now_, id_of(packet.from), packet.message, effects);
}

bool World::apply_to_node(const Step& step, Node& node) {
  using Kind = Step::Kind;
  NodeEffects effects(*this, step.node);
  if (step.kind == Kind::kRestart) {
    if (node.member) return false;
    restart(step.node);
    return true;
  }
  if (step.kind == Kind::kRelease) return release(step.node, step.other % 2 == 0);
  if (!node.member) return false;
  switch (step.kind) {
    case Kind::kTick:
      node.member->tick(now_, effects);
      return true;
    case Kind::kPropose:
      return propose(step.node);
    case Kind::kSync:
      if (node.writes.empty()) return false;
      sync(step.node);
      return true;
    case Kind::kCrash:
      if (crashes_ >= options_.crashes_max || step.other > node.writes.size()) return false;
      crash(step.node, step.other);
      return true;
    case Kind::kRead:
      if (!node.asks || node.saw) return false;
      node.saw = record_;
      return true;
    case Kind::kReadAnswer: {
      if (!node.saw) return false;
      GroupView saw = *std::exchange(node.saw, std::nullopt);
      node.asks = false;
      node.member->on_view(now_, saw, effects);
      return true;
    }
    case Kind::kReadFail:
      if (!node.asks) return false;
      node.asks = false;
      node.saw.reset();
      node.member->on_read_failed(now_, effects);
      return true;
    case Kind::kHandOver:
      return hand_over(step.node, step.other);
    default:
      return apply_to_cas(step, node);
  }
}

bool World::apply_to_cas(const Step& step, Node& node) {
  if (!node.cas) return false;
  NodeEffects effects(*this, step.node);
  Cas& cas = *node.cas;
  switch (step.kind) {
    case Step::Kind::kCasApply:
      if (cas.state != Cas::State::kSent) return false;
      apply_cas(cas);
      return true;
    case Step::Kind::kCasAnswer: {
      if (cas.state == Cas::State::kSent) return false;
      bool applied = cas.state == Cas::State::kApplied;
      std::uint64_t version = cas.version;
      node.cas.reset();
      node.member->on_cas(now_, applied ? CasOutcome::kApplied : CasOutcome::kRefused, version,
                          effects);
      return true;
    }
    case Step::Kind::kCasTimeout:
      if (!give_up_cas(node, false)) return false;
      node.member->on_cas(now_, CasOutcome::kUnknown, 0, effects);
      return true;
    case Step::Kind::kCasFail:
      if (cas.state != Cas::State::kSent) return false;
      node.cas.reset();
      node.member->on_cas(now_, CasOutcome::kFailed, 0, effects);
      return true;
    default:
      return false;
  }
}

void World::apply_cas(Cas& cas) {
  if (cas.next.version != record_.version) {
    cas.state = Cas::State::kRefused;
    return;
  }
  if (cas.next.epoch.value > options_.epochs_max || record_.version >= options_.versions_max) {
    cas.state = Cas::State::kRefused;  // the end of this world
    return;
  }
  record_ = cas.next;
  cas.version = ++record_.version;
  cas.state = Cas::State::kApplied;
}

// What was sent may happen at any time from now on, or never.
bool World::give_up_cas(Node& node, bool or_lose) {
  if (node.cas->state == Cas::State::kSent) {
    if (late_.size() < options_.late_max) {
      late_.push_back(node.cas->next);
    } else if (!or_lose) {
      return false;
    }
  }
  node.cas.reset();
  return true;
}

bool World::propose(std::size_t index) {
  Node& node = nodes_[index];
  if (node.member->log().last().value >= options_.records_max) return false;
  auto proposal = node.member->propose(now_);
  if (!proposal) return false;
  std::pair<Lsn, Epoch> place{proposal->lsn, proposal->epoch};
  if (std::ranges::find(proposed_, place) != proposed_.end())
    violate("two records in one place of one epoch");
  proposed_.push_back(place);
  // It was written upon what is applied; of earlier epochs that must be everything.
  for (std::uint64_t i = GroupMemberProbe{*node.member}.commit().value + 1; i < proposal->lsn.value;
       ++i) {
    if (node.member->log().epoch_at(Lsn{i}) != proposal->epoch)
      violate("a write upon a state that lacks records");
  }
  node.writes.push_back({Write::Kind::kRecords,
                         proposal->command,
                         {{proposal->epoch, proposal->lsn, proposal->lsn}},
                         {},
                         {}});
  NodeEffects effects(*this, index);
  node.member->flush(now_, effects);
  return true;
}

bool World::hand_over(std::size_t from, std::size_t to) {
  if (!options_.hands_over || from == to || to >= nodes_.size()) return false;
  NodeEffects effects(*this, from);
  return nodes_[from].member->hand_over(now_, id_of(to), effects);
}

void World::write_to_disk(Node& node, const Write& write) {
  switch (write.kind) {
    case Write::Kind::kRecords:
      for (const EpochRun& run : write.runs) {
        if (run.last > node.disk_log.last()) node.disk_log.append(run.epoch, run.last);
      }
      break;
    case Write::Kind::kTruncate:
      node.disk_log.truncate(write.to);
      break;
    case Write::Kind::kPromise:
      node.disk_promised = std::max(node.disk_promised, write.epoch);
      break;
  }
}

void World::sync(std::size_t index) {
  Node& node = nodes_[index];
  for (const Write& write : node.writes) write_to_disk(node, write);
  Command last = node.writes.back().command;
  node.writes.clear();
  NodeEffects effects(*this, index);
  node.member->on_durable(now_, last, effects);
}

void World::crash(std::size_t index, std::size_t survive) {
  Node& node = nodes_[index];
  for (std::size_t i = 0; i < survive; ++i) write_to_disk(node, node.writes[i]);
  node.writes.clear();
  node.just_died = true;
  node.member.reset();
  if (node.cas) give_up_cas(node, true);
  node.asks = false;
  node.saw.reset();
  ++crashes_;
}

void World::restart(std::size_t index) {
  Node& node = nodes_[index];
  node.just_died = false;
  node.acted = Epoch{};
  GroupMember::Options options;
  options.self = id_of(index);
  options.timing = {.beacon = Time{1},
                    .lease = options_.lease,
                    .grace = options_.grace,
                    .eject = options_.eject,
                    .stagger = Time{1},
                    .cas_every = Time{1}};
  GroupMember::Recovered recovered;
  recovered.log = node.disk_log;
  recovered.promised = node.disk_promised;
  node.member.emplace(options, recovered, now_);
}

// The guardian tells everybody, whether or not the member was primary still. What it says may
// arrive long after the next process has begun.
bool World::release(std::size_t index, bool at_once) {
  Node& dead = nodes_[index];
  if (!dead.just_died || dead.acted.value == 0) return false;
  dead.just_died = false;
  const Release release{id_of(index), dead.acted};
  dead.called = std::max(dead.called, dead.acted);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (i == index || !nodes_[i].member) continue;
    if (at_once) {
      NodeEffects effects(*this, i);
      nodes_[i].member->receive(now_, id_of(index), release, effects);
    } else {
      NodeEffects(*this, index).put(id_of(i), release);
    }
  }
  return true;
}

void World::violate(const std::string& what) {
  if (violation_.empty()) violation_ = what;
}

// A primary decides what is committed, everybody else has to agree.
void World::note_committed(std::size_t index, Lsn lsn) {
  const GroupMember& member = *nodes_[index].member;
  for (std::uint64_t i = 1; i <= lsn.value; ++i) {
    Epoch epoch = member.log().epoch_at(Lsn{i});
    if (i <= committed_.size()) {
      if (committed_[i - 1] != epoch) return violate("two different records are committed");
    } else if (!member.is_primary()) {
      return violate("a replica applies what is not committed");
    } else {
      committed_.push_back(epoch);
    }
  }
}

void World::check() {
  auto has_committed = [&](const GroupLog& log) {
    for (std::uint64_t i = 1; i <= committed_.size(); ++i) {
      if (i > log.last().value || log.epoch_at(Lsn{i}) != committed_[i - 1]) return false;
    }
    return true;
  };
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    if (contains(record_.in_sync, id_of(i)) && !has_committed(node.disk_log))
      return violate(fmt::format("{} is in sync and lacks what is committed", i));
    if (!node.member) continue;
    GroupMemberProbe probe{*node.member};
    if (probe.damaged()) return violate(fmt::format("{} cut what it knew to be committed", i));
    if (node.member->may_answer(now_) && probe.commit().value < committed_.size())
      return violate(fmt::format("{} answers reads with an old state", i));
  }
}

std::string World::to_text() const {
  auto log_text = [](const GroupLog& log) {
    std::string text;
    for (std::uint64_t i = 1; i <= log.last().value; ++i)
      text += fmt::format("{}{}", i == 1 ? "" : ",", log.epoch_at(Lsn{i}).value);
    return text;
  };
  std::string text = fmt::format("t={} v{} e{} p{} sync", now_.count(), record_.version,
                                 record_.epoch.value, record_.primary.value);
  for (MemberId member : record_.in_sync) text += fmt::format(" {}", member.value);
  text += fmt::format("; committed {}", committed_.size());
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    text += fmt::format("; {}: ", i + 1);
    if (!node.member) {
      text += "down";
      continue;
    }
    GroupMember::Status status = node.member->status(now_);
    text += fmt::format("role {} e{} c{} [{}] disk [{}]", static_cast<int>(status.role),
                        status.epoch.value, status.commit.value, log_text(node.member->log()),
                        log_text(node.disk_log));
  }
  return text;
}

std::uint64_t World::fingerprint() const {
  std::uint64_t hash = 0x9e3779b97f4a7c15;
  auto mix = [](std::uint64_t& into, std::uint64_t value) {
    into = (into ^ value) * 0xff51afd7ed558ccd;
    into ^= into >> 32;
  };
  auto put = [&](std::uint64_t value) { mix(hash, value); };
  describe(record_, put);
  for (const Node& node : nodes_) {
    for (bool flag : {node.member.has_value(), node.asks, node.just_died}) put(flag);
    if (node.member) GroupMemberProbe{*node.member}.describe(now_, put);
    describe(node.disk_log, put);
    put(node.disk_promised.value);
    put(node.acted.value);
    put(node.called.value);
    put(node.writes.size());
    for (const Write& write : node.writes) {
      put(static_cast<std::uint64_t>(write.kind));
      for (const EpochRun& run : write.runs)
        put(std::uint64_t{run.epoch.value} << 32 | run.last.value);
      put(write.to.value);
      put(write.epoch.value);
    }
    put(node.cas ? 1 + static_cast<std::uint64_t>(node.cas->state) : 0);
    if (node.cas) describe(node.cas->next, put);
    if (node.saw) describe(*node.saw, put);
  }
  std::uint64_t unordered = 0;  // the network has no order
  for (const Packet& packet : packets_) {
    std::uint64_t one = packet.from * 16 + packet.to + 1;
    describe(packet.message, now_, options_.lease, [&](std::uint64_t value) { mix(one, value); });
    unordered += one;
  }
  put(unordered);
  unordered = 0;
  for (const GroupView& late : late_) {
    std::uint64_t one = 1;
    describe(late, [&](std::uint64_t value) { mix(one, value); });
    unordered += one;
  }
  put(unordered);
  put(committed_.size());
  put(static_cast<std::uint64_t>(crashes_));
  return hash;
}

void World::heal_once() {
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (!nodes_[i].member) restart(i);
    NodeEffects effects(*this, i);
    nodes_[i].member->tick(now_, effects);
    apply_to_node({Step::Kind::kRead, static_cast<std::uint8_t>(i)}, nodes_[i]);
    apply_to_node({Step::Kind::kReadAnswer, static_cast<std::uint8_t>(i)}, nodes_[i]);
    if (!nodes_[i].writes.empty()) sync(i);
    apply_to_node({Step::Kind::kCasApply, static_cast<std::uint8_t>(i)}, nodes_[i]);
    apply_to_node({Step::Kind::kCasAnswer, static_cast<std::uint8_t>(i)}, nodes_[i]);
    if (!nodes_[i].writes.empty()) sync(i);
  }
  for (std::size_t round = 0; round < 20 && !packets_.empty(); ++round) {
    auto packets = std::exchange(packets_, {});
    for (const Packet& packet : packets) deliver(packet);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (!nodes_[i].writes.empty()) sync(i);
    }
  }
  now_ += Time{1};
  if (violation_.empty()) check();
}

void World::settle() {
  auto packets_max = std::exchange(options_.packets_max, 1000);
  for (int i = 0; i < 20; ++i) heal_once();
  options_.packets_max = packets_max;
}

bool World::heals() {
  const Time given = options_.eject;
  options_.eject = std::max(options_.eject, options_.lease);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].member && options_.eject != given) crash(i, 0);
  }
  options_.packets_max = 1000;
  options_.records_max = options_.epochs_max = 1'000'000;
  options_.versions_max = 1'000'000;
  late_.clear();
  std::uint64_t before = committed_.size();
  for (int i = 0; i < 100 && violation_.empty(); ++i) {
    heal_once();
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      if (committed_.size() == before) propose(n);
    }
    bool all = committed_.size() > before && record_.in_sync.size() == nodes_.size();
    for (const Node& node : nodes_)
      all &= node.member && GroupMemberProbe{*node.member}.commit().value == committed_.size();
    if (all) return true;
  }
  return false;
}

}  // namespace offprint::cluster
