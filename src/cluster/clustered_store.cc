#include "cluster/clustered_store.h"

#include <algorithm>
#include <array>
#include <deque>
#include <utility>

#include "base/log.h"
#include "base/random.h"
#include "cluster/parts.h"

namespace offprint::cluster {
namespace {

constexpr std::uint32_t kGroup = 0;
constexpr Lsn kOwn{1};                       // in place of what a single node had
constexpr std::uint64_t kTakenAtOnce = 256;  // records
constexpr std::size_t kPartsUnderWay = 4;
constexpr std::chrono::milliseconds kLookEvery{500};  // whatever happens

Result<> read_whole(ltx::ByteSource& source, std::span<std::uint8_t> to) {
  while (!to.empty()) {
    OFFPRINT_TRY_ASSIGN(std::size_t got, source.read(to));
    if (got == 0) return fail(Code::kCorrupt, "a large payload ends too early");
    to = to.subspan(got);
  }
  return {};
}

}  // namespace

ClusteredStore::ClusteredStore(Options options) : options_(std::move(options)) {}

ClusteredStore::~ClusteredStore() { stop(); }

// ------------------------------------------------------------------------------------------------
// the log

void ClusteredStore::visit(const journal::Record& record) {
  has_own_ |= record.group == journal::kLocalGroup;
  index_->visit(record);
}

// What a single node had comes before all records of the log.
Result<> ClusteredStore::begin_log(journal::Journal& journal) {
  const std::uint32_t group = journal_group(kGroup);
  if (!has_own_ || journal.group(group) != journal::GroupState{}) return {};
  journal::Draft draft;
  draft.kind = journal::Kind::kTruncate;
  draft.group = group;
  draft.group_lsn = kOwn;
  OFFPRINT_TRY_ASSIGN(auto place, journal.commit(std::move(draft)));
  OFFPRINT_TRY_ASSIGN(auto record, journal.read(place));
  index_->visit(record);
  return {};
}

Result<database::CommitLog*> ClusteredStore::start(journal::Journal& journal) {
  OFFPRINT_TRY(begin_log(journal));
  journal_ = &journal;
  options_.log.groups = 1;
  LogListener& listener = *this;
  log_ = std::make_unique<ReplicatedLog>(options_.log, journal, std::move(*index_),
                                         std::move(options_.coordinator), *options_.transport,
                                         listener);
  index_.reset();
  CommitLog* own = this;
  return own;
}

void ClusteredStore::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_work_.notify_all();
  has_begun_.notify_all();
  goes_on_.notify_all();
  if (log_) log_->shut_down();
  if (worker_.joinable()) worker_.join();
}

std::optional<journal::Lsn> ClusteredStore::needed_from() {
  std::optional<journal::Lsn> needed = log_->needed_from();
  std::optional<Lsn> untaken;
  {
    std::lock_guard lock(own_mutex_);
    if (!leads_) {
      untaken = Lsn{taken_.value + 1};
    } else if (!appended_.empty()) {
      untaken = *appended_.begin();
    }
  }
  if (!untaken) return needed;
  auto place = log_->find(kGroup, *untaken);
  if (place && (!needed || place->lsn < *needed)) needed = place->lsn;
  return needed;
}

void ClusteredStore::forget_before(journal::Lsn lsn) { log_->forget_before(lsn); }

Result<database::CommitLog::Appended> ClusteredStore::append(journal::Draft draft, Epoch term) {
  if (!draft.large_file) return append_one(std::move(draft), term);
  OFFPRINT_TRY(append_parts(draft, term));
  return append_one(std::move(draft), term);
}

// Nothing has happened when it fails: the transaction's own record is still to come.
Result<> ClusteredStore::append_parts(journal::Draft& draft, Epoch term) {
  OFFPRINT_TRY_ASSIGN(auto source, journal_->open_large_payload(*draft.large_file));
  PartsName parts;
  std::array<std::uint8_t, sizeof parts.id> id{};
  fill_random(id);
  parts.id = load_be<std::uint64_t>(id.data());
  parts.size = draft.large_size;
  std::deque<Appended> under_way;
  Result<> done;
  for (std::uint64_t at = 0; done && at < parts.size; ++parts.count) {
    journal::Draft part;
    part.kind = journal::Kind::kPart;
    part.database_id = draft.database_id;
    part.metadata = {PartName{parts.id, parts.count}.metadata()};
    part.payload.resize(std::min<std::uint64_t>(options_.part_bytes, parts.size - at));
    done = read_whole(*source, part.payload);
    if (!done) break;
    at += part.payload.size();
    auto appended = append_one(std::move(part), term);
    if (!appended) {
      done = fail(appended.error());
      break;
    }
    if (parts.count == 0) parts.first = appended->number;
    under_way.push_back(*appended);
    if (under_way.size() <= kPartsUnderWay) continue;
    done = wait_for_part(under_way.front());
    under_way.pop_front();
  }
  for (const Appended& each : under_way) {
    auto arrived = wait_for_part(each);
    if (done) done = std::move(arrived);
  }
  draft.metadata.push_back(parts.metadata());
  return done;
}

Result<> ClusteredStore::wait_for_part(const Appended& part) {
  auto decided = wait(part);
  if (decided || decided.error().code() == Code::kIo) return decided;
  return fail(Code::kNotPrimary, "NOT_PRIMARY: " + decided.error().message());
}

Result<database::CommitLog::Appended> ClusteredStore::append_one(journal::Draft draft, Epoch term) {
  {
    std::unique_lock lock(mutex_);
    goes_on_.wait(lock, [&] { return !held_ || stopping_; });
  }
  // With the lock: what was appended after another one is not known before that.
  std::lock_guard lock(own_mutex_);
  if (lost_term_ == term) {
    return fail(Code::kNotPrimary, "NOT_PRIMARY: it is not known what became of an earlier write");
  }
  OFFPRINT_TRY_ASSIGN(auto appended, log_->append(kGroup, std::move(draft), term));
  newest_ = appended.proposal.lsn;
  appended_.insert(newest_);
  return Appended{appended.location, appended.proposal.lsn, appended.proposal.epoch,
                  appended.proposal.command};
}

Result<> ClusteredStore::wait(const Appended& appended) {
  auto decided =
      log_->wait({kGroup, {appended.number, appended.term, appended.command}, appended.location},
                 Deadline::max());
  std::lock_guard lock(own_mutex_);
  if (decided) {
    appended_.erase(appended.number);
  } else {
    lost_term_ = appended.term;
  }
  return decided;
}

// The read came before this call, and the epoch it was made in cannot have ended and begun again.
bool ClusteredStore::knows_newest(Epoch term) {
  return log_->may_answer(kGroup) && log_->status(kGroup).member.epoch == term;
}

void ClusteredStore::set_held(bool held) {
  {
    std::lock_guard lock(mutex_);
    held_ = held;
  }
  goes_on_.notify_all();
}

void ClusteredStore::committed(std::uint32_t, Lsn) { wake(); }
void ClusteredStore::changed(std::uint32_t) { wake(); }

void ClusteredStore::wake() {
  {
    std::lock_guard lock(mutex_);
    has_news_ = true;
  }
  wake_work_.notify_one();
}

// ------------------------------------------------------------------------------------------------
// the store

void ClusteredStore::run(database::Store& store) {
  store_ = &store;
  worker_ = std::thread([this] { work(); });
}

bool ClusteredStore::begun() {
  std::lock_guard lock(mutex_);
  return begun_;
}

bool ClusteredStore::wait_begun(Deadline deadline) {
  std::unique_lock lock(mutex_);
  has_begun_.wait_until(lock, deadline, [&] { return begun_ || stopping_; });
  return begun_;
}

std::optional<Epoch> ClusteredStore::leads() {
  std::lock_guard lock(own_mutex_);
  return leads_;
}

Lsn ClusteredStore::taken() {
  std::lock_guard lock(own_mutex_);
  if (!leads_) return taken_;
  return appended_.empty() ? std::max(taken_, newest_) : Lsn{appended_.begin()->value - 1};
}

Result<ReplicatedLog::Held> ClusteredStore::hold() {
  // Of what it leads with, all that came before was taken.
  if (!leads()) return fail(Code::kNotPrimary, "another node is primary");
  return log_->hold(kGroup);
}

void ClusteredStore::work() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_work_.wait_for(lock, kLookEvery, [&] { return stopping_ || has_news_; });
      if (stopping_) return;
      // A disk that was full is not asked with every commit.
      wake_work_.wait_until(lock, rest_until_, [&] { return stopping_; });
      if (stopping_) return;
      has_news_ = false;
    }
    ReplicatedLog::Status status = log_->status(kGroup);
    bool goes_on = begun() ? step(status.member) : begin(status);
    if (cannot_go_on_) return;
    if (goes_on) wake();
  }
}

bool ClusteredStore::begin(const ReplicatedLog::Status& status) {
  if (status.member.commit < status.found) return false;
  if (auto begun = store_->begin(status.found); !begun) {
    fail_with(begun.error());  // and not twice: it began in part
    return false;
  }
  {
    std::lock_guard lock(own_mutex_);
    taken_ = status.found;
  }
  {
    std::lock_guard lock(mutex_);
    begun_ = true;
  }
  has_begun_.notify_all();
  return true;
}

bool ClusteredStore::step(const GroupMember::Status& status) {
  const std::optional<Epoch> led = leads();
  if (led && (!status.leads || status.epoch != *led)) {
    follow();
    return true;
  }
  if (led) {
    if (!store_leads_) lead();  // once more
    return false;
  }
  // What is decided of earlier epochs; then those of this one are written here.
  // Others may hold what this node's disk does not have yet: after a power loss it would be missed
  // where it was seen.
  const Lsn up_to =
      status.leads ? Lsn{status.start.value - 1} : std::min(status.commit, status.durable);
  const Lsn before = taken();
  if (before < up_to) return take(up_to);
  if (!status.leads) return false;
  {
    std::lock_guard lock(own_mutex_);
    leads_ = status.epoch;
    appended_.clear();
    newest_ = taken_;
  }
  lead();
  return true;
}

// False: not now.
bool ClusteredStore::take(Lsn up_to) {
  const Lsn from = taken();
  const Lsn to{std::min(up_to.value, from.value + kTakenAtOnce)};
  std::vector<journal::Location> records;
  for (std::uint64_t number = from.value + 1; number <= to.value; ++number) {
    auto place = log_->find(kGroup, Lsn{number});
    if (!place) {
      fail_with(place.error());
      return false;
    }
    records.push_back(*place);
  }
  auto done = store_->take_decided(records);
  if (!done && done.error().code() == Code::kFull) {
    log::warn("what the cluster decided waits for room on the disk: {}", done.error().message());
    rest_until_ = SteadyClock::now() + kLookEvery;
    return false;
  }
  if (!done) {
    fail_with(done.error());
    return false;
  }
  std::lock_guard lock(own_mutex_);
  taken_ = to;
  return true;
}

void ClusteredStore::lead() {
  const Epoch epoch = leads().value_or(Epoch{});
  const GroupRecord record = log_->status(kGroup).record;
  std::optional<Lineage> cut;
  if (record.state == GroupRecord::State::kForced) cut = record.lineage;
  auto done = store_->lead(epoch, cut);
  store_leads_ = done.has_value();
  if (done) {
    log::info("this node is primary, epoch {}", epoch.value);
  } else {
    log::warn("this node cannot write as primary of epoch {}: {}", epoch.value,
              done.error().message());
  }
}

void ClusteredStore::follow() {
  const Lsn at = taken();
  {
    std::lock_guard lock(own_mutex_);
    taken_ = at;
    leads_.reset();
    appended_.clear();
  }
  store_leads_ = false;
  log::info("this node is not primary any more, from record {} on", at.value + 1);
  store_->follow();
}

void ClusteredStore::fail_with(const Error& error) {
  cannot_go_on_ = true;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
  }
  log::error("what the cluster decided cannot be taken: {}", error.message());
  if (options_.on_fatal) options_.on_fatal(error);
}

}  // namespace offprint::cluster
