#include "server/d1_databases.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "server/d1_envelope.h"
#include "server/d1_query.h"
#include "server/gate.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server::d1 {
namespace {

constexpr std::size_t kPageDefault = 1000;
constexpr std::size_t kPageMax = 10'000;
constexpr std::size_t kListedAtOnce = 1000;
constexpr std::size_t kDatabasesMax = 10'000'000;  // that paging reaches

struct Field {
  std::string_view name;
  std::string json;
};

std::string json_text(std::string_view text) {
  std::string json;
  append_json_string(json, text);
  return json;
}

std::string object_of(const std::vector<Field>& fields) {
  std::string json = "{";
  for (const Field& field : fields) {
    if (json.size() > 1) json += ',';
    json += json_text(field.name) + ":" + field.json;
  }
  return json + "}";
}

std::uint64_t size_of(const database::DatabaseInfo& info) {
  return std::uint64_t{info.page_size} * info.page_count;
}

std::vector<Field> listed_fields(const database::DatabaseInfo& info) {
  return {{"uuid", json_text(uuid_of(info))},
          {"name", json_text(info.name)},
          {"version", "\"production\""},
          {"created_at", json_text(format_rfc3339(info.created_at_ms))},
          {"file_size", std::to_string(size_of(info))},
          {"jurisdiction", "null"}};
}

// A number of at least 1 in the address.
Result<std::size_t> number_of(const Address& address, std::string_view name, std::size_t otherwise,
                              std::size_t max) {
  auto text = address.parameter(name);
  if (!text) return otherwise;
  std::size_t number = 0;
  auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error == std::errc() && end == text->data() + text->size() && number >= 1 && number <= max)
    return number;
  return fail(Code::kInvalid, fmt::format("'{}' must be a number from 1 to {}", name, max));
}

bool may_know(const Access* access, const std::string& name) {
  if (access == nullptr) return true;
  auto parsed = database::DatabaseName::parse(name);
  return parsed && access->knows(*parsed);
}

// Those whose names contain `part`, from the `skip`th on.
struct Page {
  std::vector<database::DatabaseInfo> databases;
  std::size_t total = 0;
};
Page page_of(const Service& service, const Access* access, std::string_view part, std::size_t skip,
             std::size_t size) {
  Page page;
  std::string after;
  for (;;) {
    auto some = service.store.list("", after, kListedAtOnce);
    if (some.empty()) return page;
    after = some.back().name;
    for (auto& info : some) {
      if (info.name.find(part) == std::string::npos || !may_know(access, info.name)) continue;
      if (page.total >= skip && page.databases.size() < size)
        page.databases.push_back(std::move(info));
      ++page.total;
    }
  }
}

Result<database::DatabaseName> parse_creation(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(body));
  OFFPRINT_TRY_ASSIGN(auto name, json_string_field(object, "name"));
  if (!name) return fail(Code::kInvalid, "'name' is missing");
  OFFPRINT_TRY_ASSIGN(auto jurisdiction, json_string_field(object, "jurisdiction"));
  if (jurisdiction)
    return fail(Code::kInvalid, "'jurisdiction': this server cannot promise where its data is");
  return database::DatabaseName::parse(*name);
}

// The number in {"columns":["n"],"rows":[[N]]}.
std::string number_in(const std::vector<QueryResult>& results) {
  if (results.empty()) return "null";
  const std::string& rows = results.front().rows;
  std::size_t from = rows.find("[[");
  std::size_t to = rows.find("]]");
  return from == std::string::npos || to == std::string::npos
             ? "null"
             : rows.substr(from + 2, to - from - 2);
}

bool is_asked(const Address& address, std::string_view field) {
  auto fields = address.parameter("fields");
  if (!fields) return true;
  std::string_view left = *fields;
  while (!left.empty()) {
    std::string_view word = left.substr(0, left.find(','));
    if (word == field) return true;
    left.remove_prefix(std::min(word.size() + 1, left.size()));
  }
  return false;
}

}  // namespace

std::string uuid_of(const database::DatabaseInfo& info) {
  auto made = static_cast<std::uint64_t>(info.created_at_ms) & 0xffffffffffffu;
  return fmt::format("{:08x}-{:04x}-8000-{:04x}-{:012x}", made >> 16, made & 0xffff,
                     0x8000u | (info.id >> 48 & 0x3fff), info.id & 0xffffffffffffu);
}

Result<database::DatabaseInfo> find_database(const Service& service, std::string_view id) {
  if (id.size() == 36 && id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-') {
    std::string digits(id.substr(19, 4));
    digits += id.substr(24);
    std::uint64_t number = 0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, 16);
    if (error == std::errc() && end == digits.data() + digits.size()) {
      auto info = service.store.info(number & 0x3fffffffffffffffu);
      if (info && uuid_of(*info) == id) return *std::move(info);
    }
  }
  auto name = database::DatabaseName::parse(id);
  if (name) return service.store.info(*name);
  return fail(Code::kNotFound, fmt::format("no database '{}'", id.substr(0, 140)));
}

void list_databases(Service& service, const HttpRequest& request, const Address& address,
                    Responder responder) {
  auto size = number_of(address, "per_page", kPageDefault, kPageMax);
  if (!size) return responder.respond(rest_error(size.error()));
  auto number = number_of(address, "page", 1, kDatabasesMax / *size);
  if (!number) return responder.respond(rest_error(number.error()));
  std::string part(address.parameter("name").value_or(""));
  respond_from_helper(
      service, std::move(responder),
      [&service, access = request.access, part, size = *size, number = *number] {
        Page page = page_of(service, access.get(), part, (number - 1) * size, size);
        std::string list = "[";
        for (const auto& info : page.databases) {
          if (list.size() > 1) list += ',';
          list += object_of(listed_fields(info));
        }
        return rest_result(list + "]",
                           fmt::format(R"({{"page":{},"per_page":{},"count":{},"total_count":{}}})",
                                       number, size, page.databases.size(), page.total));
      });
}

void create_database(Service& service, HttpRequest& request, Responder responder) {
  auto name = parse_creation(request.body);
  if (!name) return responder.respond(rest_error(name.error()));
  if (!access_of(service, request).allows(*name, database::Verb::kAdmin)) {
    return responder.respond(rest_error(
        Error(Code::kForbidden, "TOKEN_FORBIDS: the token does not allow to make this database")));
  }
  respond_from_helper(service, std::move(responder), [&service, name = *std::move(name)] {
    auto info = service.store.create(name, {});
    if (!info) return rest_error(info.error());
    auto fields = listed_fields(*info);
    fields.push_back({"created_in_region", json_text(service.options.node_name)});
    return rest_result(object_of(fields));
  });
}

void describe_database(Service& service, const database::DatabaseInfo& info,
                       const HttpRequest& request, const Address& address, Responder responder) {
  std::vector<Field> fields = listed_fields(info);
  fields.push_back({"running_in_region", json_text(service.options.node_name)});
  fields.push_back({"read_replication", R"({"mode":"auto"})"});
  std::erase_if(fields, [&](const Field& field) { return !is_asked(address, field.name); });
  if (!is_asked(address, "num_tables")) return responder.respond(rest_result(object_of(fields)));
  QueryList list;
  list.queries.emplace_back().sql =
      "SELECT count(*) AS n FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' "
      "ESCAPE '\\'";
  RunOptions options;
  options.rows = RunOptions::Rows::kArrays;
  run_queries(
      service, *database::DatabaseName::parse(info.name), request, std::move(list), options,
      [fields = std::move(fields)](Answer answer) {
        if (answer.error) return rest_error(*answer.error);
        auto all = fields;
        all.push_back({"num_tables", number_in(answer.results)});
        return rest_result(object_of(all));
      },
      std::move(responder));
}

void update_database(Service& service, const database::DatabaseInfo& info, HttpRequest& request,
                     Responder responder) {
  auto mode = [&]() -> Result<> {
    JsonReader reader;
    OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(request.body));
    OFFPRINT_TRY_ASSIGN(auto replication, json_object_field(object, "read_replication"));
    if (!replication) return {};
    OFFPRINT_TRY_ASSIGN(auto text, json_string_field(*replication, "mode"));
    if (text == "auto") return {};
    return fail(Code::kInvalid,
                "'read_replication.mode' can only be auto: each request says where it may be read");
  }();
  if (!mode) return responder.respond(rest_error(mode.error()));
  describe_database(service, info, request, {}, std::move(responder));
}

void delete_database(Service& service, const database::DatabaseInfo& info, Responder responder) {
  respond_from_helper(service, std::move(responder), [&service, name = info.name] {
    auto parsed = database::DatabaseName::parse(name);
    if (!parsed) return rest_error(parsed.error());
    Result<> dropped = service.store.drop(*parsed);
    return dropped ? rest_result("null") : rest_error(dropped.error());
  });
}

}  // namespace offprint::server::d1
