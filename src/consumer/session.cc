#include "consumer/session.h"

#include <filesystem>

#include <fmt/format.h>

#include "publication/sql_tokens.h"

namespace offprint::consumer {
namespace {

std::string read_only_uri(const std::string& path) {
  std::string uri = "file:";
  for (char c : path) {
    const bool is_special = c == '%' || c == '?' || c == '#';
    uri += is_special ? fmt::format("%{:02X}", static_cast<unsigned char>(c)) : std::string(1, c);
  }
  return uri + "?mode=ro";
}

std::string attach_statement(const std::string& name, const std::string& path) {
  return fmt::format("ATTACH {} AS {};\n", publication::quoted_text(read_only_uri(path)),
                     publication::quoted_name(name));
}

}  // namespace

std::string attach_sql(const ConsumerSpec& spec) {
  std::string sql;
  for (const auto& [name, path] : spec.replicas) sql += attach_statement(name, path);
  return sql;
}

Result<sqlite::Connection> open_session(const ConsumerSpec& spec, const SessionOptions& options) {
  std::error_code ignored;
  if (!std::filesystem::exists(spec.database, ignored))
    return fail(Code::kNotFound, spec.database + ": no such file");
  sqlite::Connection::Options opening;
  opening.read_only = options.read_only;
  opening.attach_uris = true;
  opening.busy_timeout_ms = options.busy_timeout_ms;
  OFFPRINT_TRY_ASSIGN(
      auto connection,
      sqlite::Connection::open(std::filesystem::absolute(spec.database).string(), opening));
  for (const auto& [name, path] : spec.replicas) {
    if (!std::filesystem::exists(path, ignored))
      return fail(Code::kNotFound,
                  fmt::format("{}: no such file; `offprint follow URL {}` makes it", path, path));
    auto attached = connection.execute(attach_statement(name, path).c_str());
    if (!attached) return fail(attached.error().with_context("attach " + path));
  }
  if (options.composed) {
    OFFPRINT_TRY_ASSIGN(std::string sql, compose_sql(connection, spec));
    OFFPRINT_TRY(connection.execute(sql.c_str()));
  }
  return connection;
}

}  // namespace offprint::consumer
