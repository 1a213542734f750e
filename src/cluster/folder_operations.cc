#include "cluster/folder_operations.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "cluster/coordinator_now.h"
#include "cluster/folder_owner.h"
#include "cluster/group_index.h"
#include "cluster/lost_transactions.h"
#include "journal/journal.h"

namespace offprint::cluster {
namespace {

Result<> check_is_last(const GroupRecord& record, const FolderOwner& owner) {
  std::string others;
  for (const RecordMember& member : record.replicas) {
    if (member != owner.member) others += (others.empty() ? "" : ", ") + member.node;
  }
  if (!others.empty()) {
    return fail(Code::kConflict,
                fmt::format("copies of cluster {} are on {} too: stop them, and remove them with "
                            "`offprint cluster remove`",
                            owner.cluster, others));
  }
  if (record.primary == owner.member) return {};
  return fail(Code::kConflict,
              fmt::format("this folder is not in cluster {} any more", owner.cluster));
}

// The folder of a node that does not run, and will not while this is there.
struct StoppedNode {
  FolderOwner owner;
  std::unique_ptr<journal::Journal> journal;
  std::unique_ptr<Coordinator> coordinator;

  static Result<StoppedNode> open(FileSystem& files, const std::string& data,
                                  const EtcdOptions& etcd) {
    OFFPRINT_TRY(take_over_fill(files, data));
    OFFPRINT_TRY_ASSIGN(auto owner, FolderOwner::read(files, data));
    if (!owner) return fail(Code::kInvalid, data + " is the folder of a node in no cluster");
    StoppedNode node{*owner, nullptr, nullptr};
    OFFPRINT_TRY_ASSIGN(node.journal, open_journal(files, data));
    OFFPRINT_TRY_ASSIGN(node.coordinator, create_etcd_coordinator(etcd));
    return node;
  }

  // Makes of the cluster's record what `change` answers for it.
  template <class Change>
  Result<> change_record(Change change) {
    const std::string key = RecordKeys{owner.cluster}.group(0);
    OFFPRINT_TRY_ASSIGN(auto entry, read_now(*coordinator, key));
    if (!entry) {
      const journal::GroupState log = journal->group(journal_group(0));
      return fail(Code::kNotFound,
                  fmt::format("the coordinator does not know cluster {}; the log here ends with "
                              "record {}, of epoch {}",
                              owner.cluster, log.last.value, log.epoch.value));
    }
    OFFPRINT_TRY_ASSIGN(GroupRecord record, GroupRecord::parse(entry->value));
    OFFPRINT_TRY_ASSIGN(GroupRecord next, change(record));
    if (next == record) return {};
    const SwapResult done = swap_now(*coordinator, {key, entry->version, next.to_json()});
    if (done.outcome == SwapResult::Outcome::kApplied) return {};
    return fail(
        Code::kUnavailable,
        fmt::format("the record of cluster {} could not be changed, try again: {}", owner.cluster,
                    done.error ? done.error->message() : "it changed meanwhile"));
  }
};

// All that the log has is committed: nobody else had to have it. A log that a cluster begins with
// these databases has nothing of it, and who has this one's up to its end has not what comes now.
Result<> end_log(journal::Journal& journal) {
  const std::uint32_t group = journal_group(0);
  const journal::GroupState state = journal.group(group);
  if (state == journal::GroupState{}) return {};
  journal.set_commit(group, state.last);
  journal::Draft draft;
  draft.kind = journal::Kind::kTruncate;
  draft.group = group;
  draft.group_lsn = Lsn{state.last.value + 1};
  OFFPRINT_TRY(journal.commit(std::move(draft)));
  return {};
}

}  // namespace

Result<> leave_cluster(FileSystem& files, const std::string& data, const EtcdOptions& etcd,
                       bool force) {
  OFFPRINT_TRY_ASSIGN(StoppedNode node, StoppedNode::open(files, data, etcd));
  const bool was_leaving = node.owner.leaves;
  // From here on no member of it does anything.
  auto ended = node.change_record([&](GroupRecord record) -> Result<GroupRecord> {
    // It has left, and others have begun one of that name since.
    if (was_leaving && !contains(record.replicas, node.owner.member)) return record;
    OFFPRINT_TRY(check_is_last(record, node.owner));
    node.owner.leaves = true;
    OFFPRINT_TRY(node.owner.write(files, data));
    record.state = GroupRecord::State::kLeft;
    return record;
  });
  const bool is_unknown = !ended && ended.error().code() == Code::kNotFound;
  if (!ended && !(is_unknown && (force || was_leaving))) {
    // It may go on in it.
    if (was_leaving && ended.error().code() == Code::kConflict) {
      node.owner.leaves = false;
      OFFPRINT_TRY(node.owner.write(files, data));
    }
    return ended;
  }
  OFFPRINT_TRY(end_log(*node.journal));
  return FolderOwner::remove(files, data);
}

Result<> force_primary(FileSystem& files, const std::string& data, const EtcdOptions& etcd) {
  OFFPRINT_TRY_ASSIGN(StoppedNode node, StoppedNode::open(files, data, etcd));
  return node.change_record([&](GroupRecord record) -> Result<GroupRecord> {
    const RecordMember& self = node.owner.member;
    const bool has_copy = contains(record.replicas, self) && !node.owner.leaves &&
                          node.journal->group(journal_group(0)).last.value != 0;
    if (!has_copy || record.state == GroupRecord::State::kLeft)
      return fail(Code::kConflict, fmt::format("{} has no copy of cluster {} that could be used",
                                               data, node.owner.cluster));
    const bool is_done = record.state == GroupRecord::State::kForced && record.primary == self &&
                         record.in_sync.size() == 1;
    if (is_done) return record;
    record.epoch = Epoch{record.epoch.value + 1};
    record.primary = self;
    record.in_sync = {self};
    record.min_in_sync = 1;
    record.state = GroupRecord::State::kForced;
    record.lineage = Lineage::random();
    return record;
  });
}

}  // namespace offprint::cluster
