#include "server/d1_graphql.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "database/request.h"
#include "server/d1_databases.h"
#include "server/gate.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server::d1 {
namespace {

constexpr std::string_view kQueries = "d1QueriesAdaptiveGroups";
constexpr std::string_view kAnalytics = "d1AnalyticsAdaptiveGroups";
constexpr std::size_t kStatementsMax = 10'000;
constexpr std::int64_t kDayMs = 86'400'000;

// A question, as far as it is understood.
struct Question {
  std::string_view node;
  std::string text;
  std::optional<std::string> database;  // its uuid or name
  std::int64_t since_ms = 0;
};

// variables.filter, or the first condition of its AND.
Result<std::optional<simdjson::dom::object>> filter_of(simdjson::dom::object body) {
  OFFPRINT_TRY_ASSIGN(auto variables, json_object_field(body, "variables"));
  if (!variables) return std::optional<simdjson::dom::object>();
  OFFPRINT_TRY_ASSIGN(auto filter, json_object_field(*variables, "filter"));
  if (!filter) return filter;
  OFFPRINT_TRY_ASSIGN(auto all, json_array_field(*filter, "AND"));
  simdjson::dom::object first;
  if (all && all->at(0).get(first) == simdjson::SUCCESS) return std::optional(first);
  return filter;
}

Result<Question> parse_question(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(body));
  OFFPRINT_TRY_ASSIGN(auto query, json_string_field(object, "query"));
  Question question;
  question.text = query.value_or("");
  for (std::string_view node : {kQueries, kAnalytics}) {
    if (question.text.find(node) != std::string::npos) question.node = node;
  }
  if (question.node.empty()) {
    return fail(Code::kInvalid,
                fmt::format("only {} and {} are answered here", kQueries, kAnalytics));
  }
  question.since_ms = unix_time_ms() - kDayMs;
  OFFPRINT_TRY_ASSIGN(auto filter, filter_of(object));
  if (!filter) return question;
  OFFPRINT_TRY_ASSIGN(auto database, json_string_field(*filter, "databaseId"));
  if (database) question.database = std::string(*database);
  OFFPRINT_TRY_ASSIGN(auto since, json_string_field(*filter, "datetimeHour_geq"));
  if (since) question.since_ms = parse_rfc3339(*since).value_or(question.since_ms);
  return question;
}

// The digits after "limit:".
std::size_t limit_of(std::string_view text) {
  std::size_t limit = kStatementsMax;
  std::size_t at = text.find("limit:");
  if (at == std::string_view::npos) return limit;
  text.remove_prefix(std::min(text.find_first_not_of(' ', at + 6), text.size()));
  std::from_chars(text.data(), text.data() + text.size(), limit);
  return limit;
}

// orderBy: [sum_rowsRead_DESC] and its like; most time first when it is none of them.
void order(std::vector<database::StatementInsight>& list, std::string_view text) {
  std::size_t at = text.find("orderBy:");
  std::string_view by =
      at == std::string_view::npos ? "" : text.substr(at, text.find(']', at) - at);
  auto has = [by](std::string_view word) { return by.find(word) != std::string_view::npos; };
  auto key = [&](const database::StatementInsight& each) {
    std::uint64_t sum = has("rowsWritten")                       ? each.rows_written
                        : has("rowsRead") || has("rowsReturned") ? each.rows_read
                        : has("count")                           ? each.count
                                                                 : each.time_us_total;
    return has("avg_") ? static_cast<double>(sum) / static_cast<double>(each.count)
                       : static_cast<double>(sum);
  };
  std::ranges::sort(list, [&](const auto& a, const auto& b) {
    return has("_ASC") ? key(a) < key(b) : key(a) > key(b);
  });
}

std::string group_of(const database::StatementInsight& each) {
  auto count = static_cast<double>(each.count);
  auto figures = [&](double divisor) {
    auto rows_read = static_cast<double>(each.rows_read) / divisor;
    return fmt::format(
        R"({{"queryDurationMs":{},"rowsRead":{},"rowsWritten":{},"rowsReturned":{}}})",
        static_cast<double>(each.time_us_total) / 1000 / divisor, rows_read,
        static_cast<double>(each.rows_written) / divisor, rows_read);
  };
  std::string text = fmt::format(R"({{"sum":{},"avg":{},"count":{},"dimensions":{{"query":)",
                                 figures(1), figures(count), each.count);
  append_json_string(text, each.sql);
  return text + "}}";
}

std::string groups_of(const Question& question, std::vector<database::StatementInsight> list) {
  if (question.node == kQueries) {
    order(list, question.text);
    list.resize(std::min(list.size(), limit_of(question.text)));
    std::string groups;
    for (const auto& each : list) groups += (groups.empty() ? "" : ",") + group_of(each);
    return groups;
  }
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;
  std::uint64_t rows_read = 0;
  std::uint64_t rows_written = 0;
  for (const auto& each : list) {
    (database::looks_read_only(each.sql) ? reads : writes) += each.count;
    rows_read += each.rows_read;
    rows_written += each.rows_written;
  }
  if (list.empty()) return {};
  return fmt::format(
      R"({{"sum":{{"readQueries":{},"writeQueries":{},"rowsRead":{},"rowsWritten":{}}},)"
      R"("dimensions":{{"datetimeHour":"{}"}}}})",
      reads, writes, rows_read, rows_written, format_rfc3339(question.since_ms));
}

// Of a database that is named, there, and may be read whole by who asks; else nothing.
std::string answer(Service& service, const Access& access, const Question& question) {
  if (!question.database) return {};
  Result<database::DatabaseInfo> info = find_database(service, *question.database);
  if (!info) return {};
  auto name = database::DatabaseName::parse(info->name);
  if (!name || !access.allows(*name, database::Verb::kDataRead)) return {};
  auto list = service.store.insights(*name, question.since_ms, kStatementsMax);
  return list ? groups_of(question, *std::move(list)) : std::string();
}

}  // namespace

void handle_graphql(Service& service, HttpRequest& request, Responder responder) {
  Result<Question> question = parse_question(request.body);
  Response response;
  if (!question) {
    response.status = 400;
    response.body = "{\"data\":null,\"errors\":[{\"message\":";
    append_json_string(response.body, question.error().message());
    response.body += "}]}\n";
  } else {
    response.body = fmt::format(
        "{{\"data\":{{\"viewer\":{{\"accounts\":[{{\"{}\":[{}]}}]}}}},\"errors\":null}}\n",
        question->node, answer(service, access_of(service, request), *question));
  }
  responder.respond(std::move(response));
}

}  // namespace offprint::server::d1
