#include "cluster/joining.h"

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "cluster/coordinator_now.h"
#include "cluster/fill_client.h"
#include "cluster/group_index.h"
#include "cluster/lost_transactions.h"
#include "cluster/roster.h"
#include "journal/journal.h"

namespace offprint::cluster {
namespace {

constexpr std::chrono::milliseconds kTryEvery{500};

const std::uint32_t kJournalGroup = journal_group(0);

// There: what is in the folder is damaged, it says how.
std::string damage_note(const std::string& data) { return data + "/damaged"; }

std::string leaving(const std::string& data) {
  return data + " is leaving its cluster: run `offprint cluster leave` again";
}

class Joining {
 public:
  Joining(FileSystem& files, const JoinOptions& options) : files_(files), options_(options) {}

  Result<std::optional<FolderOwner>> join(bool anew) {
    OFFPRINT_TRY(files_.create_directories(options_.data));
    OFFPRINT_TRY(take_over_fill(files_, options_.data));
    OFFPRINT_TRY_ASSIGN(auto owner, FolderOwner::read(files_, options_.data));
    if (owner) {
      OFFPRINT_TRY(check_owner(*owner));
      member_ = owner->member;
    }
    OFFPRINT_TRY_ASSIGN(bool is_damaged, files_.exists(damage_note(options_.data)));
    anew = anew || (owner && is_damaged);
    if (owner && !anew) return owner;
    OFFPRINT_TRY_ASSIGN(coordinator_, create_etcd_coordinator(options_.etcd));
    do {
      auto joined = anew || owner ? filled_by_primary() : try_to_join();
      if (joined && *joined) return joined;
      if (!joined && joined.error().code() == Code::kInvalid) return joined;
      const std::string why = joined ? "the cluster has no primary" : joined.error().message();
      if (std::exchange(last_, why) != why)
        log::warn("cluster {}: {}; trying on", options_.cluster, why);
    } while (!options_.cancelled(kTryEvery));
    return std::nullopt;
  }

 private:
  Result<> check_owner(const FolderOwner& owner) const {
    if (owner.leaves) return fail(Code::kInvalid, leaving(options_.data));
    if (owner.cluster == options_.cluster && owner.member.node == options_.node) return {};
    return fail(
        Code::kInvalid,
        fmt::format("{} is the folder of node {} of cluster {}: start it as that one, or give "
                    "this one a folder of its own",
                    options_.data, owner.member.node, owner.cluster));
  }

  // Nothing: there is no such cluster, or it was left by its last node.
  Result<std::optional<GroupRecord>> record() {
    OFFPRINT_TRY_ASSIGN(auto entry, read_now(*coordinator_, keys_.group(0)));
    if (!entry) return std::nullopt;
    OFFPRINT_TRY_ASSIGN(GroupRecord record, GroupRecord::parse(entry->value));
    if (record.state == GroupRecord::State::kLeft) return std::nullopt;
    return record;
  }

  // This may be the first node.
  Result<std::optional<FolderOwner>> begin(bool has_databases) {
    FolderOwner owner = FolderOwner::make(options_.cluster, options_.node);
    owner.begins = Epoch{0};
    if (has_databases) {
      OFFPRINT_TRY_ASSIGN(auto journal, open_journal(files_, options_.data));
      owner.begins = journal->group(kJournalGroup).promised;
      log::info("{} becomes a cluster's folder", options_.data);
    }
    OFFPRINT_TRY(owner.write(files_, options_.data));
    return owner;
  }

  // Nothing: not yet.
  Result<std::optional<FolderOwner>> try_to_join() {
    OFFPRINT_TRY_ASSIGN(auto found, record());
    OFFPRINT_TRY_ASSIGN(bool has_databases, is_single_nodes(files_, options_.data));
    if (!found) return begin(has_databases);
    if (has_databases) {
      return fail(Code::kInvalid,
                  fmt::format("{} has databases of its own, and cluster {} has others: give this "
                              "node an empty folder",
                              options_.data, options_.cluster));
    }
    return filled_by_primary();
  }

  Result<std::optional<FolderOwner>> filled_by_primary() {
    OFFPRINT_TRY_ASSIGN(auto record, this->record());
    if (!record) return fail(Code::kUnavailable, "the coordinator does not know it");
    if (member_ && record->in_sync == std::vector{*member_}) {
      return fail(Code::kInvalid,
                  fmt::format("{} cannot be used, and no other node has all that it had: see "
                              "'a folder is damaged' in docs/operations/cluster.md",
                              options_.data));
    }
    OFFPRINT_TRY_ASSIGN(auto said, read_now(*coordinator_, keys_.node(record->primary.node)));
    if (!said) return std::nullopt;
    OFFPRINT_TRY_ASSIGN(NodeRecord primary, NodeRecord::parse(said->value));
    if (primary.member != record->primary) return std::nullopt;
    const FolderOwner owner = FolderOwner::make(options_.cluster, options_.node);
    FillRequest request{options_.cluster,
                        options_.node,
                        options_.secret,
                        primary.peer_address,
                        options_.data,
                        owner.text(),
                        [this] { return options_.cancelled(std::chrono::milliseconds(0)); }};
    log::info("filling {} with what {} has", options_.data, primary.member.node);
    OFFPRINT_TRY_ASSIGN(std::uint64_t bytes, fetch_fill(files_, request));
    OFFPRINT_TRY(take_over_fill(files_, options_.data));
    OFFPRINT_TRY(files_.remove(damage_note(options_.data)));
    log::info("{} is filled: {} MiB", options_.data, bytes >> 20);
    return owner;
  }

  FileSystem& files_;
  const JoinOptions& options_;
  const RecordKeys keys_{options_.cluster};
  std::optional<RecordMember> member_;  // that the folder was, if it was one
  std::unique_ptr<Coordinator> coordinator_;
  std::string last_;
};

}  // namespace

Result<std::optional<FolderOwner>> join_cluster(FileSystem& files, const JoinOptions& options) {
  return Joining(files, options).join(false);
}

Result<std::optional<FolderOwner>> join_anew(FileSystem& files, const JoinOptions& options) {
  return Joining(files, options).join(true);
}

Result<> note_damage(FileSystem& files, const std::string& data, const Error& why) {
  return write_file_atomically(files, damage_note(data), as_bytes(why.message() + "\n"));
}

Result<bool> is_single_nodes(FileSystem& files, const std::string& data) {
  OFFPRINT_TRY(take_over_fill(files, data));
  OFFPRINT_TRY_ASSIGN(auto owner, FolderOwner::read(files, data));
  OFFPRINT_TRY_ASSIGN(bool has_databases, files.exists(data + "/journal"));
  return has_databases && !owner;
}

Result<> check_is_alone(FileSystem& files, const std::string& data) {
  OFFPRINT_TRY(take_over_fill(files, data));
  OFFPRINT_TRY_ASSIGN(auto owner, FolderOwner::read(files, data));
  if (!owner) return {};
  if (owner->leaves) return fail(Code::kInvalid, leaving(data));
  return fail(Code::kInvalid,
              fmt::format("{} is a folder of a cluster: add --cluster {} --node {} and --etcd URL",
                          data, owner->cluster, owner->member.node));
}

}  // namespace offprint::cluster
