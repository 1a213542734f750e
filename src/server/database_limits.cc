#include "server/database_limits.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "server/databases_api.h"
#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

namespace dom = simdjson::dom;

using Durability = database::DatabaseLimits::Durability;

constexpr std::size_t kReasonMax = 500;  // bytes

Result<std::uint64_t> number(dom::element value, std::string_view name, std::uint64_t max) {
  if (value.is_null()) return 0;
  std::uint64_t result = 0;
  if (value.get(result) != simdjson::SUCCESS || result > max)
    return fail(Code::kInvalid, fmt::format("'{}' must be a number from 0 to {}", name, max));
  return result;
}

Result<bool> flag(dom::element value, std::string_view name) {
  if (value.is_null()) return false;
  bool result = false;
  if (value.get(result) != simdjson::SUCCESS)
    return fail(Code::kInvalid, fmt::format("'{}' must be true or false", name));
  return result;
}

constexpr std::array<std::string_view, 3> kDurabilities = {"server", "disk", "archive"};

Result<Durability> durability(dom::element value) {
  if (value.is_null()) return Durability::kServers;
  std::string_view text;
  auto found = value.get(text) == simdjson::SUCCESS ? std::ranges::find(kDurabilities, text)
                                                    : kDurabilities.end();
  if (found == kDurabilities.end())
    return fail(Code::kInvalid, "'durability' must be \"disk\", \"archive\" or \"server\"");
  return static_cast<Durability>(found - kDurabilities.begin());
}

Result<> read_field(std::string_view name, dom::element value, database::DatabaseLimits& limits) {
  constexpr std::uint64_t kMax = std::uint64_t{1} << 62;
  if (name == "size_bytes_max") {
    OFFPRINT_TRY_ASSIGN(limits.size_bytes_max, number(value, name, kMax));
  } else if (name == "statement_ms_max") {
    OFFPRINT_TRY_ASSIGN(std::uint64_t ms, number(value, name, 86'400'000));
    limits.statement_ms_max = static_cast<std::uint32_t>(ms);
  } else if (name == "rows_max") {
    OFFPRINT_TRY_ASSIGN(limits.rows_max, number(value, name, kMax));
  } else if (name == "writes_blocked") {
    OFFPRINT_TRY_ASSIGN(limits.writes_blocked, flag(value, name));
  } else if (name == "reads_blocked") {
    OFFPRINT_TRY_ASSIGN(limits.reads_blocked, flag(value, name));
  } else if (name == "block_reason") {
    std::string_view text;
    if (!value.is_null() && (value.get(text) != simdjson::SUCCESS || text.size() > kReasonMax))
      return fail(Code::kInvalid, "'block_reason' must be a text of at most 500 bytes");
    limits.block_reason = text;
  } else if (name == "durability") {
    OFFPRINT_TRY_ASSIGN(limits.durability, durability(value));
  } else if (name == "retention_days") {
    OFFPRINT_TRY_ASSIGN(std::uint64_t days, number(value, name, 36'500));
    limits.retention_days = static_cast<std::uint32_t>(days);
  } else {
    return fail(Code::kInvalid, fmt::format("there is no limit '{}'", name));
  }
  return {};
}

Result<> read_object(dom::element root, database::DatabaseLimits& limits) {
  dom::object object;
  if (root.get(object) != simdjson::SUCCESS)
    return fail(Code::kInvalid, "limits must be an object");
  for (auto field : object) OFFPRINT_TRY(read_field(field.key, field.value, limits));
  return {};
}

}  // namespace

Result<> read_limits(std::string& json, database::DatabaseLimits& limits) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(json));
  return read_object(root, limits);
}

Result<> read_limits_field(std::string& json, database::DatabaseLimits& limits) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(json));
  dom::element field;
  if (object["limits"].get(field) != simdjson::SUCCESS) return {};
  return read_object(field, limits);
}

std::string limits_json(const database::DatabaseLimits& limits) {
  std::string text = fmt::format(
      R"({{"size_bytes_max":{},"statement_ms_max":{},"rows_max":{},"writes_blocked":{},"reads_blocked":{},"block_reason":)",
      limits.size_bytes_max, limits.statement_ms_max, limits.rows_max, limits.writes_blocked,
      limits.reads_blocked);
  append_json_string(text, limits.block_reason);
  return text + fmt::format(R"(,"durability":"{}","retention_days":{}}})",
                            kDurabilities[static_cast<std::size_t>(limits.durability)],
                            limits.retention_days);
}

void handle_change_database(Service& service, const database::DatabaseName& name,
                            HttpRequest& request, Responder responder) {
  if (service.has_copies())
    return responder.respond(structured_error(not_primary("limits are set at the primary")));
  Result<database::DatabaseInfo> info = service.store.info(name);
  if (!info) return responder.respond(structured_error(info.error()));
  Result<> read = read_limits_field(request.body, info->limits);
  if (!read) return responder.respond(structured_error(read.error()));
  if (info->limits.durability == Durability::kArchive && !service.archive_status) {
    return responder.respond(structured_error(Error(
        Code::kInvalid, "durability \"archive\" needs a server with an archive (--archive)")));
  }
  respond_from_helper(service, std::move(responder), [&service, name, limits = info->limits] {
    Result<> set = service.store.set_limits(name, limits);
    if (!set) return structured_error(set.error());
    return describe_database(service, name);
  });
}

}  // namespace offprint::server
