#include "server/service.h"

namespace offprint::server {

Result<std::optional<Bookmark>> read_position(const HttpRequest& request) {
  std::string_view mode = request.header("Offprint-Read");
  std::string_view text = request.header("Offprint-Bookmark");
  if (!mode.empty() && mode != "primary" && mode != "any") text = mode;
  if (text.empty()) return std::optional<Bookmark>();
  auto bookmark = Bookmark::parse(text);
  if (!bookmark) return fail(Code::kInvalid, "'" + std::string(text) + "' is no bookmark");
  return std::optional<Bookmark>(bookmark);
}

std::string answer_headers(const Service& service, const Bookmark& bookmark) {
  std::string text;
  if (bookmark.lineage != Lineage()) {  // of no database: it was not found
    text += "Offprint-Bookmark: ";
    text += bookmark.text();
    text += "\r\n";
  }
  text += "Offprint-Served-By: ";
  text += service.options.node_name;
  text += "\r\n";
  return text;
}

void respond_from_helper(const Service& service, Responder responder,
                         std::function<Response()> make) {
  // std::function wants something that can be copied.
  auto shared = std::make_shared<Responder>(std::move(responder));
  service.store.post_blocking([shared, make = std::move(make)] { shared->respond(make()); });
}

}  // namespace offprint::server
