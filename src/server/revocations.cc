#include "server/revocations.h"

#include <algorithm>

#include "base/clock.h"

namespace offprint::server {
namespace {

constexpr std::size_t kEntriesMax = 100'000;

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
    if (tokens_.size() + not_before_.size() >= kEntriesMax) {
      return fail(Code::kTooLarge,
                  "too many entries: revoke all tokens of a database that are older than a time");
    }
  }
  OFFPRINT_TRY(store_.revoke(revocation));
  apply(revocation);
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
  none_.store(false, std::memory_order_release);
}

std::vector<database::Revocation> Revocations::list() const {
  std::vector<database::Revocation> all;
  std::lock_guard lock(mutex_);
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
