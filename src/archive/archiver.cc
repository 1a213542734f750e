#include "archive/archiver.h"

#include <algorithm>

#include <fmt/format.h>

#include "archive/history.h"
#include "archive/node_layout.h"
#include "base/log.h"

namespace offprint::archive {
namespace {

using database::DatabaseName;

constexpr std::chrono::seconds kRetryFirst{1};
// What is known of an archive is read again rather than kept for longer than this.
constexpr std::chrono::minutes kKeptInMemory{10};
constexpr std::size_t kListedAtOnce = 1'000;
// After a pause transactions of this part of an interval go together.
constexpr int kGatheredShare = 10;

// Transactions that nobody waits for any more are forgotten from so many on.
constexpr std::size_t kUrgentKept = 1'024;

bool is_there(const Bookmark& reached, const Bookmark& at) {
  return reached.lineage == at.lineage && reached.txid >= at.txid;
}

}  // namespace

Archiver::Archiver(ObjectStore& objects, database::Store& store, std::string owner,
                   ArchiverOptions options)
    : objects_(objects),
      store_(store),
      options_(std::move(options)),
      flush_ms_(options_.stop_flush_ms),
      lease_(objects, std::move(owner), options_.former_owners, options_.owners_group,
             options_.take_over, std::chrono::milliseconds(options_.lease_look_ms),
             options_.owner_taken),
      pool_(std::make_unique<database::ThreadPool>(options_.threads)),
      urgent_pool_(std::make_unique<database::ThreadPool>(options_.threads)) {
  if (!options_.tags_folder.empty())
    tags_ = std::make_unique<TagFiles>(objects_, *options_.files, options_.tags_folder, store_);
}

Archiver::~Archiver() { stop(); }

Result<> Archiver::start() {
  OFFPRINT_TRY(take_lease());
  commits_ = store_.subscribe_commits(
      [this](const std::string& name, journal::Lsn first) { note(name, first); });
  store_.hold_log([this] { return needed_from(); });
  note_what_waits();
  thread_ = std::thread([this] { run(); });
  return {};
}

// Serving does not wait for a service that does not answer.
Result<> Archiver::take_lease() {
  Result<> held = fail(Code::kUnavailable, "it does not answer");
  bool answered = false;
  lease_thread_ = std::thread([this, &held, &answered] {
    Result<> done = lease_.hold();
    std::lock_guard lock(mutex_);
    if (lease_given_up_) return;
    held = std::move(done);
    answered = true;
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(options_.start_wait_ms),
                    [&] { return answered; });
  lease_given_up_ = true;
  if (!held && held.error().code() == Code::kConflict) return held;
  if (!held) log::warn("the archive cannot be reached yet: {}", held.error().message());
  return {};
}

// All that was committed before: what the log still has is put, of the others the archive is asked.
void Archiver::note_what_waits() {
  auto note_past = [this](const std::string& name) {
    note(name, journal::Lsn{});
    std::lock_guard lock(mutex_);
    entries_[name].is_of_the_past = true;
  };
  note_past(DatabaseName::catalog().text());
  std::string after;
  for (;;) {
    auto page = store_.list("", after, kListedAtOnce);
    for (const database::DatabaseInfo& info : page) {
      after = info.name;
      auto name = DatabaseName::stored(info.name);
      if (!name || info.bookmark.txid.value == 0) continue;
      note_past(info.name);
    }
    if (page.size() < kListedAtOnce) return;
  }
}

void Archiver::stop() {
  if (std::unique_lock lock(mutex_); stopping_) return;
  commits_.reset();
  store_.hold_log({});
  {
    std::unique_lock lock(mutex_);
    flushing_ = true;
    // What is known to wait goes first, failures or not.
    for (auto& [name, entry] : entries_) {
      if (entry.waiting || entry.archive) schedule(name, entry, SteadyClock::now());
    }
    Deadline until = SteadyClock::now() + std::chrono::milliseconds(flush_ms_);
    changed_.wait_until(lock, until, [this] {
      return !thread_.joinable() || std::ranges::none_of(entries_, [](const auto& each) {
        const Entry& entry = each.second;
        return entry.busy || ((entry.waiting || entry.archive) && entry.failures == 0);
      });
    });
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  objects_.cancel();
  pool_->drain();
  urgent_pool_->drain();
  give_up_all();
  if (lease_thread_.joinable()) lease_thread_.join();
}

Archiver::Status Archiver::status() const {
  std::lock_guard lock(mutex_);
  Status status = status_;
  SteadyClock::time_point now = SteadyClock::now();
  status.in_memory = entries_.size();
  int failures = 0;
  for (const auto& [name, entry] : entries_) {
    if (entry.failures > std::exchange(failures, std::max(failures, entry.failures)))
      status.error = entry.error;
    const auto& first = entry.at_work ? entry.at_work : entry.waiting;
    if (!first) continue;
    ++status.behind;
    auto waits = std::chrono::duration_cast<std::chrono::milliseconds>(now - first->since);
    status.lag_ms = std::max<std::int64_t>(status.lag_ms, waits.count());
  }
  return status;
}

Result<> Archiver::wait(const DatabaseName& name, Deadline deadline) {
  OFFPRINT_TRY_ASSIGN(Position target, store_.position(name));
  std::unique_lock lock(mutex_);
  bool there = changed_.wait_until(lock, deadline, [&] {
    auto found = entries_.find(name.text());
    return found == entries_.end() || is_there(found->second.reached, target.bookmark()) ||
           (!found->second.waiting && !found->second.at_work);
  });
  if (there) return {};
  return fail(Code::kTimeout, "not in the archive in time");
}

std::optional<journal::Lsn> Archiver::needed_from() const {
  std::lock_guard lock(mutex_);
  std::optional<journal::Lsn> from;
  for (const auto& [name, entry] : entries_) {
    for (const auto& each : {entry.waiting, entry.at_work}) {
      if (each && (!from || each->from < *from)) from = each->from;
    }
  }
  return from;
}

void Archiver::note(const std::string& name, journal::Lsn from) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  Entry& entry = entries_[name];
  if (entry.waiting) return;
  entry.waiting = {SteadyClock::now(), from};
  if (entry.failures == 0) schedule(name, entry, due_of(entry));
}

// What comes after a pause goes there soon, with what follows at once; what comes without a pause,
// together with all of its interval.
Deadline Archiver::due_of(const Entry& entry) const {
  const auto& sync = options_.schedule.sync;
  return std::max(entry.waiting->since + sync / kGatheredShare, entry.put_at + sync);
}

void Archiver::schedule(const std::string& name, Entry& entry, Deadline due) {
  if (entry.due && *entry.due <= due) return;
  entry.due = due;
  bool is_next = due_.empty() || due < due_.begin()->first;
  due_.emplace(due, name);
  if (is_next) changed_.notify_all();
}

void Archiver::run() {
  std::unique_lock lock(mutex_);
  Deadline look_at = SteadyClock::now() + options_.dropped_look;
  while (!stopping_) {
    if (look_at <= SteadyClock::now()) {
      look_at = SteadyClock::now() + options_.dropped_look;
      pool_->post([this] { remove_dropped(); });
    }
    if (urgent_until_ && *urgent_until_ <= SteadyClock::now()) {
      urgent_until_.reset();
      urgent_over_ = true;
      lock.unlock();
      give_up_all();
      lock.lock();
    }
    auto next = due_.begin();
    if (next == due_.end() || next->first > SteadyClock::now()) {
      Deadline until = next == due_.end() ? look_at : std::min(look_at, next->first);
      if (urgent_until_) until = std::min(until, *urgent_until_);
      changed_.wait_until(lock, until);
      continue;
    }
    std::string name = std::move(next->second);
    Deadline due = next->first;
    due_.erase(next);
    auto found = entries_.find(name);
    // One that was planned earlier meanwhile has another entry here.
    if (found == entries_.end() || found->second.due != due) continue;
    found->second.due.reset();
    if (found->second.busy) continue;  // work() looks again at its end
    found->second.busy = true;
    auto& pool = found->second.urgent.empty() ? pool_ : urgent_pool_;
    pool->post([this, name = std::move(name)] { work(name); });
  }
}

void Archiver::work(const std::string& name) {
  std::unique_lock lock(mutex_);
  Entry& entry = entries_[name];
  entry.at_work = std::exchange(entry.waiting, std::nullopt);
  if (entry.at_work) entry.put_at = SteadyClock::now();
  lock.unlock();
  auto parsed = parse_archived_name(name);
  Result<> done = parsed ? work_on(*parsed, entry) : Result<>();
  std::optional<std::int64_t> due_ms;
  if (entry.archive) due_ms = entry.archive->due_ms();
  std::int64_t now_ms = options_.wall_clock_ms();

  lock.lock();
  entry.busy = false;
  if (auto* repair = std::exchange(entry.repair, nullptr); repair != nullptr && !done)
    repair->done = fail(done.error());
  auto tried = std::exchange(entry.at_work, std::nullopt);
  changed_.notify_all();
  bool is_gone = !done && done.error().code() == Code::kNotFound && !store_.info(*parsed);
  if (is_gone) {
    entry.archive.reset();
    lock.unlock();
    give_up(entry, done.error());
    lock.lock();
  }
  if (!done && !is_gone) {
    if (entry.failures++ == 0)
      log::warn("database '{}' does not get into the archive: {}", name, done.error().message());
    ++status_.failures;
    entry.error = done.error().message();
    entry.archive.reset();  // what is there may be otherwise than it was thought to be
    if (tried) entry.waiting = tried;
    auto pause = kRetryFirst * (1 << std::min(entry.failures - 1, 10));
    if (!entry.urgent.empty()) pause = kRetryFirst;
    return schedule(
        name, entry,
        SteadyClock::now() + std::min<SteadyClock::duration>(
                                 pause, std::chrono::milliseconds(options_.retry_max_ms)));
  }
  if (std::exchange(entry.failures, 0) > 0) {
    log::info("database '{}' is in the archive again", name);
    entry.error.clear();
  }
  if (entry.waiting) schedule(name, entry, due_of(entry));
  if (!entry.urgent.empty()) hurry(name, entry);
  if (flushing_) entry.archive.reset();
  if (due_ms && !flushing_) {
    std::chrono::milliseconds left(std::max<std::int64_t>(*due_ms - now_ms, 0));
    schedule(name, entry, SteadyClock::now() + left);
    if (left > kKeptInMemory) entry.archive.reset();
  }
  if (!entry.due && !entry.repairs_waiting) entries_.erase(name);
}

Result<> Archiver::work_on(const DatabaseName& name, Entry& entry) {
  OFFPRINT_TRY(lease_.hold());
  DatabaseArchive::Counters before;
  bool is_of_the_past, is_stopping;
  {
    std::lock_guard lock(mutex_);
    is_of_the_past = std::exchange(entry.is_of_the_past, false);
    is_stopping = flushing_;
  }
  const std::string prefix = archive_prefix(name);
  // The list of databases names tags: their files are there before it, and longer.
  const bool has_tags = tags_ && name == DatabaseName::catalog();
  if (has_tags) OFFPRINT_TRY(tags_->put_new());
  if (is_of_the_past && entry.repair == nullptr &&
      DatabaseArchive::is_complete(objects_, prefix, store_, name))
    return {};
  if (entry.archive && !entry.archive->is_of_the_database()) entry.archive.reset();
  if (!entry.archive) {
    OFFPRINT_TRY_ASSIGN(entry.archive,
                        DatabaseArchive::load(objects_, prefix, store_, name, options_.schedule));
  } else {
    before = entry.archive->counters();
  }
  if (entry.repair) entry.repair->done = entry.archive->repair(entry.repair->damaged_keys);
  Result<> done = entry.archive->put_transactions();
  if (done && has_tags) {
    const std::int64_t before_ms = options_.wall_clock_ms() - options_.schedule.retention.count();
    done = tags_->remove_dropped(before_ms);
  }
  if (done && is_stopping) done = entry.archive->note_head();
  if (done) {
    note_reached(entry);
    // Who waits for the archive does not wait for a snapshot of the whole.
    entry.archive->set_between([this, &entry] { put_urgent(entry); });
    done = entry.archive->keep_up(options_.wall_clock_ms());
    entry.archive->set_between({});
  }
  count(before, *entry.archive);
  return done;
}

// Histories that were not continued go when their time is over, since they were moved away.
void Archiver::remove_dropped() {
  auto done = [this]() -> Result<> {
    OFFPRINT_TRY(lease_.hold());
    OFFPRINT_TRY_ASSIGN(auto listed, objects_.list(kDroppedPrefix));
    std::map<std::string, std::vector<std::string>> places;
    const std::string history = std::string("/") + kHistoryKey;
    for (const ObjectInfo& object : listed) {
      if (!object.key.ends_with(history)) continue;
      places[object.key.substr(0, object.key.size() - history.size() + 1)];
    }
    for (const ObjectInfo& object : listed) {
      auto place = places.upper_bound(object.key);
      if (place != places.begin() && object.key.starts_with((--place)->first))
        place->second.push_back(object.key);
    }
    const std::int64_t before = options_.wall_clock_ms() - options_.schedule.retention.count();
    for (auto& [place, keys] : places) {
      OFFPRINT_TRY_ASSIGN(const ObjectInfo moved, objects_.info(place + kHistoryKey));
      if (moved.timestamp_ms >= before) continue;
      // The history goes last: cut short, the rest goes another time.
      std::erase(keys, place + kHistoryKey);
      OFFPRINT_TRY(objects_.remove(keys));
      OFFPRINT_TRY(objects_.remove({place + kHistoryKey}));
      log::info("{}/{} was over its time", objects_.url(), place);
    }
    return {};
  }();
  if (!done) log::warn("histories of dropped databases stay: {}", done.error().message());
}

// On the thread that works for the database, with what the archive has then.
Result<std::vector<std::string>> Archiver::repair(const std::string& name,
                                                  const std::vector<std::string>& damaged_keys) {
  Repair repair{damaged_keys, fail(Code::kUnavailable, "the server is stopping")};
  std::unique_lock lock(mutex_);
  Entry& entry = entries_[name];
  auto is_idle = [&] { return stopping_ || flushing_ || !entry.busy; };
  entry.repairs_waiting = true;  // keeps the entry
  changed_.wait(lock, is_idle);
  entry.repairs_waiting = false;
  if (stopping_ || flushing_) return repair.done;
  entry.busy = true;
  entry.archive.reset();  // it is read again
  entry.repair = &repair;
  lock.unlock();
  work(name);
  return repair.done;
}

// --- those who wait

void Archiver::when_there(const std::string& name, const Bookmark& at, Reached reached) {
  std::unique_lock lock(mutex_);
  if (stopping_ || urgent_over_) {
    lock.unlock();
    return reached(fail(Code::kUnavailable, "the server is stopping"));
  }
  Entry& entry = entries_[name];
  if (is_there(entry.reached, at)) {
    lock.unlock();
    return reached({});
  }
  Deadline now = SteadyClock::now();
  if (entry.urgent.size() >= kUrgentKept)
    std::erase_if(entry.urgent, [&](const Urgent& each) { return each.until < now; });
  entry.urgent.push_back({at, now + options_.urgent_kept, std::move(reached)});
  if (!entry.busy) hurry(name, entry);
}

// At once; where it fails, not at every commit.
void Archiver::hurry(const std::string& name, Entry& entry) {
  Deadline now = SteadyClock::now();
  schedule(name, entry, entry.failures == 0 ? now : now + kRetryFirst);
}

// On the thread that is at work for it, between pieces of something large.
void Archiver::put_urgent(Entry& entry) {
  {
    std::lock_guard lock(mutex_);
    if (entry.urgent.empty()) return;
  }
  // What fails here fails again where it is looked at.
  if (entry.archive->put_transactions()) note_reached(entry);
}

void Archiver::note_reached(Entry& entry) {
  std::vector<Urgent> there, gone;
  {
    std::lock_guard lock(mutex_);
    entry.reached = entry.archive->reached_bookmark();
    std::erase_if(entry.urgent, [&](Urgent& each) {
      const bool is_gone = each.at.lineage != entry.reached.lineage;
      if (!is_gone && !is_there(entry.reached, each.at)) return false;
      (is_gone ? gone : there).push_back(std::move(each));
      return true;
    });
    changed_.notify_all();
  }
  for (const Urgent& each : there) each.reached({});
  for (const Urgent& each : gone)
    each.reached(fail(Code::kNotFound, "another database has got the name"));
}

void Archiver::stop_waiting(std::chrono::milliseconds after) {
  std::lock_guard lock(mutex_);
  urgent_until_ = SteadyClock::now() + after;
  changed_.notify_all();
}

void Archiver::give_up_all() {
  std::vector<Urgent> urgent;
  {
    std::lock_guard lock(mutex_);
    for (auto& [name, entry] : entries_) {
      for (Urgent& each : std::exchange(entry.urgent, {})) urgent.push_back(std::move(each));
    }
  }
  for (const Urgent& each : urgent)
    each.reached(fail(Code::kUnavailable, "the server is stopping"));
}

void Archiver::give_up(Entry& entry, const Error& why) {
  std::vector<Urgent> urgent;
  {
    std::lock_guard lock(mutex_);
    urgent.swap(entry.urgent);
  }
  for (const Urgent& each : urgent) each.reached(fail(why));
}

void Archiver::count(const DatabaseArchive::Counters& before, const DatabaseArchive& archive) {
  std::lock_guard lock(mutex_);
  status_.puts += archive.counters().puts - before.puts;
  status_.bytes += archive.counters().bytes - before.bytes;
}

}  // namespace offprint::archive
