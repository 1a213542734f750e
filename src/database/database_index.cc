#include "database/database_index.h"

#include <mutex>

namespace offprint::database {

DatabaseIndex::Database DatabaseIndex::find(const std::string& name) const {
  std::shared_lock lock(mutex_);
  auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

DatabaseIndex::Database DatabaseIndex::find(std::uint64_t id) const {
  std::shared_lock lock(mutex_);
  auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

std::vector<DatabaseIndex::Database> DatabaseIndex::all() const {
  std::shared_lock lock(mutex_);
  std::vector<Database> result;
  result.reserve(by_name_.size());
  for (const auto& [name, database] : by_name_) result.push_back(database);
  return result;
}

std::vector<DatabaseIndex::Database> DatabaseIndex::list(const std::string& prefix,
                                                         const std::string& after,
                                                         std::size_t limit,
                                                         const std::string& contains) const {
  std::vector<Database> chosen;
  std::shared_lock lock(mutex_);
  auto at = after < prefix ? by_name_.lower_bound(prefix) : by_name_.upper_bound(after);
  const bool wants_states = is_state_name(prefix);
  while (at != by_name_.end() && chosen.size() < limit && at->first.starts_with(prefix)) {
    if (!wants_states && is_state_name(at->first)) {  // they stand together
      at = by_name_.lower_bound(std::string(1, kStateNames + 1));
      continue;
    }
    if (at->first.find(contains) != std::string::npos) chosen.push_back(at->second);
    ++at;
  }
  return chosen;
}

std::size_t DatabaseIndex::size() const {
  std::shared_lock lock(mutex_);
  return by_name_.size() - states_;
}

void DatabaseIndex::add(const Database& database) {
  const HostedDatabase::Identity& identity = database->identity();
  {
    std::unique_lock lock(mutex_);
    Database& place = by_name_[identity.name];
    if (place) by_id_.erase(place->identity().id);
    if (!place && is_state_name(identity.name)) ++states_;
    place = database;
    by_id_[identity.id] = database;
  }
  if (!is_state_name(identity.name)) subscribers_.call(identity.name);
}

bool DatabaseIndex::remove(const Database& database) {
  const HostedDatabase::Identity& identity = database->identity();
  std::unique_lock lock(mutex_);
  auto found = by_name_.find(identity.name);
  if (found == by_name_.end() || found->second != database) return false;
  by_name_.erase(found);
  if (is_state_name(identity.name)) --states_;
  by_id_.erase(identity.id);
  return true;
}

}  // namespace offprint::database
