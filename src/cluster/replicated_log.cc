#include "cluster/replicated_log.h"

#include <algorithm>
#include <ctime>
#include <limits>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"

namespace offprint::cluster {
namespace {

// Records kept in memory for those who do not have them yet; later they are read from the journal.
constexpr std::size_t kFreshMax = 8192;
constexpr std::size_t kFreshBytesMax = 16 << 20;
constexpr Time kLookEvery{500'000};
constexpr Lsn kAll{std::numeric_limits<std::uint64_t>::max()};

journal::Draft draft_of(const PeerRecord& record) {
  journal::Draft draft;
  draft.kind = record.kind;
  draft.database_id = record.database_id;
  draft.metadata = record.metadata;
  draft.payload = record.payload;
  return draft;
}

}  // namespace

Time boot_time() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return std::chrono::duration_cast<Time>(std::chrono::seconds(now.tv_sec) +
                                          std::chrono::nanoseconds(now.tv_nsec));
}

// What a member wants, done. Lives while the group's lock is held.
class ReplicatedLog::GroupEffects final : public Effects {
 public:
  GroupEffects(ReplicatedLog& log, Group& group) : log_(log), group_(group) {}

  Lsn send_records(MemberId to, const Append& append) override {
    PeerMessage message;
    message.group = group_.number;
    Append sent = append;
    sent.runs.clear();
    std::size_t bytes = 0;
    for (const EpochRun& run : append.runs) {
      Lsn last{run.first.value - 1};
      while (last < run.last && bytes < kPeerBodyTarget) {
        auto record = log_.record_of(group_, Lsn{last.value + 1});
        if (!record) break;
        bytes += wire_size(**record);
        message.records.push_back(**record);
        ++last.value;
      }
      if (last >= run.first) sent.runs.push_back({run.epoch, run.first, last});
      if (last < run.last) break;
    }
    Lsn end = sent.end();
    message.message = std::move(sent);
    return end > append.previous && log_.transport_.send(to, message) ? end : append.previous;
  }

  void send(MemberId to, const Message& message) override {
    const auto* ack = log_.leaving_ ? std::get_if<Ack>(&message) : nullptr;
    if (ack != nullptr) {  // nobody shall wait for this node
      const Nack nack{Nack::Reason::kNoSpace, ack->epoch, {}, {}};
      log_.transport_.send(to, {group_.number, nack, {}});
      return;
    }
    log_.transport_.send(to, {group_.number, message, {}});
  }

  void needs_fill(MemberId) override {}  // it asks for them

  Lsn store(Command command, Lsn after, const EpochRuns& runs) override {
    OFFPRINT_ASSERT(group_.receiving != nullptr);
    const std::uint64_t first = runs.front().first.value;
    Lsn taken = after;
    std::optional<journal::Location> newest;
    // The command is done when the last of its records is durable, and not one before.
    auto ends = [&] {
      if (newest) log_.sync_later(group_.number, command, *newest);
      return taken;
    };
    for (const EpochRun& run : runs) {
      for (std::uint64_t lsn = std::max(run.first.value, taken.value + 1); lsn <= run.last.value;
           ++lsn) {
        const PeerRecord& record = group_.receiving->records[lsn - first];
        journal::Draft draft = draft_of(record);
        draft.group_lsn = Lsn{lsn};
        draft.fencing_epoch = run.epoch;
        std::shared_ptr<journal::LargePayload> payload;  // until the record names it
        if (!make_whole(draft, payload)) return ends();
        auto place = put(std::move(draft));
        if (!place) return ends();
        group_.index.append(run.epoch, *place, record.kind, record.metadata);
        if (record.kind == journal::Kind::kPart) group_.parts.take(record);
        newest = *place;
        taken = Lsn{lsn};
      }
    }
    return ends();
  }

  void truncate(Command command, Lsn to) override {
    group_.index.truncate(to);
    group_.parts.forget();
    group_.found = std::min(group_.found, to);
    group_.fresh.clear();
    group_.fresh_bytes = 0;
    journal::Draft draft;
    draft.kind = journal::Kind::kTruncate;
    draft.group_lsn = to;
    draft.fencing_epoch = group_.index.log.last_epoch();
    must_put(command, std::move(draft));
  }

  void promise(Command command, Epoch epoch) override {
    journal::Draft draft;
    draft.kind = journal::Kind::kPromise;
    draft.fencing_epoch = epoch;
    must_put(command, std::move(draft));
  }

  void read_record() override {
    log_.coordinator_->read(log_.keys_.group(group_.number), log_.deadline(),
                            [&log = log_, number = group_.number](auto found) {
                              log.take_view(number, std::move(found));
                            });
  }

  void compare_and_swap(const GroupView& next) override {
    GroupRecord record = group_.record;
    auto named = [&](MemberId member) {
      auto found = std::ranges::find(record.replicas, member.value, &RecordMember::log_id);
      return found != record.replicas.end() ? *found : RecordMember{};
    };
    record.epoch = next.epoch;
    record.primary = named(next.primary);
    record.in_sync.clear();
    for (MemberId member : next.in_sync) record.in_sync.push_back(named(member));
    group_.asked_for = record;
    Swap swap{log_.keys_.group(group_.number), static_cast<std::int64_t>(next.version),
              record.to_json()};
    log_.coordinator_->compare_and_swap(
        std::move(swap), log_.deadline(),
        [&log = log_, number = group_.number](const SwapResult& result) {
          log.take_swap(number, result);
        });
  }

  void committed(Lsn lsn) override {
    log_.journal_.set_commit(journal_group(group_.number), lsn);
    wake(group_, lsn);
    log_.listener_.committed(group_.number, lsn);
  }
  void changed() override {
    wake(group_, kAll);
    log_.listener_.changed(group_.number);
  }
  void acts_in(Epoch epoch) override {
    if (log_.options_.acts_in) log_.options_.acts_in(group_.number, epoch);
  }

  Result<journal::Location> put(journal::Draft draft) {
    draft.group = journal_group(group_.number);
    auto place = log_.journal_.append(std::move(draft));
    if (!place && place.error().code() != Code::kFull) log_.fatal(place.error());
    return place;
  }

 private:
  // Of a transaction whose payload came in parts: it is a file here. False: not now, or never.
  bool make_whole(journal::Draft& draft, std::shared_ptr<journal::LargePayload>& payload) {
    const auto parts = PartsName::in(draft.metadata);
    if (!parts) return true;
    auto whole = group_.parts.whole(*parts, *draft.group_lsn, [&](Lsn lsn) {
      const bool is_here = lsn > group_.index.log.base() && lsn <= group_.index.log.last();
      return is_here ? std::optional(group_.index.place(lsn)) : std::nullopt;
    });
    if (!whole) {
      log::warn("record {}: {}", draft.group_lsn->value, whole.error().message());
      group_.lacks_parts |= whole.error().code() == Code::kNotFound;
      return false;
    }
    payload = *std::move(whole);
    draft.large_file = payload->file();
    draft.large_size = payload->size();
    return true;
  }

  // A promise or a cut must not be forgotten: without room for it the node cannot go on.
  void must_put(Command command, journal::Draft draft) {
    auto place = put(std::move(draft));
    if (!place) return log_.fatal(place.error());
    log_.sync_later(group_.number, command, *place);
  }

  ReplicatedLog& log_;
  Group& group_;
};

ReplicatedLog::ReplicatedLog(Options options, journal::Journal& journal, GroupIndex index,
                             std::unique_ptr<Coordinator> coordinator, PeerTransport& transport,
                             LogListener& listener)
    : options_(std::move(options)),
      keys_{options_.cluster},
      journal_(journal),
      transport_(transport),
      listener_(listener),
      to_sync_(options_.groups),
      coordinator_(std::move(coordinator)) {
  GroupMember::Options member;
  member.self = MemberId{options_.self.log_id};
  member.timing = options_.timing;
  for (std::uint32_t i = 0; i < options_.groups; ++i) {
    groups_.push_back(std::make_unique<Group>(i, index.take(journal, journal_group(i)), member,
                                              boot_time(), journal));
  }
  coordinator_->watch(keys_.groups(), [this](const RegisterHint& hint) { take_hint(hint); });
  syncer_ = std::thread([this] { run_sync(); });
  ticker_ = std::thread([this] { run_ticks(); });
}

ReplicatedLog::~ReplicatedLog() { shut_down(); }

void ReplicatedLog::shut_down() {
  if (ended_.exchange(true)) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  for (auto& group : groups_) {
    std::lock_guard lock(group->mutex);
    wake(*group, kAll);
  }
  wake_sync_.notify_all();
  wake_ticks_.notify_all();
  ticker_.join();
  syncer_.join();
}

void ReplicatedLog::fatal(const Error& error) {
  log::error("the journal failed: {}", error.message());
  if (options_.on_fatal) options_.on_fatal(error);
}

Deadline ReplicatedLog::deadline() const {
  return SteadyClock::now() + std::chrono::milliseconds(options_.coordinator_timeout_ms);
}

Result<ReplicatedLog::Appended> ReplicatedLog::append(std::uint32_t number, journal::Draft draft,
                                                      std::optional<Epoch> only_in) {
  Group& group = *groups_[number];
  auto record = std::make_shared<PeerRecord>(
      PeerRecord{draft.kind, draft.database_id, draft.metadata, draft.payload});
  std::lock_guard lock(group.mutex);
  // Whoever was told kUnknown because of that does not know what to build on.
  if (ended_) return fail(Code::kUnavailable, "this node is shutting down");
  auto proposal = group.member.propose(boot_time());
  if (!proposal) {
    if (!group.member.is_primary()) return fail(Code::kNotPrimary, "another node writes here");
    return fail(Code::kUnavailable,
                "too few nodes hold this group's databases at the moment; try again");
  }
  if (only_in && proposal->epoch != *only_in) {
    group.member.withdraw(*proposal);
    return fail(Code::kNotPrimary, "another node has written here meanwhile");
  }
  GroupEffects effects(*this, group);
  draft.group_lsn = proposal->lsn;
  draft.fencing_epoch = proposal->epoch;
  auto place = effects.put(std::move(draft));
  if (!place) {
    group.member.withdraw(*proposal);
    return fail(place.error());
  }
  group.index.append(proposal->epoch, *place, record->kind, record->metadata);
  keep_fresh(group, {proposal->lsn, std::move(record)});
  group.member.flush(boot_time(), effects);
  return Appended{number, *proposal, *place};
}

Result<> ReplicatedLog::wait(const Appended& appended, Deadline deadline) {
  if (auto durable = journal_.wait_durable(appended.location); !durable) {
    fatal(durable.error());
    return fail(Code::kUnknown, durable.error().message());
  }
  Group& group = *groups_[appended.group];
  std::unique_lock lock(group.mutex);
  GroupEffects effects(*this, group);
  group.member.on_durable(boot_time(), appended.proposal.command, effects);
  for (;;) {
    const GroupLog& log = group.member.log();
    Lsn lsn = appended.proposal.lsn;
    bool is_there =
        lsn <= log.base() || (lsn <= log.last() && log.epoch_at(lsn) == appended.proposal.epoch);
    GroupMember::Status status = group.member.status(boot_time());
    if (is_there && status.commit >= lsn) return {};
    bool leads = group.member.is_primary() && status.epoch == appended.proposal.epoch;
    if (ended_) return fail(Code::kUnknown, "this node is shutting down");
    if (!is_there || !leads) {
      return fail(Code::kUnknown, "another node has become primary while this was being committed");
    }
    Waiter waiter;
    waiter.lsn = lsn;
    group.waiters.push_back(&waiter);
    bool woken = waiter.wake.wait_until(lock, deadline, [&] { return waiter.woken; });
    if (!woken) {
      std::erase(group.waiters, &waiter);
      return fail(Code::kUnknown, "it was not committed in time, and still may be");
    }
  }
}

// Takes those that wait for records up to `up_to` out, and wakes them.
void ReplicatedLog::wake(Group& group, Lsn up_to) {
  std::erase_if(group.waiters, [&](Waiter* waiter) {
    if (waiter->lsn > up_to) return false;
    waiter->woken = true;
    waiter->wake.notify_one();
    return true;
  });
}

void ReplicatedLog::keep_fresh(Group& group, Fresh fresh) {
  if (!group.fresh.empty() && group.fresh.back().lsn.value + 1 != fresh.lsn.value) {
    group.fresh.clear();
    group.fresh_bytes = 0;
  }
  group.fresh_bytes += wire_size(*fresh.record);
  group.fresh.push_back(std::move(fresh));
  while (group.fresh.size() > kFreshMax || group.fresh_bytes > kFreshBytesMax) {
    group.fresh_bytes -= wire_size(*group.fresh.front().record);
    group.fresh.pop_front();
  }
}

bool ReplicatedLog::may_answer(std::uint32_t number) {
  Group& group = *groups_[number];
  std::lock_guard lock(group.mutex);
  return group.member.may_answer(boot_time());
}

Result<> ReplicatedLog::hand_over(std::uint32_t number, const RecordMember& to) {
  Group& group = *groups_[number];
  std::lock_guard lock(group.mutex);
  GroupEffects effects(*this, group);
  if (group.member.hand_over(boot_time(), MemberId{to.log_id}, effects)) return {};
  return fail(Code::kUnavailable, fmt::format("{} cannot take this group now", to.node));
}

void ReplicatedLog::received(MemberId from, PeerMessage message) {
  if (message.group >= groups_.size()) return;
  Group& group = *groups_[message.group];
  std::lock_guard lock(group.mutex);
  GroupEffects effects(*this, group);
  group.receiving = &message;
  group.member.receive(boot_time(), from, message.message, effects);
  group.receiving = nullptr;
}

void ReplicatedLog::connected(MemberId member) {
  for (auto& group : groups_) {
    std::lock_guard lock(group->mutex);
    GroupEffects effects(*this, *group);
    group->member.on_connected(boot_time(), member, effects);
  }
}

ReplicatedLog::Status ReplicatedLog::status(std::uint32_t number) {
  Group& group = *groups_[number];
  std::lock_guard lock(group.mutex);
  return {group.member.status(boot_time()), group.record, group.index.log.last_epoch(), group.found,
          group.lacks_parts};
}

Result<ReplicatedLog::Held> ReplicatedLog::hold(std::uint32_t number) {
  Group& group = *groups_[number];
  std::lock_guard lock(group.mutex);
  const GroupMember::Status status = group.member.status(boot_time());
  if (!status.leads) return fail(Code::kNotPrimary, "another node writes here");
  Lsn before = status.commit;
  if (const auto from = group.index.parts_from(status.commit); from)
    before = std::max(std::min(before, Lsn{from->value - 1}), group.index.log.base());
  group.held.insert(before);
  return Held{number, before, group.index.log.epoch_at(before), status.epoch};
}

void ReplicatedLog::let_go(const Held& held) {
  Group& group = *groups_[held.group];
  std::lock_guard lock(group.mutex);
  if (auto found = group.held.find(held.lsn); found != group.held.end()) group.held.erase(found);
}

std::optional<journal::Lsn> ReplicatedLog::needed_from() {
  std::optional<journal::Lsn> needed;
  for (auto& group : groups_) {
    std::lock_guard lock(group->mutex);
    Lsn decided = group->member.status(boot_time()).commit;
    if (const auto parts = group->index.parts_from(decided))
      decided = std::min(decided, Lsn{parts->value - 1});
    if (!group->held.empty()) decided = std::min(decided, *group->held.begin());
    Lsn next{std::max(decided, group->index.log.base()).value + 1};
    if (next > group->index.log.last()) continue;
    journal::Lsn at = group->index.place(next).lsn;
    if (!needed || at < *needed) needed = at;
  }
  return needed;
}

void ReplicatedLog::forget_before(journal::Lsn lsn) {
  for (auto& group : groups_) {
    std::lock_guard lock(group->mutex);
    group->index.forget_before(lsn);
    group->member.forget(group->index.log.base());
  }
}

Result<journal::Location> ReplicatedLog::find(std::uint32_t number, Lsn lsn) {
  Group& group = *groups_[number];
  std::lock_guard lock(group.mutex);
  if (lsn <= group.index.log.base() || lsn > group.index.log.last())
    return fail(Code::kNotFound, fmt::format("group {} has no record {}", number, lsn.value));
  return group.index.place(lsn);
}

// As it was appended here, or from the journal.
Result<std::shared_ptr<const PeerRecord>> ReplicatedLog::record_of(Group& group, Lsn lsn) {
  if (!group.fresh.empty() && lsn >= group.fresh.front().lsn) {
    std::uint64_t at = lsn.value - group.fresh.front().lsn.value;
    if (at < group.fresh.size()) return group.fresh[at].record;
  }
  if (lsn <= group.index.log.base() || lsn > group.index.log.last())
    return fail(Code::kNotFound, "no such record");
  OFFPRINT_TRY_ASSIGN(journal::Record read, journal_.read(group.index.place(lsn)));
  auto record = std::make_shared<PeerRecord>();
  record->kind = read.kind;
  record->database_id = read.database_id;
  record->metadata = std::move(read.metadata);
  record->payload = std::move(read.payload);
  return std::shared_ptr<const PeerRecord>(std::move(record));
}

void ReplicatedLog::sync_later(std::uint32_t group, Command command,
                               const journal::Location& location) {
  {
    std::lock_guard lock(mutex_);
    to_sync_[group] = {command, location};
    has_to_sync_ = true;
  }
  wake_sync_.notify_one();
}

// One fsync for all groups that wait for one.
void ReplicatedLog::run_sync() {
  for (;;) {
    std::vector<ToSync> batch(groups_.size());
    {
      std::unique_lock lock(mutex_);
      wake_sync_.wait(lock, [&] { return stopping_ || has_to_sync_; });
      if (!has_to_sync_) return;
      std::swap(batch, to_sync_);
      has_to_sync_ = false;
    }
    auto last =
        std::ranges::max_element(batch, {}, [](const ToSync& each) { return each.location.lsn; });
    if (auto durable = journal_.wait_durable(last->location); !durable)
      return fatal(durable.error());
    for (std::uint32_t i = 0; i < batch.size(); ++i) {
      if (batch[i].command == 0) continue;
      Group& group = *groups_[i];
      group.parts.sync();
      std::lock_guard lock(group.mutex);
      GroupEffects effects(*this, group);
      group.member.on_durable(boot_time(), batch[i].command, effects);
    }
  }
}

void ReplicatedLog::run_ticks() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    wake_ticks_.wait_for(lock, std::chrono::milliseconds(options_.tick_ms));
    if (stopping_) return;
    lock.unlock();
    for (auto& group : groups_) {
      std::lock_guard group_lock(group->mutex);
      GroupEffects effects(*this, *group);
      group->member.tick(boot_time(), effects);
      look_for_hinted(*group, boot_time());
    }
    lock.lock();
  }
}

GroupView ReplicatedLog::view_of(const RegisterEntry& entry, const GroupRecord& record) {
  GroupView view;
  view.version = static_cast<std::uint64_t>(entry.version);
  view.epoch = record.epoch;
  view.primary = MemberId{record.primary.log_id};
  view.min_in_sync = static_cast<std::uint32_t>(record.min_in_sync);
  for (const RecordMember& member : record.in_sync) view.in_sync.push_back(MemberId{member.log_id});
  for (const RecordMember& member : record.replicas)
    view.replicas.push_back(MemberId{member.log_id});
  return view;
}

void ReplicatedLog::take_view(std::uint32_t number, Result<std::optional<RegisterEntry>> found) {
  Group& group = *groups_[number];
  Result<GroupRecord> record = fail(Code::kNotFound, "the group has no record");
  if (!found) {
    record = fail(found.error());
  } else if (*found) {
    record = GroupRecord::parse((*found)->value);
    // Who is in sync must not be left out for want of room.
    if (record && record->replicas.size() > kMembersMax) {
      record = fail(Code::kTooLarge,
                    fmt::format("{} replicas; {} are the most that this program can keep",
                                record->replicas.size(), kMembersMax));
    }
    if (record && record->state == GroupRecord::State::kLeft)
      record = fail(Code::kUnavailable, "the cluster was left by its last node");
    if (!record) log::error("record of group {}: {}", number, record.error().message());
  }
  std::lock_guard lock(group.mutex);
  GroupEffects effects(*this, group);
  if (!record) return group.member.on_read_failed(boot_time(), effects);
  group.record = *record;
  group.member.on_view(boot_time(), view_of(**found, *record), effects);
}

void ReplicatedLog::take_hint(const RegisterHint& hint) {
  auto number = keys_.group_of(hint.key);
  if (!number || *number >= groups_.size() || ended_) return;
  Group& group = *groups_[*number];
  std::lock_guard lock(group.mutex);
  if (hint.value) group.hinted = std::max(group.hinted, static_cast<std::uint64_t>(hint.version));
  const Time now = boot_time();
  if (static_cast<std::uint64_t>(hint.version) <= group.member.status(now).view.version) return;
  GroupEffects effects(*this, group);
  group.member.look_again(now, effects);
}

// A hint comes once. The read that it causes may fail, or have begun before the change.
void ReplicatedLog::look_for_hinted(Group& group, Time now) {
  if (now < group.look_at) return;
  group.look_at = now + kLookEvery;
  if (group.hinted <= group.member.status(now).view.version) return;
  GroupEffects effects(*this, group);
  group.member.look_again(now, effects);
}

void ReplicatedLog::take_swap(std::uint32_t number, const SwapResult& result) {
  CasOutcome outcome = CasOutcome::kUnknown;
  switch (result.outcome) {
    case SwapResult::Outcome::kApplied:
      outcome = CasOutcome::kApplied;
      break;
    case SwapResult::Outcome::kRefused:
      outcome = CasOutcome::kRefused;
      break;
    case SwapResult::Outcome::kFailed:
      outcome = CasOutcome::kFailed;
      break;
    case SwapResult::Outcome::kUnknown:
      break;
  }
  Group& group = *groups_[number];
  std::lock_guard lock(group.mutex);
  if (outcome == CasOutcome::kApplied) group.record = group.asked_for;
  GroupEffects effects(*this, group);
  group.member.on_cas(boot_time(), outcome, static_cast<std::uint64_t>(result.version), effects);
}

}  // namespace offprint::cluster
