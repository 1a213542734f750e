#include "publication/publication_guard.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/consumer_reads.h"
#include "publication/plan.h"

namespace offprint::publication {
namespace {

using database::StoredConsumer;
using database::StoredPublication;

constexpr std::chrono::seconds kKnownWithin{2};
constexpr const char* kOtherColumns = "its columns would be others";

std::string without_word(std::string why) {
  constexpr std::string_view kRefused = "PUBLICATION_REFUSED: ";
  if (why.starts_with(kRefused)) why.erase(0, kRefused.size());
  return why;
}

std::string address_of(const StoredPublication& publication) {
  return fmt::format("{}@v{}", publication.name, publication.version);
}

// Of those that are registered with it.
std::string told_of_consumers(sqlite::Connection& changed, const StoredPublication& publication,
                              const std::vector<StoredConsumer>& consumers) {
  auto definition = parse_definition(publication.definition);
  std::vector<std::string> hit, all;
  for (const StoredConsumer& each : consumers) {
    if (each.publication != publication.name || each.version != publication.version) continue;
    all.push_back(each.name);
    if (definition && !still_reads(changed, *definition, each)) hit.push_back(each.name);
  }
  if (all.empty()) return "No consumer is registered with it.";
  if (hit.empty()) return fmt::format("Registered with it: {}.", fmt::join(all, ", "));
  return fmt::format("Of its registered consumers it hits {}.", fmt::join(hit, ", "));
}

// What a part is with this schema.
Result<std::string> hash_of(sqlite::Connection& source, const GuardedPart& part) {
  OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(part.definition));
  auto plan = make_plan(source, definition);
  if (plan) return plan->hash;
  return fail(Code::kInvalid, without_word(plan.error().message()));
}

// As broken() says it, for check(): with nothing behind it, the part does not fit.
std::string marked(const GuardedPart& part, const Result<std::string>& hash) {
  return part.address + "\n" + part.definition + "\n" + hash.value_or("");
}

}  // namespace

Fit fit_of(sqlite::Connection& source, const StoredPublication& publication) {
  auto definition = parse_definition(publication.definition);
  if (!definition) return {definition.error().message()};
  auto plan = make_plan(source, *definition);
  if (!plan) return {without_word(plan.error().message())};
  if (plan->hash != publication.hash) return {kOtherColumns};
  return {{}, std::move(plan->read_whole)};
}

std::string why_broken(sqlite::Connection& source, const StoredPublication& publication) {
  return fit_of(source, publication).broken;
}

void PublicationGuard::set(std::uint64_t database_id, std::vector<StoredPublication> publications,
                           std::vector<StoredConsumer> consumers, std::vector<GuardedPart> parts) {
  std::erase_if(publications, [](const StoredPublication& each) { return !each.is_live(); });
  std::lock_guard lock(mutex_);
  Live& own = live_[database_id];
  own.publications = std::move(publications);
  own.consumers = std::move(consumers);
  for (auto& [id, live] : live_) live.parts.erase(database_id);
  for (GuardedPart& part : parts)
    live_[part.source_id].parts[database_id].push_back(std::move(part));
  std::erase_if(live_, [](const auto& each) { return each.second.is_empty(); });
}

void PublicationGuard::forget() {
  std::lock_guard lock(mutex_);
  knows_ = false;
  live_.clear();
}

void PublicationGuard::knows() {
  {
    std::lock_guard lock(mutex_);
    knows_ = true;
  }
  known_.notify_all();
}

bool PublicationGuard::guards(std::uint64_t database_id) const {
  std::unique_lock lock(mutex_);
  known_.wait_for(lock, kKnownWithin, [&] { return knows_; });
  return !knows_ || live_.contains(database_id);
}

PublicationGuard::Live PublicationGuard::live_of(std::uint64_t database_id) const {
  std::lock_guard lock(mutex_);
  auto found = live_.find(database_id);
  return found == live_.end() ? Live() : found->second;
}

std::vector<std::string> PublicationGuard::broken(std::uint64_t database_id,
                                                  sqlite::Connection& current) {
  std::vector<std::string> broken;
  const Live live = live_of(database_id);
  for (const StoredPublication& each : live.publications) {
    if (!why_broken(current, each).empty()) broken.push_back(address_of(each));
  }
  for (const auto& [id, parts] : live.parts) {
    // What it is now, it must remain.
    for (const GuardedPart& part : parts) broken.push_back(marked(part, hash_of(current, part)));
  }
  return broken;
}

Result<> PublicationGuard::check(std::uint64_t database_id, sqlite::Connection& changed,
                                 const std::vector<std::string>& broken) {
  {
    std::lock_guard lock(mutex_);
    if (!knows_) {
      return fail(Code::kUnavailable,
                  "PUBLICATIONS_UNKNOWN: what is published is not known here yet; try again");
    }
  }
  const Live live = live_of(database_id);
  for (const StoredPublication& each : live.publications) {
    if (std::ranges::find(broken, address_of(each)) != broken.end()) continue;
    const std::string why = why_broken(changed, each);
    if (why.empty()) continue;
    return fail(
        Code::kConflict,
        fmt::format("PUBLICATION_BROKEN: {0} is published with what this takes away "
                    "({1}). {2} Publish a further version and retire this one when nobody "
                    "reads it any more, or break it (Offprint-Break: yes; sql --break)",
                    address_of(each), why, told_of_consumers(changed, each, live.consumers)));
  }
  return check_parts(live, changed, broken);
}

Result<> PublicationGuard::check_parts(const Live& live, sqlite::Connection& changed,
                                       const std::vector<std::string>& before) const {
  for (const auto& [id, parts] : live.parts) {
    for (const GuardedPart& part : parts) {
      const auto hash = hash_of(changed, part);
      const bool was_broken =
          std::ranges::find(before, marked(part, fail(Code::kInvalid, ""))) != before.end();
      const bool is_same = std::ranges::find(before, marked(part, hash)) != before.end();
      if (was_broken || (hash && is_same)) continue;
      return fail(
          Code::kConflict,
          fmt::format("PUBLICATION_BROKEN: {} takes of this database what this takes away ({}). "
                      "{} Publish a further version there and retire this one when nobody reads "
                      "it any more, or break it (Offprint-Break: yes; sql --break)",
                      part.address, hash ? kOtherColumns : hash.error().message(),
                      part.consumers.empty() ? "No consumer is registered with it."
                                             : fmt::format("Registered with it: {}.",
                                                           fmt::join(part.consumers, ", "))));
    }
  }
  return {};
}

}  // namespace offprint::publication
