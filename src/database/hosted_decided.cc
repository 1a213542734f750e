// A hosted database of a node of a cluster: written here, or following what another node decides.
#include <fmt/format.h>

#include "base/log.h"
#include "database/hosted_database.h"

namespace offprint::database {
namespace {

using Decision = TransactionRecorder::Decision;

// Of a closed file; then they are brought into it. Until then they are noted only.
constexpr std::size_t kNotedMax = 64;

bool is_continued(const Position& at, const Decision& next) {
  if (next.new_history) return next.whole && at.txid.value == 0;
  if (next.entry.txid != at.txid.next() || next.entry.epoch < at.epoch) return false;
  if (at.txid.value == 0) return true;  // this node does not know the lineage of the list yet
  // Of a large one what it follows on stands in its payload, which is looked at when it is applied.
  return next.state.position.lineage == at.lineage &&
         (next.entry.location.large || next.entry.before == at.checksum);
}

}  // namespace

// At the turn: what is done there sees one role from its beginning to its end.
void HostedDatabase::change_role(const Task& flip) {
  std::unique_lock lock(mutex_);
  if (!scheduled_ && !files_ && !held_) return flip();
  tasks_.push_back([self = shared_from_this(), flip] {
    std::shared_ptr<HeldTransaction> held;
    {
      std::lock_guard inner(self->mutex_);
      held = self->held_;
    }
    if (held) {
      self->end_held(held,
                     Error(Code::kNotPrimary,
                           "NOT_PRIMARY: another node has become primary; the transaction was "
                           "rolled back"));
    }
    self->close_files();
    std::lock_guard inner(self->mutex_);
    flip();
  });
  schedule(lock);
}

void HostedDatabase::lead(Epoch term, std::function<void()> done) {
  change_role([self = shared_from_this(), term, done = std::move(done)] {
    self->term_ = term;
    self->follows_ = false;
    done();
  });
}

void HostedDatabase::follow() {
  change_role([self = shared_from_this()] { self->follows_ = true; });
}

void HostedDatabase::take_decided(std::vector<Decision> records,
                                  std::function<void(Result<>)> done) {
  std::unique_lock lock(mutex_);
  auto shared = std::make_shared<std::vector<Decision>>(std::move(records));
  tasks_.push_back([self = shared_from_this(), shared, done = std::move(done)] {
    done(self->take_decided_at_turn(std::move(*shared)));
  });
  schedule(lock);
}

Result<> HostedDatabase::take_decided_at_turn(std::vector<Decision> records) {
  DatabaseState state;
  bool is_closed = false;
  {
    std::lock_guard lock(mutex_);
    if (refused_) return fail(*refused_);
    state = state_;
    is_closed = !files_ && unapplied_.size() + records.size() <= kNotedMax;
  }
  // Some were written here, or recovered.
  std::erase_if(records,
                [&](const Decision& each) { return each.entry.txid <= state.position.txid; });
  if (records.empty()) return {};
  Position at = state.position;
  for (const Decision& each : records) {
    if (!is_continued(at, each)) {
      return fail(refuse_if_damaged(
          Error(Code::kCorrupt, fmt::format("transaction {} was decided, and does not follow on {}",
                                            each.entry.txid.value, at.txid.value))));
    }
    at = each.state.position;
  }
  if (!is_closed) return bring_in(std::move(records), state.page_count != 0);
  for (const Decision& each : records) note_decided(each);
  needs_recovery_ = true;
  became_visible();
  return {};
}

}  // namespace offprint::database
