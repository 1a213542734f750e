#include "server/d1_time_travel.h"

#include <optional>
#include <string>

#include "server/d1_envelope.h"
#include "server/history_api.h"
#include "server/moment.h"

namespace offprint::server::d1 {
namespace {

// There a moment that is not known is a bad request.
Response refused(const Error& error) {
  if (error.code() == Code::kNotFound) return rest_error(Error(Code::kInvalid, error.message()));
  return rest_error(error);
}

// What 'timestamp' or 'bookmark' say; nothing without either.
Result<std::optional<database::Moment>> asked_moment(const Address& address) {
  if (auto timestamp = address.parameter("timestamp")) {
    auto moment = parse_moment(*timestamp);
    if (!moment || !std::holds_alternative<database::AtTime>(*moment)) {
      return fail(Code::kInvalid, "'timestamp' must be a time such as 2026-01-02T03:04:05Z, not '" +
                                      std::string(timestamp->substr(0, 40)) + "'");
    }
    return std::optional(*moment);
  }
  auto text = address.parameter("bookmark");
  if (!text) return std::optional<database::Moment>();
  auto bookmark = Bookmark::parse(*text);
  if (!bookmark) return fail(Code::kInvalid, "'" + std::string(*text) + "' is no bookmark");
  return std::optional(database::Moment(*bookmark));
}

}  // namespace

void time_travel_bookmark(Service& service, const database::DatabaseName& name,
                          const Address& address, Responder responder) {
  auto asked = asked_moment(address);
  if (!asked) return responder.respond(rest_error(asked.error()));
  respond_from_helper(service, std::move(responder), [&service, name, moment = *asked] {
    auto bookmark = [&]() -> Result<Bookmark> {
      if (moment) return service.store.bookmark_of(name, *moment);
      OFFPRINT_TRY_ASSIGN(auto info, service.store.info(name));
      return info.bookmark;
    }();
    if (!bookmark) return refused(bookmark.error());
    return rest_result("{\"bookmark\":\"" + bookmark->text() + "\"}");
  });
}

void time_travel_restore(Service& service, const database::DatabaseName& name,
                         const Address& address, Responder responder) {
  auto asked = asked_moment(address);
  if (!asked) return responder.respond(rest_error(asked.error()));
  if (!*asked) {
    return responder.respond(
        rest_error(Error(Code::kInvalid, "'bookmark' or 'timestamp' is missing")));
  }
  respond_from_helper(service, std::move(responder), [&service, name, moment = **asked] {
    auto restored = restore_in_place(service, name, moment);
    if (!restored) return refused(restored.error());
    return rest_result("{\"bookmark\":\"" + restored->bookmark.text() +
                       "\",\"previous_bookmark\":\"" + restored->previous.text() +
                       "\",\"message\":\"The database is what it was; previous_bookmark undoes "
                       "this.\"}");
  });
}

}  // namespace offprint::server::d1
