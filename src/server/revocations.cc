#include "server/revocations.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace offprint::server {
namespace {

constexpr std::size_t kEntriesMax = 100'000;
constexpr std::size_t kNewestMax = 1'000;  // for those who have seen all but a few

}  // namespace

Result<std::unique_ptr<Revocations>> Revocations::load(database::Store& store) {
  std::unique_ptr<Revocations> made(new Revocations(store));
  OFFPRINT_TRY_ASSIGN(auto kept, store.revocations());
  for (const auto& revocation : kept) made->apply(revocation);
  return made;
}

Result<> Revocations::add(const database::Revocation& revocation) {
  {
    std::lock_guard lock(mutex_);
    if (is_known(revocation)) return {};
    if (tokens_.size() + not_before_.size() >= kEntriesMax) {
      return fail(Code::kTooLarge,
                  "too many entries: revoke all tokens of a database that are older than a time");
    }
  }
  OFFPRINT_TRY(store_.revoke(revocation));
  apply(revocation);
  return {};
}

Result<> Revocations::take_kept() {
  OFFPRINT_TRY_ASSIGN(Position at, store_.position(database::DatabaseName::catalog()));
  if (taken_ == at.bookmark()) return {};
  OFFPRINT_TRY_ASSIGN(auto kept, store_.revocations());
  for (const auto& revocation : kept) {
    bool is_new = false;
    {
      std::lock_guard lock(mutex_);
      is_new = !is_known(revocation);
    }
    if (is_new) apply(revocation);
  }
  taken_ = at.bookmark();
  return {};
}

void Revocations::apply(const database::Revocation& revocation) {
  std::lock_guard lock(mutex_);
  if (!revocation.token_id.empty()) {
    std::int64_t& until = tokens_[revocation.token_id];
    until = std::max(until, revocation.until_s);
    std::int64_t now = unix_time_ms() / 1000;
    std::erase_if(tokens_, [&](const auto& item) { return item.second <= now; });
  } else {
    std::int64_t& before = not_before_[revocation.database];
    before = std::max(before, revocation.not_before_s);
  }
  newest_.push_back(revocation);
  if (newest_.size() > kNewestMax) newest_.pop_front();
  count_.fetch_add(1, std::memory_order_release);
  none_.store(false, std::memory_order_release);
}

bool Revocations::is_known(const database::Revocation& revocation) const {
  bool is_token = !revocation.token_id.empty();
  if (is_token && revocation.until_s <= unix_time_ms() / 1000) return true;  // it has expired
  const auto& kept = is_token ? tokens_ : not_before_;
  auto found = kept.find(is_token ? revocation.token_id : revocation.database);
  return found != kept.end() &&
         found->second >= (is_token ? revocation.until_s : revocation.not_before_s);
}

std::vector<database::Revocation> Revocations::list() const {
  std::lock_guard lock(mutex_);
  return list_locked();
}

std::vector<database::Revocation> Revocations::list_after(std::uint64_t& seen) const {
  if (count_.load(std::memory_order_acquire) == seen) return {};
  std::lock_guard lock(mutex_);
  std::uint64_t missed = count_.load(std::memory_order_relaxed) - std::exchange(seen, count_);
  if (missed > newest_.size()) return list_locked();
  return {newest_.end() - static_cast<std::ptrdiff_t>(missed), newest_.end()};
}

std::vector<database::Revocation> Revocations::list_locked() const {
  std::vector<database::Revocation> all;
  for (const auto& [id, until] : tokens_) all.push_back({id, until, {}, 0});
  for (const auto& [name, before] : not_before_) all.push_back({{}, 0, name, before});
  return all;
}

bool Revocations::is_revoked(std::string_view token_id) const {
  if (none()) return false;
  std::lock_guard lock(mutex_);
  return tokens_.contains(token_id);
}

std::int64_t Revocations::not_before_s(std::string_view database) const {
  if (none()) return 0;
  std::lock_guard lock(mutex_);
  auto found = not_before_.find(database);
  return found == not_before_.end() ? 0 : found->second;
}

}  // namespace offprint::server
