#include "server/publications_api.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

using database::DatabaseName;
using publication::PublicationInfo;

Response json(std::string body, int status = 200) {
  Response response;
  response.status = status;
  response.body = std::move(body) + "\n";
  return response;
}

void append_publication(std::string& to, const DatabaseName& database,
                        const PublicationInfo& info) {
  to += "{\"name\":";
  append_json_string(to, info.stored.name);
  to += fmt::format(",\"version\":{},\"address\":", info.stored.version);
  std::string address =
      fmt::format("/db/{}/pub/{}@v{}", database.text(), info.stored.name, info.stored.version);
  for (const auto& parameter : info.definition.parameters) {
    address += address.find('?') == std::string::npos ? '?' : '&';
    address += parameter.name + "=…";
  }
  append_json_string(to, address);
  to += ",\"created_at\":";
  append_json_string(to, format_rfc3339(info.stored.created_at_ms));
  to += ",\"definition\":";
  append_json_string(to, info.stored.definition);
  if (!info.hash.empty()) to += ",\"hash\":\"" + info.hash + "\"";
  to += '}';
}

Response list(Service& service, const DatabaseName& database) {
  auto infos = service.publications->list(database);
  if (!infos) return structured_error(infos.error());
  std::string body = "{\"publications\":[";
  for (const PublicationInfo& info : *infos) {
    if (body.back() == '}') body += ',';
    append_publication(body, database, info);
  }
  body += ']';
  if (auto status = service.publications->status(database)) {
    body += fmt::format(
        ",\"instances\":{},\"stale\":{},\"source\":\"{}\",\"rows\":{},\"refreshes\":{}",
        status->instances, status->stale, status->source.text(), status->rows, status->refreshes);
    if (!status->error.empty()) {
      body += ",\"error\":";
      append_json_string(body, status->error);
    }
  }
  return json(body + '}');
}

void create(Service& service, const DatabaseName& database, bool only_check, HttpRequest& request,
            Responder responder) {
  JsonReader reader;
  auto text = [&]() -> Result<std::string> {
    OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(request.body));
    OFFPRINT_TRY_ASSIGN(auto definition, json_string_field(body, "definition"));
    if (!definition) return fail(Code::kInvalid, "'definition' is missing");
    return std::string(*definition);
  }();
  if (!text) return responder.respond(structured_error(text.error()));
  respond_from_helper(service, std::move(responder),
                      [&service, database, only_check, text = *std::move(text)] {
                        auto info = only_check ? service.publications->check(database, text)
                                               : service.publications->create(database, text);
                        if (!info) return structured_error(info.error());
                        std::string body;
                        append_publication(body, database, *info);
                        return json(std::move(body), only_check ? 200 : 201);
                      });
}

}  // namespace

std::optional<PublicationsAddress> parse_publications_address(const Address& address) {
  const auto& segments = address.segments;
  if (segments.size() < 4 || segments[0] != "v1" || segments[1] != "databases") return std::nullopt;
  auto word = std::find(segments.begin() + 3, segments.end(), "publications");
  if (word == segments.end() || segments.end() - word > 2) return std::nullopt;
  PublicationsAddress asked;
  for (auto segment = segments.begin() + 2; segment != word; ++segment)
    asked.database += (asked.database.empty() ? "" : "/") + *segment;
  if (++word != segments.end()) asked.publication = *word;
  return asked;
}

void handle_publications(Service& service, const PublicationsAddress& asked, const Address& address,
                         HttpRequest& request, Responder responder) {
  auto name = DatabaseName::parse(asked.database);
  if (!name) return responder.respond(structured_error(name.error()));
  if (service.publications == nullptr)
    return responder.respond(structured_error(not_primary("publications are kept by the primary")));
  if (asked.publication.empty()) {
    if (request.is_get()) {
      return respond_from_helper(service, std::move(responder),
                                 [&service, name = *name] { return list(service, name); });
    }
    if (request.method != Method::kPost) return responder.respond(wrong_method("GET, POST"));
    auto rebuild = address.flag("rebuild", false), check = address.flag("check", false);
    if (!rebuild || !check)
      return responder.respond(structured_error(!check ? check.error() : rebuild.error()));
    if (!*rebuild) return create(service, *name, *check, request, std::move(responder));
    return respond_from_job(service, "rebuild", *name, std::move(responder),
                            [&service, name = *name]() -> Result<Response> {
                              OFFPRINT_TRY(service.publications->rebuild(name));
                              return list(service, name);
                            });
  }
  auto publication = publication::PublicationName::parse(asked.publication);
  if (!publication) return responder.respond(structured_error(publication.error()));
  const bool drops = request.method == Method::kDelete;
  if (!drops && !request.is_get()) return responder.respond(wrong_method("GET, DELETE"));
  respond_from_helper(
      service, std::move(responder), [&service, name = *name, publication = *publication, drops] {
        if (drops) {
          if (auto dropped = service.publications->drop(name, publication); !dropped)
            return structured_error(dropped.error());
          Response response;
          response.status = 204;
          response.content_type = {};
          return response;
        }
        auto info = service.publications->find(name, publication);
        if (!info) return structured_error(info.error());
        std::string body;
        append_publication(body, name, *info);
        return json(std::move(body));
      });
}

}  // namespace offprint::server
