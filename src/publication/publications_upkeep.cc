// Of Publications: who uses instances, and what becomes of those that nobody uses.
#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/log.h"
#include "publication/publications.h"

namespace offprint::publication {

using database::DatabaseName;

class Publications::InstanceLease final : public Lease {
 public:
  explicit InstanceLease(std::shared_ptr<Use> use) : use_(std::move(use)) {
    std::lock_guard lock(use_->mutex);
    ++use_->leases;
  }
  ~InstanceLease() override {
    std::lock_guard lock(use_->mutex);
    --use_->leases;
    use_->last = SteadyClock::now();
  }
  InstanceLease(const InstanceLease&) = delete;
  InstanceLease& operator=(const InstanceLease&) = delete;
  bool goes_on() const override { return !use_->is_over(); }

 private:
  const std::shared_ptr<Use> use_;
};

std::unique_ptr<Publications::Lease> Publications::lease(const DatabaseName& source,
                                                         const DatabaseName& instance) {
  std::shared_ptr<Use> use;
  std::lock_guard lock(mutex_);
  each_keeper(source, [&](Source& keeper) {
    auto found = keeper.uses.find(instance.text());
    if (found == keeper.uses.end()) return false;
    use = found->second;
    return true;
  });
  if (!use) {  // it was dropped, or let go just now: what streams from it ends
    use = std::make_shared<Use>();
    use->has_stopped = true;
  }
  return std::make_unique<InstanceLease>(std::move(use));
}

// Who asks again is told why; what streams from it ends.
void Publications::note_stop(const std::string& source, const DatabaseName& instance) {
  std::lock_guard lock(mutex_);
  auto found = sources_.find(source);
  if (found == sources_.end()) return;
  std::erase_if(found->second.open, [&](const auto& each) { return each.second == instance; });
  auto use = found->second.uses.find(instance.text());
  if (use == found->second.uses.end()) return;
  std::lock_guard use_lock(use->second->mutex);
  use->second->has_stopped = true;
}

void Publications::let_go_of_unused() {
  const Deadline until = SteadyClock::now() - options_.rest_instance_after;
  std::vector<Idle> idle;
  {
    std::lock_guard lock(mutex_);
    for (auto& [name, source] : sources_) {
      std::set<std::string> names;
      std::erase_if(source.uses, [&, &found = source](const auto& each) {
        std::lock_guard use_lock(each.second->mutex);
        const auto instance = DatabaseName::stored(each.first);
        const bool is_gone = instance && !store_.info(*instance);
        const bool is_used = each.second->leases > 0 || each.second->last > until;
        if (is_used && !is_gone) return false;
        each.second->has_stopped = true;  // for whoever comes with it later
        names.insert(each.first);
        unused_.emplace(each.first, SteadyClock::now());
        std::erase_if(found.open,
                      [&](const auto& open) { return open.second.text() == each.first; });
        return true;
      });
      if (!names.empty() && source.uses.empty()) source.leases.clear();
      if (!names.empty()) idle.push_back({source.id, name, source.materialiser, std::move(names)});
    }
  }
  for (Idle& each : idle) {
    const std::uint64_t id = each.id;
    pool_.post(id, [this, its = std::move(each)] { let_go(its); });
  }
}

void Publications::let_go(const Idle& idle) {
  if (auto done = idle.materialiser->let_go(idle.instances); !done)
    log::warn("instances: {}", done.error().message());
  let_go_ += idle.instances.size();
  // Who asked in between has one that is not kept up: he asks again.
  for (const std::string& name : idle.instances) {
    if (auto instance = DatabaseName::stored(name)) note_stop(idle.source, *instance);
  }
  std::lock_guard lock(mutex_);
  auto found = sources_.find(idle.source);
  if (found == sources_.end()) return;
  for (const std::string& name : idle.instances) found->second.uses.erase(name);
}

// Their files, too.
void Publications::drop_unused() {
  const Deadline now = SteadyClock::now();
  std::map<std::uint64_t, std::set<std::string>> gone;  // by source
  {
    std::set<std::string> there;
    std::string after;
    for (bool is_more = true; is_more;) {
      const auto instances = store_.list("@", after, 1'000, "");
      for (const auto& info : instances) there.insert(after = info.name);
      is_more = instances.size() == 1'000;
    }
    std::lock_guard lock(mutex_);
    for (const auto& [name, source] : sources_) {
      for (const auto& [instance, use] : source.uses) there.erase(instance);
    }
    std::erase_if(unused_, [&](const auto& each) { return !there.contains(each.first); });
    for (const std::string& instance : there) {
      // After a start: from then on.
      auto [since, is_new] = unused_.emplace(instance, now);
      if (is_new || since->second + options_.drop_instance_after > now) continue;
      std::uint64_t id = 0;
      std::from_chars(instance.data() + 1, instance.data() + instance.size(), id, 16);
      gone[id].insert(instance);
    }
  }
  for (auto& [id, instances] : gone) {
    {
      std::lock_guard lock(mutex_);
      if (!dropping_.insert(id).second) continue;  // they still wait for their turn
    }
    pool_.post(id, [this, source = id, its = std::move(instances)] {
      drop_unused_of(source, its);
      std::lock_guard lock(mutex_);
      dropping_.erase(source);
    });
  }
}

void Publications::drop_unused_of(std::uint64_t source, const std::set<std::string>& instances) {
  auto info = store_.info(source);
  auto name = info ? DatabaseName::parse(info->name) : Result<DatabaseName>(fail(info.error()));
  auto materialiser =
      name ? materialiser_of(*name)
           : Result<std::shared_ptr<Materialiser>>(fail(name.error()));  // an orphan's
  if (!materialiser) return;
  if (auto done = (*materialiser)->drop_idle(instances); !done)
    log::warn("instances of '{}': {}", info->name, done.error().message());
  // Those that somebody asked for meanwhile, or that were just being made, are there.
  for (const std::string& each : instances) {
    auto instance = DatabaseName::stored(each);
    if (instance && !store_.info(*instance)) ++dropped_;
  }
}

Result<PublicationInfo> Publications::set_quota(const DatabaseName& source,
                                                const PublicationName& name, const Quota& quota) {
  OFFPRINT_TRY_ASSIGN(auto info, describe(source, name));
  info.stored.size_bytes_max = quota.size_bytes_max;
  info.stored.rows_per_minute_max = quota.rows_per_minute_max;
  OFFPRINT_TRY(store_.update_publication(source, info.stored));
  auto materialiser = keeper_of(source, info);
  if (materialiser) OFFPRINT_TRY((*materialiser)->set_quota(info.stored));
  // Of several sources: nobody has asked for one yet.
  if (!materialiser && materialiser.error().code() != Code::kNotFound)
    return fail(materialiser.error());
  return info;
}

std::optional<Bookmark> Publications::reached(const DatabaseName& instance) {
  std::uint64_t id = 0;
  const std::string& text = instance.text();
  std::from_chars(text.data() + 1, text.data() + text.size(), id, 16);
  std::shared_ptr<Materialiser> materialiser;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, source] : sources_) {
      if (source.id == id) materialiser = source.materialiser;
    }
  }
  return materialiser ? materialiser->reached(text) : std::nullopt;
}

std::vector<std::pair<std::string, std::vector<Materialiser::Kept>>> Publications::instances() {
  std::vector<std::pair<std::string, std::shared_ptr<Materialiser>>> sources;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, source] : sources_) {
      if (source.materialiser)
        sources.emplace_back(source.home.empty() ? name : source.home, source.materialiser);
    }
  }
  std::vector<std::pair<std::string, std::vector<Materialiser::Kept>>> kept;
  for (const auto& [name, materialiser] : sources)
    kept.emplace_back(name, materialiser->instances());
  for (auto& [name, its] : kept)
    std::erase_if(its, [](const Materialiser::Kept& each) { return each.is_part; });
  return kept;
}

std::vector<std::shared_ptr<Materialiser>> Publications::keepers_of(const DatabaseName& source) {
  std::vector<std::shared_ptr<Materialiser>> found;
  std::lock_guard lock(mutex_);
  each_keeper(source, [&](const Source& keeper) {
    if (keeper.materialiser) found.push_back(keeper.materialiser);
    return false;
  });
  return found;
}

std::vector<Materialiser::Kept> Publications::instances_of(const DatabaseName& source) {
  std::vector<Materialiser::Kept> kept;
  for (const auto& materialiser : keepers_of(source)) {
    for (Materialiser::Kept& each : materialiser->instances()) {
      if (!each.is_part) kept.push_back(std::move(each));
    }
  }
  return kept;
}

std::optional<Materialiser::Status> Publications::status(const DatabaseName& source) {
  std::optional<Materialiser::Status> sum;
  for (const auto& materialiser : keepers_of(source)) {
    Materialiser::Status status = materialiser->status();
    if (!sum) {
      sum = std::move(status);
      continue;
    }
    sum->instances += status.instances;
    sum->stale += status.stale;
    sum->stopped += status.stopped;
    sum->transactions += status.transactions;
    sum->rows += status.rows;
    sum->refreshes += status.refreshes;
    sum->resumed += status.resumed;
    if (sum->error.empty()) sum->error = std::move(status.error);
  }
  return sum;
}

Publications::Totals Publications::totals() {
  std::vector<std::shared_ptr<Materialiser>> materialisers;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, source] : sources_) {
      if (source.materialiser) materialisers.push_back(source.materialiser);
    }
  }
  Totals totals;
  totals.let_go = let_go_;
  totals.dropped = dropped_;
  for (const auto& materialiser : materialisers) {
    const Materialiser::Status status = materialiser->status();
    totals.instances += status.instances;
    totals.stale += status.stale;
    totals.stopped += status.stopped;
  }
  return totals;
}

}  // namespace offprint::publication
