#include "server/consumers_api.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

using database::DatabaseName;
using database::StoredConsumer;
using publication::PublicationName;

// {"queries":[{"name":"report.sql","sql":"SELECT …"}]}
Result<std::vector<StoredConsumer::Query>> read_queries(std::string& text) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(text));
  OFFPRINT_TRY_ASSIGN(auto list, json_array_field(body, "queries"));
  if (!list) return fail(Code::kInvalid, "'queries' is missing: an array of {name, sql}");
  std::vector<StoredConsumer::Query> queries;
  for (simdjson::dom::element each : *list) {
    simdjson::dom::object object;
    if (each.get(object) != simdjson::SUCCESS)
      return fail(Code::kInvalid, "'queries' must be an array of {name, sql}");
    OFFPRINT_TRY_ASSIGN(auto name, json_string_field(object, "name"));
    OFFPRINT_TRY_ASSIGN(auto sql, json_string_field(object, "sql"));
    if (!sql) return fail(Code::kInvalid, "a query's 'sql' is missing");
    queries.push_back({name ? std::string(*name) : fmt::format("query {}", queries.size() + 1),
                       std::string(*sql)});
  }
  return queries;
}

Response json(const std::string& body) {
  Response response;
  response.body = body + "\n";
  return response;
}

Result<Response> show(Service& service, const DatabaseName& database, const PublicationName& name,
                      const std::string& consumer) {
  OFFPRINT_TRY_ASSIGN(auto consumers, service.publications->consumers(database, name));
  std::string body = "{\"consumers\":[";
  for (const StoredConsumer& each : consumers) {
    if (!consumer.empty()) {
      if (each.name != consumer) continue;
      std::string one;
      append_consumer(one, each);
      return json(one);
    }
    if (body.back() == '}') body += ',';
    append_consumer(body, each);
  }
  if (!consumer.empty())
    return fail(Code::kNotFound, fmt::format("{} has no consumer '{}'", name.name, consumer));
  return json(body + "]}");
}

Result<Response> put(Service& service, const DatabaseName& database, const PublicationName& name,
                     const std::string& consumer, std::string& text) {
  OFFPRINT_TRY_ASSIGN(auto queries, read_queries(text));
  OFFPRINT_TRY_ASSIGN(auto stored, service.publications->register_consumer(database, name, consumer,
                                                                           std::move(queries)));
  std::string body;
  append_consumer(body, stored);
  return json(body);
}

Result<Response> remove(Service& service, const DatabaseName& database, const PublicationName& name,
                        const std::string& consumer) {
  OFFPRINT_TRY(service.publications->unregister_consumer(database, name, consumer));
  Response response;
  response.status = 204;
  response.content_type = {};
  return response;
}

}  // namespace

void append_columns(std::string& to, const publication::ReadColumns& columns) {
  to += '{';
  for (const auto& [table, names] : columns) {
    if (to.back() == ']') to += ',';
    append_json_string(to, table);
    to += ":[";
    for (const std::string& name : names) {
      if (to.back() == '"') to += ',';
      append_json_string(to, name);
    }
    to += ']';
  }
  to += '}';
}

void append_consumer(std::string& to, const StoredConsumer& consumer) {
  to += "{\"name\":";
  append_json_string(to, consumer.name);
  to += ",\"publication\":";
  append_json_string(to, fmt::format("{}@v{}", consumer.publication, consumer.version));
  to += fmt::format(",\"registered_at\":\"{}\",\"queries\":[",
                    format_rfc3339(consumer.registered_at_ms));
  for (const StoredConsumer::Query& query : consumer.queries) {
    if (to.back() == '}') to += ',';
    to += "{\"name\":";
    append_json_string(to, query.name);
    to += ",\"sql\":";
    append_json_string(to, query.sql);
    to += '}';
  }
  to += "],\"reads\":";
  publication::ReadColumns reads;
  for (const auto& [table, column] : consumer.reads) {
    auto& columns = reads[table];
    if (!column.empty()) columns.insert(column);
  }
  append_columns(to, reads);
  to += '}';
}

void handle_consumers(Service& service, const DatabaseName& database, const PublicationName& name,
                      const PublicationsAddress& asked, HttpRequest& request, Responder responder) {
  const bool puts = request.method == Method::kPut, drops = request.method == Method::kDelete;
  if (asked.consumer.empty() ? !request.is_get() : !request.is_get() && !puts && !drops)
    return responder.respond(wrong_method(asked.consumer.empty() ? "GET" : "GET, PUT, DELETE"));
  respond_from_helper(service, std::move(responder),
                      [&service, database, name, consumer = asked.consumer, puts, drops,
                       body = std::move(request.body)]() mutable {
                        auto answer = puts    ? put(service, database, name, consumer, body)
                                      : drops ? remove(service, database, name, consumer)
                                              : show(service, database, name, consumer);
                        return answer ? *std::move(answer) : structured_error(answer.error());
                      });
}

}  // namespace offprint::server
