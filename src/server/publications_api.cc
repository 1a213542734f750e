#include "server/publications_api.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "publication/publications.h"
#include "server/access.h"
#include "server/consumers_api.h"
#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/route_rights.h"

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

// Of several: by which names it means which databases.
void append_sources(std::string& to, const DatabaseName& database, const PublicationInfo& info) {
  if (!info.is_gathered()) return;
  to += ",\"sources\":[";
  for (const publication::SourceItem& source : info.definition.sources) {
    if (to.back() == '}') to += ',';
    to += "{\"name\":";
    append_json_string(to, source.schema);
    to += ",\"database\":";
    append_json_string(to, source.database.empty() ? database.text() : source.database);
    to += '}';
  }
  to += ']';
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
  append_sources(to, database, info);
  to += fmt::format(",\"hash\":\"{}\",\"state\":\"{}\"", info.stored.hash,
                    kStates[static_cast<std::size_t>(info.stored.state)]);
  if (info.stored.sunset_ms != 0)
    to += ",\"sunset\":\"" + format_rfc3339(info.stored.sunset_ms) + "\"";
  to += fmt::format(",\"size_bytes_max\":{},\"rows_per_minute_max\":{}", info.stored.size_bytes_max,
                    info.stored.rows_per_minute_max);
  if (!info.broken.empty()) {
    to += ",\"broken\":";
    append_json_string(to, info.broken);
  }
  for (const std::string& item : info.read_whole) {
    to += &item == info.read_whole.data() ? ",\"read_whole\":[" : ",";
    append_json_string(to, item);
  }
  if (!info.read_whole.empty()) to += ']';
  if (info.is_there) to += ",\"is_there\":true";
  to += '}';
}

// Who is registered, and what of the source that needs.
void append_registered(std::string& to, Service& service, const DatabaseName& database,
                       const PublicationInfo& info) {
  auto reads = service.publications->source_reads(database, info);
  to += ",\"consumers\":[";
  for (std::size_t i = 0; i < info.consumers.size(); ++i) {
    if (i > 0) to += ',';
    append_consumer(to, info.consumers[i]);
    to.pop_back();
    to += ",\"source_reads\":";
    append_columns(to, reads && i < reads->size() ? (*reads)[i] : publication::ReadColumns());
    to += '}';
  }
  to += ']';
}

// Names and addresses are for who publishes.
bool may_see_followers(const Access& access, const DatabaseName& database) {
  return access.allows(database, database::Verb::kPublish);
}

void append_followers(std::string& to, const std::vector<Followers::Follower>& followers) {
  to += ",\"followers\":[";
  for (const auto& each : followers) {
    if (to.back() == '}') to += ',';
    to += "{\"subject\":";
    append_json_string(to, each.subject);
    to += ",\"address\":";
    append_json_string(to, each.address);
    to +=
        fmt::format(",\"connected\":{},\"since\":\"{}\",\"last_seen\":\"{}\",\"position\":\"{}\"}}",
                    each.is_connected, format_rfc3339(each.since_ms), format_rfc3339(each.seen_ms),
                    each.position.text());
  }
  to += ']';
}

std::string instance_address(std::string_view source, const publication::InstanceLabel& label) {
  return fmt::format("/db/{}/pub/{}@v{}{}{}", source, label.publication, label.version,
                     label.parameters.empty() ? "" : "?", label.parameters);
}

// Who is registered, and who follows its instances.
void append_readers(std::string& to, Service& service, const DatabaseName& database,
                    const PublicationInfo& info, bool shows_followers) {
  append_registered(to, service, database, info);
  if (!shows_followers) return;
  to += ",\"instances\":[";
  for (const auto& kept : service.publications->instances_of(database)) {
    if (kept.label.publication != info.stored.name || kept.label.version != info.stored.version)
      continue;
    if (to.back() == '}') to += ',';
    to += "{\"address\":";
    append_json_string(to, instance_address(database.text(), kept.label));
    append_followers(to, service.followers.of(kept.name.text()));
    to += '}';
  }
  to += ']';
}

Response list(Service& service, const DatabaseName& database) {
  auto infos = service.publications->list(database);
  if (!infos) return structured_error(infos.error());
  std::string body = "{\"publications\":[";
  for (const PublicationInfo& info : *infos) {
    if (body.back() == '}') body += ',';
    append_publication(body, database, info);
    body.pop_back();
    append_registered(body, service, database, info);
    body += '}';
  }
  body += ']';
  if (auto status = service.publications->status(database)) {
    body += fmt::format(
        ",\"instances\":{},\"stale\":{},\"stopped\":{},\"source\":\"{}\",\"rows\":{},\"refreshes\":"
        "{},"
        "\"resumed\":{}",
        status->instances, status->stale, status->stopped, status->source.text(), status->rows,
        status->refreshes, status->resumed);
    if (!status->error.empty()) {
      body += ",\"error\":";
      append_json_string(body, status->error);
    }
  }
  return json(body + '}');
}

// {"size_bytes_max":1000000,"rows_per_minute_max":0}
Result<Response> change_quota(Service& service, const DatabaseName& database,
                              const publication::PublicationName& name,
                              simdjson::dom::object body) {
  OFFPRINT_TRY_ASSIGN(auto size, json_integer_field(body, "size_bytes_max"));
  OFFPRINT_TRY_ASSIGN(auto rows, json_integer_field(body, "rows_per_minute_max"));
  if (!name.version || size.value_or(0) < 0 || rows.value_or(0) < 0)
    return fail(Code::kInvalid, "a version (PUB@vN) and numbers from 0 are expected");
  OFFPRINT_TRY_ASSIGN(auto info, service.publications->find(database, name));
  publication::Quota quota{info.stored.size_bytes_max, info.stored.rows_per_minute_max};
  if (size) quota.size_bytes_max = static_cast<std::uint64_t>(*size);
  if (rows) quota.rows_per_minute_max = static_cast<std::uint64_t>(*rows);
  OFFPRINT_TRY_ASSIGN(info, service.publications->set_quota(database, name, quota));
  std::string answer;
  append_publication(answer, database, info);
  return json(std::move(answer));
}

// {"state":"deprecated","sunset":"2030-01-01T00:00:00Z"}
Result<Response> change_state(Service& service, const DatabaseName& database,
                              const publication::PublicationName& name, std::string& text) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(text));
  OFFPRINT_TRY_ASSIGN(auto word, json_string_field(body, "state"));
  const bool sets_quota =
      json_field(body, "size_bytes_max") || json_field(body, "rows_per_minute_max");
  if (sets_quota && word)
    return fail(Code::kInvalid, "either a state or what instances may use is changed");
  if (sets_quota) return change_quota(service, database, name, body);
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
  answer.pop_back();
  OFFPRINT_TRY_ASSIGN(info.consumers, service.publications->consumers(database, name));
  append_registered(answer, service, database, info);
  return json(answer + '}');
}

// What is to be published, and for check: values that instances are reckoned with.
struct Wanted {
  std::string text;
  std::vector<std::pair<std::string, std::string>> values;
};

Result<Wanted> read_wanted(std::string& text) {
  JsonReader reader;
  Wanted wanted;
  OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(text));
  OFFPRINT_TRY_ASSIGN(auto definition, json_string_field(body, "definition"));
  if (!definition) return fail(Code::kInvalid, "'definition' is missing");
  wanted.text = *definition;
  OFFPRINT_TRY_ASSIGN(auto values, json_object_field(body, "values"));
  if (!values) return wanted;
  for (const auto& [name, value] : *values) {
    std::string_view each;
    if (value.get(each) != simdjson::SUCCESS)
      return fail(Code::kInvalid, "'values' are texts, as in addresses");
    wanted.values.emplace_back(name, each);
  }
  return wanted;
}

Result<Response> check(Service& service, const DatabaseName& database, const Wanted& wanted) {
  OFFPRINT_TRY_ASSIGN(auto info, service.publications->check(database, wanted.text));
  OFFPRINT_TRY_ASSIGN(auto estimates,
                      service.publications->estimate(database, info, wanted.values));
  std::string body;
  append_publication(body, database, info);
  body.pop_back();
  body += ",\"estimates\":[";
  for (const auto& each : estimates) {
    if (body.back() == '}') body += ',';
    body += "{\"parameters\":";
    append_json_string(body, each.parameters);
    body += fmt::format(",\"rows\":{},\"bytes\":{}}}", each.rows, each.bytes);
  }
  return json(body + fmt::format("],\"instance_bytes_max\":{}}}",
                                 service.publications->quota().size_bytes_max));
}

// As respond_from_helper(), for what may take as long as the definitions of the source do.
void respond_at_turn(Service& service, const DatabaseName& database, std::size_t size_bytes,
                     Responder responder, std::function<Response()> make) {
  auto later = std::make_shared<Responder>(std::move(responder));
  auto work = [later, make = std::move(make)] { later->respond(make()); };
  if (auto posted = service.publications->post(database, size_bytes, std::move(work)); !posted)
    later->respond(structured_error(posted.error()));
}

// Who publishes what other databases have may publish each of them.
Result<> check_sources(const Access* access, const std::string& text) {
  auto definition = publication::parse_definition(text);
  if (access == nullptr || !definition) return {};  // what is wrong is told where it is read
  for (const publication::SourceItem& source : definition->sources) {
    if (source.database.empty()) continue;
    RouteRight right;
    right.need = Need::kVerb;
    right.verb = database::Verb::kPublish;
    OFFPRINT_TRY_ASSIGN(right.database, DatabaseName::parse(source.database));
    OFFPRINT_TRY(check_access(*access, right));
  }
  return {};
}

void create(Service& service, const DatabaseName& database, bool only_check, bool is_draft,
            HttpRequest& request, Responder responder) {
  auto wanted = read_wanted(request.body);
  if (!wanted) return responder.respond(structured_error(wanted.error()));
  if (auto allowed = check_sources(request.access.get(), wanted->text); !allowed)
    return responder.respond(structured_error(allowed.error()));
  const std::size_t size_bytes = wanted->text.size();
  respond_at_turn(service, database, size_bytes, std::move(responder),
                  [&service, database, only_check, is_draft, wanted = *std::move(wanted)] {
                    if (only_check) {
                      auto checked = check(service, database, wanted);
                      return checked ? *std::move(checked) : structured_error(checked.error());
                    }
                    auto info = service.publications->create(
                        database, wanted.text, is_draft ? State::kDraft : State::kPublished);
                    if (!info) return structured_error(info.error());
                    std::string body;
                    append_publication(body, database, *info);
                    return json(std::move(body), 201);
                  });
}

}  // namespace

std::optional<PublicationsAddress> parse_publications_address(const Address& address) {
  const auto& segments = address.segments;
  if (segments.size() < 4 || segments[0] != "v1" || segments[1] != "databases") return std::nullopt;
  auto word = std::find(segments.begin() + 3, segments.end(), "publications");
  const auto behind = segments.end() - word;
  const bool of_consumers = behind > 2 && *(word + 2) == "consumers";
  if (behind == 0 || behind > (of_consumers ? 4 : 2)) return std::nullopt;
  PublicationsAddress asked;
  for (auto segment = segments.begin() + 2; segment != word; ++segment)
    asked.database += (asked.database.empty() ? "" : "/") + *segment;
  if (++word != segments.end()) asked.publication = *word;
  asked.of_consumers = of_consumers;
  if (behind == 4) asked.consumer = segments.back();
  return asked;
}

void handle_list_instances(Service& service, const HttpRequest& request, Responder responder) {
  if (!service.keeps_publications())
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
        append_json_string(body, instance_address(source, kept.label));
        body += ",\"source\":";
        append_json_string(body, source);
        body += fmt::format(",\"bookmark\":\"{}\",\"size_bytes\":{},\"stale\":{}",
                            info->bookmark.text(),
                            std::uint64_t{info->page_count} * info->page_size, kept.is_stale);
        if (!kept.stopped.empty()) {
          body += ",\"stopped\":";
          append_json_string(body, kept.stopped);
        }
        if (may_see_followers(*access, *name))
          append_followers(body, service.followers.of(kept.name.text()));
        body += '}';
      }
    }
    return json(body + "]}");
  });
}

void handle_publications(Service& service, const PublicationsAddress& asked, const Address& address,
                         HttpRequest& request, Responder responder) {
  auto name = DatabaseName::parse(asked.database);
  if (!name) return responder.respond(structured_error(name.error()));
  if (!service.keeps_publications())
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
  if (asked.of_consumers)
    return handle_consumers(service, *name, *publication, asked, request, std::move(responder));
  const bool drops = request.method == Method::kDelete;
  if (request.method == Method::kPatch) {
    const std::size_t size_bytes = request.body.size();
    return respond_at_turn(service, *name, size_bytes, std::move(responder),
                           [&service, name = *name, publication = *publication,
                            body = std::move(request.body)]() mutable {
                             auto changed = change_state(service, name, publication, body);
                             return changed ? *std::move(changed)
                                            : structured_error(changed.error());
                           });
  }
  if (!drops && !request.is_get()) return responder.respond(wrong_method("GET, PATCH, DELETE"));
  const bool shows_followers = !request.access || may_see_followers(*request.access, *name);
  if (drops) {
    return respond_at_turn(service, *name, 0, std::move(responder),
                           [&service, name = *name, publication = *publication] {
                             auto dropped = service.publications->drop(name, publication);
                             if (!dropped) return structured_error(dropped.error());
                             Response response;
                             response.status = 204;
                             response.content_type = {};
                             return response;
                           });
  }
  respond_from_helper(service, std::move(responder),
                      [&service, name = *name, publication = *publication, shows_followers] {
                        auto info = service.publications->describe(name, publication);
                        if (!info) return structured_error(info.error());
                        std::string body;
                        append_publication(body, name, *info);
                        body.pop_back();
                        append_readers(body, service, name, *info, shows_followers);
                        return json(body + '}');
                      });
}

}  // namespace offprint::server
