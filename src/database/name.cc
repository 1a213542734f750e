#include "database/name.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/assert.h"

namespace offprint::database {
namespace {

constexpr std::array<std::string_view, 22> kRouteWords = {
    "query",    "v1",      "v2",       "v3",    "stream", "snapshot", "pages", "changes",
    "live",     "notify",  "pub",      "dump",  "info",   "export",   "sync",  "pull-updates",
    "insights", "execute", "d1-proxy", "usage", "slow",   "history"};

constexpr std::size_t kInstanceNameMax = 150;

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool is_made_of_letters(std::string_view text, std::size_t size_max) {
  return !text.empty() && text.size() <= size_max &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return is_word(c) || c == '_' || c == '-'; });
}

bool is_segment(std::string_view text) { return is_made_of_letters(text, 63) && is_word(text[0]); }

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

Result<DatabaseName> DatabaseName::stored(std::string_view text) {
  if (!text.starts_with('@')) return parse(text);
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos || !is_made_of_letters(text.substr(1, slash - 1), 16) ||
      !is_made_of_letters(text.substr(slash + 1), kInstanceNameMax)) {
    return fail(Code::kInvalid, fmt::format("'{}' is no name of an instance", text.substr(0, 200)));
  }
  return DatabaseName(std::string(text));
}

std::string DatabaseName::instance_prefix(std::uint64_t source_id) {
  return fmt::format("@{:x}/", source_id);
}

DatabaseName DatabaseName::instance(std::uint64_t source_id, std::string_view rest) {
  OFFPRINT_ASSERT(is_made_of_letters(rest, kInstanceNameMax));
  return DatabaseName(instance_prefix(source_id) + std::string(rest));
}

}  // namespace offprint::database
