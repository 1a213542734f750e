#include "server/publications_api.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "server/access.h"
#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

using database::DatabaseName;
using publication::PublicationInfo;

using State = database::StoredPublication::State;

constexpr std::array<std::string_view, 4> kStates = {"draft", "published", "deprecated", "retired"};

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
  to += fmt::format(",\"hash\":\"{}\",\"state\":\"{}\"", info.stored.hash,
                    kStates[static_cast<std::size_t>(info.stored.state)]);
  if (info.stored.sunset_ms != 0)
    to += ",\"sunset\":\"" + format_rfc3339(info.stored.sunset_ms) + "\"";
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

// {"state":"deprecated","sunset":"2030-01-01T00:00:00Z"}
Result<Response> change_state(Service& service, const DatabaseName& database,
                              const publication::PublicationName& name, std::string& text) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(text));
  OFFPRINT_TRY_ASSIGN(auto word, json_string_field(body, "state"));
  OFFPRINT_TRY_ASSIGN(auto sunset, json_string_field(body, "sunset"));
  const auto found = std::ranges::find(kStates, word.value_or(""));
  if (found == kStates.end() || !name.version)
    return fail(Code::kInvalid,
                "a version (PUB@vN) and its 'state' are expected: published, deprecated, retired");
  std::optional<std::int64_t> sunset_ms = 0;
  if (sunset) sunset_ms = parse_rfc3339(*sunset);
  if (!sunset_ms)
    return fail(Code::kInvalid, fmt::format("'{}' is no time as 2030-01-01T00:00:00Z", *sunset));
  OFFPRINT_TRY_ASSIGN(auto info,
                      service.publications->set_state(
                          database, name, static_cast<State>(found - kStates.begin()), *sunset_ms));
  std::string answer;
  append_publication(answer, database, info);
  return json(std::move(answer));
}

void create(Service& service, const DatabaseName& database, bool only_check, bool is_draft,
            HttpRequest& request, Responder responder) {
  JsonReader reader;
  auto text = [&]() -> Result<std::string> {
    OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(request.body));
    OFFPRINT_TRY_ASSIGN(auto definition, json_string_field(body, "definition"));
    if (!definition) return fail(Code::kInvalid, "'definition' is missing");
    return std::string(*definition);
  }();
  if (!text) return responder.respond(structured_error(text.error()));
  respond_from_helper(service, std::move(responder),
                      [&service, database, only_check, is_draft, text = *std::move(text)] {
                        auto info = only_check ? service.publications->check(database, text)
                                               : service.publications->create(
                                                     database, text,
                                                     is_draft ? State::kDraft : State::kPublished);
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

void handle_list_instances(Service& service, const HttpRequest& request, Responder responder) {
  if (service.publications == nullptr)
    return responder.respond(structured_error(not_primary("publications are kept by the primary")));
  auto access = request.access ? request.access : Access::unlimited();
  respond_from_helper(service, std::move(responder), [&service, access] {
    std::string body = "{\"databases\":[";
    for (const auto& [source, instances] : service.publications->instances()) {
      auto name = DatabaseName::parse(source);
      if (!name || !access->knows(*name)) continue;
      for (const auto& kept : instances) {
        auto info = service.store.info(kept.name);
        if (!info) continue;
        if (body.back() == '}') body += ',';
        body += "{\"address\":";
        append_json_string(
            body,
            fmt::format("/db/{}/pub/{}@v{}{}{}", source, kept.label.publication, kept.label.version,
                        kept.label.parameters.empty() ? "" : "?", kept.label.parameters));
        body += ",\"source\":";
        append_json_string(body, source);
        body += fmt::format(",\"bookmark\":\"{}\",\"size_bytes\":{},\"stale\":{}}}",
                            info->bookmark.text(),
                            std::uint64_t{info->page_count} * info->page_size, kept.is_stale);
      }
    }
    return json(body + "]}");
  });
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
    auto draft = address.flag("draft", false);
    for (const auto* flag : {&rebuild, &check, &draft}) {
      if (!*flag) return responder.respond(structured_error(flag->error()));
    }
    if (!*rebuild) return create(service, *name, *check, *draft, request, std::move(responder));
    return respond_from_job(service, "rebuild", *name, std::move(responder),
                            [&service, name = *name]() -> Result<Response> {
                              OFFPRINT_TRY(service.publications->rebuild(name));
                              return list(service, name);
                            });
  }
  auto publication = publication::PublicationName::parse(asked.publication);
  if (!publication) return responder.respond(structured_error(publication.error()));
  const bool drops = request.method == Method::kDelete;
  if (request.method == Method::kPatch) {
    return respond_from_helper(service, std::move(responder),
                               [&service, name = *name, publication = *publication,
                                body = std::move(request.body)]() mutable {
                                 auto changed = change_state(service, name, publication, body);
                                 return changed ? *std::move(changed)
                                                : structured_error(changed.error());
                               });
  }
  if (!drops && !request.is_get()) return responder.respond(wrong_method("GET, PATCH, DELETE"));
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
