#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cluster/clustered_store.h"
#include "cluster/coordinator_local.h"
#include "cluster/coordinator_table.h"
#include "cluster/replicated_log_testing.h"
#include "database/fault_vfs_testing.h"
#include "database/testing.h"

// For tests: nodes of a cluster with real stores, each on a disk of its own that loses power.
namespace offprint::cluster::testing {

// The disks of several machines, by the first folder of a path.
class Disks final : public FileSystem {
 public:
  FaultFileSystem& of(const std::string& path) { return disks_[path.substr(0, path.find('/'))]; }

  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override {
    return of(path).open(path, mode);
  }
  Result<> rename(const std::string& from, const std::string& to) override {
    return of(from).rename(from, to);
  }
  Result<> rename_new(const std::string& from, const std::string& to) override {
    return of(from).rename_new(from, to);
  }
  Result<> remove(const std::string& path) override { return of(path).remove(path); }
  Result<bool> exists(const std::string& path) override { return of(path).exists(path); }
  Result<std::optional<FileStatus>> status(const std::string& path) override {
    return of(path).status(path);
  }
  Result<> set_modified(const std::string& path, std::int64_t modified_ms) override {
    return of(path).set_modified(path, modified_ms);
  }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    return of(directory).list(directory);
  }
  Result<> create_directories(const std::string& directory) override {
    return of(directory).create_directories(directory);
  }
  Result<> sync_directory(const std::string& directory) override {
    if (directory != ".") return of(directory).sync_directory(directory);
    for (auto& [folder, disk] : disks_) (void)disk.sync_directory(".");  // that are down cannot
    return {};
  }

 private:
  std::map<std::string, FaultFileSystem> disks_;  // made before there are threads
};

// A node: its store, and what makes it one of several.
class StoreNode {
 public:
  using OpenCoordinator = std::function<std::unique_ptr<Coordinator>()>;
  StoreNode(int number, Disks& disks, OpenCoordinator coordinator)
      : number_(number), disks_(disks), coordinator_(std::move(coordinator)) {
    disks_.of(folder());
  }
  ~StoreNode() { stop({}); }

  std::function<void(database::StoreOptions&)> adjust;  // of what start() opens
  // It may say for this reason that it cannot go on; kInternal: for none.
  std::atomic<Code> tolerated = Code::kInternal;
  std::atomic<bool> failed = false;  // it has said so
  // What it sends to that node is lost.
  void cut(int other, bool is_cut) { cut_.set(other, is_cut); }

  void start() {
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
    cut_.use(peers_.get());
    auto made = std::make_shared<Running>(
        ClusteredStore::Options{.log = {.cluster = "test",
                                        .self = member_of(number_),
                                        .timing = kFast,
                                        .on_fatal = [this](const Error& error) { fatal(error); }},
                                .coordinator = coordinator_(),
                                .transport = &cut_,
                                .part_bytes = 64 << 10,
                                .on_fatal = [this](const Error& error) { fatal(error); }});
    database::StoreOptions options;
    options.directory = folder() + "/data";
    options.files = &disks_;
    options.base_vfs = database::testing::FaultVfs::kName;
    options.journal.segment_size = 256 << 10;
    options.checkpoint_frames = 50;
    options.idle_close_ms = 200;
    if (adjust) adjust(options);
    options.common_log = &made->cluster;
    options.on_fatal = [this](const Error& error) { fatal(error); };
    auto store = database::Store::open(options);
    ASSERT_TRUE(store) << store.error().message();
    made->store = *std::move(store);
    made->cluster.run(*made->store);
    ReplicatedLog& log = made->cluster.log();
    peers_->start(
        {.received = [&log](MemberId from,
                            PeerMessage message) { log.received(from, std::move(message)); },
         .connected = [&log](MemberId member) { log.connected(member); }});
    std::lock_guard lock(mutex_);
    running_ = std::move(made);
  }

  // `power_loss_seed`: the machine stops; else the process ends in order.
  void stop(std::optional<std::uint64_t> power_loss_seed) {
    if (power_loss_seed) stop_disk(power_loss_seed);
    end(power_loss_seed.has_value());
  }
  // The process dies: what it wrote last may be nowhere but in the system's memory.
  void crash() {
    stop_disk(std::nullopt);
    end(true);
  }

  struct Running {
    explicit Running(ClusteredStore::Options options) : cluster(std::move(options)) {}
    ClusteredStore cluster;
    std::unique_ptr<database::Store> store;
  };
  // Null: it does not run.
  std::shared_ptr<Running> running() {
    std::lock_guard lock(mutex_);
    return running_;
  }
  void connect(const StoreNode& other) {
    peers_->set_peer(member_of(other.number_), "127.0.0.1:" + std::to_string(other.port_));
  }
  bool runs() const { return peers_ != nullptr; }
  std::string folder() const { return "n" + std::to_string(number_); }

 private:
  // At once: what still runs of the dead process changes nothing.
  void stop_disk(std::optional<std::uint64_t> power_loss_seed) {
    is_down_ = true;
    FaultFileSystem& disk = disks_.of(folder());
    disk.crash_at(0, power_loss_seed);
    (void)disk.exists(folder());
  }
  void end(bool is_dead) {
    std::shared_ptr<Running> ended;
    {
      std::lock_guard lock(mutex_);
      ended = std::move(running_);
      running_.reset();
    }
    if (ended) {
      peers_->stop();
      ended->cluster.stop();  // whoever waits for an answer gets one
      while (ended.use_count() > 1) std::this_thread::yield();
      ended.reset();
      peers_.reset();
    }
    if (is_dead) disks_.of(folder()).restart();
    is_down_ = false;
  }

  void fatal(const Error& error) {
    if (is_down_) return;
    if (error.code() == tolerated) {
      failed = true;
    } else {
      ADD_FAILURE() << folder() << ": " << error.message();
    }
  }

  // Loses on request what goes to a node.
  class Cut final : public PeerTransport {
   public:
    void use(PeerTransport* below) { below_ = below; }
    void set(int node, bool is_cut) { lost_[static_cast<std::size_t>(node)] = is_cut; }
    bool send(MemberId to, const PeerMessage& message) override {
      return lost_[to.value] || below_->send(to, message);
    }

   private:
    PeerTransport* below_ = nullptr;
    std::array<std::atomic<bool>, 4> lost_{};
  };

  const int number_;
  Disks& disks_;
  const OpenCoordinator coordinator_;
  Cut cut_;
  std::uint16_t port_ = 0;
  std::atomic<bool> is_down_ = false;
  std::unique_ptr<PeerConnections> peers_;
  std::mutex mutex_;
  std::shared_ptr<Running> running_;  // guarded by mutex_
};

// Three of them, and what clients do.
class StoreCluster : public ::testing::Test {
 protected:
  using Answers = database::testing::Answers;
  using Outcome = database::Outcome;
  using Running = std::shared_ptr<StoreNode::Running>;
  static database::DatabaseName name(const std::string& text) {
    return database::DatabaseName::parse(text).value();
  }

  void SetUp() override {
    database::testing::FaultVfs::instance().use(&disks_);
    GroupRecord record;
    record.epoch = Epoch{1};
    record.primary = member_of(1);
    for (int n = 1; n <= 3; ++n) record.replicas.push_back(member_of(n));
    record.in_sync = record.replicas;
    record.min_in_sync = 2;
    record.lineage = Lineage::random();
    table_->compare_and_swap({RecordKeys{"test"}.group(0), 0, record.to_json()});
    for (int n = 1; n <= 3; ++n) {
      nodes_.push_back(std::make_unique<StoreNode>(
          n, disks_, [this] { return create_mem_coordinator(table_); }));
    }
    for (auto& node : nodes_) ASSERT_NO_FATAL_FAILURE(node->start());
    connect();
  }
  void TearDown() override {
    for (auto& node : nodes_) node->stop({});
    nodes_.clear();
    database::testing::FaultVfs::instance().use(nullptr);
  }
  void connect() {
    for (auto& node : nodes_) {
      for (auto& other : nodes_) {
        if (node != other && node->runs() && other->runs()) node->connect(*other);
      }
    }
  }
  void restart(std::size_t index, std::optional<std::uint64_t> power_loss_seed) {
    nodes_[index]->stop(power_loss_seed);
    nodes_[index]->start();
    connect();
  }

  template <class Done>
  static bool within(std::chrono::seconds time, Done done) {
    for (Deadline until = SteadyClock::now() + time; SteadyClock::now() < until;) {
      if (done()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return done();
  }
  // The node that writes, when there is one.
  std::optional<std::size_t> primary() {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      Running node = nodes_[i]->running();
      if (node && node->cluster.begun() && node->cluster.leads()) return i;
    }
    return std::nullopt;
  }
  static Answers run(database::Store& store, const std::string& database,
                     std::vector<std::string> statements) {
    auto request = std::make_unique<database::testing::TextRequest>(std::move(statements), false);
    auto future = request->future();
    store.submit(name(database), std::move(request));
    return future.get();
  }
  std::string describe() {
    std::string text;
    for (auto& each : nodes_) {
      Running node = each->running();
      if (!node) continue;
      const auto status = node->cluster.log().status(0);
      text += fmt::format(
          "\n{}: role {} epoch {} primary {} last {} durable {} commit {} start {} leads {} found "
          "{} | begun {} taken {} leads {}",
          each->folder(), static_cast<int>(status.member.role), status.member.epoch.value,
          status.member.primary.value, status.member.last.value, status.member.durable.value,
          status.member.commit.value, status.member.start.value, status.member.leads,
          status.found.value, node->cluster.begun(), node->cluster.taken().value,
          node->cluster.leads().value_or(Epoch{}).value);
    }
    return text;
  }
  // As a client does who asks one node after the other. Nothing: it is not known whether it was
  // done.
  std::optional<Answers> write(const std::string& database, const std::string& sql) {
    for (Deadline until = SteadyClock::now() + std::chrono::seconds(30);
         SteadyClock::now() < until;) {
      for (auto& each : nodes_) {
        Running node = each->running();
        if (!node || !node->cluster.begun()) continue;
        Answers answers = run(*node->store, database, {sql});
        if (answers.outcome.state == Outcome::State::kUnknown) return std::nullopt;
        if (answers.outcome.state == Outcome::State::kCommitted && !answers.outcome.error)
          return answers;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ADD_FAILURE() << "no node took: " << sql << describe();
    return std::nullopt;
  }
  void create(const std::string& database) {
    EXPECT_TRUE(within(std::chrono::seconds(30), [&] {
      auto at = primary();
      Running node = at ? nodes_[*at]->running() : nullptr;
      return node && node->store->create(name(database), {}).has_value();
    })) << database;
  }
  static std::string rows(database::Store& store, const std::string& database,
                          const std::string& sql) {
    Answers answers = run(store, database, {sql});
    if (answers.outcome.error) return "error: " + answers.outcome.error->message();
    if (answers.statements.at(0).code != 0) return "error: " + answers.statements[0].message;
    std::string text;
    for (const std::string& row : answers.statements[0].rows) text += row + "\n";
    return text;
  }
  // All nodes have the same states, of all databases and of the list of them.
  bool agree() {
    return within(std::chrono::seconds(60), [&] {
      std::set<std::string> seen;
      for (auto& each : nodes_) {
        Running node = each->running();
        if (!node || !node->cluster.begun()) return false;
        const auto listed = node->store->position(database::DatabaseName::catalog());
        std::string text = listed ? fmt::format("{}\n", listed->txid.value) : "";
        for (const auto& info : node->store->list("", "", 1000)) {
          auto at = node->store->position(name(info.name));
          text += fmt::format("{} {} {:x} {}\n", info.name, at->txid.value, at->checksum.value,
                              at->lineage.text());
        }
        seen.insert(text);
      }
      return seen.size() == 1;
    });
  }

  Disks disks_;
  std::shared_ptr<RegisterTable> table_ = std::make_shared<RegisterTable>();
  std::vector<std::unique_ptr<StoreNode>> nodes_;
};

}  // namespace offprint::cluster::testing
