#pragma once

#include <memory>
#include <optional>

#include "server/access.h"
#include "server/http_message.h"
#include "server/service.h"

// Where requests are let in: once, when their head is complete.
namespace offprint::server {

struct Admission {
  std::optional<Response> refusal;
  std::shared_ptr<const Access> access;
};
// Who sends a request, and whether that one may. From memory, except that a token that was not seen
// before is verified (some hundred microseconds).
// `authorization`: instead of the field of that name, when it is not empty.
Admission admit(const Service& service, const HttpRequest& request,
                std::string_view authorization = {});

// What the sender of a request that was let in may do. Nothing, when admit() was not asked on a
// server that asks for tokens.
const Access& access_of(const Service& service, const HttpRequest& request);

// A stream that answers is cut soon after `access` has ceased to count for the database (empty: at
// all); without a verb, to allow SQL on it. `access` may be null: never.
Responder while_allowed(Responder responder, std::shared_ptr<const Access> access,
                        std::optional<database::DatabaseName> name, database::Verbs verb);

}  // namespace offprint::server
