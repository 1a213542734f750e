#include "server/snapshot_download.h"

#include "server/errors.h"
#include "server/moment.h"
#include "server/piece_stream.h"

namespace offprint::server {
namespace {

PieceSource pages_of(std::unique_ptr<database::Snapshot> snapshot) {
  return [shared = std::shared_ptr(std::move(snapshot)),
          next = PageNo{1}](std::string& to) mutable -> Result<bool> {
    for (; to.size() < kPieceBytes && next <= shared->page_count(); ++next) {
      OFFPRINT_TRY_ASSIGN(ByteView page, shared->page(next));
      to += as_text(page);
    }
    return next <= shared->page_count();
  };
}

}  // namespace

void handle_snapshot(Service& service, const database::DatabaseName& name,
                     const HttpRequest& request, Responder responder) {
  std::optional<database::Moment> at;
  if (std::string_view text = request.header("Offprint-At"); !text.empty()) {
    auto parsed = parse_moment(text);
    if (!parsed) return responder.respond(structured_error(parsed.error()));
    at = *std::move(parsed);
  }
  respond_from_helper(service, std::move(responder), [&service, name, at] {
    Result<std::unique_ptr<database::Snapshot>> snapshot =
        at ? service.store.snapshot_at(name, *at) : service.store.snapshot(name);
    if (!snapshot) return structured_error(snapshot.error());
    Response response;
    response.content_type = "application/vnd.sqlite3";
    response.headers = answer_headers(service, name, (*snapshot)->position().bookmark());
    response.stream_length = std::uint64_t{(*snapshot)->page_size()} * (*snapshot)->page_count();
    response.stream = make_piece_stream(service, pages_of(*std::move(snapshot)));
    return response;
  });
}

}  // namespace offprint::server
