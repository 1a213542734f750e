#include "server/text_download.h"

#include <fmt/format.h>

#include "database/text_export.h"
#include "server/errors.h"
#include "server/piece_stream.h"

namespace offprint::server {
namespace {

Result<bool> flag_parameter(const Address& address, std::string_view name, bool otherwise) {
  auto text = address.parameter(name);
  if (!text) return otherwise;
  if (*text == "1" || *text == "true" || text->empty()) return true;
  if (*text == "0" || *text == "false") return false;
  return fail(Code::kInvalid, fmt::format("'{}' must be 0 or 1", name));
}

Result<database::SqlDumpOptions> dump_options(const Address& address) {
  database::SqlDumpOptions options;
  OFFPRINT_TRY_ASSIGN(options.schema, flag_parameter(address, "schema", true));
  OFFPRINT_TRY_ASSIGN(options.data, flag_parameter(address, "data", true));
  OFFPRINT_TRY_ASSIGN(options.transaction, flag_parameter(address, "transaction", true));
  for (const auto& [name, value] : address.parameters) {
    if (name == "table") options.tables.push_back(value);
  }
  return options;
}

Response stream_text(Service& service, const database::DatabaseName& name,
                     std::string_view content_type,
                     Result<std::unique_ptr<database::TextExport>> text) {
  if (!text) return structured_error(text.error());
  Response response;
  response.content_type = content_type;
  response.headers = answer_headers(service, name, (*text)->bookmark());
  response.stream =
      make_piece_stream(service, [shared = std::shared_ptr(*std::move(text))](std::string& to) {
        return shared->next(to, kPieceBytes);
      });
  return response;
}

}  // namespace

void handle_dump(Service& service, const database::DatabaseName& name, const Address& address,
                 Responder responder) {
  Result<database::SqlDumpOptions> options = dump_options(address);
  if (!options) return responder.respond(structured_error(options.error()));
  respond_from_helper(service, std::move(responder),
                      [&service, name, options = *std::move(options)] {
                        return stream_text(service, name, "application/sql",
                                           database::export_sql(service.store, name, options));
                      });
}

}  // namespace offprint::server
