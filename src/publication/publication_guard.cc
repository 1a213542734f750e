#include "publication/publication_guard.h"

#include <fmt/format.h>

#include "publication/plan.h"

namespace offprint::publication {

using database::StoredPublication;

void PublicationGuard::set(std::uint64_t database_id, std::vector<StoredPublication> publications) {
  std::erase_if(publications, [](const StoredPublication& each) { return !each.is_live(); });
  std::lock_guard lock(mutex_);
  if (publications.empty())
    live_.erase(database_id);
  else
    live_[database_id] = std::move(publications);
}

bool PublicationGuard::guards(std::uint64_t database_id) const {
  std::lock_guard lock(mutex_);
  return live_.contains(database_id);
}

Result<> PublicationGuard::check(std::uint64_t database_id, sqlite::Connection& changed) {
  std::vector<StoredPublication> live;
  {
    std::lock_guard lock(mutex_);
    if (auto found = live_.find(database_id); found != live_.end()) live = found->second;
  }
  for (const StoredPublication& each : live) {
    OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(each.definition));
    auto plan = make_plan(changed, definition);
    if (plan && plan->hash == each.hash) continue;
    std::string why = plan ? "its columns would be others" : plan.error().message();
    constexpr std::string_view kRefused = "PUBLICATION_REFUSED: ";
    if (why.starts_with(kRefused)) why.erase(0, kRefused.size());
    return fail(Code::kConflict,
                fmt::format("PUBLICATION_BROKEN: {0}@v{1} is published with what this takes away "
                            "({2}). Publish a further version and retire this one when nobody "
                            "reads it any more, or break it (Offprint-Break: yes; sql --break)",
                            each.name, each.version, why));
  }
  return {};
}

}  // namespace offprint::publication
