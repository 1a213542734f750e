#include "server/moment.h"

#include <charconv>

#include "base/clock.h"

namespace offprint::server {
namespace {

constexpr std::string_view kTagPrefix = "tag:";
constexpr std::int64_t kMillisecondsFrom = 100'000'000'000;  // as seconds they are in the year 5138

}  // namespace

Result<database::Moment> parse_moment(std::string_view text) {
  if (text.starts_with(kTagPrefix))
    return database::Moment(database::Tag{std::string(text.substr(kTagPrefix.size()))});
  if (auto bookmark = Bookmark::parse(text)) return database::Moment(*bookmark);
  if (auto time = parse_rfc3339(text)) return database::Moment(database::AtTime{*time});
  std::int64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number >= 0)
    return database::Moment(database::AtTime{number < kMillisecondsFrom ? number * 1000 : number});
  return fail(Code::kInvalid, "'" + std::string(text.substr(0, 80)) +
                                  "' is no moment: a bookmark, a time such as "
                                  "2026-01-02T03:04:05Z, or tag:NAME");
}

}  // namespace offprint::server
