#pragma once

#include <memory>
#include <string_view>

#include "database/store.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// D1's import of a script: init, upload, ingest, poll. docs/protocol/d1.md, "Import". Thread: a
// loop; answers may come from any.
namespace offprint::server::d1 {

// Below it: UUID/ETAG, signed.
inline constexpr std::string_view kUploadPath = "/client/v4/d1/upload";

// POST …/import, by its "action".
void handle_import_action(Service& service, const database::DatabaseInfo& info,
                          HttpRequest& request, Responder responder);
// Takes the body of a PUT below kUploadPath; nothing when the address is not one that was given
// out.
std::shared_ptr<BodyReceiver> receive_upload(Service& service, const HttpRequest& request);
// PUT of such an address: answers with its MD5 as ETag. `receiver` is what receive_upload() gave.
void handle_upload(Service& service, const Address& address, std::shared_ptr<BodyReceiver> receiver,
                   Responder responder);

}  // namespace offprint::server::d1
