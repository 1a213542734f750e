#include "server/history_api.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/clock.h"
#include "server/databases_api.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/moment.h"

namespace offprint::server {
namespace {

using database::DatabaseName;
using database::Verb;

constexpr std::size_t kLimitDefault = 100, kLimitMax = 10'000, kDetailsMax = 100;

Response json(std::string body, int status = 200) {
  Response response;
  response.status = status;
  response.body = std::move(body);
  return response;
}

// Of a body whose moment is the newest state when it has none.
Result<std::optional<database::Moment>> moment_field(simdjson::dom::object body) {
  OFFPRINT_TRY_ASSIGN(auto text, json_string_field(body, "at"));
  if (!text) return std::optional<database::Moment>();
  OFFPRINT_TRY_ASSIGN(database::Moment moment, parse_moment(*text));
  return std::optional(std::move(moment));
}

Result<std::unique_ptr<database::Snapshot>> state_at(Service& service, const DatabaseName& name,
                                                     const std::optional<database::Moment>& at) {
  return at ? service.store.snapshot_at(name, *at) : service.store.snapshot(name);
}

// ------------------------------------------------------------------------------------------------
// transactions

void append_details(std::string& to, const Result<database::TransactionDetails>& known) {
  if (!known) {
    to += ",\"details_missing\":";
    return append_json_string(to, known.error().message());
  }
  const database::TransactionDetails& details = *known;
  to += fmt::format(",\"pages\":{},\"page_count\":{},\"schema_changed\":{},\"tables\":[",
                    details.pages, details.page_count, details.schema_changed);
  for (std::size_t i = 0; i < details.tables.size(); ++i) {
    if (i > 0) to += ',';
    append_json_string(to, details.tables[i]);
  }
  to += ']';
}

Result<std::optional<std::uint64_t>> number_parameter(const Address& address,
                                                      std::string_view name) {
  auto text = address.parameter(name);
  if (!text) return std::optional<std::uint64_t>();
  std::uint64_t number = 0;
  auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end != text->data() + text->size())
    return fail(Code::kInvalid, fmt::format("'{}' must be a number", name));
  return std::optional(number);
}

struct HistoryQuery {
  std::optional<TxId> before;
  std::size_t limit = kLimitDefault;
  bool details = false;
};

Result<HistoryQuery> read_query(const Address& address) {
  HistoryQuery query;
  OFFPRINT_TRY_ASSIGN(auto before, number_parameter(address, "before"));
  if (before) query.before = TxId{*before};
  OFFPRINT_TRY_ASSIGN(query.details, address.flag("details", false));
  OFFPRINT_TRY_ASSIGN(auto limit, number_parameter(address, "limit"));
  const std::size_t limit_max = query.details ? kDetailsMax : kLimitMax;
  query.limit = limit.value_or(std::min(kLimitDefault, limit_max));
  if (query.limit == 0 || query.limit > limit_max)
    return fail(Code::kInvalid, fmt::format("'limit' must be a number from 1 to {}", limit_max));
  return query;
}

// What the log has forgotten and the archive has.
struct OlderStates {
  std::vector<archive::ArchivedMoment> moments;
  std::vector<Result<database::TransactionDetails>> details;  // of each, when they are wanted
  bool more = false;
  std::string error;  // an archive that does not answer takes nothing from what the log has
};

OlderStates older_states(Service& service, const DatabaseName& name, const Lineage& lineage,
                         TxId before, std::size_t limit, bool with_details) {
  OlderStates older;
  if (!service.archived_moments || limit == 0 || before.value <= 1) return older;
  limit = std::min(limit, kDetailsMax);  // each may take a request
  auto moments = service.archived_moments(name, lineage, before, limit + 1);
  if (!moments) {
    if (moments.error().code() != Code::kNotFound) older.error = moments.error().message();
    return older;
  }
  older.moments = *std::move(moments);
  older.more = older.moments.size() > limit;
  if (older.more) older.moments.pop_back();
  if (with_details) older.details = service.archived_details(name, older.moments);
  return older;
}

void append_older(std::string& to, const OlderStates& older) {
  for (std::size_t i = 0; i < older.moments.size(); ++i) {
    const archive::ArchivedMoment& moment = older.moments[i];
    if (to.back() == '}') to += ',';
    to += fmt::format(
        R"({{"txid":{},"bookmark":"{}","time":"{}","bytes":{},"first_txid":{},"archived":"{}")",
        moment.bookmark.txid.value, moment.bookmark.text(), format_rfc3339(moment.time_ms),
        moment.bytes, moment.first.value, moment.is_snapshot ? "snapshot" : "transactions");
    if (i < older.details.size()) append_details(to, older.details[i]);
    to += '}';
  }
}

Result<> append_logged(std::string& to, Service& service, const DatabaseName& name,
                       const database::LogEntry& entry, const Lineage& lineage, bool with_details) {
  if (to.back() == '}') to += ',';
  const Bookmark bookmark{entry.epoch, entry.txid, lineage};
  to +=
      fmt::format(R"({{"txid":{},"bookmark":"{}","time":"{}","bytes":{})", entry.txid.value,
                  bookmark.text(), format_rfc3339(entry.timestamp_ms), entry.location.payload_size);
  if (with_details) {
    auto details = service.store.details(name, entry);
    // The log may end before what it says of its oldest transactions.
    if (!details && details.error().code() != Code::kBehind) return fail(details.error());
    append_details(to, details);
  }
  to += '}';
  return {};
}

Result<Response> list_transactions(Service& service, const DatabaseName& name,
                                   const HistoryQuery& query) {
  OFFPRINT_TRY_ASSIGN(auto info, service.store.info(name));
  const Lineage& lineage = info.bookmark.lineage;
  OFFPRINT_TRY_ASSIGN(auto entries, service.store.log_before(name, query.before, query.limit + 1));
  const bool more_logged = entries.size() > query.limit;
  if (more_logged) entries.pop_back();
  TxId before = query.before.value_or(info.bookmark.txid.next());
  if (!entries.empty()) before = entries.back().txid;
  const OlderStates older =
      older_states(service, name, lineage, before, query.limit - entries.size(), query.details);
  if (entries.empty() && older.moments.empty() && !older.error.empty())
    return fail(Code::kUnavailable, "the archive: " + older.error);
  std::string body = "{\"name\":";
  append_json_string(body, name.text());
  body += ",\"transactions\":[";
  for (const database::LogEntry& entry : entries)
    OFFPRINT_TRY(append_logged(body, service, name, entry, lineage, query.details));
  append_older(body, older);
  body += ']';
  const bool archive_waits =
      !more_logged && entries.size() == query.limit && service.archived_moments && before.value > 1;
  if (!older.moments.empty()) before = older.moments.back().bookmark.txid;
  if (more_logged || older.more || archive_waits) body += fmt::format(",\"next\":{}", before.value);
  if (!older.error.empty()) {
    body += ",\"archive_error\":";
    append_json_string(body, older.error);
  }
  body += "}\n";
  return json(std::move(body));
}

// ------------------------------------------------------------------------------------------------
// restore and fork

void handle_restore(Service& service, const DatabaseName& name, HttpRequest& request,
                    Responder responder) {
  struct Wish {
    std::optional<database::Moment> at;
    std::optional<DatabaseName> to;
  };
  auto wish = [&]() -> Result<Wish> {
    JsonReader reader;
    Wish read;
    OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(request.body));
    OFFPRINT_TRY_ASSIGN(read.at, moment_field(body));
    if (!read.at) return fail(Code::kInvalid, "'at' is missing: the moment to restore");
    OFFPRINT_TRY_ASSIGN(auto to, json_string_field(body, "to"));
    if (to) {
      OFFPRINT_TRY_ASSIGN(read.to, DatabaseName::parse(*to));
    }
    return read;
  }();
  if (!wish) return responder.respond(structured_error(wish.error()));
  if (wish->to && !access_of(service, request).allows(*wish->to, Verb::kAdmin)) {
    return responder.respond(structured_error(
        Error(Code::kForbidden, "TOKEN_FORBIDS: the token does not allow admin on the new name")));
  }
  respond_from_job(
      service, "restore", name, std::move(responder),
      [&service, name, wish = *wish]() -> Result<Response> {
        if (wish.to) {
          OFFPRINT_TRY(fork_database(service, name, *wish.to, wish.at));
          return describe_database(service, *wish.to);
        }
        OFFPRINT_TRY_ASSIGN(auto restored, restore_in_place(service, name, *wish.at));
        Response response = json(fmt::format(
            "{{\"bookmark\":\"{}\",\"previous_bookmark\":\"{}\",\"restored\":\"{}\"}}\n",
            restored.bookmark.text(), restored.previous.text(), restored.of.text()));
        response.headers = answer_headers(service, name, restored.bookmark);
        return response;
      });
}

void handle_fork(Service& service, const DatabaseName& name, HttpRequest& request,
                 Responder responder) {
  struct Wish {
    DatabaseName to;
    std::optional<database::Moment> at;
  };
  auto wish = [&]() -> Result<Wish> {
    JsonReader reader;
    OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(request.body));
    OFFPRINT_TRY_ASSIGN(auto text, json_string_field(body, "name"));
    if (!text) return fail(Code::kInvalid, "'name' is missing: that of the fork");
    OFFPRINT_TRY_ASSIGN(auto to, DatabaseName::parse(*text));
    OFFPRINT_TRY_ASSIGN(auto at, moment_field(body));
    return Wish{std::move(to), std::move(at)};
  }();
  if (!wish) return responder.respond(structured_error(wish.error()));
  const Access& access = access_of(service, request);
  if (!access.allows(wish->to, Verb::kAdmin) || !access.allows(name, Verb::kSnapshot)) {
    return responder.respond(
        structured_error(Error(Code::kForbidden,
                               "TOKEN_FORBIDS: the token does not allow admin on the fork's name, "
                               "or snapshot on what is forked")));
  }
  respond_from_job(service, "fork", name, std::move(responder),
                   [&service, name, wish = *wish]() -> Result<Response> {
                     OFFPRINT_TRY(fork_database(service, name, wish.to, wish.at));
                     Response response = describe_database(service, wish.to);
                     response.status = 201;
                     return response;
                   });
}

// ------------------------------------------------------------------------------------------------
// tags

void append_tag(std::string& to, const database::TagInfo& tag) {
  to += "{\"tag\":";
  append_json_string(to, tag.tag);
  to += fmt::format(R"(,"bookmark":"{}","created_at":"{}","size_bytes":{}}})", tag.bookmark.text(),
                    format_rfc3339(tag.created_at_ms), tag.size_bytes);
}

Result<Response> list_tags(Service& service, const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto tags, service.store.tags(name));
  std::string body = "{\"tags\":[";
  for (const database::TagInfo& tag : tags) {
    if (body.back() == '}') body += ',';
    append_tag(body, tag);
  }
  body += "]}\n";
  return json(std::move(body));
}

void add_tag(Service& service, const DatabaseName& name, HttpRequest& request,
             Responder responder) {
  if (service.has_copies())
    return responder.respond(structured_error(not_primary("tags are the primary's")));
  struct Wish {
    std::string tag;
    std::optional<database::Moment> at;
  };
  auto wish = [&]() -> Result<Wish> {
    JsonReader reader;
    OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(request.body));
    OFFPRINT_TRY_ASSIGN(auto tag, json_string_field(body, "tag"));
    if (!tag) return fail(Code::kInvalid, "'tag' is missing");
    OFFPRINT_TRY_ASSIGN(auto at, moment_field(body));
    return Wish{std::string(*tag), std::move(at)};
  }();
  if (!wish) return responder.respond(structured_error(wish.error()));
  respond_from_job(service, "tag", name, std::move(responder),
                   [&service, name, wish = *wish]() -> Result<Response> {
                     OFFPRINT_TRY_ASSIGN(auto state, state_at(service, name, wish.at));
                     OFFPRINT_TRY_ASSIGN(auto tag, service.store.add_tag(name, wish.tag, *state));
                     std::string body;
                     append_tag(body, tag);
                     return json(body + "\n", 201);
                   });
}

void handle_tags(Service& service, const HistoryAddress& asked, const DatabaseName& name,
                 HttpRequest& request, Responder responder) {
  if (asked.tag.empty() && request.method == Method::kPost)
    return add_tag(service, name, request, std::move(responder));
  const bool removes = !asked.tag.empty() && request.method == Method::kDelete;
  if (!removes && (!asked.tag.empty() || !request.is_get()))
    return responder.respond(wrong_method(asked.tag.empty() ? "GET, POST" : "DELETE"));
  if (removes && service.has_copies())
    return responder.respond(structured_error(not_primary("tags are the primary's")));
  respond_from_helper(service, std::move(responder), [&service, name, removes, tag = asked.tag] {
    auto answer = [&]() -> Result<Response> {
      if (!removes) return list_tags(service, name);
      OFFPRINT_TRY(service.store.remove_tag(name, tag));
      Response response;
      response.status = 204;
      response.content_type = {};
      return response;
    }();
    return answer ? *std::move(answer) : structured_error(answer.error());
  });
}

}  // namespace

std::optional<HistoryAddress> parse_history_address(const Address& address) {
  const auto& segments = address.segments;
  if (segments.size() < 4 || segments[0] != "v1" || segments[1] != "databases") return std::nullopt;
  auto word = std::find(segments.begin() + 3, segments.end(), "history");
  if (word == segments.end() || segments.end() - word > 3) return std::nullopt;
  HistoryAddress asked;
  for (auto segment = segments.begin() + 2; segment != word; ++segment)
    asked.name += (asked.name.empty() ? "" : "/") + *segment;
  if (++word != segments.end()) asked.action = *word++;
  if (word != segments.end()) asked.tag = *word;
  const bool known = asked.action.empty() || asked.action == "restore" || asked.action == "fork" ||
                     asked.action == "tags";
  if (!known || (!asked.tag.empty() && asked.action != "tags")) return std::nullopt;
  return asked;
}

void handle_history(Service& service, const HistoryAddress& asked, const Address& address,
                    HttpRequest& request, Responder responder) {
  auto name = DatabaseName::parse(asked.name);
  if (!name) return responder.respond(structured_error(name.error()));
  if (asked.action == "tags")
    return handle_tags(service, asked, *name, request, std::move(responder));
  if (!asked.action.empty()) {
    if (request.method != Method::kPost) return responder.respond(wrong_method("POST"));
    if (service.has_copies())
      return responder.respond(structured_error(not_primary("histories are the primary's")));
    if (asked.action == "fork") return handle_fork(service, *name, request, std::move(responder));
    return handle_restore(service, *name, request, std::move(responder));
  }
  if (!request.is_get()) return responder.respond(wrong_method("GET"));
  auto query = read_query(address);
  if (!query) return responder.respond(structured_error(query.error()));
  respond_from_helper(service, std::move(responder), [&service, name = *name, query = *query] {
    auto listed = list_transactions(service, name, query);
    return listed ? *std::move(listed) : structured_error(listed.error());
  });
}

Result<RestoredDatabase> restore_in_place(Service& service, const DatabaseName& name,
                                          const database::Moment& at) {
  OFFPRINT_TRY_ASSIGN(auto state, service.store.snapshot_at(name, at));
  RestoredDatabase restored;
  restored.of = state->position().bookmark();
  OFFPRINT_TRY_ASSIGN(auto info, service.store.info(name));
  if (restored.of == info.bookmark) {
    restored.bookmark = restored.previous = restored.of;
    return restored;
  }
  OFFPRINT_TRY_ASSIGN(restored.bookmark, service.store.rewrite(name, *state));
  restored.previous = restored.bookmark;
  --restored.previous.txid.value;
  --restored.previous.epoch.value;
  return restored;
}

}  // namespace offprint::server
