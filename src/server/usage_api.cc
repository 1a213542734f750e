#include "server/usage_api.h"

#include <charconv>

#include <fmt/format.h>

#include "base/clock.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/json_writer.h"
#include "server/visible_page.h"

namespace offprint::server {
namespace {

constexpr std::size_t kLimitDefault = 1'000;
constexpr std::size_t kLimitMax = 10'000;

template <class T>
bool read_number(std::string_view text, T& value) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// The number of a database tells those of one name apart.
std::string cursor_of(const database::UsageRecord& record) {
  return fmt::format("{}:{}", record.name, record.database_id);
}

Result<database::UsageQuery> parse_query(const Address& address) {
  database::UsageQuery query;
  query.month = address.parameter("month").value_or(database::month_of(unix_time_ms()));
  if (!database::is_month(query.month))
    return fail(Code::kInvalid, "'month' must be a month such as 2026-11");
  query.prefix = address.parameter("prefix").value_or("");
  query.limit = kLimitDefault;
  if (auto text = address.parameter("limit");
      text && (!read_number(*text, query.limit) || query.limit == 0 || query.limit > kLimitMax))
    return fail(Code::kInvalid, "'limit' must be a number from 1 to 10000");
  std::string_view after = address.parameter("after").value_or("");
  std::size_t colon = after.find(':');
  query.after_name = after.substr(0, colon);
  if (colon != std::string_view::npos && !read_number(after.substr(colon + 1), query.after_id))
    return fail(Code::kInvalid, "'after' must be the 'next' of the page before, or a name");
  return query;
}

std::string counts_json(const database::UsageRecord& record) {
  return fmt::format(
      R"("queries":{},"rows_read":{},"rows_written":{},"size_bytes":{},"size_bytes_max":{})",
      record.count.queries, record.count.rows_read, record.count.rows_written, record.size_bytes,
      record.size_bytes_max);
}

Response list_page(Service& service, database::UsageQuery query, const Access& access) {
  auto page = visible_page<database::UsageRecord>(
      access, query.limit, [&](const database::UsageRecord* last, std::size_t count) {
        query.limit = count;
        if (last != nullptr) {
          query.after_name = last->name;
          query.after_id = last->database_id;
        }
        return service.store.usage(query);
      });
  if (!page) return structured_error(page.error());
  const auto& records = page->entries;
  Response response;
  std::string& text = response.body;
  text = "{\"month\":\"" + query.month + "\",\"databases\":[";
  for (const database::UsageRecord& each : records) {
    if (text.back() == '}') text += ',';
    text += "{\"name\":";
    append_json_string(text, each.name);
    text += fmt::format(",\"number\":{},{}{}}}", each.database_id, counts_json(each),
                        each.dropped ? ",\"dropped\":true" : "");
  }
  text += ']';
  if (page->more) {
    text += ",\"next\":";
    append_json_string(text, cursor_of(records.back()));
  }
  text += "}\n";
  return response;
}

}  // namespace

void handle_list_usage(Service& service, const HttpRequest& request, const Address& address,
                       Responder responder) {
  auto query = parse_query(address);
  if (!query) return responder.respond(structured_error(query.error()));
  // The request does not outlive this call.
  std::shared_ptr<const Access> held = request.access;
  respond_from_helper(
      service, std::move(responder),
      [&service, query = *std::move(query), held, access = &access_of(service, request)] {
        return list_page(service, query, *access);
      });
}

void handle_usage_of(Service& service, const database::DatabaseName& name, Responder responder) {
  respond_from_helper(service, std::move(responder), [&service, name] {
    auto records = service.store.usage(name);
    if (!records) return structured_error(records.error());
    Response response;
    response.body = "{\"name\":";
    append_json_string(response.body, name.text());
    response.body += ",\"months\":[";
    for (const database::UsageRecord& each : *records) {
      if (response.body.back() == '}') response.body += ',';
      response.body += fmt::format("{{\"month\":\"{}\",{}}}", each.month, counts_json(each));
    }
    response.body += "]}\n";
    return response;
  });
}

}  // namespace offprint::server
