#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace offprint {

using SteadyClock = std::chrono::steady_clock;
using Deadline = SteadyClock::time_point;

// Wall clock, milliseconds since the Unix epoch.
std::int64_t unix_time_ms();

// RFC 3339 in UTC with milliseconds: 2026-01-02T03:04:05.678Z.
std::string format_rfc3339(std::int64_t unix_ms);
// The same and what else RFC 3339 allows: other fractions of a second or none, an offset (+02:00).
// Nothing when the text is no such time.
std::optional<std::int64_t> parse_rfc3339(std::string_view text);

}  // namespace offprint
