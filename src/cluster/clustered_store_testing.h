#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cluster/clustered_store.h"
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
    auto made = std::make_shared<Running>(
        ClusteredStore::Options{.log = {.cluster = "test",
                                        .self = member_of(number_),
                                        .timing = kFast,
                                        .on_fatal = [this](const Error& error) { fatal(error); }},
                                .coordinator = coordinator_(),
                                .transport = peers_.get(),
                                .on_fatal = [this](const Error& error) { fatal(error); }});
    database::StoreOptions options;
    options.directory = folder() + "/data";
    options.files = &disks_;
    options.base_vfs = database::testing::FaultVfs::kName;
    options.journal.segment_size = 256 << 10;
    options.checkpoint_frames = 50;
    options.idle_close_ms = 200;
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
    is_down_ = power_loss_seed.has_value();
    if (power_loss_seed) disks_.of(folder()).power_loss(*power_loss_seed);
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
    if (power_loss_seed) disks_.of(folder()).restart();
    is_down_ = false;
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
  void fatal(const Error& error) {
    if (!is_down_) ADD_FAILURE() << folder() << ": " << error.message();
  }

  const int number_;
  Disks& disks_;
  const OpenCoordinator coordinator_;
  std::uint16_t port_ = 0;
  std::atomic<bool> is_down_ = false;
  std::unique_ptr<PeerConnections> peers_;
  std::mutex mutex_;
  std::shared_ptr<Running> running_;  // guarded by mutex_
};

}  // namespace offprint::cluster::testing
