#pragma once

#include <optional>
#include <string_view>

#include "base/result.h"
#include "database/name.h"
#include "server/access.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/instances.h"
#include "server/service.h"

// Which right each address asks for. docs/protocol/tokens.md has the same table.
namespace offprint::server {

enum class Need {
  kNothing,     // no token
  kToken,       // one that counts
  kKnows,       // any right on the database
  kSql,         // some SQL on it; each statement is looked at when it is compiled
  kVerb,        // the verb on it
  kInstance,    // the verb on the instance of a publication
  kSomewhere,   // the verb on some database; who answers looks at which
  kEverywhere,  // the verb on all databases
};

// What an address means to who asks for tokens.
struct RouteRight {
  Need need = Need::kToken;
  database::Verbs verb;
  std::optional<database::DatabaseName> database;
  std::optional<InstanceAddress> instance;
  bool plain_errors = false;  // the form of Hrana's clients
  bool exists = false;        // an address that nobody entered into the table answers 404
};

RouteRight route_right(const Service& service, const HttpRequest& request);

// kForbidden with what is missing.
Result<> check_access(const Access& access, const RouteRight& right);

}  // namespace offprint::server
