#include "server/databases_api.h"

#include <algorithm>
#include <charconv>

#include "base/clock.h"
#include "server/cluster_api.h"
#include "server/database_limits.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/publications_api.h"
#include "server/visible_page.h"

namespace offprint::server {
namespace {

constexpr std::size_t kListLimitDefault = 1000;
constexpr std::size_t kListLimitMax = 10'000;

// Of a database that follows a program's own file.
void append_tail(std::string& to, const Service& service, const database::DatabaseInfo& info) {
  std::optional<tail::TailStatus> status;
  if (service.tail_of) status = service.tail_of(info.name);
  to += ",\"tails\":{\"file\":";
  append_json_string(to, info.options.tails);
  to += ",\"state\":";
  append_json_string(to, status ? tail::state_name(status->state) : "stopped");
  if (status && status->behind_since_ms != 0) {
    to += ",\"behind_ms\":";
    append_integer(to, std::max<std::int64_t>(0, unix_time_ms() - status->behind_since_ms));
  }
  if (status && !status->error.empty()) {
    to += ",\"error\":";
    append_json_string(to, status->error);
  }
  to += '}';
}

void append_info(std::string& to, const Service& service, const database::DatabaseInfo& info) {
  auto text = [&](std::string_view name, std::string_view value) {
    to += name;
    append_json_string(to, value);
  };
  text("{\"name\":", info.name);
  text(",\"lineage\":", info.bookmark.lineage.text());
  text(",\"bookmark\":", info.bookmark.text());
  to += ",\"page_size\":";
  append_unsigned(to, info.page_size);
  to += ",\"page_count\":";
  append_unsigned(to, info.page_count);
  to += ",\"size_bytes\":";
  append_unsigned(to, std::uint64_t{info.page_size} * info.page_count);
  text(",\"created_at\":", format_rfc3339(info.created_at_ms));
  const ServiceOptions& options = service.options;
  if (service.cluster != nullptr) {
    append_cluster(to, service.cluster->status());
  } else {
    text(",\"primary\":", options.primary.empty() ? options.node_name : options.primary);
  }
  to += info.open ? ",\"open\":true,\"readers\":" : ",\"open\":false,\"readers\":";
  append_integer(to, info.readers);
  to += ",\"auto_vacuum\":";
  append_integer(to, info.options.auto_vacuum);
  text(",\"encoding\":", info.options.encoding);
  to += info.options.foreign_keys ? ",\"foreign_keys\":true" : ",\"foreign_keys\":false";
  if (!info.ancestors.empty()) text(",\"forked_from\":", info.ancestors.back().text());
  if (info.limits != database::DatabaseLimits()) to += ",\"limits\":" + limits_json(info.limits);
  if (!info.options.tails.empty()) append_tail(to, service, info);
  if (!info.stopped.empty()) text(",\"stopped\":", info.stopped);
  to += '}';
}

Result<Creation> parse_creation(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(body));
  OFFPRINT_TRY_ASSIGN(auto text, json_string_field(object, "name"));
  if (!text) return fail(Code::kInvalid, "'name' is missing");
  OFFPRINT_TRY_ASSIGN(auto name, database::DatabaseName::parse(*text));
  Creation creation{std::move(name), {}, {}, {}};
  OFFPRINT_TRY_ASSIGN(auto page_size, json_integer_field(object, "page_size"));
  if (page_size) {
    if (*page_size < 512 || *page_size > 65536 || (*page_size & (*page_size - 1)) != 0) {
      return fail(Code::kInvalid, "'page_size' must be a power of two from 512 to 65536");
    }
    creation.options.page_size = static_cast<std::uint32_t>(*page_size);
  }
  OFFPRINT_TRY_ASSIGN(auto auto_vacuum, json_integer_field(object, "auto_vacuum"));
  if (auto_vacuum) {
    if (*auto_vacuum < 0 || *auto_vacuum > 2)
      return fail(Code::kInvalid, "'auto_vacuum' must be 0, 1 or 2");
    creation.options.auto_vacuum = static_cast<int>(*auto_vacuum);
  }
  OFFPRINT_TRY_ASSIGN(auto encoding, json_string_field(object, "encoding"));
  if (encoding) {
    if (*encoding != "UTF-8" && *encoding != "UTF-16le" && *encoding != "UTF-16be") {
      return fail(Code::kInvalid, "'encoding' must be UTF-8, UTF-16le or UTF-16be");
    }
    creation.options.encoding = *encoding;
  }
  OFFPRINT_TRY_ASSIGN(auto foreign_keys, json_bool_field(object, "foreign_keys"));
  creation.options.foreign_keys = foreign_keys.value_or(true);
  OFFPRINT_TRY_ASSIGN(auto schema, json_string_field(object, "schema"));
  OFFPRINT_TRY_ASSIGN(auto copy_of, json_string_field(object, "copy_of"));
  OFFPRINT_TRY_ASSIGN(auto from_archive, json_bool_field(object, "from_archive"));
  creation.content = {std::string(schema.value_or("")),
                      std::string(copy_of.value_or("")),
                      {},
                      from_archive.value_or(false)};
  if ((schema ? 1 : 0) + (copy_of ? 1 : 0) + (creation.content.from_archive ? 1 : 0) > 1) {
    return fail(Code::kInvalid,
                "one of 'schema', 'copy_of' and 'from_archive': a copy has its schema already");
  }
  OFFPRINT_TRY(read_limits_field(body, creation.limits));
  return creation;
}

}  // namespace

void handle_list_databases(Service& service, const HttpRequest& request, const Address& address,
                           Responder responder) {
  auto instances = address.flag("instances", false);
  if (!instances) return responder.respond(structured_error(instances.error()));
  if (*instances) return handle_list_instances(service, request, std::move(responder));
  std::size_t limit = kListLimitDefault;
  if (auto text = address.parameter("limit")) {
    auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
    if (error != std::errc() || end != text->data() + text->size() || limit == 0 ||
        limit > kListLimitMax) {
      return responder.respond(
          structured_error(Error(Code::kInvalid, "'limit' must be a number from 1 to 10000")));
    }
  }
  std::string prefix(address.parameter("prefix").value_or(""));
  std::string after(address.parameter("after").value_or(""));
  std::string contains(address.parameter("contains").value_or(""));
  auto page = visible_page<database::DatabaseInfo>(
      access_of(service, request), limit,
      [&](const database::DatabaseInfo* last,
          std::size_t count) -> Result<std::vector<database::DatabaseInfo>> {
        return service.store.list(prefix, last == nullptr ? after : last->name, count, contains);
      });
  if (!page) return responder.respond(structured_error(page.error()));
  const auto& list = page->entries;
  Response response;
  response.body = "{\"databases\":[";
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (i > 0) response.body += ',';
    append_info(response.body, service, list[i]);
  }
  response.body += ']';
  if (page->more) {
    response.body += ",\"next\":";
    append_json_string(response.body, list.back().name);
  }
  response.body += "}\n";
  responder.respond(std::move(response));
}

namespace {

// What the copy shows was visible before.
bool may_use(const Access& access, const DatabaseTemplate& content) {
  if (content.copy_of.empty()) return true;
  auto name = database::DatabaseName::parse(content.copy_of);
  return name && access.allows(*name, database::Verb::kSnapshot);
}

Response created(Service& service, const database::DatabaseName& name) {
  Response response = describe_database(service, name);
  if (response.status != 200) return response;
  response.status = 201;
  response.headers += "Location: /v1/databases/" + name.text() + "\r\n";
  return response;
}

Result<> limit(Service& service, const Creation& creation) {
  if (creation.limits == database::DatabaseLimits()) return {};
  return service.store.set_limits(creation.name, creation.limits);
}

}  // namespace

void handle_create_database(Service& service, HttpRequest& request, Responder responder) {
  Result<Creation> creation = parse_creation(request.body);
  if (creation && creation->content.from_archive && !service.create_from_archive)
    creation = fail(Code::kInvalid, "'from_archive' needs a server with an archive (--archive)");
  if (!creation) return responder.respond(structured_error(creation.error()));
  const Access& access = access_of(service, request);
  if (!access.allows(creation->name, database::Verb::kAdmin) ||
      !may_use(access, creation->content)) {
    return responder.respond(
        structured_error(Error(Code::kForbidden,
                               "TOKEN_FORBIDS: the token does not allow admin on this name, or "
                               "snapshot on what is copied")));
  }
  auto later = std::make_shared<Responder>(std::move(responder));
  auto done = [&service, later, name = creation->name](const Result<>& made) {
    later->respond(made ? created(service, name) : structured_error(made.error()));
  };
  create_database(service, *std::move(creation), std::move(done));
}

void create_database(Service& service, Creation creation, std::function<void(Result<>)> done) {
  if (service.has_copies()) return done(fail(not_primary("databases are made at the primary")));
  auto wanted = std::make_shared<const Creation>(std::move(creation));
  if (wanted->content.empty()) {
    return service.store.post_blocking([&service, wanted, done = std::move(done)] {
      auto made = service.store.create(wanted->name, wanted->options);
      done(made ? limit(service, *wanted) : fail(std::move(made).error()));
    });
  }
  Jobs::Status about;
  about.kind = "create";
  about.database = wanted->name.text();
  auto work = [&service, wanted](Jobs::Job&) {
    return create_from_template(service, wanted->name, wanted->options, wanted->content);
  };
  auto ended = [&service, wanted, done](const Jobs::Status& status) {
    done(status.error ? fail(*status.error) : limit(service, *wanted));
  };
  Result<std::string> job = service.jobs.start(about, work, ended);
  if (!job) done(fail(std::move(job).error()));
}

Response describe_database(Service& service, const database::DatabaseName& name) {
  Result<database::DatabaseInfo> info = service.store.info(name);
  if (!info) return structured_error(info.error());
  Response response;
  response.headers = answer_headers(service, name, info->bookmark);
  append_info(response.body, service, *info);
  response.body += '\n';
  return response;
}

void handle_describe_database(Service& service, const database::DatabaseName& name,
                              Responder responder) {
  responder.respond(describe_database(service, name));
}

void handle_drop_database(Service& service, const database::DatabaseName& name,
                          Responder responder) {
  if (service.has_copies())
    return responder.respond(structured_error(not_primary("databases are dropped at the primary")));
  respond_from_helper(service, std::move(responder), [&service, name] {
    Result<> dropped = service.store.drop(name);
    if (!dropped) return structured_error(dropped.error());
    Response response;
    response.status = 204;
    response.content_type = {};
    return response;
  });
}

}  // namespace offprint::server
