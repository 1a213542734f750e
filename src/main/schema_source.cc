#include "main/schema_source.h"

#include <filesystem>
#include <utility>

#include <fmt/format.h>

namespace offprint {
namespace {

// A live database's schema, as a script.
Result<publication::SchemaScript> script_of_server(const RemoteOptions& remote,
                                                   const std::string& name) {
  OFFPRINT_TRY_ASSIGN(std::string url, database_url(remote, name));
  Remote connection(remote);
  HttpCall call;
  call.url = url + "/dump?data=0&transaction=0";
  OFFPRINT_TRY_ASSIGN(HttpAnswer answer, connection.request(call));
  return publication::script_of_text(name, std::move(answer.body), false);
}

}  // namespace

Result<publication::SchemaScript> read_schema_at(const RemoteOptions& remote,
                                                 const std::string& where) {
  if (where.find("://") != std::string::npos) return script_of_server(remote, where);
  if (std::filesystem::exists(where)) return publication::script_of_file(where);
  if (Result<std::string> url = database_url(remote, where); !url) {
    return fail(Code::kInvalid, fmt::format("{}: no such file, and no name of a database", where));
  }
  return script_of_server(remote, where);
}

}  // namespace offprint
