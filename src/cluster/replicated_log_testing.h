#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/fault_file_system.h"
#include "cluster/peer_connections.h"
#include "cluster/replicated_log.h"

// For tests: three nodes with real journals, on disks that lose power, over real connections.
namespace offprint::cluster::testing {

inline constexpr std::uint32_t kGroups = 2;
inline constexpr GroupMember::Timing kFast{.beacon = Time{40'000},
                                           .lease = Time{400'000},
                                           .grace = Time{600'000},
                                           .eject = Time{400'000},
                                           .stagger = Time{20'000},
                                           .cas_every = Time{20'000}};

class NoListener final : public LogListener {
 public:
  void committed(std::uint32_t, Lsn) override {}
  void changed(std::uint32_t) override {}
};

inline RecordMember member_of(int node) {
  return {"n" + std::to_string(node), static_cast<std::uint64_t>(node)};
}

// A node and its disk. Thread: start() and stop() one at a time, log() any.
class Node {
 public:
  using OpenCoordinator = std::function<std::unique_ptr<Coordinator>()>;
  Node(int number, OpenCoordinator coordinator)
      : number_(number), coordinator_(std::move(coordinator)) {}
  ~Node() { stop({}); }

  // Takes the port that it had, unless somebody else took it meanwhile.
  void start() {
    auto index = std::make_shared<GroupIndex>();
    journal::Options options;
    options.segment_size = 256 << 10;
    auto journal = journal::Journal::open(files_, "journal", options,
                                          [&](const journal::Record& record) -> Result<> {
                                            index->visit(record);
                                            return {};
                                          });
    ASSERT_TRUE(journal) << journal.error().message();
    journal_ = *std::move(journal);
    auto listen = [&](std::uint16_t port) {
      return PeerConnections::create({.cluster = "test",
                                      .self = member_of(number_),
                                      .listen = "127.0.0.1:" + std::to_string(port),
                                      .secret = "of the test"});
    };
    auto peers = listen(port_);
    if (!peers) peers = listen(0);
    ASSERT_TRUE(peers) << peers.error().message();
    peers_ = *std::move(peers);
    port_ = peers_->port();
    auto log = std::make_shared<ReplicatedLog>(
        ReplicatedLog::Options{.cluster = "test",
                               .self = member_of(number_),
                               .groups = kGroups,
                               .timing = kFast,
                               .on_fatal = [](const Error&) {}},
        *journal_, std::move(*index), coordinator_(), *peers_, listener_);
    peers_->start({.received =
                       [log = log.get()](MemberId from, PeerMessage message) {
                         log->received(from, std::move(message));
                       },
                   .connected = [log = log.get()](MemberId member) { log->connected(member); }});
    std::lock_guard lock(mutex_);
    log_ = std::move(log);
  }

  // `power_loss_seed`: the machine stops; else only the process ends, in order.
  void stop(std::optional<std::uint64_t> power_loss_seed) {
    if (power_loss_seed) files_.power_loss(*power_loss_seed);
    std::weak_ptr<ReplicatedLog> ended;
    {
      std::lock_guard lock(mutex_);
      if (!log_) return;
      log_->shut_down();
      peers_->stop();
      ended = log_;
      log_.reset();
    }
    while (ended.lock()) std::this_thread::yield();  // whoever works with it gives it back
    peers_.reset();
    journal_.reset();
    if (power_loss_seed) files_.restart();
  }

  std::shared_ptr<ReplicatedLog> log() {
    std::lock_guard lock(mutex_);
    return log_;
  }
  journal::Journal& journal() { return *journal_; }
  FaultFileSystem& disk() { return files_; }
  std::uint16_t port() const { return port_; }
  void connect(const Node& other) {
    peers_->set_peer(member_of(other.number_), "127.0.0.1:" + std::to_string(other.port_));
  }

 private:
  const int number_;
  const OpenCoordinator coordinator_;
  FaultFileSystem files_;
  NoListener listener_;
  std::uint16_t port_ = 0;
  std::unique_ptr<journal::Journal> journal_;
  std::unique_ptr<PeerConnections> peers_;
  std::mutex mutex_;
  std::shared_ptr<ReplicatedLog> log_;  // guarded by mutex_
};

// The three of them, and what clients were told.
class ThreeNodes : public ::testing::Test {
 protected:
  // `put` writes a record where there is none; each node gets a coordinator of its own.
  void begin(const std::function<void(const std::string& key, const std::string& value)>& put,
             const Node::OpenCoordinator& coordinator) {
    for (std::uint32_t i = 0; i < kGroups; ++i) {
      GroupRecord record;
      record.epoch = Epoch{1};
      record.primary = member_of(1);
      for (int n = 1; n <= 3; ++n) record.replicas.push_back(member_of(n));
      record.in_sync = record.replicas;
      record.min_in_sync = 2;
      record.lineage = Lineage::random();
      put(RecordKeys{"test"}.group(i), record.to_json());
    }
    for (int n = 1; n <= 3; ++n) nodes_.push_back(std::make_unique<Node>(n, coordinator));
    for (auto& node : nodes_) ASSERT_NO_FATAL_FAILURE(node->start());
    for (auto& node : nodes_) connect(*node);
  }
  void TearDown() override {
    for (auto& node : nodes_) node->stop({});
  }

  void connect(Node& node) {
    for (auto& other : nodes_) {
      if (other.get() == &node || !node.log()) continue;
      node.connect(*other);
    }
  }
  void restart(std::size_t index, std::optional<std::uint64_t> power_loss_seed) {
    nodes_[index]->stop(power_loss_seed);
    start_again(index);
  }
  void start_again(std::size_t index) {
    nodes_[index]->start();
    for (auto& node : nodes_) connect(*node);  // it may be elsewhere now
  }
  void power_loss_of_all(std::mt19937_64& random) {
    for (auto& node : nodes_) node->stop(random());
    for (auto& node : nodes_) node->start();
    for (auto& node : nodes_) connect(*node);
  }

  // Tries one node after the other until one takes it. kUnknown: it may be there.
  Result<> write(std::uint32_t group, const std::string& text) {
    for (Deadline until = SteadyClock::now() + std::chrono::seconds(20);
         SteadyClock::now() < until;) {
      for (auto& node : nodes_) {
        auto log = node->log();
        if (!log) continue;
        journal::Draft draft;
        draft.database_id = 7;
        draft.payload.assign(text.begin(), text.end());
        auto appended = log->append(group, std::move(draft));
        if (!appended) continue;
        auto result = log->wait(*appended, SteadyClock::now() + std::chrono::seconds(3));
        if (!result) return result;
        std::lock_guard lock(mutex_);
        acknowledged_[group][appended->proposal.lsn.value] = text;
        return {};
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return fail(Code::kTimeout, "no node took it");
  }

  // Until it is acknowledged: what is not known to be there is written again, under another name.
  void write_surely(std::uint32_t group, const std::string& text) {
    Result<> written;
    for (int attempt = 0; attempt < 20; ++attempt) {
      written = write(group, text + ", attempt " + std::to_string(attempt));
      if (written) return;
    }
    ADD_FAILURE() << text << ": " << written.error().message();
  }

  // What the node has of the group, once all three have the same and everything is committed.
  std::vector<std::string> settled(std::uint32_t group) {
    for (Deadline until = SteadyClock::now() + std::chrono::seconds(60);
         SteadyClock::now() < until;) {
      std::set<std::uint64_t> lasts, commits;
      for (auto& node : nodes_) {
        auto status = node->log()->status(group).member;
        lasts.insert(status.last.value);
        commits.insert(status.commit.value);
      }
      if (lasts.size() == 1 && lasts == commits) return texts(0, group);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    for (auto& node : nodes_) {
      auto status = node->log()->status(group).member;
      ADD_FAILURE() << "the nodes do not come to the same log: role "
                    << static_cast<int>(status.role) << " epoch " << status.epoch.value
                    << " primary " << status.primary.value << " last " << status.last.value
                    << " durable " << status.durable.value << " commit " << status.commit.value
                    << " record " << status.view.version << " of epoch " << status.view.epoch.value
                    << " primary " << status.view.primary.value << " in sync "
                    << status.view.in_sync.size();
    }
    return {};
  }
  std::vector<std::string> texts(std::size_t node, std::uint32_t group) {
    std::vector<std::string> texts;
    auto log = nodes_[node]->log();
    for (std::uint64_t i = 1; i <= log->status(group).member.last.value; ++i) {
      auto place = log->find(group, Lsn{i});
      if (!place) {
        ADD_FAILURE() << place.error().message();
        continue;
      }
      auto record = nodes_[node]->journal().read(*place);
      EXPECT_TRUE(record);
      if (record) texts.emplace_back(as_text(record->payload));
    }
    return texts;
  }

  // All have the same, what was acknowledged stands where it was, nothing stands there twice.
  void check() {
    for (std::uint32_t group = 0; group < kGroups; ++group) {
      std::vector<std::string> found = settled(group);
      for (std::size_t n = 1; n < nodes_.size(); ++n) EXPECT_EQ(texts(n, group), found);
      std::set<std::string> once(found.begin(), found.end());
      EXPECT_EQ(once.size(), found.size()) << "a record stands there twice";
      for (const auto& [lsn, text] : acknowledged_[group]) {
        ASSERT_LE(lsn, found.size()) << text << " was acknowledged and is lost";
        EXPECT_EQ(found[lsn - 1], text);
      }
    }
  }

  std::vector<std::unique_ptr<Node>> nodes_;
  std::mutex mutex_;
  std::map<std::uint32_t, std::map<std::uint64_t, std::string>> acknowledged_;  // by mutex_
};

}  // namespace offprint::cluster::testing
