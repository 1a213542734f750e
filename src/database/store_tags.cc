// States with names. A single node keeps each in a file of its own; in a cluster it is a database,
// which is filled, taken by nodes that join, and dropped as others are.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "database/store_impl.h"

namespace offprint::database {

Result<TagInfo> StoreImpl::add_tag(const DatabaseName& name, const std::string& tag,
                                   Snapshot& state) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  if (!is_clustered()) return tags_->add(database->identity().id, tag, state);
  OFFPRINT_TRY(Tags::check(tag, state));
  TagInfo info;
  info.tag = tag;
  info.bookmark = state.position().bookmark();
  info.created_at_ms = unix_time_ms();
  Catalog::Beginning beginning;
  beginning.tag = info;
  beginning.tag_of = database->identity().id;
  OFFPRINT_TRY_ASSIGN(info.size_bytes, add_state(*database, tag, std::move(beginning), state));
  return info;
}

// Answers what it takes on the disk.
Result<std::uint64_t> StoreImpl::add_state(const HostedDatabase& of, const std::string& tag,
                                           Catalog::Beginning beginning, Snapshot& state) {
  const std::uint64_t id = of.identity().id;
  CreateOptions options = of.identity().options;
  options.page_size = state.page_size();
  options.tails.clear();
  beginning.at = state.position().bookmark();
  beginning.filled = true;
  OFFPRINT_TRY(add_filled(
      Tags::state_name(id, tag), options, beginning,
      [&](HostedDatabase& database) { return fill_from(database, state.position(), state); }));
  const std::uint64_t bytes = std::uint64_t{state.page_size()} * state.page_count();
  // Who keeps the list elsewhere, as an archive does, takes the state with this change. The tag is
  // there in any case.
  if (auto noted = catalog_->set_tag_size(id, tag, bytes); !noted)
    log::warn("tag '{}' of '{}': {}", tag, of.identity().name, noted.error().message());
  return bytes;
}

Result<> StoreImpl::remove_tag(const DatabaseName& name, const std::string& tag) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  const std::uint64_t id = database->identity().id;
  OFFPRINT_TRY(find_tag(id, tag));
  if (auto state = state_of(id, tag)) return drop_database(state);
  return tags_->remove(id, tag);
}

Result<std::vector<TagInfo>> StoreImpl::tags(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return tags_of(database->identity().id);
}

// Those that are there as a whole.
Result<std::vector<TagInfo>> StoreImpl::tags_of(std::uint64_t id) {
  OFFPRINT_TRY_ASSIGN(auto all, catalog_->tags(id));
  std::erase_if(all, [&](const TagInfo& tag) { return is_unmade(id, tag.tag); });
  return all;
}

bool StoreImpl::is_unmade(std::uint64_t id, const std::string& tag) {
  auto state = state_of(id, tag);
  return state && state->is_being_filled() && !tags_->has_file(id, tag);
}

Result<TagInfo> StoreImpl::find_tag(std::uint64_t id, const std::string& tag) {
  if (is_unmade(id, tag))
    return fail(Code::kNotFound, fmt::format("tag '{}' is not there yet", tag));
  return tags_->find(id, tag);
}

Result<std::unique_ptr<Snapshot>> StoreImpl::open_tag(std::uint64_t id, const TagInfo& tag) {
  auto state = state_of(id, tag.tag);
  return state && !state->is_being_filled() ? state->snapshot() : tags_->open(id, tag);
}

std::shared_ptr<HostedDatabase> StoreImpl::state_of(std::uint64_t id, const std::string& tag) {
  return index_.find(Tags::state_name(id, tag));
}

std::vector<std::shared_ptr<HostedDatabase>> StoreImpl::states_of(std::uint64_t id) {
  return index_.list(Tags::state_prefix(id), "", std::numeric_limits<std::size_t>::max(), "");
}

// What this node has of its time alone becomes what the cluster has.
void StoreImpl::list_own_tags() {
  auto all = catalog_->all_tags();
  if (!all) return log::warn("tags: {}", all.error().message());
  for (const auto& [id, tag] : *all) {
    auto database = index_.find(id);
    if (!database || state_of(id, tag) || !tags_->has_file(id, tag)) continue;
    auto moved = [&]() -> Result<> {
      OFFPRINT_TRY_ASSIGN(TagInfo info, tags_->find(id, tag));
      OFFPRINT_TRY_ASSIGN(auto state, tags_->open(id, info));
      OFFPRINT_TRY(add_state(*database, tag, {}, *state));
      return tags_->remove_file(id, tag);
    }();
    if (!moved)
      log::warn("tag '{}' of database '{}' stays this node's: {}", tag, database->identity().name,
                moved.error().message());
  }
}

}  // namespace offprint::database
