#include "server/token.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <simdjson.h>

#include "database/name.h"
#include "server/http_message.h"
#include "server/instances.h"
#include "server/json_reader.h"

namespace offprint::server {
namespace {

namespace dom = simdjson::dom;
using database::Verb;
using database::Verbs;

constexpr std::size_t kGrantsMax = 256;
constexpr std::size_t kTablesMax = 1024;
constexpr double kTimeMax = 4e11;  // seconds; beyond it somebody wrote milliseconds, or nonsense
constexpr std::int64_t kClockSkewS = 5;  // of the one who issued it, for `nbf`

constexpr Verbs kLibsqlRead = Verb::kDataRead | Verb::kSubscribe | Verb::kSnapshot;
constexpr Verbs kLibsqlWrite = kLibsqlRead | database::kSqlVerbs;

std::unexpected<Error> refuse(std::string why) {
  return fail(Code::kUnauthorized, "TOKEN_INVALID: " + std::move(why));
}

Result<std::string> text_of(dom::element element, std::string_view name) {
  std::string_view text;
  if (element.get(text) != simdjson::SUCCESS) return refuse(fmt::format("'{}' is no text", name));
  return std::string(text);
}

Result<std::int64_t> time_of(dom::element element, std::string_view name) {
  double seconds = 0;
  if (element.get(seconds) != simdjson::SUCCESS || !(seconds >= 0) || seconds > kTimeMax)
    return refuse(fmt::format("'{}' is no time in seconds", name));
  return static_cast<std::int64_t>(std::floor(seconds));
}

Result<std::vector<std::string>> texts_of(dom::element element, std::string_view name) {
  std::vector<std::string> texts;
  dom::array list;
  if (element.get(list) != simdjson::SUCCESS) {
    OFFPRINT_TRY_ASSIGN(std::string text, text_of(element, name));
    texts.push_back(std::move(text));
    return texts;
  }
  for (dom::element item : list) {
    OFFPRINT_TRY_ASSIGN(std::string text, text_of(item, name));
    texts.push_back(std::move(text));
  }
  return texts;
}

Result<Verbs> verbs_of(dom::element element) {
  dom::array list;
  if (element.get(list) != simdjson::SUCCESS) return refuse("a list of verbs is an array");
  Verbs verbs;
  for (dom::element item : list) {
    std::string_view name;
    if (item.get(name) != simdjson::SUCCESS) return refuse("a verb is a text");
    std::optional<Verbs> verb = Verbs::parse(name);
    if (!verb) return refuse(fmt::format("unknown verb '{}'", name.substr(0, 60)));
    verbs |= *verb;
  }
  return verbs;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return result;
}

Grant make_grant(std::string pattern, Verbs verbs) {
  Grant grant;
  grant.pattern = std::move(pattern);
  grant.verbs = verbs;
  grant.sql.everywhere = verbs & database::kSqlVerbs;
  return grant;
}

Result<> parse_tables(dom::element element, database::SqlRights& sql) {
  dom::object tables;
  if (element.get(tables) != simdjson::SUCCESS) return refuse("'t' is an object: verbs by table");
  for (auto [name, value] : tables) {
    OFFPRINT_TRY_ASSIGN(Verbs verbs, verbs_of(value));
    if (!verbs.without(database::kSqlVerbs).empty())
      return refuse("of a table only data and schema verbs can be given");
    if (name == "*") {
      sql.other_tables |= verbs;
    } else if (!sql.tables.emplace(lower(name), verbs).second) {
      return refuse("a table comes twice");
    }
    if (sql.tables.size() > kTablesMax) return refuse("too many tables");
  }
  return {};
}

// {"db":"shop/*","a":["data_read"]} or {"db":"shop/orders","t":{"orders":["data_read"]}}
Result<Grant> parse_grant(dom::element element) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) return refuse("an entry of 'acl' is an object");
  Grant grant;
  std::set<std::string_view> seen;
  for (auto [name, value] : object) {
    if (!seen.insert(name).second) return refuse("a field of 'acl' comes twice");
    if (name == "db") {
      OFFPRINT_TRY_ASSIGN(grant.pattern, text_of(value, "db"));
    } else if (name == "a") {
      OFFPRINT_TRY_ASSIGN(grant.verbs, verbs_of(value));
    } else if (name == "t") {
      OFFPRINT_TRY(parse_tables(value, grant.sql));
    } else {
      return refuse(fmt::format("unknown field '{}' in 'acl'", name.substr(0, 60)));
    }
  }
  if (!is_grant_pattern(grant.pattern)) return refuse("'db' of an 'acl' is no name or pattern");
  if (grant.verbs.empty() && !grant.sql.has_table_rules())
    return refuse("an entry of 'acl' grants nothing");
  grant.sql.everywhere = grant.verbs & database::kSqlVerbs;
  return grant;
}

Result<> parse_acl(dom::element element, TokenClaims& claims) {
  dom::array list;
  if (element.get(list) != simdjson::SUCCESS) return refuse("'acl' is an array");
  for (dom::element item : list) {
    OFFPRINT_TRY_ASSIGN(Grant grant, parse_grant(item));
    claims.grants.push_back(std::move(grant));
  }
  return {};
}

// libSQL's {"ro":{"ns":["a"]},"rw":{…}}. A name with a wildcard is none there.
Result<> parse_libsql_permissions(dom::element element, TokenClaims& claims) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) return refuse("'p' is an object");
  for (auto [kind, value] : object) {
    Verbs verbs;
    if (kind == "ro" || kind == "roa") {
      verbs = kLibsqlRead;
    } else if (kind == "rw" || kind == "rwa") {
      verbs = kLibsqlWrite;
    } else if (kind == "ddl") {
      verbs = database::kSchemaWrites;
    } else {
      return refuse(fmt::format("unknown permission '{}' in 'p'", kind.substr(0, 60)));
    }
    dom::object scope;
    if (value.get(scope) != simdjson::SUCCESS) return refuse("a permission of 'p' is an object");
    for (auto [name, spaces] : scope) {
      if (name != "ns") return refuse(fmt::format("unknown scope '{}' in 'p'", name.substr(0, 60)));
      OFFPRINT_TRY_ASSIGN(auto names, texts_of(spaces, "ns"));
      for (std::string& space : names) {
        if (!database::DatabaseName::parse(space)) return refuse("a namespace of 'p' is no name");
        claims.grants.push_back(make_grant(std::move(space), verbs));
      }
    }
  }
  return {};
}

Result<Verbs> libsql_access(std::string_view word) {
  if (word == "ro" || word == "roa") return kLibsqlRead;
  if (word == "rw") return kLibsqlWrite;
  return refuse("'a' is ro, rw or roa");
}

// What of libSQL's old claims belongs together: access `a` to namespace `id`.
struct LibsqlClaims {
  std::optional<std::string> access;
  std::optional<std::string> space;
};

Result<> add_libsql_grant(const LibsqlClaims& libsql, TokenClaims& claims) {
  if (!libsql.access && !libsql.space) return {};
  OFFPRINT_TRY_ASSIGN(Verbs verbs, libsql_access(libsql.access.value_or("rw")));
  if (libsql.space && !database::DatabaseName::parse(*libsql.space))
    return refuse("'id' is no database name");
  claims.grants.push_back(make_grant(libsql.space.value_or("*"), verbs));
  return {};
}

Result<> take_claim(std::string_view name, dom::element value, TokenClaims& claims,
                    LibsqlClaims& libsql) {
  if (name == "exp") {
    OFFPRINT_TRY_ASSIGN(claims.expires_s, time_of(value, name));
  } else if (name == "nbf") {
    OFFPRINT_TRY_ASSIGN(claims.not_before_s, time_of(value, name));
  } else if (name == "iat") {
    OFFPRINT_TRY_ASSIGN(claims.issued_s, time_of(value, name));
  } else if (name == "jti") {
    OFFPRINT_TRY_ASSIGN(claims.id, text_of(value, name));
    if (claims.id.empty() || claims.id.size() > kTokenIdMax)
      return refuse("'jti' is empty or too long");
  } else if (name == "iss") {
    OFFPRINT_TRY_ASSIGN(claims.issuer, text_of(value, name));
  } else if (name == "sub") {
    OFFPRINT_TRY_ASSIGN(claims.subject, text_of(value, name));
  } else if (name == "aud") {
    OFFPRINT_TRY_ASSIGN(claims.audience, texts_of(value, name));
  } else if (name == "acl") {
    OFFPRINT_TRY(parse_acl(value, claims));
  } else if (name == "p") {
    OFFPRINT_TRY(parse_libsql_permissions(value, claims));
  } else if (name == "a") {
    OFFPRINT_TRY_ASSIGN(libsql.access, text_of(value, name));
  } else if (name == "id") {
    OFFPRINT_TRY_ASSIGN(libsql.space, text_of(value, name));
  } else {
    return refuse(fmt::format("unknown claim '{}'", name.substr(0, 60)));
  }
  return {};
}

struct Parts {
  std::string header;
  std::string payload;
  Bytes signature;
  std::string_view signed_text;
};

Result<Parts> take_apart(std::string_view token) {
  if (token.size() > kTokenSizeMax) return refuse("it is too long");
  std::size_t first = token.find('.');
  std::size_t second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos)
    return refuse("it has not three parts");
  auto header = decode_base64url(token.substr(0, first));
  auto payload = decode_base64url(token.substr(first + 1, second - first - 1));
  auto signature = decode_base64url(token.substr(second + 1));
  if (!header || !payload || !signature) return refuse("a part of it is no base64url");
  return Parts{std::string(as_text(*header)), std::string(as_text(*payload)), *std::move(signature),
               token.substr(0, second)};
}

// The algorithm that the header names; what is signed with decides later whether that is true.
Result<std::string> header_algorithm(std::string& header) {
  JsonReader reader;
  Result<dom::element> root = reader.parse(header);
  dom::object object;
  if (!root || root->get(object) != simdjson::SUCCESS)
    return refuse("its header is no JSON object");
  std::set<std::string_view> seen;
  std::string algorithm;
  for (auto [name, value] : object) {
    if (!seen.insert(name).second) return refuse("a field of its header comes twice");
    if (name == "crit" || name == "b64")
      return refuse("its header asks for what is not known here");
    if (name == "alg") {
      OFFPRINT_TRY_ASSIGN(algorithm, text_of(value, name));
    } else if (name == "typ") {
      OFFPRINT_TRY_ASSIGN(std::string type, text_of(value, name));
      if (!equal_ignoring_case(type, "JWT") && !equal_ignoring_case(type, "at+jwt"))
        return refuse("its header says that it is something else");
    }
  }
  return algorithm;
}

Result<> check_claims(const TokenClaims& claims, const TokenRules& rules) {
  if (rules.now_s >= claims.expires_s)
    return fail(Code::kUnauthorized, "TOKEN_EXPIRED: the token has expired");
  if (claims.not_before_s > rules.now_s + kClockSkewS) return refuse("it is not valid yet");
  bool is_for_us = rules.audience.empty() ||
                   std::find(claims.audience.begin(), claims.audience.end(), rules.audience) !=
                       claims.audience.end();
  if (!is_for_us) return refuse("it is for another audience");
  return {};
}

}  // namespace

bool Grant::matches(std::string_view database) const {
  if (database.starts_with('@')) return pattern == database;  // only who was made for it
  if (!pattern.ends_with('*')) return pattern == database;
  return database.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1));
}

bool is_grant_pattern(std::string_view text) {
  if (text == "*") return true;
  if (text.find("/pub/") != std::string_view::npos) return is_instance_pattern(text);
  if (text.ends_with("/*")) {
    text.remove_suffix(2);
    return text.find('/') == std::string_view::npos && database::DatabaseName::parse(text);
  }
  return database::DatabaseName::parse(text).has_value();
}

Result<TokenClaims> parse_claims(std::string payload) {
  JsonReader reader;
  Result<dom::element> root = reader.parse(payload);
  dom::object object;
  if (!root || root->get(object) != simdjson::SUCCESS)
    return refuse("its payload is no JSON object");
  TokenClaims claims;
  LibsqlClaims libsql;
  std::set<std::string_view> seen;
  for (auto [name, value] : object) {
    if (!seen.insert(name).second) return refuse("a claim comes twice");
    OFFPRINT_TRY(take_claim(name, value, claims, libsql));
  }
  OFFPRINT_TRY(add_libsql_grant(libsql, claims));
  if (!seen.contains("exp")) return refuse("it has no 'exp'");
  if (claims.grants.empty()) return refuse("it grants nothing");
  if (claims.grants.size() > kGrantsMax) return refuse("it has too many grants");
  return claims;
}

Result<TokenClaims> verify_token(std::string_view token, const TokenRules& rules) {
  OFFPRINT_TRY_ASSIGN(Parts parts, take_apart(token));
  OFFPRINT_TRY_ASSIGN(std::string algorithm, header_algorithm(parts.header));
  bool valid = std::any_of(rules.keys.begin(), rules.keys.end(), [&](const VerifyingKey& key) {
    return key.algorithm() == algorithm && key.verify(parts.signed_text, parts.signature);
  });
  if (!valid) return refuse("it is not signed with a key of this server");
  OFFPRINT_TRY_ASSIGN(TokenClaims claims, parse_claims(std::move(parts.payload)));
  OFFPRINT_TRY(check_claims(claims, rules));
  return claims;
}

Result<std::string> sign_token(const SigningKey& key, std::string_view payload) {
  std::string header = fmt::format(R"({{"alg":"{}","typ":"JWT"}})", key.algorithm());
  std::string token =
      encode_base64url(as_bytes(header)) + "." + encode_base64url(as_bytes(payload));
  OFFPRINT_TRY_ASSIGN(Bytes signature, key.sign(token));
  return token + "." + encode_base64url(signature);
}

Result<std::string> token_payload(std::string_view token) {
  OFFPRINT_TRY_ASSIGN(Parts parts, take_apart(token));
  return std::move(parts.payload);
}

}  // namespace offprint::server
