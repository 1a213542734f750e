#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ltx/types.h"

// The records that a cluster keeps in its coordinator: docs/format/cluster-records.md. Value types.
namespace offprint::cluster {

// A copy of a group's log: the node's name, and the random id of its data folder. A folder that was
// wiped or restored is another member. As text: `NODE@%016x`.
struct RecordMember {
  std::string node;
  std::uint64_t log_id = 0;  // never 0

  std::string text() const;
  static std::optional<RecordMember> parse(std::string_view text);
  auto operator<=>(const RecordMember&) const = default;
};

bool contains(const std::vector<RecordMember>& members, const RecordMember& member);

// The record of a placement group.
struct GroupRecord {
  enum class State {
    kNormal,
    kForced,  // an operator forced the last change of primary: commits may have been cut
    kLeft,    // the last node went on alone: the cluster is none, until one begins it again
  };
  Epoch epoch;
  RecordMember primary;
  std::vector<RecordMember> in_sync;   // `isr`: a commit is on the disk of all of them
  std::vector<RecordMember> replicas;  // all copies, those in sync among them
  std::int64_t min_in_sync = 1;        // `min_isr`
  State state = State::kNormal;
  Lineage lineage;
  bool operator==(const GroupRecord&) const = default;

  // kInvalid: it breaks a rule of the format (an epoch of 0, a primary that is not in sync, members
  // out of `replicas` or twice, min_isr over the number of replicas …).
  Result<> check() const;
  // One line of JSON. The record is valid.
  std::string to_json() const;
  // kInvalid "newer": a later version of the format. kCorrupt: ill-formed, or breaks a rule. Fields
  // that are not known are ignored, and are gone when the record is written again.
  static Result<GroupRecord> parse(std::string_view json);
};

inline constexpr int kGroupRecordVersion = 2;  // the newest
inline constexpr std::size_t kRecordMembersMax = 16;

// Names of clusters and nodes: 1 to 63 of [a-z0-9._-], first a letter or digit.
bool is_cluster_name(std::string_view name);

// The keys of a cluster's records. `cluster` and `node` are such names.
struct RecordKeys {
  std::string cluster;

  std::string group(std::uint32_t number) const;    // /CLUSTER/pg/NUMBER
  std::string groups() const;                       // what all of those start with
  std::string node(const std::string& name) const;  // /CLUSTER/node/NAME
  std::string nodes() const;
  std::string format() const;  // /CLUSTER/format
  // The number or name in such a key; nothing for any other text.
  std::optional<std::uint32_t> group_of(std::string_view key) const;
  std::optional<std::string> node_of(std::string_view key) const;
};

}  // namespace offprint::cluster
