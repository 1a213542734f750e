// Of Materialiser: which instances it keeps, and how they come back.
#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "publication/materialiser.h"
#include "publication/row.h"
#include "sqlite/page_apply.h"

namespace offprint::publication {
namespace {

constexpr std::size_t kMissedMax = 10'000;  // transactions; beyond, all of it is compared

}  // namespace

// What plans and trees follow from.
Result<std::string> Materialiser::schema_of(SourceState& state) {
  std::set<std::string> reads;
  for (const auto& [key, published] : published_) {
    for (const ItemPlan& item : published.plan.items)
      reads.insert(item.reads.begin(), item.reads.end());
  }
  std::string text;
  OFFPRINT_TRY(
      state.rows("SELECT lower(tbl_name), type, name, rootpage, sql FROM main.sqlite_schema WHERE "
                 "type <> 'trigger' ORDER BY type, name",
                 {}, {}, [&](Row row) -> Result<> {
                   const auto* table = std::get_if<std::string>(&row[0]);
                   const bool is_view = row[1] == sqlite::Value(std::string("view"));
                   if (!is_view && table != nullptr && !reads.contains(*table)) return {};
                   for (const sqlite::Value& value : row) append_exactly(text, value);
                   return {};
                 }));
  return text;
}

// Whether what is published can go on from one to the other; other tables may have come and gone.
Result<bool> Materialiser::is_same_schema(SourceState& before, SourceState& after) {
  auto cookie = [](SourceState& state) -> Result<std::uint32_t> {
    OFFPRINT_TRY_ASSIGN(ByteView page, state.page(1));
    return load_be<std::uint32_t>(page.data() + sqlite::kSchemaCookieOffset);
  };
  OFFPRINT_TRY_ASSIGN(std::uint32_t then, cookie(before));
  OFFPRINT_TRY_ASSIGN(std::uint32_t now, cookie(after));
  if (before.bookmark().lineage != after.bookmark().lineage) return false;
  if (then == now) return true;
  const bool is_broken =
      std::ranges::any_of(published_, [](const auto& each) { return !each.second.error.empty(); });
  if (is_broken) return false;  // it may fit again
  OFFPRINT_TRY_ASSIGN(std::string schema_then, schema_of(before));
  OFFPRINT_TRY_ASSIGN(std::string schema_now, schema_of(after));
  return schema_then == schema_now;
}

// An instance of before that is behind: what was missed is told from the log, as it is of those
// that were kept. kBehind and others: that is not known.
Result<> Materialiser::resume(Instance& instance, const Published& published) {
  OFFPRINT_TRY_ASSIGN(auto from, instance.stands_at(published.plan));
  if (!from) return fail(Code::kBehind, "it is not of this definition");
  const Bookmark there = state_->bookmark();
  if (*from == there) {
    instance.stands();
    return {};
  }
  const bool is_before = from->lineage == there.lineage && from->txid < there.txid &&
                         there.txid.value - from->txid.value <= kMissedMax;
  if (!is_before) return fail(Code::kBehind, "it is of another history, or long ago");
  OFFPRINT_TRY_ASSIGN(PageSet pages, pages_between(*from, there));
  OFFPRINT_TRY_ASSIGN(auto past, SourceState::at(store_, source_, *from, &cancelled_));
  OFFPRINT_TRY_ASSIGN(bool is_same, is_same_schema(*past, *state_));
  if (!is_same) return fail(Code::kBehind, "the schema changed");
  // The trees are those of now: back, and on again. What is read is what was written meanwhile.
  Step back{*state_, *past, pages, {}, {}};
  Step missed{*past, *state_, std::move(pages), {}, {}};
  auto walked = touch(back, tables_, TreeMap::Toward::kEarlier);
  if (walked) walked = touch(missed, tables_);
  if (!walked) {
    tables_.clear();
    OFFPRINT_TRY(watch_tables(*state_));
    return walked;
  }
  instance.stands();  // else nothing would be found for it
  Routes alone;
  alone.add(instance);
  auto found = find_work(missed, published.plan, alone);
  if (found)
    found = instance.apply(missed.work[&instance].changes, missed.work[&instance].whole, *state_);
  if (!found) instance.lose();
  return found;
}

// Fills it unless it can go on from where it stood.
Result<> Materialiser::bring_up(Instance& instance, const Published& published) {
  auto resumed = resume(instance, published);
  if (resumed) {
    ++status_.resumed;
    return {};
  }
  log::debug("{} is compared as a whole: {}", instance.name().text(), resumed.error().message());
  return instance.fill(published.plan, *state_);
}

// Its database is made where it is not there.
Result<> Materialiser::make(Instance& instance, const Published& published,
                            const database::StoredPublication& publication) {
  const bool is_new = !store_.info(instance.name());
  if (is_new) {
    database::CreateOptions options;
    options.foreign_keys = false;
    OFFPRINT_TRY(store_.create(instance.name(), options));
  }
  if (!instance.is_part()) OFFPRINT_TRY(instance.set_quota(quota_of(publication)));
  if (!is_new) return bring_up(instance, published);
  auto filled = instance.fill(published.plan, *state_);
  const bool is_nothing = !filled && instance.stopped().empty();
  if (is_nothing) (void)store_.drop(instance.name());  // nobody has it, and it has nothing
  return filled;
}

// Another program changed its file, or it is damaged: it takes nothing any more. Its source has all
// that was in it. What is of several sources is not made of one.
bool Materialiser::is_spoiled(const Instance& instance) {
  if (instance.is_part()) return false;
  auto info = store_.info(instance.name());
  return info && !info->stopped.empty();
}

Result<> Materialiser::drop_spoiled(const Instance& instance) {
  log::warn("{} is made anew: its file is not what it was left as", instance.name().text());
  options_.stopped(instance.name());  // who follows it asks again
  return store_.drop(instance.name());
}

// As soon as somebody asks for them. The first error is told of those that could not be mended.
Result<> Materialiser::make_spoiled_anew() {
  Result<> done;
  for (auto& [key, published] : published_) {
    for (auto each = published.instances.begin(); each != published.instances.end();) {
      const Instance& instance = *each->second;
      if (is_spoiled(instance)) {
        OFFPRINT_TRY(drop_spoiled(instance));
        each = end_instance(published, each);
        continue;
      }
      const bool is_wrong = instance.is_stale() && instance.stopped().empty();
      if (is_wrong && done) done = fail(Code::kUnavailable, instance.error());
      ++each;
    }
  }
  return done;
}

Quota Materialiser::quota_of(const database::StoredPublication& publication) const {
  Quota quota = options_.quota;
  if (publication.size_bytes_max != 0) quota.size_bytes_max = publication.size_bytes_max;
  if (publication.rows_per_minute_max != 0)
    quota.rows_per_minute_max = publication.rows_per_minute_max;
  return quota;
}

Result<> Materialiser::set_quota(const database::StoredPublication& publication) {
  std::lock_guard lock(mutex_);
  auto published = published_.find({publication.name, publication.version});
  if (published == published_.end()) return {};
  for (const auto& [parameters, instance] : published->second.instances)
    OFFPRINT_TRY(instance->set_quota(quota_of(publication)));
  return {};
}

void Materialiser::note_outcome(Instance& instance) {
  const bool has_stopped =
      !instance.stopped().empty() || (instance.is_stale() && is_spoiled(instance));
  if (has_stopped) options_.stopped(instance.name());
  if (instance.is_stale() && !has_stopped)
    stale_.insert(&instance);
  else
    stale_.erase(&instance);
  tell(instance);
}

void Materialiser::tell(const Instance& instance) {
  std::lock_guard told(told_mutex_);
  auto kept = kept_.find(instance.name().text());
  if (kept != kept_.end() && kept->second.is_stale == instance.is_stale() &&
      kept->second.stopped == instance.stopped())
    return;
  kept_.insert_or_assign(instance.name().text(),
                         Kept{instance.label(), instance.name(), instance.is_stale(),
                              instance.stopped(), instance.is_part()});
}

void Materialiser::forget(Instance& instance) {
  {
    std::lock_guard told(told_mutex_);
    kept_.erase(instance.name().text());
  }
  stale_.erase(&instance);
  by_name_.erase(instance.name().text());
}

Materialiser::Instances::iterator Materialiser::end_instance(Published& published,
                                                             Instances::iterator instance) {
  published.routes.remove(*instance->second);
  forget(*instance->second);
  return published.instances.erase(instance);
}

std::optional<Bookmark> Materialiser::reached(const std::string& instance) {
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || !state_) return std::nullopt;
  auto found = by_name_.find(instance);
  if (found == by_name_.end()) return std::nullopt;
  const auto& [published, kept] = found->second;
  const bool is_there = published->error.empty() && !kept->is_stale();
  return is_there ? std::optional(state_->bookmark()) : std::nullopt;
}

bool Materialiser::keeps_any() {
  std::lock_guard lock(mutex_);
  return !published_.empty();
}

Result<> Materialiser::let_go(const std::set<std::string>& instances) {
  std::lock_guard lock(mutex_);
  for (auto& [key, published] : published_) {
    for (auto each = published.instances.begin(); each != published.instances.end();) {
      if (instances.contains(each->second->name().text())) {
        each = end_instance(published, each);
      } else {
        ++each;
      }
    }
  }
  std::erase_if(published_, [](const auto& each) { return each.second.instances.empty(); });
  if (!published_.empty()) return {};
  state_ = nullptr;
  spare_ = nullptr;
  tables_.clear();
  return {};
}

Result<> Materialiser::drop_idle(const std::set<std::string>& dropped) {
  std::lock_guard lock(mutex_);
  std::set<std::string> kept;
  for (const auto& [key, published] : published_) {
    for (const auto& [parameters, instance] : published.instances)
      kept.insert(instance->name().text());
  }
  for (const std::string& text : dropped) {
    if (kept.contains(text)) continue;  // somebody asked for it meanwhile
    OFFPRINT_TRY_ASSIGN(auto name, database::DatabaseName::stored(text));
    OFFPRINT_TRY(store_.drop(name));
  }
  return {};
}

}  // namespace offprint::publication
