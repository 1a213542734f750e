#pragma once

#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

// Change feeds and live queries. docs/protocol/feeds.md. A stream has no thread: its loop tells
// what is in memory, a thread of the feeds reads the rest.
namespace offprint::server {

// GET …/changes?since=BOOKMARK; with `tables_only`, …/notify
void handle_changes(Service& service, const database::DatabaseName& name,
                    const HttpRequest& request, const Address& address, bool tables_only,
                    Responder responder);
// POST …/live
void handle_live(Service& service, const database::DatabaseName& name, HttpRequest& request,
                 const Address& address, Responder responder);

inline constexpr std::chrono::seconds kFeedHeartbeat{15};

// The answer to a position that nothing leads on from: 410, with where to begin anew.
Response feed_gone(Service& service, const database::DatabaseName& name, std::string_view snapshot,
                   const Error& why);
// `,"oldest":"…","snapshot":"…"`
std::string feed_gone_fields(Service& service, const database::DatabaseName& name,
                             std::string_view snapshot);
// Where the file is of what such an address listens to.
std::string snapshot_address(const Address& address);
// The position is too old or of another history: feed_gone(). kBehind on a copy: it is ahead.
Result<> check_since(Service& service, const database::DatabaseName& name, const Bookmark& since,
                     bool& is_gone);
bool wants_events(const HttpRequest& request);
Response feed_response(Service& service, const database::DatabaseName& name, const Bookmark& at,
                       bool is_events, std::unique_ptr<BodyStream> stream);

}  // namespace offprint::server
