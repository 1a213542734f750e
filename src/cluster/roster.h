#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "cluster/coordinator.h"
#include "cluster/group_record.h"

namespace offprint::cluster {

// What a node says of itself while it lives: docs/format/cluster-records.md.
struct NodeRecord {
  RecordMember member;
  std::string peer_address;  // HOST:PORT for the other nodes
  std::string url;           // for clients

  std::string to_json() const;
  // kInvalid "newer"; kCorrupt.
  static Result<NodeRecord> parse(std::string_view json);
  bool operator==(const NodeRecord&) const = default;
};

// With three copies a commit is on two of them, from when there are two.
constexpr std::int64_t least_in_sync(std::size_t replicas) { return replicas >= 3 ? 2 : 1; }

// Who is in the cluster: says that this node is, hears of the others, and makes this node a replica
// of the group. Thread: any; `heard` is called on the coordinator's.
class Roster {
 public:
  struct Options {
    std::string cluster;
    NodeRecord self;
    std::size_t replicas = 3;  // as many nodes have a copy, if there are so many
    // This node has no history that another record could tell of: it may begin the cluster, in
    // this epoch or a later one.
    bool may_begin = false;
    Epoch first_epoch{1};
    // This node may do nothing but begin it: it has databases that no other record tells of.
    bool begins_with_own = false;
    std::function<void(const Error&)> refused;  // the cluster was begun by another one
    int answer_ms = 2'000;                      // of the coordinator
    std::function<void(const NodeRecord&)> heard;
  };
  Roster(Options options, std::unique_ptr<Coordinator> coordinator);
  ~Roster();

  // The URL that a node has said last. Nothing: not heard of.
  std::optional<std::string> url_of(const std::string& node);
  // Makes of the group's record what `change` answers for it. Its errors; kUnavailable: the
  // coordinator is away, or others change it all the time. Blocks.
  using Change = std::function<Result<GroupRecord>(GroupRecord)>;
  Result<> change_record(const Change& change);
  // Whether the coordinator knows that the node lives, or lived a moment ago. Blocks.
  Result<bool> lives(const std::string& node);

 private:
  void take_hint(const RegisterHint& hint);
  void work();
  // Whether there is nothing to be done now.
  bool join();
  struct Found {
    std::int64_t version = 0;
    std::optional<GroupRecord> record;
    std::optional<Epoch> left_in;  // its last node left it
  };
  Result<Found> find();
  SwapResult swap(const Found& found, const GroupRecord& next);
  std::optional<GroupRecord> changed(const Found& found) const;

  const Options options_;
  const RecordKeys keys_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, NodeRecord> nodes_;  // guarded by mutex_
  bool stopping_ = false;                    // guarded by mutex_
  std::string last_error_;                   // of the thread
  bool is_missed_ = false;                   // of the thread
  std::thread thread_;
  std::unique_ptr<Coordinator> coordinator_;  // last: its callbacks use the rest until it ends
};

}  // namespace offprint::cluster
