#include "database/name.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace offprint::database {
namespace {

constexpr std::array<std::string_view, 22> kRouteWords = {
    "query",    "v1",      "v2",       "v3",    "stream", "snapshot", "pages", "changes",
    "live",     "notify",  "pub",      "dump",  "info",   "export",   "sync",  "pull-updates",
    "insights", "execute", "d1-proxy", "usage", "slow",   "history"};

bool is_segment(std::string_view text) {
  auto is_word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !text.empty() && text.size() <= 63 && is_word(text[0]) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return is_word(c) || c == '_' || c == '-'; });
}

}  // namespace

bool is_route_word(std::string_view segment) {
  return segment == "publications" || segment == "import" ||
         std::find(kRouteWords.begin(), kRouteWords.end(), segment) != kRouteWords.end();
}

Result<DatabaseName> DatabaseName::parse(std::string_view text) {
  std::string_view first = text.substr(0, text.find('/'));
  std::string_view second =
      first.size() < text.size() ? text.substr(first.size() + 1) : std::string_view();
  bool has_second = first.size() < text.size();
  if (!is_segment(first) || (has_second && !is_segment(second))) {
    return fail(
        Code::kInvalid,
        fmt::format("'{}' is no database name: one or two segments [a-z0-9][a-z0-9_-]{{0,62}}, "
                    "such as orders or shop/orders",
                    text.substr(0, 140)));
  }
  if (is_route_word(first) || (has_second && is_route_word(second))) {
    return fail(Code::kInvalid,
                fmt::format("'{}' is no database name: '{}' is a word of the HTTP interface", text,
                            is_route_word(first) ? first : second));
  }
  return DatabaseName(std::string(text));
}

}  // namespace offprint::database
