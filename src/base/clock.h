#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace offprint {

using SteadyClock = std::chrono::steady_clock;
using Deadline = SteadyClock::time_point;

// Wall clock, milliseconds since the Unix epoch.
std::int64_t unix_time_ms();

// RFC 3339 in UTC with milliseconds: 2026-01-02T03:04:05.678Z.
std::string format_rfc3339(std::int64_t unix_ms);

}  // namespace offprint
