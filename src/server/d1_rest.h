#pragma once

#include <memory>

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server::d1 {

// Everything below /client/v4: the REST interface of D1, as wrangler and the SDKs send it.
// docs/protocol/d1.md, "REST". Thread: a loop; the answer may come from any.
void handle_rest(Service& service, HttpRequest& request, const Address& address,
                 std::shared_ptr<BodyReceiver> receiver, Responder responder);
bool is_rest_request(const Address& address);

}  // namespace offprint::server::d1
