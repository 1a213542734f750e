#include "cluster/coordinator_table.h"

#include "base/assert.h"

namespace offprint::cluster {
namespace {

template <class Map>
void collect(const Map& from, const std::string& prefix, std::map<std::string, RegisterEntry>& to) {
  for (auto it = from.lower_bound(prefix); it != from.end() && it->first.starts_with(prefix); ++it)
    to.insert(*it);
}

}  // namespace

Result<std::vector<RegisterEntry>> RegisterTable::list(const std::string& prefix) {
  std::lock_guard lock(mutex_);
  if (failure_) return fail(*failure_);
  std::map<std::string, RegisterEntry> sorted;
  collect(state_.entries, prefix, sorted);
  collect(announced_, prefix, sorted);
  std::vector<RegisterEntry> all;
  for (auto& [key, entry] : sorted) all.push_back(entry);
  return all;
}

Result<std::optional<RegisterEntry>> RegisterTable::read(const std::string& key) {
  std::lock_guard lock(mutex_);
  if (failure_) return fail(*failure_);
  if (auto it = state_.entries.find(key); it != state_.entries.end()) return it->second;
  if (auto it = announced_.find(key); it != announced_.end()) return it->second;
  return std::optional<RegisterEntry>();
}

SwapResult RegisterTable::compare_and_swap(const Swap& swap) {
  std::lock_guard lock(mutex_);
  return swap_locked(swap);
}

SwapResult RegisterTable::swap_locked(const Swap& swap) {
  if (failure_) return SwapResult::failed(*failure_);
  std::optional<RegisterEntry> current;
  if (auto it = state_.entries.find(swap.key); it != state_.entries.end()) current = it->second;
  if (auto it = announced_.find(swap.key); it != announced_.end()) current = it->second;
  if ((current ? current->version : 0) != swap.expected_version)
    return SwapResult::refused(current);
  State next = state_;
  RegisterEntry entry{swap.key, swap.value, ++next.revision};
  next.entries[swap.key] = entry;
  if (save_) {
    if (auto saved = save_(next); !saved) {
      failure_ = saved.error().with_context("the register could not be saved; restart the node");
      return SwapResult::unknown(*failure_);
    }
  }
  state_ = std::move(next);
  announced_.erase(swap.key);
  tell({entry.key, entry.value, entry.version});
  return SwapResult::applied(entry.version);
}

void RegisterTable::announce(const std::string& key, const std::string& value) {
  std::lock_guard lock(mutex_);
  auto it = announced_.find(key);
  if (it != announced_.end() && it->second.value == value) return;
  RegisterEntry entry{key, value, ++state_.revision};
  announced_[key] = entry;
  tell({key, value, entry.version});
}

void RegisterTable::forget(const std::string& key) {
  std::lock_guard lock(mutex_);
  if (announced_.erase(key) == 0) return;
  tell({key, std::nullopt, ++state_.revision});
}

std::uint64_t RegisterTable::add_listener(std::string prefix, Listener listener) {
  std::lock_guard lock(mutex_);
  std::map<std::string, RegisterEntry> present;
  collect(state_.entries, prefix, present);
  collect(announced_, prefix, present);
  for (const auto& [key, entry] : present) listener({key, entry.value, entry.version});
  listeners_[++next_listener_] = {std::move(prefix), std::move(listener)};
  return next_listener_;
}

void RegisterTable::remove_listener(std::uint64_t id) {
  std::lock_guard lock(mutex_);
  listeners_.erase(id);
}

void RegisterTable::tell(const RegisterHint& hint) {
  for (const auto& [id, watcher] : listeners_) {
    if (hint.key.starts_with(watcher.prefix)) watcher.listener(hint);
  }
}

void RegisterTable::hold(Swap swap) {
  std::lock_guard lock(mutex_);
  held_.push_back(std::move(swap));
}

std::size_t RegisterTable::held() {
  std::lock_guard lock(mutex_);
  return held_.size();
}

SwapResult RegisterTable::land_held() {
  std::lock_guard lock(mutex_);
  OFFPRINT_ASSERT(!held_.empty());
  Swap swap = std::move(held_.front());
  held_.erase(held_.begin());
  return swap_locked(swap);
}

void RegisterTable::drop_held() {
  std::lock_guard lock(mutex_);
  OFFPRINT_ASSERT(!held_.empty());
  held_.erase(held_.begin());
}

}  // namespace offprint::cluster
