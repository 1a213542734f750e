#include "server/d1_time_travel.h"

#include <string>

#include "base/clock.h"
#include "server/d1_envelope.h"
#include "server/json_writer.h"

namespace offprint::server::d1 {
namespace {

// When the newest transaction was committed; nothing when the log no longer says.
std::optional<std::int64_t> newest_commit_ms(const Service& service,
                                             const database::DatabaseInfo& info) {
  if (info.bookmark.txid == TxId{0}) return info.created_at_ms;
  Bookmark before = info.bookmark;
  before.txid = TxId{before.txid.value - 1};
  auto name = database::DatabaseName::parse(info.name);
  if (!name) return std::nullopt;
  auto entries = service.store.log_after(*name, before, 1);
  if (!entries || entries->empty()) return std::nullopt;
  return entries->front().timestamp_ms;
}

std::unexpected<Error> too_old() {
  return fail(Code::kInvalid,
              "HISTORY_UNAVAILABLE: only the newest state of a database is kept here; an earlier "
              "one can be neither named nor restored");
}

// Where the database stood at a time.
Result<Bookmark> bookmark_at(const Service& service, const database::DatabaseInfo& info,
                             std::string_view timestamp) {
  auto time = parse_rfc3339(timestamp);
  if (!time) {
    return fail(Code::kInvalid, "'timestamp' must be a time such as 2026-01-02T03:04:05Z, not '" +
                                    std::string(timestamp.substr(0, 40)) + "'");
  }
  auto newest = newest_commit_ms(service, info);
  if (*time >= unix_time_ms() || (newest && *time >= *newest)) return info.bookmark;
  return too_old();
}

}  // namespace

Response time_travel_bookmark(const Service& service, const database::DatabaseName& name,
                              const Address& address) {
  auto info = service.store.info(name);
  if (!info) return rest_error(info.error());
  Result<Bookmark> bookmark = info->bookmark;
  if (auto timestamp = address.parameter("timestamp"))
    bookmark = bookmark_at(service, *info, *timestamp);
  if (!bookmark) return rest_error(bookmark.error());
  return rest_result("{\"bookmark\":\"" + bookmark->text() + "\"}");
}

Response time_travel_restore(const Service& service, const database::DatabaseName& name,
                             const Address& address) {
  auto info = service.store.info(name);
  if (!info) return rest_error(info.error());
  auto asked = [&]() -> Result<Bookmark> {
    if (auto timestamp = address.parameter("timestamp"))
      return bookmark_at(service, *info, *timestamp);
    auto text = address.parameter("bookmark");
    if (!text) return fail(Code::kInvalid, "'bookmark' or 'timestamp' is missing");
    auto bookmark = Bookmark::parse(*text);
    if (!bookmark) return fail(Code::kInvalid, "'" + std::string(*text) + "' is no bookmark");
    return *bookmark;
  }();
  if (!asked) return rest_error(asked.error());
  if (*asked != info->bookmark) return rest_error(too_old().error());
  std::string text = info->bookmark.text();
  return rest_result(
      "{\"bookmark\":\"" + text + "\",\"previous_bookmark\":\"" + text +
      "\",\"message\":\"The database has this state already; nothing was changed.\"}");
}

}  // namespace offprint::server::d1
