#pragma once

#include <optional>
#include <string>

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// The history of a database, /v1/databases/NAME/history. docs/protocol/http.md, "History".
namespace offprint::server {

struct HistoryAddress {
  std::string name;    // of the database, as it was sent
  std::string action;  // "", "restore", "fork", "tags" …
  std::string tag;     // … of which this one
};
// Nothing: the address is another one.
std::optional<HistoryAddress> parse_history_address(const Address& address);

// GET …/history?before=&limit=&details=: transactions, newest first.
// POST …/history/restore {"at", "to"}, …/history/fork {"name", "at"};
// GET and POST …/history/tags {"tag", "at"}, DELETE …/history/tags/TAG.
void handle_history(Service& service, const HistoryAddress& asked, const Address& address,
                    HttpRequest& request, Responder responder);

struct RestoredDatabase {
  Bookmark bookmark;  // of what it is now
  Bookmark previous;  // with which it can be undone
  Bookmark of;        // the state that it is
};
// Makes the database what it was, as a further transaction. Blocks. Errors as Store::snapshot_at()
// and rewrite().
Result<RestoredDatabase> restore_in_place(Service& service, const database::DatabaseName& name,
                                          const database::Moment& at);
}  // namespace offprint::server
