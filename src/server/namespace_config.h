#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "database/store.h"

// Databases' settings as libSQL's server names them. docs/protocol/namespaces.md, "Fields".
namespace offprint::server {

// Why a request is refused, and with which status.
struct ConfigRefusal {
  int status = 400;
  std::string message;
};

// Which fields a body may have, and which it must.
enum class ConfigBody { kCreate, kConfig };

// Changes what `json`, the body of a request, names. Without a value when all of it was understood.
std::optional<ConfigRefusal> read_namespace_config(std::string& json, ConfigBody kind,
                                                   database::DatabaseLimits& limits);
// {"block_reads":…}, which may be sent back as it is.
std::string namespace_config_json(const database::DatabaseLimits& limits);

// A number of bytes such as "12", "1.5 MB" (1000²) or "2GiB" (1024³); nothing for other texts.
std::optional<std::uint64_t> parse_byte_size(std::string_view text);
// The same number as text, exactly.
std::string byte_size_text(std::uint64_t bytes);

}  // namespace offprint::server
