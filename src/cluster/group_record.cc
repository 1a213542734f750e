#include "cluster/group_record.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/text_encoding.h"
#include "cluster/coordinator_json.h"

namespace offprint::cluster {
namespace {

constexpr std::string_view kStates[] = {"NORMAL", "FORCED", "LEFT"};  // by GroupRecord::State

constexpr std::size_t kNameMax = 63;
constexpr std::size_t kLogIdDigits = 16;

void append_members(std::string& to, const std::vector<RecordMember>& members) {
  const char* separator = "";
  to += '[';
  for (const RecordMember& each : members) {
    to += separator;
    append_json_string(to, each.text());
    separator = ",";
  }
  to += ']';
}

Result<RecordMember> parse_member(std::string_view text, std::string_view field) {
  auto member = RecordMember::parse(text);
  if (!member) {
    return fail(Code::kCorrupt,
                fmt::format("'{}' has '{}', which is no member (NODE@ and 16 hex digits)", field,
                            text.substr(0, 100)));
  }
  return std::move(*member);
}

Result<std::vector<RecordMember>> parse_members(simdjson::dom::object object,
                                                std::string_view field) {
  OFFPRINT_TRY_ASSIGN(std::vector<std::string> texts, json_strings(object, field));
  std::vector<RecordMember> members;
  for (const std::string& text : texts) {
    OFFPRINT_TRY_ASSIGN(RecordMember member, parse_member(text, field));
    members.push_back(std::move(member));
  }
  return members;
}

Result<GroupRecord> parse_fields(simdjson::dom::object object) {
  OFFPRINT_TRY_ASSIGN(std::int64_t version, json_integer(object, "v"));
  if (version > kGroupRecordVersion) {
    return fail(Code::kInvalid,
                fmt::format("a newer Offprint wrote it: its version is {}, this one reads {}; "
                            "upgrade this node",
                            version, kGroupRecordVersion));
  }
  if (version < 1) return fail(Code::kCorrupt, "'v' must be 1 or 2");
  GroupRecord record;
  OFFPRINT_TRY_ASSIGN(std::int64_t epoch, json_integer(object, "epoch"));
  if (epoch < 1 || epoch > std::numeric_limits<std::uint32_t>::max())
    return fail(Code::kCorrupt, "'epoch' must be from 1 to 4294967295");
  record.epoch = Epoch{static_cast<std::uint32_t>(epoch)};
  OFFPRINT_TRY_ASSIGN(std::string primary, json_string(object, "primary"));
  OFFPRINT_TRY_ASSIGN(record.primary, parse_member(primary, "primary"));
  OFFPRINT_TRY_ASSIGN(record.in_sync, parse_members(object, "isr"));
  OFFPRINT_TRY_ASSIGN(record.replicas, parse_members(object, "replicas"));
  OFFPRINT_TRY_ASSIGN(record.min_in_sync, json_integer(object, "min_isr"));
  OFFPRINT_TRY_ASSIGN(std::string state, json_string(object, "state"));
  const auto known = std::ranges::find(kStates, state);
  if (known == std::end(kStates))
    return fail(Code::kCorrupt, "'state' must be NORMAL, FORCED or LEFT");
  record.state = static_cast<GroupRecord::State>(known - std::begin(kStates));
  OFFPRINT_TRY_ASSIGN(std::string lineage, json_string(object, "lineage"));
  auto parsed = Lineage::parse(lineage);
  if (!parsed) return fail(Code::kCorrupt, "'lineage' must be 32 lower-case hex digits");
  record.lineage = *parsed;
  return record;
}

std::optional<std::string_view> rest_of(std::string_view key, const std::string& prefix) {
  if (!key.starts_with(prefix)) return std::nullopt;
  return key.substr(prefix.size());
}

}  // namespace

bool is_cluster_name(std::string_view name) {
  auto is_first = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > kNameMax || !is_first(name[0])) return false;
  return std::all_of(name.begin(), name.end(),
                     [&](char c) { return is_first(c) || c == '.' || c == '_' || c == '-'; });
}

bool contains(const std::vector<RecordMember>& members, const RecordMember& member) {
  return std::ranges::find(members, member) != members.end();
}

std::string RecordMember::text() const { return fmt::format("{}@{:016x}", node, log_id); }

std::optional<RecordMember> RecordMember::parse(std::string_view text) {
  std::size_t at = text.find('@');
  if (at == std::string_view::npos || !is_cluster_name(text.substr(0, at))) return std::nullopt;
  auto log_id = parse_hex(text.substr(at + 1), kLogIdDigits);
  if (!log_id || *log_id == 0) return std::nullopt;
  return RecordMember{std::string(text.substr(0, at)), *log_id};
}

Result<> GroupRecord::check() const {
  auto wrong = [](std::string message) { return fail(Code::kInvalid, std::move(message)); };
  if (epoch.value == 0) return wrong("'epoch' must be at least 1");
  if (replicas.empty() || replicas.size() > kRecordMembersMax)
    return wrong(fmt::format("'replicas' must hold 1 to {} members", kRecordMembersMax));
  for (std::size_t i = 0; i < replicas.size(); ++i) {
    if (!is_cluster_name(replicas[i].node) || replicas[i].log_id == 0)
      return wrong("'replicas' holds what is no member");
    for (std::size_t other = 0; other < i; ++other) {
      if (replicas[i].node == replicas[other].node)
        return wrong("'replicas' names the node " + replicas[i].node + " twice");
    }
  }
  for (std::size_t i = 0; i < in_sync.size(); ++i) {
    if (!contains(replicas, in_sync[i]))
      return wrong("'isr' has " + in_sync[i].text() + ", which is not in 'replicas'");
    if (std::find(in_sync.begin(), in_sync.begin() + static_cast<std::ptrdiff_t>(i), in_sync[i]) !=
        in_sync.begin() + static_cast<std::ptrdiff_t>(i)) {
      return wrong("'isr' has " + in_sync[i].text() + " twice");
    }
  }
  if (!contains(in_sync, primary)) return wrong("'primary' must be in 'isr'");
  if (min_in_sync < 1 || min_in_sync > static_cast<std::int64_t>(kRecordMembersMax))
    return wrong(fmt::format("'min_isr' must be from 1 to {}", kRecordMembersMax));
  return {};
}

std::string GroupRecord::to_json() const {
  OFFPRINT_ASSERT(check().has_value());
  std::string text = fmt::format(
      "{{\"v\":{},\"epoch\":{},\"primary\":", state == State::kLeft ? 2 : 1, epoch.value);
  append_json_string(text, primary.text());
  text += ",\"isr\":";
  append_members(text, in_sync);
  text += ",\"replicas\":";
  append_members(text, replicas);
  text += fmt::format(",\"min_isr\":{},\"state\":\"{}\",\"lineage\":\"{}\"}}", min_in_sync,
                      kStates[static_cast<int>(state)], lineage.text());
  return text;
}

Result<GroupRecord> GroupRecord::parse(std::string_view json) {
  constexpr std::string_view kContext = "a group's record";
  JsonObject reader;
  OFFPRINT_TRY_ASSIGN(simdjson::dom::object object, reader.parse(json, kContext));
  auto record = parse_fields(object);
  if (!record) return fail(record.error().with_context(kContext));
  if (auto valid = record->check(); !valid)
    return fail(Code::kCorrupt, std::string(kContext) + ": " + valid.error().message());
  return record;
}

std::string RecordKeys::groups() const { return "/" + cluster + "/pg/"; }
std::string RecordKeys::group(std::uint32_t number) const {
  return groups() + std::to_string(number);
}
std::string RecordKeys::nodes() const { return "/" + cluster + "/node/"; }
std::string RecordKeys::node(const std::string& name) const { return nodes() + name; }
std::string RecordKeys::format() const { return "/" + cluster + "/format"; }

std::optional<std::uint32_t> RecordKeys::group_of(std::string_view key) const {
  auto digits = rest_of(key, groups());
  if (!digits || digits->empty() || (digits->size() > 1 && digits->front() == '0'))
    return std::nullopt;
  std::uint32_t number = 0;
  auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(), number);
  if (error != std::errc() || end != digits->data() + digits->size()) return std::nullopt;
  return number;
}

std::optional<std::string> RecordKeys::node_of(std::string_view key) const {
  auto name = rest_of(key, nodes());
  if (!name || !is_cluster_name(*name)) return std::nullopt;
  return std::string(*name);
}

}  // namespace offprint::cluster
