#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <boost/container/small_vector.hpp>

#include "cluster/group_member.h"

// The members of one placement group, their disks, a network that loses, doubles and reorders, and
// a coordinator that is late: everything that can happen to them, one step at a time.
namespace offprint::cluster {

struct WorldOptions {
  std::size_t nodes = 3;
  std::size_t in_sync = 3;  // at first
  std::uint32_t min_in_sync = 2;
  std::uint64_t records_max = 3;
  std::uint32_t epochs_max = 4;
  std::uint64_t versions_max = 6;
  std::size_t packets_max = 4;
  int crashes_max = 2;
  std::size_t late_max = 2;  // compare-and-swaps that nobody waits for any more
  bool hands_over = true;
  // Of the members' clocks. No promise of safety rests on when somebody is left out.
  Time lease{2}, grace{3}, eject{2};
};

struct Step {
  enum class Kind : std::uint8_t {
    kTime,      // goes on by one, for all
    kTick,      // node
    kDeliver,   // packet
    kDouble,    // packet: it is delivered and comes again
    kLose,      // packet
    kPropose,   // node
    kSync,      // node's disk
    kCrash,     // node; other: how many of the commands under way survive
    kRestart,   // node
    kCasApply,  // node's compare-and-swap reaches the coordinator
    kCasAnswer,
    kCasTimeout,
    kCasFail,
    kLateApply,  // one that nobody waits for
    kLateLose,
    kRead,  // node's read is answered by the coordinator …
    kReadAnswer,
    kReadFail,
    kHandOver,  // node to other
    kRelease,   // node: its guardian saw it die; other: even, all hear it at once
  };
  Kind kind = Kind::kTime;
  std::uint8_t node = 0;
  std::uint8_t other = 0;
};
std::string to_string(const Step& step);

// A value: copies are independent worlds.
class World {
 public:
  explicit World(const WorldOptions& options);

  // Goes on without failures until there is a primary that all follow.
  void settle();
  // False: that cannot happen now; the world is as it was.
  bool apply(const Step& step);
  // Every step that might be possible now.
  std::vector<Step> candidates() const;
  // What is wrong, if anything: docs/cluster-protocol.md, "Invariants".
  const std::string& violation() const { return violation_; }
  // Two worlds with the same fingerprint go on in the same way.
  std::uint64_t fingerprint() const;
  // Who is what, for a trace.
  std::string to_text() const;
  // No more failures: does a primary commit something new, on all nodes that are to have it?
  bool heals();

  std::size_t packets() const { return packets_.size(); }
  std::uint64_t committed() const { return committed_.size(); }

 private:
  class NodeEffects;
  struct Write {
    enum class Kind : std::uint8_t { kRecords, kTruncate, kPromise };
    Kind kind;
    Command command;
    EpochRuns runs;
    Lsn to;
    Epoch epoch;
  };
  struct Cas {
    enum class State : std::uint8_t { kSent, kApplied, kRefused };
    GroupView next;
    State state = State::kSent;
    std::uint64_t version = 0;
  };
  struct Node {
    std::optional<GroupMember> member;  // nothing: it is down
    GroupLog disk_log;
    Epoch disk_promised;
    boost::container::small_vector<Write, 4> writes;  // not on the disk yet
    std::optional<Cas> cas;
    bool asks = false;             // for the record
    std::optional<GroupView> saw;  // what will be answered
    bool just_died = false;
    Epoch acted;   // what its guardian knows: as primary, in this epoch last; 0: it never did
    Epoch called;  // over, by the guardian of a process before
  };
  struct Packet {
    std::uint8_t from = 0;
    std::uint8_t to = 0;
    Message message;
  };

  static MemberId id_of(std::size_t node) { return {node + 1}; }
  static std::size_t node_of(MemberId member) { return member.value - 1; }
  bool apply_to_node(const Step& step, Node& node);
  bool apply_to_cas(const Step& step, Node& node);
  bool apply_to_packet(const Step& step);
  bool propose(std::size_t index);
  bool hand_over(std::size_t from, std::size_t to);
  void crash(std::size_t index, std::size_t survive);
  void restart(std::size_t index);
  bool release(std::size_t index, bool at_once);
  void sync(std::size_t index);
  void write_to_disk(Node& node, const Write& write);
  void apply_cas(Cas& cas);
  bool give_up_cas(Node& node, bool answers);
  void deliver(const Packet& packet);
  void heal_once();
  void note_committed(std::size_t node, Lsn lsn);
  void check();
  void violate(const std::string& what);

  WorldOptions options_;
  Time now_{100};
  GroupView record_;
  std::vector<Node> nodes_;
  boost::container::small_vector<Packet, 8> packets_;
  boost::container::small_vector<GroupView, 4> late_;
  boost::container::small_vector<Epoch, 8> committed_;  // by lsn - 1
  std::vector<std::pair<Lsn, Epoch>> proposed_;
  int crashes_ = 0;
  std::string violation_;
};

}  // namespace offprint::cluster
