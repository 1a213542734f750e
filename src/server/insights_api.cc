#include "server/insights_api.h"

#include <charconv>

#include <fmt/format.h>

#include "base/clock.h"
#include "server/errors.h"
#include "server/json_writer.h"
#include "server/usage_api.h"

namespace offprint::server {
namespace {

constexpr std::int64_t kLimitMax = 1'000;
constexpr std::int64_t kSecondsMax = 86'400;

Result<std::int64_t> number(const Address& address, std::string_view name, std::int64_t otherwise,
                            std::int64_t max) {
  auto text = address.parameter(name);
  if (!text) return otherwise;
  std::int64_t value = 0;
  auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < 1 || value > max)
    return fail(Code::kInvalid, fmt::format("'{}' must be a number from 1 to {}", name, max));
  return value;
}

Result<std::string> insights_json(Service& service, const database::DatabaseName& name,
                                  const Address& address) {
  OFFPRINT_TRY_ASSIGN(auto since, number(address, "since", kSecondsMax, kSecondsMax));
  OFFPRINT_TRY_ASSIGN(auto limit, number(address, "limit", 50, kLimitMax));
  OFFPRINT_TRY_ASSIGN(auto list, service.store.insights(name, unix_time_ms() - since * 1000,
                                                        static_cast<std::size_t>(limit)));
  std::string text = "{\"statements\":[";
  for (const database::StatementInsight& each : list) {
    if (text.back() == '}') text += ',';
    text += "{\"sql\":";
    append_json_string(text, each.sql);
    text += fmt::format(
        R"(,"count":{},"errors":{},"rows_read":{},"rows_written":{},"time_us":{},"p50_us":{},"p99_us":{},"max_us":{}}})",
        each.count, each.errors, each.rows_read, each.rows_written, each.time_us_total,
        each.time_us_p50, each.time_us_p99, each.time_us_max);
  }
  return text + "]}\n";
}

Result<std::string> slow_json(Service& service, const database::DatabaseName& name,
                              const Address& address) {
  OFFPRINT_TRY_ASSIGN(auto limit, number(address, "limit", 100, kLimitMax));
  OFFPRINT_TRY_ASSIGN(auto list,
                      service.store.slow_statements(name, static_cast<std::size_t>(limit)));
  std::string text = "{\"statements\":[";
  for (const database::SlowStatement& each : list) {
    if (text.back() == '}') text += ',';
    text += "{\"at\":\"" + format_rfc3339(each.at_ms) + "\",\"sql\":";
    append_json_string(text, each.sql);
    text += fmt::format(R"(,"time_us":{},"rows_read":{},"rows_written":{},"failed":{}}})",
                        each.time_us, each.rows_read, each.rows_written, each.failed);
  }
  return text + "]}\n";
}

}  // namespace

std::optional<ReportAddress> parse_report_address(const Address& address) {
  const auto& segments = address.segments;
  if (segments.size() < 4 || segments[0] != "v1" || segments[1] != "databases") return std::nullopt;
  const std::string& report = segments.back();
  if (report != "insights" && report != "usage" && report != "slow") return std::nullopt;
  std::string name = address.path_from(2);
  name.resize(name.size() - report.size() - 1);
  return ReportAddress{std::move(name), report};
}

void handle_report(Service& service, const ReportAddress& asked, const Address& address,
                   Responder responder) {
  Result<database::DatabaseName> name = database::DatabaseName::parse(asked.name);
  if (!name) return responder.respond(structured_error(name.error()));
  if (asked.report == "usage") return handle_usage_of(service, *name, std::move(responder));
  Result<std::string> text = asked.report == "slow" ? slow_json(service, *name, address)
                                                    : insights_json(service, *name, address);
  if (!text) return responder.respond(structured_error(text.error()));
  Response response;
  response.body = *std::move(text);
  responder.respond(std::move(response));
}

}  // namespace offprint::server
