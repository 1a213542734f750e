#pragma once

#include <string_view>

#include <spdlog/spdlog.h>

// One line per event on standard error: log::info("recovered {} databases", n). Errors are logged
// once, where they are handled, never where they are returned.
namespace offprint::log {

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

// Time, level, message, to standard error; `level` is trace, debug, info, warn, error or off. Call
// once in main().
void set_up(std::string_view level);

}  // namespace offprint::log
