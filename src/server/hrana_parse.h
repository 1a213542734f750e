#pragma once

#include <simdjson.h>

#include "base/result.h"
#include "server/hrana.h"

// Parts of Hrana's texts that requests over HTTP and over WebSockets share.
namespace offprint::server::hrana {

// One request, {"type":…}. kInvalid: not one of those that hrana.h knows.
Result<StreamRequest> parse_request(simdjson::dom::object object);
// The `batch` of an object, as a request of its own.
Result<> parse_batch(simdjson::dom::object object, StreamRequest& to);

}  // namespace offprint::server::hrana
