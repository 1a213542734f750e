#include "server/namespace_config.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/format.h>

#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

namespace dom = simdjson::dom;

constexpr std::size_t kReasonMax = 500;  // bytes
// What libSQL's server has for a database without a limit: 1,000 PB.
constexpr std::uint64_t kNoSizeLimit = 1'000'000'000'000'000'000;

// Fields that tune the other server, or ask for less than what is always so here.
constexpr std::array<std::string_view, 3> kIgnored = {"txn_timeout_s", "max_row_size",
                                                      "durability_mode"};

struct Unsupported {
  std::string_view field;
  std::string_view instead;
};
// What these ask for would not be so.
constexpr std::array kUnsupported = {
    Unsupported{"dump_url",
                "create the database, then POST the script to "
                "/db/NAME/import?format=sql"},
    Unsupported{"heartbeat_url", "nothing is sent from here; see /metrics"},
    Unsupported{"bottomless_db_id", "there are no backups under such names"},
    Unsupported{"jwt_key", "keys of tokens are the server's: --auth-keys"},
    Unsupported{"shared_schema", "a database can begin with a schema: POST /v1/databases"},
    Unsupported{"shared_schema_name", "a database can begin with a schema: POST /v1/databases"},
    Unsupported{"allow_attach", "no database can attach another one"},
};

ConfigRefusal wrong_type(std::string_view field, std::string_view expected) {
  return {422, fmt::format("{}: invalid type, expected {}", field, expected)};
}

std::optional<ConfigRefusal> read_flag(dom::element value, std::string_view name, bool& flag) {
  if (value.get(flag) != simdjson::SUCCESS) return wrong_type(name, "a boolean");
  return std::nullopt;
}

std::optional<ConfigRefusal> read_size(dom::element value, std::uint64_t& limit) {
  std::uint64_t size = 0;
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) {
    auto parsed = parse_byte_size(text);
    if (!parsed) return wrong_type("max_db_size", "a size such as 10485760, \"10MB\" or \"1GiB\"");
    size = *parsed;
  } else if (value.get(size) != simdjson::SUCCESS) {
    return wrong_type("max_db_size", "a size such as 10485760, \"10MB\" or \"1GiB\"");
  }
  if (size == 0) return ConfigRefusal{400, "max_db_size: 0 would let nothing be written"};
  limit = size >= kNoSizeLimit ? 0 : size;
  return std::nullopt;
}

std::optional<ConfigRefusal> read_unsupported(std::string_view name, dom::element value) {
  if (std::find(kIgnored.begin(), kIgnored.end(), name) != kIgnored.end()) return std::nullopt;
  bool flag = true;
  if (value.is_null() || (value.get(flag) == simdjson::SUCCESS && !flag)) {
    for (const Unsupported& each : kUnsupported) {
      if (each.field == name) return std::nullopt;
    }
  }
  for (const Unsupported& each : kUnsupported) {
    if (each.field == name)
      return ConfigRefusal{400, fmt::format("{} is not supported: {}", name, each.instead)};
  }
  return ConfigRefusal{400, fmt::format("there is no field {}", name)};
}

std::optional<ConfigRefusal> read_field(std::string_view name, dom::element value,
                                        database::DatabaseLimits& limits) {
  if (name == "block_reads") return read_flag(value, name, limits.reads_blocked);
  if (name == "block_writes") return read_flag(value, name, limits.writes_blocked);
  if (name == "block_reason") {
    std::string_view text;
    if (!value.is_null() && (value.get(text) != simdjson::SUCCESS || text.size() > kReasonMax))
      return wrong_type(name, "a string of at most 500 bytes");
    limits.block_reason = text;
    return std::nullopt;
  }
  if (name == "max_db_size") {
    if (value.is_null()) return std::nullopt;
    return read_size(value, limits.size_bytes_max);
  }
  return read_unsupported(name, value);
}

struct Unit {
  std::string_view name;  // lower case
  std::uint64_t bytes;
};
constexpr std::array kUnits = {
    Unit{"pb", 1'000'000'000'000'000},
    Unit{"tb", 1'000'000'000'000},
    Unit{"gb", 1'000'000'000},
    Unit{"mb", 1'000'000},
    Unit{"kb", 1'000},
    Unit{"b", 1},
    Unit{"pib", 1ULL << 50},
    Unit{"tib", 1ULL << 40},
    Unit{"gib", 1ULL << 30},
    Unit{"mib", 1ULL << 20},
    Unit{"kib", 1ULL << 10},
    Unit{"p", 1'000'000'000'000'000},
    Unit{"t", 1'000'000'000'000},
    Unit{"g", 1'000'000'000},
    Unit{"m", 1'000'000},
    Unit{"k", 1'000},
    Unit{"", 1},
};

}  // namespace

std::optional<ConfigRefusal> read_namespace_config(std::string& json, ConfigBody kind,
                                                   database::DatabaseLimits& limits) {
  if (json.empty() && kind == ConfigBody::kCreate) return std::nullopt;
  JsonReader reader;
  auto object = reader.parse_object(json);
  if (!object) return ConfigRefusal{400, object.error().message()};
  if (kind == ConfigBody::kConfig) {
    for (const char* needed : {"block_reads", "block_writes"}) {
      dom::element found;
      if ((*object)[needed].get(found) != simdjson::SUCCESS)
        return ConfigRefusal{422, fmt::format("missing field `{}`", needed)};
    }
    limits.block_reason.clear();
  }
  for (auto field : *object) {
    if (auto refusal = read_field(field.key, field.value, limits)) return refusal;
  }
  return std::nullopt;
}

std::string namespace_config_json(const database::DatabaseLimits& limits) {
  std::string text = fmt::format(R"({{"block_reads":{},"block_writes":{},"block_reason":)",
                                 limits.reads_blocked, limits.writes_blocked);
  if (limits.block_reason.empty()) {
    text += "null";
  } else {
    append_json_string(text, limits.block_reason);
  }
  text += ",\"max_db_size\":";
  append_json_string(
      text, byte_size_text(limits.size_bytes_max == 0 ? kNoSizeLimit : limits.size_bytes_max));
  text +=
      ",\"heartbeat_url\":null,\"jwt_key\":null,\"allow_attach\":false,\"txn_timeout_s\":null,"
      "\"durability_mode\":\"strong\"}\n";
  return text;
}

std::optional<std::uint64_t> parse_byte_size(std::string_view text) {
  std::size_t number_end = std::min(text.find_first_not_of("0123456789."), text.size());
  std::string_view number = text.substr(0, number_end);
  std::string unit(text.substr(std::min(text.find_first_not_of(' ', number_end), text.size())));
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const auto* known = std::find_if(kUnits.begin(), kUnits.end(),
                                   [&](const Unit& each) { return each.name == unit; });
  if (known == kUnits.end()) return std::nullopt;
  const char* end = number.data() + number.size();
  std::uint64_t whole = 0;
  if (auto parsed = std::from_chars(number.data(), end, whole);
      parsed.ec == std::errc() && parsed.ptr == end && whole <= UINT64_MAX / known->bytes)
    return whole * known->bytes;
  double value = 0;
  auto parsed = std::from_chars(number.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  value *= static_cast<double>(known->bytes);
  if (value >= 0x1p64) return std::nullopt;
  return static_cast<std::uint64_t>(value);
}

std::string byte_size_text(std::uint64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (unit.bytes == 1) break;
    std::uint64_t tenth = unit.bytes / 10;
    if (bytes < unit.bytes || bytes % tenth != 0) continue;
    std::string name(unit.name);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return static_cast<char>(c - 32); });
    return fmt::format("{}.{} {}", bytes / unit.bytes, bytes / tenth % 10, name);
  }
  return fmt::format("{} B", bytes);
}

}  // namespace offprint::server
