#pragma once

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// Scripts and rows into databases, and the jobs that they are. docs/protocol/http.md, "Import" and
// "Jobs".
namespace offprint::server {

// POST …/import?format=sql: the body is a script, run as one transaction. Answers when it is done;
// with async=1 at once, 202 with the job.
void handle_import_sql(Service& service, const database::DatabaseName& name, const Address& address,
                       std::shared_ptr<BodyReceiver> receiver, Responder responder);

// POST …/import?format=csv|jsonl&table=T: the body is rows of one table. Answers in the same way.
void handle_import_rows(Service& service, const database::DatabaseName& name,
                        const Address& address, std::shared_ptr<BodyReceiver> receiver,
                        Responder responder);

// GET /v1/jobs, GET and DELETE /v1/jobs/ID
void handle_jobs(Service& service, const HttpRequest& request, const Address& address,
                 Responder responder);

}  // namespace offprint::server
