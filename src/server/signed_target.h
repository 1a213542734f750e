#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "server/client_streams.h"
#include "server/http_message.h"

// Addresses that carry their own permission: nobody can guess or change one, and it expires. For
// clients that are handed an address and send no token to it.
namespace offprint::server {

// `target` (a path, perhaps with parameters) with "expires" and "signature" added to it.
std::string sign_target(const StreamKey& key, std::string target, std::int64_t expires_at_ms);
// `target` as sent was made by sign_target and has not expired at `now_ms`.
bool is_signed_target(const StreamKey& key, std::string_view target, std::int64_t now_ms);
// An address of this server as the client of `request` reaches it: "http://HOST" and `target`.
// X-Forwarded-Proto says whether something in front of the server speaks TLS.
std::string absolute_url(const HttpRequest& request, std::string_view target);

}  // namespace offprint::server
