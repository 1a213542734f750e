#pragma once

#include "database/store.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// D1's export: it is answered with an address under which the script is made while it is
// downloaded. docs/protocol/d1.md, "Export". Thread: a loop.
namespace offprint::server::d1 {

// Below it: UUID/FILE, signed.
inline constexpr std::string_view kExportPath = "/client/v4/d1/export";

// POST …/export. Complete at once: there is nothing to wait for.
void start_export(Service& service, const database::DatabaseInfo& info, HttpRequest& request,
                  Responder responder);
// GET of the address that it answered; `target` as sent.
void download_export(Service& service, const Address& address, std::string_view target,
                     Responder responder);

}  // namespace offprint::server::d1
