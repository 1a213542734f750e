#include "base/clock.h"

#include <ctime>

#include <fmt/format.h>

namespace offprint {

std::int64_t unix_time_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string format_rfc3339(std::int64_t unix_ms) {
  std::time_t seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     unix_ms % 1000);
}

std::optional<std::int64_t> parse_rfc3339(std::string_view text) {
  std::size_t at = 0;
  auto number = [&](std::size_t digits) {
    int value = 0;
    for (std::size_t end = at + digits; at < end; ++at) {
      if (at >= text.size() || text[at] < '0' || text[at] > '9') return -1;
      value = value * 10 + (text[at] - '0');
    }
    return value;
  };
  auto is_next = [&](char upper, char lower) {
    bool is = at < text.size() && (text[at] == upper || text[at] == lower);
    if (is) ++at;
    return is;
  };
  int year = number(4);
  if (!is_next('-', '-')) return std::nullopt;
  int month = number(2);
  if (!is_next('-', '-')) return std::nullopt;
  int day = number(2);
  if (!is_next('T', 't')) return std::nullopt;
  int hour = number(2);
  if (!is_next(':', ':')) return std::nullopt;
  int minute = number(2);
  if (!is_next(':', ':')) return std::nullopt;
  int second = number(2);
  std::int64_t milliseconds = 0;
  if (is_next('.', '.')) {
    std::int64_t unit = 100;
    std::size_t begin = at;
    for (int digit; (digit = number(1)) >= 0; unit /= 10) milliseconds += unit * digit;
    if (at == begin) return std::nullopt;
  }
  std::chrono::year_month_day date{std::chrono::year(year),
                                   std::chrono::month(static_cast<unsigned>(month)),
                                   std::chrono::day(static_cast<unsigned>(day))};
  if (year < 0 || month < 0 || day < 0 || !date.ok() || hour < 0 || hour > 23 || minute < 0 ||
      minute > 59 || second < 0 || second > 60) {
    return std::nullopt;
  }
  std::int64_t offset_minutes = 0;
  if (!is_next('Z', 'z')) {
    bool east = is_next('+', '+');
    if (!east && !is_next('-', '-')) return std::nullopt;
    int hours = number(2);
    if (!is_next(':', ':')) return std::nullopt;
    int minutes = number(2);
    if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return std::nullopt;
    offset_minutes = (hours * 60 + minutes) * (east ? 1 : -1);
  }
  if (at != text.size()) return std::nullopt;
  std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return ((days * 24 + hour) * 60 + minute - offset_minutes) * 60'000 + second * 1000 +
         milliseconds;
}

}  // namespace offprint
