// What holding a record on three disks costs: commits of one placement group over three nodes in
// one process, each with its own journal, over TCP; beside the same commits in one journal.
// Usage: replicated_log_bench [FOLDER] [SECONDS]
#include <atomic>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "bench/figures.h"
#include "cluster/coordinator_local.h"
#include "cluster/peer_connections.h"
#include "cluster/replicated_log.h"

namespace {

using namespace offprint;
using namespace offprint::cluster;

constexpr std::size_t kPayloadBytes = 1200;  // of a small transaction

void check(bool good, const std::string& what) {
  if (good) return;
  fmt::print(stderr, "replicated_log_bench: {}\n", what);
  std::exit(1);
}

class NoListener final : public LogListener {
  void committed(std::uint32_t, Lsn) override {}
  void changed(std::uint32_t) override {}
};

RecordMember member_of(int node) {
  return {fmt::format("n{}", node), static_cast<std::uint64_t>(node)};
}

class Node {
 public:
  Node(int number, const std::string& folder, const std::shared_ptr<RegisterTable>& table) {
    GroupIndex index;
    auto journal = journal::Journal::open(FileSystem::real(), fmt::format("{}/n{}", folder, number),
                                          {}, [&](const journal::Record& record) -> Result<> {
                                            index.visit(record);
                                            return {};
                                          });
    check(journal.has_value(), "no journal");
    journal_ = *std::move(journal);
    PeerConnections::Options options;
    options.cluster = "bench";
    options.self = member_of(number);
    options.listen = "127.0.0.1:0";
    auto peers = PeerConnections::create(options);
    check(peers.has_value(), "no connections");
    peers_ = *std::move(peers);
    ReplicatedLog::Options log;
    log.cluster = "bench";
    log.self = member_of(number);
    log.groups = 1;
    log_ = std::make_unique<ReplicatedLog>(std::move(log), *journal_, std::move(index),
                                           create_mem_coordinator(table), *peers_, listener_);
    peers_->start(
        {.received = [this](MemberId from,
                            PeerMessage message) { log_->received(from, std::move(message)); },
         .connected = [this](MemberId member) { log_->connected(member); },
         .asks_for_fill = {}});
  }
  ~Node() {
    peers_->stop();
    log_.reset();
  }
  ReplicatedLog& log() { return *log_; }
  journal::Journal& journal() { return *journal_; }
  void connect(int number, const Node& other) {
    peers_->set_peer(member_of(number), fmt::format("127.0.0.1:{}", other.peers_->port()));
  }

 private:
  NoListener listener_;
  std::unique_ptr<journal::Journal> journal_;
  std::unique_ptr<PeerConnections> peers_;
  std::unique_ptr<ReplicatedLog> log_;
};

// Commits of so many clients for so long.
template <class Commit>
void measure(const char* what, int clients, int seconds, Commit commit) {
  std::atomic<bool> done = false;
  std::vector<std::vector<double>> ms(static_cast<std::size_t>(clients));
  std::vector<std::thread> threads;
  for (auto& mine : ms) {
    threads.emplace_back([&] {
      while (!done) {
        auto start = SteadyClock::now();
        commit();
        mine.push_back(
            std::chrono::duration<double, std::milli>(SteadyClock::now() - start).count());
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  done = true;
  for (auto& thread : threads) thread.join();
  std::vector<double> all;
  for (const auto& mine : ms) all.insert(all.end(), mine.begin(), mine.end());
  fmt::print("{}, {} clients: {:.0f} commits/s, {}\n", what, clients,
             static_cast<double>(all.size()) / seconds, bench::latencies(all));
}

journal::Draft draft() {
  journal::Draft draft;
  draft.database_id = 1;
  draft.payload.resize(kPayloadBytes);
  return draft;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : "build/bench/replicated_log";
  const int seconds = argc > 2 ? std::atoi(argv[2]) : 5;
  std::filesystem::remove_all(folder);
  auto table = std::make_shared<RegisterTable>();
  GroupRecord record;
  record.epoch = Epoch{1};
  record.primary = member_of(1);
  for (int n = 1; n <= 3; ++n) record.replicas.push_back(member_of(n));
  record.in_sync = record.replicas;
  record.min_in_sync = 2;
  record.lineage = Lineage::random();
  (void)table->compare_and_swap({RecordKeys{"bench"}.group(0), 0, record.to_json()});
  std::vector<std::unique_ptr<Node>> nodes;
  for (int n = 1; n <= 3; ++n) nodes.push_back(std::make_unique<Node>(n, folder, table));
  for (int a = 0; a < 3; ++a) {
    for (int b = 0; b < 3; ++b) {
      if (a != b)
        nodes[static_cast<std::size_t>(a)]->connect(b + 1, *nodes[static_cast<std::size_t>(b)]);
    }
  }
  ReplicatedLog& log = nodes[0]->log();
  for (auto start = SteadyClock::now(); !log.may_answer(0);) {
    check(SteadyClock::now() - start < std::chrono::seconds(30), "no primary");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  for (int clients : {1, 16, 64}) {
    measure("one journal", clients, seconds,
            [&] { check(nodes[0]->journal().commit(draft()).has_value(), "a commit failed"); });
    measure("three in sync", clients, seconds, [&] {
      auto appended = log.append(0, draft());
      check(appended.has_value(), "a write was refused");
      auto done = log.wait(*appended, SteadyClock::now() + std::chrono::seconds(20));
      check(done.has_value(), "a commit failed");
    });
  }
  check(log.status(0).record.epoch == record.epoch, "the primary changed");
  return 0;
}
