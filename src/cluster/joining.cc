#include "cluster/joining.h"

#include <array>
#include <future>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/random.h"
#include "cluster/fill_client.h"
#include "cluster/roster.h"
#include "database/folder_fill.h"

namespace offprint::cluster {
namespace {

using database::FolderFill;

constexpr std::string_view kHead = "offprint-node 1\n";
constexpr std::chrono::seconds kAnswerMax{3};  // of the coordinator
constexpr std::chrono::milliseconds kTryEvery{500};

struct FolderOwner {
  std::string cluster;
  RecordMember member;
  std::string text() const { return fmt::format("{}{} {}\n", kHead, cluster, member.text()); }
};

// Nothing: of none.
Result<std::optional<FolderOwner>> owner_of(FileSystem& files, const std::string& data) {
  const std::string path = data + "/" + FolderFill::kMark;
  OFFPRINT_TRY_ASSIGN(bool is_there, files.exists(path));
  if (!is_there) return std::nullopt;
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(files, path, 4096));
  std::string_view text = as_text(bytes);
  if (!text.starts_with(kHead))
    return fail(Code::kInvalid, path + " was written by a newer version");
  text.remove_prefix(kHead.size());
  text = text.substr(0, text.find('\n'));
  const std::size_t space = text.find(' ');
  auto member =
      space != std::string_view::npos ? RecordMember::parse(text.substr(space + 1)) : std::nullopt;
  if (!member) return fail(Code::kCorrupt, path + " is damaged");
  return FolderOwner{std::string(text.substr(0, space)), *member};
}

FolderOwner new_owner(const JoinOptions& options) {
  FolderOwner owner{options.cluster, {options.node, 0}};
  while (owner.member.log_id == 0) {
    std::array<std::uint8_t, 8> bytes{};
    fill_random(bytes);
    owner.member.log_id = load_be<std::uint64_t>(bytes.data());
  }
  return owner;
}

class Joining {
 public:
  Joining(FileSystem& files, const JoinOptions& options) : files_(files), options_(options) {}

  Result<std::optional<RecordMember>> join(bool anew) {
    OFFPRINT_TRY(files_.create_directories(options_.data));
    OFFPRINT_TRY(FolderFill::take_over(files_, options_.data));
    OFFPRINT_TRY_ASSIGN(auto owner, owner_of(files_, options_.data));
    if (owner) OFFPRINT_TRY(check_owner(*owner));
    if (owner && !anew) return owner->member;
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
    if (owner.cluster == options_.cluster && owner.member.node == options_.node) return {};
    return fail(
        Code::kInvalid,
        fmt::format("{} is the folder of node {} of cluster {}: start it as that one, or give "
                    "this one a folder of its own",
                    options_.data, owner.member.node, owner.cluster));
  }

  // Nothing: not yet.
  Result<std::optional<RecordMember>> try_to_join() {
    OFFPRINT_TRY_ASSIGN(auto entry, read(keys_.group(0)));
    OFFPRINT_TRY_ASSIGN(bool has_databases, is_single_nodes(files_, options_.data));
    if (!entry) {  // this may be the first node
      const FolderOwner owner = new_owner(options_);
      OFFPRINT_TRY(write_file_atomically(files_, options_.data + "/" + FolderFill::kMark,
                                         as_bytes(owner.text())));
      if (has_databases) log::info("{} becomes a cluster's folder", options_.data);
      return owner.member;
    }
    if (has_databases) {
      return fail(Code::kInvalid,
                  fmt::format("{} has databases of its own, and cluster {} has others: give this "
                              "node an empty folder",
                              options_.data, options_.cluster));
    }
    return filled_by_primary();
  }

  Result<std::optional<RecordMember>> filled_by_primary() {
    OFFPRINT_TRY_ASSIGN(auto entry, read(keys_.group(0)));
    if (!entry) return fail(Code::kUnavailable, "the coordinator does not know it");
    OFFPRINT_TRY_ASSIGN(GroupRecord record, GroupRecord::parse(entry->value));
    OFFPRINT_TRY_ASSIGN(auto said, read(keys_.node(record.primary.node)));
    if (!said) return std::nullopt;
    OFFPRINT_TRY_ASSIGN(NodeRecord primary, NodeRecord::parse(said->value));
    if (primary.member != record.primary) return std::nullopt;
    const FolderOwner owner = new_owner(options_);
    FillRequest request{options_.cluster,
                        options_.node,
                        options_.secret,
                        primary.peer_address,
                        options_.data,
                        owner.text(),
                        [this] { return options_.cancelled(std::chrono::milliseconds(0)); }};
    log::info("filling {} with what {} has", options_.data, primary.member.node);
    OFFPRINT_TRY_ASSIGN(std::uint64_t bytes, fetch_fill(files_, request));
    OFFPRINT_TRY(FolderFill::take_over(files_, options_.data));
    log::info("{} is filled: {} MiB", options_.data, bytes >> 20);
    return owner.member;
  }

  Result<std::optional<RegisterEntry>> read(const std::string& key) {
    auto answer = std::make_shared<std::promise<Result<std::optional<RegisterEntry>>>>();
    coordinator_->read(key, SteadyClock::now() + kAnswerMax,
                       [answer](auto found) { answer->set_value(std::move(found)); });
    return answer->get_future().get();
  }

  FileSystem& files_;
  const JoinOptions& options_;
  const RecordKeys keys_{options_.cluster};
  std::unique_ptr<Coordinator> coordinator_;
  std::string last_;
};

}  // namespace

Result<std::optional<RecordMember>> join_cluster(FileSystem& files, const JoinOptions& options) {
  return Joining(files, options).join(false);
}

Result<std::optional<RecordMember>> join_anew(FileSystem& files, const JoinOptions& options) {
  return Joining(files, options).join(true);
}

Result<bool> is_single_nodes(FileSystem& files, const std::string& data) {
  OFFPRINT_TRY(FolderFill::take_over(files, data));
  OFFPRINT_TRY_ASSIGN(auto owner, owner_of(files, data));
  OFFPRINT_TRY_ASSIGN(bool has_databases, files.exists(data + "/journal"));
  return has_databases && !owner;
}

Result<> check_is_alone(FileSystem& files, const std::string& data) {
  OFFPRINT_TRY(FolderFill::take_over(files, data));
  OFFPRINT_TRY_ASSIGN(auto owner, owner_of(files, data));
  if (!owner) return {};
  return fail(Code::kInvalid,
              fmt::format("{} is a folder of a cluster: add --cluster {} --node {} and --etcd URL",
                          data, owner->cluster, owner->member.node));
}

}  // namespace offprint::cluster
