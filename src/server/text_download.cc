#include "server/text_download.h"

#include "database/row_export.h"
#include "database/text_export.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/piece_stream.h"
#include "server/row_file.h"

namespace offprint::server {
namespace {

Result<database::SqlDumpOptions> dump_options(const Address& address) {
  database::SqlDumpOptions options;
  OFFPRINT_TRY_ASSIGN(options.schema, address.flag("schema", true));
  OFFPRINT_TRY_ASSIGN(options.data, address.flag("data", true));
  OFFPRINT_TRY_ASSIGN(options.transaction, address.flag("transaction", true));
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

struct Rows {
  database::RowExportOptions options;
  std::unique_ptr<database::RowFormat> format;
  std::string_view content_type;
};

Result<Rows> rows_of(const Address& address) {
  Rows rows;
  OFFPRINT_TRY_ASSIGN(RowFile file, RowFile::parse(address));
  rows.options.table = address.parameter("table").value_or("");
  rows.options.query = address.parameter("query").value_or("");
  if (rows.options.table.empty() == rows.options.query.empty())
    return fail(Code::kInvalid, "an export is of one table=T or one query=SELECT …");
  rows.format = file.is_csv ? make_csv_format(file.csv) : make_json_lines_format();
  rows.content_type = file.is_csv ? "text/csv; charset=utf-8" : "application/x-ndjson";
  return rows;
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

void handle_export(Service& service, const database::DatabaseName& name, const HttpRequest& request,
                   const Address& address, Responder responder) {
  Result<Rows> parsed = rows_of(address);
  if (!parsed) return responder.respond(structured_error(parsed.error()));
  auto rows = std::make_shared<Rows>(*std::move(parsed));
  rows->options.rights = access_of(service, request).sql_rights(name);
  rows->options.piece_time_max = std::chrono::milliseconds(service.options.request_timeout_ms);
  respond_from_helper(service, std::move(responder), [&service, name, rows] {
    return stream_text(
        service, name, rows->content_type,
        database::export_rows(service.store, name, rows->options, std::move(rows->format)));
  });
}

}  // namespace offprint::server
