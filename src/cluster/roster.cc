#include "cluster/roster.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text_encoding.h"
#include "cluster/coordinator_json.h"
#include "cluster/coordinator_now.h"

namespace offprint::cluster {
namespace {

constexpr int kNodeRecordVersion = 1;
constexpr std::uint32_t kGroup = 0;
constexpr std::chrono::seconds kLookEvery{1};
constexpr int kTries = 5;

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

// With its entry; nothing: there is none, or its last node left it.
Result<Roster::Found> Roster::find() {
  Found found;
  OFFPRINT_TRY_ASSIGN(auto entry, read_now(*coordinator_, keys_.group(kGroup),
                                           std::chrono::milliseconds(options_.answer_ms)));
  if (!entry) return found;
  found.version = entry->version;
  OFFPRINT_TRY_ASSIGN(GroupRecord record, GroupRecord::parse(entry->value));
  if (record.state == GroupRecord::State::kLeft) {
    found.left_in = record.epoch;
  } else {
    found.record = std::move(record);
  }
  return found;
}

SwapResult Roster::swap(const Found& found, const GroupRecord& next) {
  return swap_now(*coordinator_, {keys_.group(kGroup), found.version, next.to_json()},
                  std::chrono::milliseconds(options_.answer_ms));
}

Result<> Roster::change_record(const Change& change) {
  std::string why = "the record changes all the time";
  for (int tries = 0; tries < kTries; ++tries) {
    OFFPRINT_TRY_ASSIGN(Found found, find());
    if (!found.record) return fail(Code::kUnavailable, "the coordinator does not know the cluster");
    OFFPRINT_TRY_ASSIGN(GroupRecord next, change(*found.record));
    if (next == *found.record) return {};
    const SwapResult swapped = swap(found, next);
    if (swapped.outcome == SwapResult::Outcome::kApplied) return {};
    if (swapped.error) why = swapped.error->message();
    if (swapped.outcome == SwapResult::Outcome::kUnknown) break;
  }
  return fail(Code::kUnavailable, why);
}

Result<bool> Roster::lives(const std::string& node) {
  OFFPRINT_TRY_ASSIGN(auto entry, read_now(*coordinator_, keys_.node(node),
                                           std::chrono::milliseconds(options_.answer_ms)));
  return entry.has_value();
}

bool Roster::join() {
  auto found = find();
  const std::string error = found ? "" : found.error().message();
  if (std::exchange(last_error_, error) != error && !error.empty())
    log::warn("the cluster's record: {}", error);
  if (!found) return false;
  const std::optional<GroupRecord>& record = found->record;
  if (!record && !options_.may_begin && !std::exchange(is_missed_, true)) {
    log::error("cluster {}: {}, and this node has its history{}", options_.cluster,
               found->left_in ? "its last node left it" : "the coordinator does not know it",
               found->left_in ? "" : ": restore the coordinator's data");
  }
  if (record && options_.begins_with_own && !contains(record->replicas, options_.self.member)) {
    const Error mixed(Code::kInvalid,
                      "cluster " + options_.cluster +
                          " was begun by another node, and this one has databases of its own");
    log::error("{}", mixed.message());
    options_.refused(mixed);
    return true;
  }
  auto next = changed(*found);
  if (!next) return true;
  const bool applied = swap(*found, *next).outcome == SwapResult::Outcome::kApplied;
  if (applied) {
    log::info("cluster {}: {} replicas, {} of them in sync at least for a commit", options_.cluster,
              next->replicas.size(), next->min_in_sync);
  }
  return applied;
}

// What the record should be; nothing: as it is.
std::optional<GroupRecord> Roster::changed(const Found& found) const {
  const RecordMember& self = options_.self.member;
  if (!found.record) {  // the first node
    if (!options_.may_begin) return std::nullopt;
    GroupRecord record;
    record.epoch = options_.first_epoch;
    if (found.left_in) record.epoch = std::max(record.epoch, Epoch{found.left_in->value + 1});
    record.primary = self;
    record.replicas = record.in_sync = {self};
    record.lineage = Lineage::random();
    return record;
  }
  GroupRecord record = *found.record;
  auto same = std::ranges::find(record.replicas, self.node, &RecordMember::node);
  if (same == record.replicas.end()) {
    if (record.replicas.size() >= options_.replicas) return std::nullopt;
    record.replicas.push_back(self);
  } else if (*same != self) {
    // Its folder was another one. Whom a commit waits for is left out by the primary first.
    if (contains(record.in_sync, *same)) return std::nullopt;
    *same = self;
  }
  const std::int64_t least = least_in_sync(record.replicas.size());
  const bool has_so_many = record.in_sync.size() >= static_cast<std::size_t>(least);
  if (record.primary == self && record.min_in_sync < least && has_so_many)
    record.min_in_sync = least;
  return record == *found.record ? std::nullopt : std::optional(record);
}

}  // namespace offprint::cluster
