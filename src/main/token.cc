// offprint token: keys, and tokens made with them.
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "base/random.h"
#include "main/commands.h"
#include "main/remote.h"
#include "main/result_writer.h"
#include "server/authenticator.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/token.h"

namespace offprint {
namespace {

using database::Verb;
using database::Verbs;

struct KeygenOptions {
  std::string file;
  std::string algorithm = "EdDSA";
  bool force = false;
};

struct CreateOptions {
  std::string key, subject, issuer, id;
  std::vector<std::string> audience, databases, tables, verbs;
  std::string expires = "30d";
  bool read = false, write = false, schema = false, subscribe = false, snapshot = false,
       admin = false, metrics = false;
};

struct InspectOptions {
  std::string token, audience;
  std::vector<std::string> keys;
  bool json = false;
};

struct RevokeOptions {
  RemoteOptions remote;
  std::string token, database;
  std::int64_t issued_before = 0;
};

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf()))
    return fail(Code::kInvalid, fmt::format("{}: it cannot be read", path));
  return text.str();
}

// "-" is standard input: tokens on a command line are seen by others on the machine.
Result<std::string> token_text(const std::string& given) {
  std::string text = given;
  if (given == "-" && !std::getline(std::cin, text))
    return fail(Code::kInvalid, "no token on standard input");
  while (text.ends_with('\n') || text.ends_with('\r') || text.ends_with(' ')) text.pop_back();
  return text;
}

Result<> write_new_file(const std::string& path, const std::string& text, int mode, bool force) {
  int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (force ? O_TRUNC : O_EXCL);
  int file = ::open(path.c_str(), flags, mode);
  if (file < 0 && errno == EEXIST)
    return fail(Code::kConflict, path + " is there already; --force replaces it");
  if (file < 0) return fail(io_error("create " + path, errno));
  bool written = ::fchmod(file, static_cast<mode_t>(mode)) == 0 &&
                 ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                 ::fsync(file) == 0;
  int error = errno;
  ::close(file);
  if (!written) return fail(io_error("write " + path, error));
  return {};
}

Result<> keygen(const KeygenOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto key, server::SigningKey::generate(options.algorithm));
  std::string public_file = options.file + ".pub";
  OFFPRINT_TRY(write_new_file(options.file, key.private_pem(), 0600, options.force));
  OFFPRINT_TRY(write_new_file(public_file, key.public_pem(), 0644, options.force));
  std::printf(
      "%s: the key that makes tokens; keep it secret, a server does not need it\n"
      "%s: for `offprint serve --auth-keys %s`\n",
      options.file.c_str(), public_file.c_str(), public_file.c_str());
  return {};
}

// "30d", "12h", "90m", "45s" in seconds.
Result<std::int64_t> parse_duration(const std::string& text) {
  std::int64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  std::int64_t seconds = unit == "d" ? 86'400 : unit == "h" ? 3600 : unit == "m" ? 60 : 1;
  bool has_unit = unit == "d" || unit == "h" || unit == "m" || unit == "s";
  constexpr std::int64_t kMax = 100LL * 366 * 86'400;
  if (error != std::errc() || !has_unit || number <= 0 || number > kMax / seconds)
    return fail(Code::kInvalid, fmt::format("'{}' is no time such as 30d, 12h, 90m or 45s", text));
  return number * seconds;
}

Result<Verbs> verbs_of(const CreateOptions& options) {
  Verbs verbs;
  if (options.read) verbs |= Verb::kDataRead;
  if (options.write) verbs |= database::kDataWrites;
  if (options.schema) verbs |= database::kSchemaWrites;
  if (options.subscribe) verbs |= Verb::kSubscribe;
  if (options.snapshot) verbs |= Verb::kSnapshot;
  if (options.admin) verbs |= Verb::kAdmin;
  if (options.metrics) verbs |= Verb::kMetrics;
  for (const std::string& name : options.verbs) {
    std::optional<Verbs> verb = Verbs::parse(name);
    if (!verb) return fail(Code::kInvalid, fmt::format("'{}' is no verb", name));
    verbs |= *verb;
  }
  if (verbs.empty()) {
    return fail(Code::kInvalid,
                "a token that allows nothing: add --read, --write, --schema, "
                "--subscribe, --snapshot, --admin, --metrics or --verb");
  }
  return verbs;
}

template <class List, class Append>
void append_list(std::string& to, const List& list, Append append) {
  to += '[';
  bool first = true;
  for (const auto& item : list) {
    if (!std::exchange(first, false)) to += ',';
    append(to, item);
  }
  to += ']';
}

void append_verbs(std::string& to, Verbs verbs) {
  append_list(to, verbs.names(), [](std::string& text, std::string_view name) {
    server::append_json_string(text, name);
  });
}

Result<std::string> acl_of(const CreateOptions& options) {
  OFFPRINT_TRY_ASSIGN(Verbs verbs, verbs_of(options));
  if (options.databases.empty())
    return fail(Code::kInvalid, "--db says for which databases: a name, 'shop/*' or '*'");
  for (const std::string& pattern : options.databases) {
    if (!server::is_grant_pattern(pattern))
      return fail(Code::kInvalid, fmt::format("'{}' is no database name, 'x/*' or '*'", pattern));
  }
  std::string acl;
  append_list(acl, options.databases, [&](std::string& to, const std::string& pattern) {
    to += "{\"db\":";
    server::append_json_string(to, pattern);
    if (options.tables.empty()) {
      to += ",\"a\":";
      append_verbs(to, verbs);
    } else {
      to += ",\"t\":{";
      for (std::size_t i = 0; i < options.tables.size(); ++i) {
        if (i > 0) to += ',';
        server::append_json_string(to, options.tables[i]);
        to += ':';
        append_verbs(to, verbs);
      }
      to += '}';
    }
    to += '}';
  });
  return acl;
}

std::string random_id() {
  std::array<std::uint8_t, 16> bytes;
  fill_random(bytes);
  return to_hex(bytes);
}

Result<> create(const CreateOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string text, read_file(options.key));
  Result<server::SigningKey> key = server::SigningKey::parse(text);
  if (!key) return fail(key.error().with_context(options.key));
  OFFPRINT_TRY_ASSIGN(std::int64_t lasts_s, parse_duration(options.expires));
  OFFPRINT_TRY_ASSIGN(std::string acl, acl_of(options));
  std::int64_t now = unix_time_ms() / 1000;
  std::string payload = "{\"jti\":";
  server::append_json_string(payload, options.id.empty() ? random_id() : options.id);
  auto add = [&](std::string_view name, const std::string& value) {
    if (value.empty()) return;
    payload += name;
    server::append_json_string(payload, value);
  };
  add(",\"iss\":", options.issuer);
  add(",\"sub\":", options.subject);
  if (!options.audience.empty()) {
    payload += ",\"aud\":";
    append_list(payload, options.audience, [](std::string& to, const std::string& name) {
      server::append_json_string(to, name);
    });
  }
  payload += fmt::format(",\"iat\":{},\"exp\":{},\"acl\":{}}}", now, now + lasts_s, acl);
  // What the server would refuse is refused here.
  if (auto claims = server::parse_claims(payload); !claims)
    return fail(Code::kInvalid, claims.error().message());
  OFFPRINT_TRY_ASSIGN(std::string token, server::sign_token(*key, payload));
  if (token.size() > server::kTokenSizeMax)
    return fail(Code::kInvalid, "the token would be too long: name fewer tables or databases");
  std::printf("%s\n", token.c_str());
  return {};
}

std::string grants_text(const std::vector<server::Grant>& grants) {
  auto join = [](Verbs verbs) { return fmt::format("{}", fmt::join(verbs.names(), ", ")); };
  ResultSet table;
  table.columns = {"database", "table", "allowed"};
  for (const server::Grant& grant : grants) {
    if (!grant.verbs.empty())
      table.rows.push_back({grant.pattern, std::string(), join(grant.verbs)});
    for (const auto& [name, verbs] : grant.sql.tables)
      table.rows.push_back({grant.pattern, name, join(verbs)});
    if (!grant.sql.other_tables.empty())
      table.rows.push_back({grant.pattern, std::string("*"), join(grant.sql.other_tables)});
  }
  return format_result(table, ResultFormat::kTable);
}

Result<> inspect(const InspectOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string token, token_text(options.token));
  OFFPRINT_TRY_ASSIGN(std::string payload, server::token_payload(token));
  std::optional<Error> refused;
  if (!options.keys.empty()) {
    OFFPRINT_TRY_ASSIGN(auto keys, server::load_verifying_keys(options.keys));
    auto verified = server::verify_token(token, {keys, options.audience, unix_time_ms() / 1000});
    if (!verified) refused = verified.error();
  }
  if (options.json) {
    std::printf("%s\n", payload.c_str());
  } else {
    OFFPRINT_TRY_ASSIGN(server::TokenClaims claims, server::parse_claims(payload));
    auto line = [](const char* name, const std::string& value) {
      if (!value.empty()) std::printf("%-9s %s\n", name, value.c_str());
    };
    line("id", claims.id);
    line("issuer", claims.issuer);
    line("subject", claims.subject);
    line("audience", fmt::format("{}", fmt::join(claims.audience, ", ")));
    if (claims.issued_s > 0) line("issued", format_rfc3339(claims.issued_s * 1000));
    line("expires", format_rfc3339(claims.expires_s * 1000));
    line("verified", options.keys.empty() ? "no: no --key was given" : refused ? "no" : "yes");
    std::fputs(grants_text(claims.grants).c_str(), stdout);
  }
  if (refused) return fail(*std::move(refused));
  return {};
}

// A token's id, or the token itself.
Result<std::string> revocation_of_token(const std::string& given) {
  OFFPRINT_TRY_ASSIGN(std::string text, token_text(given));
  std::string body = "{\"jti\":";
  if (text.find('.') == std::string::npos) {
    server::append_json_string(body, text);
    return body + "}";
  }
  OFFPRINT_TRY_ASSIGN(std::string payload, server::token_payload(text));
  OFFPRINT_TRY_ASSIGN(server::TokenClaims claims, server::parse_claims(std::move(payload)));
  if (claims.id.empty()) {
    return fail(Code::kInvalid,
                "this token has no id; --db revokes all tokens of a database that "
                "were issued before now");
  }
  server::append_json_string(body, claims.id);
  return body + fmt::format(",\"until\":{}}}", claims.expires_s);
}

Result<> revoke(const RevokeOptions& options) {
  if (options.token.empty() == options.database.empty())
    return fail(Code::kInvalid, "either a token or --db is needed");
  HttpCall call;
  call.method = "POST";
  OFFPRINT_TRY_ASSIGN(std::string server, parse_url(options.remote.server));
  call.url = server + "/v1/tokens/revoke";
  if (!options.token.empty()) {
    OFFPRINT_TRY_ASSIGN(call.body, revocation_of_token(options.token));
  } else {
    call.body = "{\"database\":";
    server::append_json_string(call.body, options.database);
    if (options.issued_before > 0)
      call.body += fmt::format(",\"issued_before\":{}", options.issued_before);
    call.body += '}';
  }
  Remote remote(options.remote);
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  std::printf("revoked %s", answer.body.c_str());
  return {};
}

template <class Options>
auto action(Result<> (*run)(const Options&), std::shared_ptr<Options> options, int& exit_code) {
  return [run, options, &exit_code] {
    Result<> done = run(*options);
    exit_code = done ? kExitDone : report(done.error());
  };
}

void add_keygen(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<KeygenOptions>();
  CLI::App* command = app.add_subcommand("keygen", "makes a pair of keys: FILE and FILE.pub");
  command->add_option("FILE", options->file, "the private key's file")->required();
  command->add_option("--algorithm", options->algorithm, "EdDSA (Ed25519) or ES256 (P-256)")
      ->check(CLI::IsMember({"EdDSA", "ES256"}))
      ->capture_default_str();
  command->add_flag("--force", options->force, "replace files that are there");
  command->callback(action(keygen, options, exit_code));
}

void add_create(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<CreateOptions>();
  CLI::App* command = app.add_subcommand("create", "prints a new token");
  command->add_option("--key", options->key, "file with the private key")
      ->envname("OFFPRINT_TOKEN_KEY")
      ->required();
  command->add_option("--db", options->databases,
                      "a database, 'shop/*' for all that begin so, or '*'; can be repeated");
  command->add_option("--table", options->tables,
                      "only this table, or '*' for all that are not named; can be repeated");
  command->add_flag("--read", options->read, "rows may be read");
  command->add_flag("--write", options->write, "rows may be added, changed and deleted");
  command->add_flag("--schema", options->schema, "tables may be made, changed and dropped");
  command->add_flag("--subscribe", options->subscribe, "the database may be followed");
  command->add_flag("--snapshot", options->snapshot, "its file may be downloaded");
  command->add_flag("--admin", options->admin, "databases may be made, filled and dropped");
  command->add_flag("--metrics", options->metrics, "/metrics may be read (with --db '*')");
  command->add_option("--verb", options->verbs, "a single verb, such as data_add");
  command->add_option("--expires", options->expires, "30d, 12h, 90m or 45s from now")
      ->capture_default_str();
  command->add_option("--sub", options->subject, "whose it is (claim sub)");
  command->add_option("--iss", options->issuer, "who issued it (claim iss)");
  command->add_option("--aud", options->audience, "for which server (claim aud)");
  command->add_option("--id", options->id, "its id for revoking (claim jti); without: random");
  command->callback(action(create, options, exit_code));
}

void add_inspect(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app.add_subcommand("inspect", "shows what a token says, and whether it holds");
  command->add_option("TOKEN", options->token, "the token; - reads it from standard input")
      ->required();
  command->add_option("--key", options->keys, "file with public keys: its signature is verified");
  command->add_option("--audience", options->audience, "it must be made for this audience");
  command->add_flag("--json", options->json, "its claims as they are");
  command->callback(action(inspect, options, exit_code));
}

void add_revoke(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<RevokeOptions>();
  CLI::App* command =
      app.add_subcommand("revoke", "makes a server refuse a token, or all of a database");
  command->add_option("TOKEN", options->token, "a token's id, or the token; - reads it");
  command->add_option("--db", options->database,
                      "instead: all tokens for this database ('*': for any)");
  command->add_option("--issued-before", options->issued_before,
                      "with --db: seconds since the Unix epoch; without: now");
  add_server_option(*command, options->remote);
  add_token_option(*command, options->remote);
  command->callback(action(revoke, options, exit_code));
}

}  // namespace

void add_token(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "token", "Tokens: keygen, create, inspect, revoke (docs/protocol/tokens.md).");
  command->require_subcommand(1);
  add_keygen(*command, exit_code);
  add_create(*command, exit_code);
  add_inspect(*command, exit_code);
  add_revoke(*command, exit_code);
}

}  // namespace offprint
