#include "server/route_rights.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "server/history_api.h"
#include "server/hrana_routes.h"
#include "server/insights_api.h"
#include "server/namespaces_api.h"
#include "server/publications_api.h"
#include "server/root_database.h"

namespace offprint::server {
namespace {

using database::Verb;
using database::Verbs;

enum Methods : unsigned { kReads = 1, kPosts = 2, kDeletes = 4, kAny = 7 };

struct Rule {
  std::string_view path;
  unsigned methods;
  Need need;
  Verbs verb = {};
  bool plain_errors = false;
};

// Below /db/NAME/.
constexpr std::array kDatabaseRules = {
    Rule{"", kAny, Need::kKnows},
    Rule{"v2", kAny, Need::kKnows},
    Rule{"v3", kAny, Need::kKnows},
    Rule{"query", kAny, Need::kSql},
    Rule{"execute", kAny, Need::kSql},
    Rule{"d1-proxy", kAny, Need::kSql},
    Rule{"v1/execute", kAny, Need::kSql, {}, true},
    Rule{"v1/batch", kAny, Need::kSql, {}, true},
    Rule{"v2/pipeline", kAny, Need::kSql, {}, true},
    Rule{"v3/pipeline", kAny, Need::kSql, {}, true},
    Rule{"v3/cursor", kAny, Need::kSql, {}, true},
    Rule{"dump", kAny, Need::kVerb, Verb::kSnapshot},
    Rule{"export", kAny, Need::kSql},
    Rule{"stream", kAny, Need::kVerb, Verb::kSubscribe},
    Rule{"pages", kAny, Need::kVerb, Verb::kSubscribe},
    Rule{"changes", kAny, Need::kVerb, Verb::kSubscribe},
    Rule{"notify", kAny, Need::kVerb, Verb::kSubscribe},
    Rule{"live", kAny, Need::kSql},
    Rule{"snapshot", kAny, Need::kVerb, Verb::kSnapshot},
    Rule{"import", kAny, Need::kVerb, Verb::kAdmin},
};

// At the root. Those that end with "/" are of the database that the rest names.
constexpr std::array kRootRules = {
    Rule{"", kAny, Need::kNothing},
    Rule{"health", kAny, Need::kNothing},
    Rule{"version", kAny, Need::kNothing},
    Rule{"v2", kAny, Need::kToken},
    Rule{"v3", kAny, Need::kToken},
    Rule{"metrics", kAny, Need::kEverywhere, Verb::kMetrics},
    Rule{"v1/stream", kAny, Need::kSomewhere, Verb::kSubscribe},
    Rule{"v1/databases", kAny, Need::kSomewhere, Verb::kAdmin},
    Rule{"v1/databases/", kReads, Need::kKnows},
    Rule{"v1/databases/", kPosts | kDeletes, Need::kVerb, Verb::kAdmin},
    Rule{"v1/usage", kAny, Need::kSomewhere, Verb::kAdmin},
    Rule{"v1/jobs", kAny, Need::kSomewhere, Verb::kAdmin},
    Rule{"v1/jobs/", kAny, Need::kSomewhere, Verb::kAdmin},
    Rule{"v1/cluster", kAny, Need::kSomewhere, Verb::kAdmin},
    Rule{"v1/cluster/instance", kReads, Need::kNothing},  // this address is signed
    Rule{"v1/cluster/", kAny, Need::kEverywhere, Verb::kAdmin},
    Rule{"v1/tokens/revoke", kAny, Need::kEverywhere, Verb::kAdmin},
    Rule{"v1/tokens/revoked", kAny, Need::kEverywhere, Verb::kAdmin},
    Rule{"client/v4/d1/export/", kAny, Need::kNothing},  // these addresses are signed
    Rule{"client/v4/d1/upload/", kAny, Need::kNothing},
    Rule{"client/v4/", kAny, Need::kToken},  // who answers looks at the database
};

// At the root, of the database that x-namespace names, or the default one.
constexpr std::array kAliasRules = {
    Rule{"query", kAny, Need::kSql},
    Rule{"execute", kAny, Need::kSql},
    Rule{"dump", kPosts, Need::kVerb, Verb::kSnapshot},
    Rule{"v1/execute", kAny, Need::kSql, {}, true},
    Rule{"v1/batch", kAny, Need::kSql, {}, true},
    Rule{"v2/pipeline", kAny, Need::kSql, {}, true},
    Rule{"v3/pipeline", kAny, Need::kSql, {}, true},
    Rule{"v3/cursor", kAny, Need::kSql, {}, true},
};

unsigned methods_of(Method method) {
  switch (method) {
    case Method::kGet:
    case Method::kHead:
    case Method::kOptions:
      return kReads;
    case Method::kDelete:
      return kDeletes;
    default:
      return kPosts;
  }
}

template <std::size_t N>
const Rule* find(const std::array<Rule, N>& rules, std::string_view path, unsigned methods) {
  for (const Rule& rule : rules) {
    bool is_prefix = rule.path.ends_with('/');
    bool matches = is_prefix ? path.starts_with(rule.path) : path == rule.path;
    if (matches && (rule.methods & methods) != 0) return &rule;
  }
  return nullptr;
}

// A name that is none stays empty: the address exists, and says what is wrong to whoever has a
// token.
RouteRight right_of(const Rule* rule, std::optional<database::DatabaseName> name) {
  RouteRight right;
  if (rule == nullptr) return right;
  right.exists = true;
  right.plain_errors = rule->plain_errors;
  bool is_of_database =
      rule->need == Need::kKnows || rule->need == Need::kSql || rule->need == Need::kVerb;
  if (is_of_database && !name) return right;
  right.need = rule->need;
  right.verb = rule->verb;
  right.database = std::move(name);
  return right;
}

std::optional<database::DatabaseName> name_of(std::string_view text) {
  Result<database::DatabaseName> name = database::DatabaseName::parse(text);
  if (!name) return std::nullopt;
  return *std::move(name);
}

// The token comes with the first message.
RouteRight socket_right() {
  RouteRight right;
  right.exists = true;
  right.need = Need::kNothing;
  right.plain_errors = true;
  return right;
}

// Of /v1/namespaces/…: that of a fork is the new one, whoever answers looks at its source.
RouteRight namespace_right(const Address& address, unsigned methods) {
  static constexpr Rule kShows{"", kAny, Need::kKnows, {}, true};
  static constexpr Rule kTexts{"", kAny, Need::kVerb, Verb::kDataRead, true};
  static constexpr Rule kManages{"", kAny, Need::kVerb, Verb::kAdmin, true};
  Result<NamespaceAddress> asked = parse_namespace_address(address);
  if (!asked) {
    RouteRight none = right_of(&kManages, std::nullopt);
    none.exists = asked.error().code() != Code::kNotFound;
    return none;
  }
  const Rule* rule = asked->action == "stats" ? &kTexts : &kManages;
  if (asked->action == "config" && methods == kReads) rule = &kShows;
  return right_of(rule, asked->fork_to ? asked->fork_to : asked->name);
}

// An instance is read, whoever asks.
Verbs verb_of_instance(std::string_view action) {
  for (const Rule& rule : kDatabaseRules) {
    if (rule.path == action && rule.need == Need::kVerb) return rule.verb;
  }
  return Verb::kDataRead;
}

std::string_view verb_text(Verbs verb) {
  std::vector<std::string_view> names = verb.names();
  return names.empty() ? "this" : names.front();
}

}  // namespace

RouteRight route_right(const Service& service, const HttpRequest& request) {
  unsigned methods = methods_of(request.method);
  Result<Address> address = parse_address(request.target);
  RouteRight unreadable;
  unreadable.exists = true;  // and answers 400 to whoever has a token
  if (!address) return unreadable;
  if (auto instance = parse_instance_address(*address)) {
    if (!*instance) return unreadable;
    RouteRight right = right_of(find(kDatabaseRules, (*instance)->action, methods), std::nullopt);
    if (is_hrana_socket((*instance)->action, request)) return socket_right();
    right.exists = find(kDatabaseRules, (*instance)->action, methods) != nullptr;
    right.need = Need::kInstance;
    right.verb = verb_of_instance((*instance)->action);
    if ((*instance)->action == kInstanceAddress && methods == kReads) {
      right.exists = true;
      right.verb = Verb::kSubscribe;
    }
    right.instance = **std::move(instance);
    return right;
  }
  if (!address->segments.empty() && address->segments[0] == "db") {
    Result<DatabaseAddress> target = parse_database_address(*address);
    if (!target) return unreadable;
    if (is_hrana_socket(target->action, request)) return socket_right();
    return right_of(find(kDatabaseRules, target->action, methods), std::move(target->name));
  }
  if (is_namespace_address(*address)) return namespace_right(*address, methods);
  std::string path = address->path_from(0);
  if (const Rule* rule = find(kAliasRules, path, methods)) {
    Result<database::DatabaseName> name = root_database(service, request);
    return right_of(rule, name ? std::optional(*name) : std::nullopt);
  }
  if (is_hrana_socket(path, request)) return socket_right();
  if (auto report = parse_report_address(*address)) {
    // They show the texts of statements on any table, and what others do.
    static constexpr Rule kRule{"", kAny, Need::kVerb, Verb::kDataRead};
    return right_of(&kRule, name_of(report->name));
  }
  if (auto history = parse_history_address(*address)) {
    static constexpr Rule kShows{"", kAny, Need::kVerb, Verb::kDataRead};
    static constexpr Rule kChanges{"", kAny, Need::kVerb, Verb::kAdmin};
    return right_of(methods == kReads ? &kShows : &kChanges, name_of(history->name));
  }
  if (auto published = parse_publications_address(*address)) {
    static constexpr Rule kShows{"", kAny, Need::kKnows};
    static constexpr Rule kChanges{"", kAny, Need::kVerb, Verb::kPublish};
    return right_of(methods == kReads ? &kShows : &kChanges, name_of(published->database));
  }
  const Rule* rule = find(kRootRules, path, methods);
  bool names_database = rule != nullptr && rule->path.ends_with('/');
  return right_of(rule, names_database ? name_of(path.substr(rule->path.size())) : std::nullopt);
}

Result<> check_access(const Access& access, const RouteRight& right) {
  const auto& name = right.database;
  bool allowed = false;
  switch (right.need) {
    case Need::kNothing:
    case Need::kToken:
      return {};
    case Need::kKnows:
      allowed = name && access.knows(*name);
      break;
    case Need::kSql:
      allowed = name && access.allows_sql(*name);
      break;
    case Need::kVerb:
      allowed = name && access.allows(*name, right.verb);
      break;
    case Need::kInstance:
      allowed = right.instance && access.allows_instance(*right.instance, right.verb);
      break;
    case Need::kSomewhere:
      allowed = access.allows_somewhere(right.verb);
      break;
    case Need::kEverywhere:
      allowed = access.allows_everywhere(right.verb);
      break;
  }
  if (allowed) return {};
  if (name) {
    return fail(Code::kForbidden,
                fmt::format("TOKEN_FORBIDS: the token does not allow {} on database '{}'",
                            verb_text(right.verb), name->text()));
  }
  return fail(Code::kForbidden,
              fmt::format("TOKEN_FORBIDS: the token does not allow {}{}", verb_text(right.verb),
                          right.need == Need::kEverywhere ? " everywhere" : ""));
}

}  // namespace offprint::server
