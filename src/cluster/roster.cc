#include "cluster/roster.h"

#include <algorithm>
#include <charconv>
#include <future>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text_encoding.h"
#include "cluster/coordinator_json.h"

namespace offprint::cluster {
namespace {

constexpr int kNodeRecordVersion = 1;
constexpr std::uint32_t kGroup = 0;
constexpr std::chrono::seconds kLookEvery{1};

}  // namespace

std::string NodeRecord::to_json() const {
  std::string text = fmt::format("{{\"v\":{},\"member\":", kNodeRecordVersion);
  append_json_string(text, member.text());
  text += ",\"peer\":";
  append_json_string(text, peer_address);
  text += ",\"url\":";
  append_json_string(text, url);
  text += '}';
  return text;
}

Result<NodeRecord> NodeRecord::parse(std::string_view json) {
  JsonObject reader;
  OFFPRINT_TRY_ASSIGN(simdjson::dom::object object, reader.parse(json, "a node's record"));
  OFFPRINT_TRY_ASSIGN(std::int64_t version, json_integer(object, "v"));
  if (version > kNodeRecordVersion)
    return fail(Code::kInvalid, "a node's record was written by a newer Offprint");
  NodeRecord record;
  OFFPRINT_TRY_ASSIGN(std::string member, json_string(object, "member"));
  auto parsed = RecordMember::parse(member);
  if (!parsed) return fail(Code::kCorrupt, "a node's record: '" + member + "' is no member");
  record.member = *parsed;
  OFFPRINT_TRY_ASSIGN(record.peer_address, json_string(object, "peer"));
  OFFPRINT_TRY_ASSIGN(record.url, json_string(object, "url"));
  return record;
}

Roster::Roster(Options options, std::unique_ptr<Coordinator> coordinator)
    : options_(std::move(options)), keys_{options_.cluster}, coordinator_(std::move(coordinator)) {
  coordinator_->watch(keys_.nodes(), [this](const RegisterHint& hint) { take_hint(hint); });
  coordinator_->announce({keys_.node(options_.self.member.node), options_.self.to_json()},
                         SteadyClock::now() + std::chrono::milliseconds(options_.answer_ms),
                         [](const Result<>& announced) {
                           if (!announced)
                             log::warn("the coordinator: {}", announced.error().message());
                         });
  thread_ = std::thread([this] { work(); });
}

Roster::~Roster() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::optional<std::string> Roster::url_of(const std::string& node) {
  std::lock_guard lock(mutex_);
  auto found = nodes_.find(node);
  return found != nodes_.end() ? std::optional(found->second.url) : std::nullopt;
}

// A node that is not heard of any more is called still: it may live.
void Roster::take_hint(const RegisterHint& hint) {
  auto node = keys_.node_of(hint.key);
  if (!node || !hint.value) return;
  auto record = NodeRecord::parse(*hint.value);
  if (!record || record->member.node != *node) {
    return log::warn("the record of node {} is not followed: {}", *node,
                     record ? "it names another one" : record.error().message());
  }
  {
    std::lock_guard lock(mutex_);
    if (auto known = nodes_.find(*node); known != nodes_.end() && known->second == *record) return;
    nodes_[*node] = *record;
  }
  options_.heard(*record);
}

void Roster::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    (void)join();
    lock.lock();
    wake_.wait_for(lock, kLookEvery, [&] { return stopping_; });
  }
}

bool Roster::join() {
  const Deadline deadline = SteadyClock::now() + std::chrono::milliseconds(options_.answer_ms);
  std::promise<Result<std::optional<RegisterEntry>>> read;
  coordinator_->read(keys_.group(kGroup), deadline,
                     [&](auto found) { read.set_value(std::move(found)); });
  auto found = read.get_future().get();
  std::optional<GroupRecord> record;
  std::string error;
  if (!found) {
    error = found.error().message();
  } else if (*found) {
    auto parsed = GroupRecord::parse((*found)->value);
    if (parsed) record = *parsed;
    if (!parsed) error = parsed.error().message();
  }
  if (std::exchange(last_error_, error) != error && !error.empty())
    log::warn("the cluster's record: {}", error);
  if (!error.empty()) return false;
  if (!record && !options_.may_begin && !std::exchange(is_missed_, true)) {
    log::error(
        "cluster {}: the coordinator does not know it, and this node has its history: "
        "restore the coordinator's data",
        options_.cluster);
  }
  if (record && options_.begins_with_own &&
      std::ranges::find(record->replicas, options_.self.member) == record->replicas.end()) {
    const Error mixed(Code::kInvalid,
                      "cluster " + options_.cluster +
                          " was begun by another node, and this one has databases of its own");
    log::error("{}", mixed.message());
    options_.refused(mixed);
    return true;
  }
  auto next = changed(record);
  if (!next) return true;
  std::promise<SwapResult> swapped;
  coordinator_->compare_and_swap(
      {keys_.group(kGroup), *found ? (*found)->version : 0, next->to_json()}, deadline,
      [&](SwapResult result) { swapped.set_value(std::move(result)); });
  const bool applied = swapped.get_future().get().outcome == SwapResult::Outcome::kApplied;
  if (applied) {
    log::info("cluster {}: {} replicas, {} of them in sync at least for a commit", options_.cluster,
              next->replicas.size(), next->min_in_sync);
  }
  return applied;
}

// What the record should be; nothing: as it is.
std::optional<GroupRecord> Roster::changed(const std::optional<GroupRecord>& found) const {
  const RecordMember& self = options_.self.member;
  if (!found) {  // the first node
    if (!options_.may_begin) return std::nullopt;
    GroupRecord record;
    record.epoch = Epoch{1};
    record.primary = self;
    record.replicas = record.in_sync = {self};
    record.lineage = Lineage::random();
    return record;
  }
  GroupRecord record = *found;
  auto same = std::ranges::find(record.replicas, self.node, &RecordMember::node);
  if (same == record.replicas.end()) {
    if (record.replicas.size() >= options_.replicas) return std::nullopt;
    record.replicas.push_back(self);
  } else if (*same != self) {
    // Its folder was another one. Whom a commit waits for is left out by the primary first.
    if (std::ranges::find(record.in_sync, *same) != record.in_sync.end()) return std::nullopt;
    *same = self;
  }
  // With three copies a commit is on two of them, from when there are two.
  const std::int64_t least = record.replicas.size() >= 3 ? 2 : 1;
  const bool has_so_many = record.in_sync.size() >= static_cast<std::size_t>(least);
  if (record.primary == self && record.min_in_sync < least && has_so_many)
    record.min_in_sync = least;
  return record == *found ? std::nullopt : std::optional(record);
}

}  // namespace offprint::cluster
