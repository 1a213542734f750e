#include "server/namespaces_api.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "server/d1_databases.h"
#include "server/databases_api.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/namespace_config.h"

namespace offprint::server {
namespace {

constexpr std::size_t kTopQueries = 10;
constexpr std::array<std::string_view, 4> kActions = {"create", "config", "checkpoint", "stats"};

// As libSQL's server words it, for the tools that look at it.
Response namespace_error(const Error& error, const database::DatabaseName& name) {
  if (error.code() == Code::kNotFound) {
    return error_response(404, "NOT_FOUND",
                          fmt::format("Namespace `{}` doesn't exist", name.text()));
  }
  if (error.code() == Code::kConflict) {
    return error_response(400, "CONFLICT",
                          fmt::format("Namespace `{}` already exists", name.text()));
  }
  return plain_error(error);
}

Response refused(const ConfigRefusal& refusal) {
  return error_response(refusal.status, "INVALID", refusal.message);
}

Response json(std::string body) {
  Response response;
  response.body = std::move(body);
  return response;
}

// 200 with nothing.
Response done() {
  Response response;
  response.content_type = {};
  return response;
}

Response method_not_allowed(std::string_view allowed) {
  Response response = error_response(405, "METHOD_NOT_ALLOWED", "use " + std::string(allowed));
  response.headers += "Allow: " + std::string(allowed) + "\r\n";
  return response;
}

// The field of a body that may be absent, if it is an object with one.
Result<std::optional<simdjson::dom::element>> optional_field(JsonReader& reader, std::string& body,
                                                             std::string_view name) {
  if (body.empty()) return std::optional<simdjson::dom::element>();
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(body));
  if (root.is_null()) return std::optional<simdjson::dom::element>();
  simdjson::dom::object object;
  if (root.get(object) != simdjson::SUCCESS)
    return fail(Code::kInvalid, "the body must be an object");
  return json_field(object, name);
}

void create(Service& service, const database::DatabaseName& name, HttpRequest& request,
            Responder responder) {
  Creation creation{name, {}, {}, {}};
  if (auto refusal = read_namespace_config(request.body, ConfigBody::kCreate, creation.limits))
    return responder.respond(refused(*refusal));
  auto later = std::make_shared<Responder>(std::move(responder));
  create_database(service, std::move(creation), [later, name](const Result<>& made) {
    later->respond(made ? done() : namespace_error(made.error(), name));
  });
}

// A copy with the limits of what it is a copy of, as there.
void fork(Service& service, const database::DatabaseName& from, const database::DatabaseName& to,
          HttpRequest& request, Responder responder) {
  JsonReader reader;
  auto timestamp = optional_field(reader, request.body, "timestamp");
  if (!timestamp) return responder.respond(plain_error(timestamp.error()));
  std::optional<database::Moment> at;
  if (*timestamp) {  // without a zone, and UTC
    std::string_view text;
    auto time = (*timestamp)->get(text) == simdjson::SUCCESS
                    ? parse_rfc3339(std::string(text) + "Z")
                    : std::nullopt;
    if (!time)
      return responder.respond(refused({400, "timestamp must be such as 2026-01-02T03:04:05"}));
    at = database::AtTime{*time};
  }
  if (!access_of(service, request).allows(from, database::Verb::kSnapshot)) {
    return responder.respond(plain_error(
        Error(Code::kForbidden,
              fmt::format("TOKEN_FORBIDS: the token does not allow snapshot on database '{}'",
                          from.text()))));
  }
  if (service.has_copies())
    return responder.respond(plain_error(not_primary("databases are made at the primary")));
  auto source = service.store.info(from);
  if (!source) return responder.respond(namespace_error(source.error(), from));
  Creation creation{to,
                    {},
                    {.schema = {}, .copy_of = from.text(), .at = at, .from_archive = false},
                    source->limits};
  auto later = std::make_shared<Responder>(std::move(responder));
  create_database(service, std::move(creation), [&service, later, from, to](const Result<>& made) {
    if (made) return later->respond(done());
    const Error& error = made.error();
    if (error.code() == Code::kNotFound && service.store.info(from))
      return later->respond(plain_error(error));  // it is its moment that is not there
    later->respond(namespace_error(error, error.code() == Code::kNotFound ? from : to));
  });
}

void drop(Service& service, const database::DatabaseName& name, HttpRequest& request,
          Responder responder) {
  JsonReader reader;
  auto keep = optional_field(reader, request.body, "keep_backup");
  if (!keep) return responder.respond(plain_error(keep.error()));
  bool flag = true;
  if (*keep && ((*keep)->get(flag) != simdjson::SUCCESS || flag)) {
    return responder.respond(
        refused({400, "keep_backup is not supported: what is dropped is gone; take a snapshot"}));
  }
  if (service.has_copies())
    return responder.respond(plain_error(not_primary("databases are dropped at the primary")));
  respond_from_helper(service, std::move(responder), [&service, name] {
    Result<> dropped = service.store.drop(name);
    return dropped ? done() : namespace_error(dropped.error(), name);
  });
}

void configure(Service& service, const database::DatabaseName& name, HttpRequest& request,
               Responder responder) {
  if (service.has_copies())
    return responder.respond(plain_error(not_primary("databases are configured at the primary")));
  auto info = service.store.info(name);
  if (!info) return responder.respond(namespace_error(info.error(), name));
  if (request.is_get()) return responder.respond(json(namespace_config_json(info->limits)));
  auto refusal = read_namespace_config(request.body, ConfigBody::kConfig, info->limits);
  if (refusal) return responder.respond(refused(*refusal));
  respond_from_helper(service, std::move(responder), [&service, name, limits = info->limits] {
    Result<> set = service.store.set_limits(name, limits);
    return set ? done() : namespace_error(set.error(), name);
  });
}

void checkpoint(Service& service, const database::DatabaseName& name, Responder responder) {
  if (service.has_copies())
    return responder.respond(plain_error(not_primary("the primary's file is checkpointed")));
  respond_from_helper(service, std::move(responder), [&service, name] {
    Result<> brought = service.store.checkpoint(name);
    return brought ? done() : namespace_error(brought.error(), name);
  });
}

void append_query(std::string& text, const database::StatementInsight& each) {
  if (text.back() == '}') text += ',';
  text += fmt::format(R"({{"rows_written":{},"rows_read":{},"query":)", each.rows_written,
                      each.rows_read);
  append_json_string(text, each.sql);
}

template <class Weight>
void keep_top(std::vector<database::StatementInsight>& list, Weight weight) {
  std::sort(list.begin(), list.end(), [&](const auto& a, const auto& b) {
    return weight(a) != weight(b) ? weight(a) > weight(b) : a.sql < b.sql;
  });
  if (list.size() > kTopQueries) list.resize(kTopQueries);
}

Result<std::string> stats_json(Service& service, const database::DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto info, service.store.info(name));
  OFFPRINT_TRY_ASSIGN(auto statements, service.store.insights(name, 0, SIZE_MAX));
  OFFPRINT_TRY_ASSIGN(auto months, service.store.usage(name));
  database::StatementInsight sum;
  for (const database::UsageRecord& each : months) {
    sum.rows_read += each.count.rows_read;
    sum.rows_written += each.count.rows_written;
  }
  for (const auto& each : statements) {
    sum.count += each.count;
    sum.time_us_total += each.time_us_total;
  }
  std::string text = fmt::format(
      R"({{"id":"{}","rows_read_count":{},"rows_written_count":{},"storage_bytes_used":{},)"
      R"("write_requests_delegated":0,"replication_index":{},"top_queries":[)",
      d1::uuid_of(info), sum.rows_read, sum.rows_written,
      std::uint64_t{info.page_size} * info.page_count, info.bookmark.txid.value);
  auto slowest = statements;
  keep_top(statements, [](const auto& each) { return each.rows_read + each.rows_written; });
  for (const auto& each : statements) {
    append_query(text, each);
    text += '}';
  }
  text += "],\"slowest_queries\":[";
  keep_top(slowest, [](const auto& each) { return each.time_us_max; });
  for (const auto& each : slowest) {
    append_query(text, each);
    text += fmt::format(",\"elapsed_ms\":{}}}", each.time_us_max / 1000);
  }
  text += fmt::format(
      R"(],"embedded_replica_frames_replicated":0,"query_count":{},"elapsed_ms":{}.{:03},)"
      R"("queries":null}})",
      sum.count, sum.time_us_total / 1000, sum.time_us_total % 1000);
  return text + "\n";
}

void stats(Service& service, const database::DatabaseName& name, Responder responder) {
  respond_from_helper(service, std::move(responder), [&service, name] {
    Result<std::string> text = stats_json(service, name);
    return text ? json(*std::move(text)) : namespace_error(text.error(), name);
  });
}

}  // namespace

bool is_namespace_address(const Address& address) {
  return address.segments.size() >= 2 && address.segments[0] == "v1" &&
         address.segments[1] == "namespaces";
}

Result<NamespaceAddress> parse_namespace_address(const Address& address) {
  const auto& segments = address.segments;
  std::string action = segments.size() > 3 ? segments[3] : "";
  bool is_fork = segments.size() == 5 && action == "fork";
  bool is_known = segments.size() == 3 ||
                  (segments.size() == 4 &&
                   std::find(kActions.begin(), kActions.end(), action) != kActions.end());
  if (!is_fork && !is_known) {
    return fail(Code::kNotFound,
                "nothing answers here; the slash of a namespace's name is written %2F");
  }
  OFFPRINT_TRY_ASSIGN(auto name, database::DatabaseName::parse(segments[2]));
  NamespaceAddress parsed{std::move(name), std::move(action), {}};
  if (is_fork) {
    OFFPRINT_TRY_ASSIGN(parsed.fork_to, database::DatabaseName::parse(segments[4]));
  }
  return parsed;
}

void handle_namespace(Service& service, HttpRequest& request, const Address& address,
                      Responder responder) {
  auto asked = parse_namespace_address(address);
  if (!asked) return responder.respond(plain_error(asked.error()));
  const database::DatabaseName& name = asked->name;
  bool is_post = request.method == Method::kPost;
  if (asked->action.empty()) {
    if (request.method != Method::kDelete) return responder.respond(method_not_allowed("DELETE"));
    return drop(service, name, request, std::move(responder));
  }
  if (asked->action == "stats") {
    if (!request.is_get()) return responder.respond(method_not_allowed("GET"));
    return stats(service, name, std::move(responder));
  }
  if (asked->action == "config") {
    if (!is_post && !request.is_get()) return responder.respond(method_not_allowed("GET, POST"));
    return configure(service, name, request, std::move(responder));
  }
  if (!is_post) return responder.respond(method_not_allowed("POST"));
  if (asked->fork_to) return fork(service, name, *asked->fork_to, request, std::move(responder));
  if (asked->action == "checkpoint") return checkpoint(service, name, std::move(responder));
  create(service, name, request, std::move(responder));
}

}  // namespace offprint::server
