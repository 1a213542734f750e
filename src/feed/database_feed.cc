#include "feed/database_feed.h"

#include <algorithm>

#include "base/log.h"
#include "feed/change_cursor.h"

namespace offprint::feed {
namespace {

constexpr int kAtOnce = 64;  // transactions in one turn
constexpr std::chrono::milliseconds kRestAfter{1'000};
constexpr std::size_t kSettingsBegin = 40, kSettingsEnd = 92;  // of page 1's header

// A listener that wants rows, as long as it lives.
class RowListener final : public database::Subscription {
 public:
  RowListener(std::unique_ptr<database::Subscription> inner,
              std::shared_ptr<std::atomic<int>> count)
      : inner_(std::move(inner)), count_(std::move(count)) {
    ++*count_;
  }
  ~RowListener() override { --*count_; }

 private:
  const std::unique_ptr<database::Subscription> inner_;
  const std::shared_ptr<std::atomic<int>> count_;
};

}  // namespace

DatabaseFeed::DatabaseFeed(std::shared_ptr<FeedShared> shared, database::DatabaseName name)
    : shared_(std::move(shared)),
      name_(std::move(name)),
      live_([this](PageNo page) { return live_page(page); }) {}

DatabaseFeed::~DatabaseFeed() { commits_.reset(); }

Result<std::shared_ptr<DatabaseFeed>> DatabaseFeed::open(std::shared_ptr<FeedShared> shared,
                                                         const database::DatabaseName& name) {
  // It ends on a thread of its own kind, whoever let go of it: what it closes may wait for a disk.
  auto end_later = [shared](DatabaseFeed* feed) {
    shared->followers.post([feed] { delete feed; });
  };
  std::shared_ptr<DatabaseFeed> feed(new DatabaseFeed(shared, name), end_later);
  FeedShared& all = *feed->shared_;
  OFFPRINT_TRY_ASSIGN(Position position, all.store.position(name));
  ChangeReader::Options options;
  options.transaction_bytes_max = all.transaction_bytes_max;
  options.counter = all.bytes;
  OFFPRINT_TRY_ASSIGN(feed->reader_,
                      ChangeReader::open(all.store, name, position.bookmark(), options));
  feed->position_ = position.bookmark();
  OFFPRINT_TRY_ASSIGN(feed->commits_,
                      all.store.subscribe(name, [raw = feed.get()] { raw->note(); }));
  feed->note();
  return feed;
}

// ------------------------------------------------------------------------------------------------
// listeners

Bookmark DatabaseFeed::position() const {
  std::lock_guard lock(mutex_);
  return position_;
}

std::optional<Error> DatabaseFeed::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

std::unique_ptr<database::Subscription> DatabaseFeed::listen(bool with_rows,
                                                             std::function<void()> changed) {
  auto listener = listeners_.add(std::move(changed));
  if (!with_rows) return listener;
  auto made = std::make_unique<RowListener>(std::move(listener), row_listeners_);
  note();
  return made;
}

DatabaseFeed::Next DatabaseFeed::after(const Bookmark& position, bool with_rows) const {
  std::lock_guard lock(mutex_);
  Next next;
  if (position.txid >= position_.txid) return next;
  next.is_behind = true;
  if (kept_.empty()) return next;
  const TxId first = kept_.front().transaction->at.txid;
  const TxId wanted = position.txid.next();
  if (wanted < first) return next;
  const Kept& kept = kept_[wanted.value - first.value];
  if ((with_rows && !kept.has_rows) || kept.transaction->previous != position) return next;
  next.transaction = kept.transaction;
  next.is_behind = false;
  return next;
}

void DatabaseFeed::add_cursor(const std::shared_ptr<ChangeCursor>& cursor) {
  std::lock_guard lock(mutex_);
  std::erase_if(cursors_, [](const auto& each) { return each.expired(); });
  cursors_.push_back(cursor);
}

void DatabaseFeed::open_live(LiveRequest request,
                             std::function<void(Result<std::shared_ptr<LiveQuery>>)> started) {
  auto shared = std::make_shared<LiveRequest>(std::move(request));
  post([this, shared, started = std::move(started)] { start_live(std::move(*shared), started); });
}

// ------------------------------------------------------------------------------------------------
// turns

void DatabaseFeed::note() {
  {
    std::lock_guard lock(mutex_);
    again_ = true;
    if (std::exchange(busy_, true)) return;
  }
  // What ends it must not run on the caller's thread, nor while this does.
  if (auto self = weak_from_this().lock())
    shared_->followers.post([self = std::move(self)] { self->work(); });
}

void DatabaseFeed::post(Task task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  note();
}

void DatabaseFeed::work() {
  if (take_turn()) {  // others first
    shared_->followers.post([self = shared_from_this()] { self->work(); });
    return;
  }
  rest_later();
}

// True: there is more to do.
bool DatabaseFeed::take_turn() {
  std::deque<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    again_ = false;
  }
  const bool more = advance();
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (const Task& task : tasks) task();
  shared_->live_runs += live_.runs() - std::exchange(runs_counted_, live_.runs());
  std::lock_guard lock(mutex_);
  if (more || again_) return true;
  busy_ = false;
  return false;
}

// True: there are more transactions.
bool DatabaseFeed::advance() {
  if (!reader_) return false;
  if (auto wanted = reader_->want_rows(row_listeners_->load() > 0); !wanted) {
    end(wanted.error());
    return false;
  }
  for (int i = 0; i < kAtOnce; ++i) {
    auto read = reader_->next([this](StateWalk& walk) { return on_step(walk); },
                              [this](std::shared_ptr<const Transaction> transaction) {
                                publish(std::move(transaction), reader_->wants_rows());
                              });
    if (!read) {
      end(read.error());
      return false;
    }
    if (!*read) {
      if (auto rested = reader_->walk().rest_with_checkpoint(); !rested) {
        end(rested.error());
        return false;
      }
      if (auto due = live_.empty() ? std::nullopt : live_.run_due(live_state()))
        shared_->timers.at(*due, [weak = weak_from_this()] {
          if (auto self = weak.lock()) self->note();
        });
      return false;
    }
  }
  return true;
}

void DatabaseFeed::publish(std::shared_ptr<const Transaction> transaction, bool with_rows) {
  ++shared_->transactions;
  {
    std::lock_guard lock(mutex_);
    position_ = transaction->at;
    is_rested_ = false;
    kept_bytes_ += transaction->bytes;
    kept_.push_back({std::move(transaction), with_rows});
  }
  shrink();
  listeners_.call();
}

// What is kept in memory, and what slow listeners hold of it.
void DatabaseFeed::shrink() {
  std::vector<std::shared_ptr<ChangeCursor>> cut;
  std::deque<Kept> gone;  // ends without the lock
  {
    std::lock_guard lock(mutex_);
    auto is_over = [&] {
      return kept_bytes_ > shared_->kept_bytes_max || kept_.size() > shared_->kept_count_max;
    };
    while (kept_.size() > 1 && is_over()) {
      kept_bytes_ -= kept_.front().transaction->bytes;
      gone.push_back(std::move(kept_.front()));
      kept_.pop_front();
    }
    if (*shared_->bytes > shared_->bytes_max) {
      for (const auto& each : cursors_) {
        if (auto cursor = each.lock()) cut.push_back(std::move(cursor));
      }
    }
  }
  gone.clear();
  for (const auto& cursor : cut) cursor->cut_if_before(position());
}

Result<> DatabaseFeed::on_step(StateWalk& walk) {
  if (live_.empty()) return {};
  bool has_new_schema = walk.pages_before() == 0, affects_all = has_new_schema;
  if (!has_new_schema && walk.written().contains(1)) {
    OFFPRINT_TRY_ASSIGN(ByteView before, walk.before(1));
    const Bytes then(before.begin() + kSettingsBegin, before.begin() + kSettingsEnd);
    OFFPRINT_TRY_ASSIGN(ByteView after, walk.after(1));
    ByteView now = after.subspan(kSettingsBegin, kSettingsEnd - kSettingsBegin);
    affects_all = !std::ranges::equal(then, now);
    has_new_schema = !std::ranges::equal(ByteView(then).first(4), now.first(4));
  }
  in_step_ = true;
  live_.note(walk.written(), has_new_schema, affects_all, live_state());
  in_step_ = false;
  return {};
}

Result<ByteView> DatabaseFeed::live_page(PageNo page) {
  return in_step_ ? reader_->walk().after(page) : reader_->walk().before(page);
}

LiveQueries::State DatabaseFeed::live_state() {
  StateWalk& walk = reader_->walk();
  if (in_step_) return {walk.next_position(), walk.page_size(), walk.pages_after()};
  return {walk.position(), walk.page_size(), walk.pages_before()};
}

void DatabaseFeed::start_live(
    LiveRequest request, const std::function<void(Result<std::shared_ptr<LiveQuery>>)>& started) {
  if (!reader_) return started(fail(error().value_or(Error(Code::kUnavailable, "the feed ended"))));
  live_.forget_unused();
  std::erase_if(live_by_text_, [](const auto& each) { return each.second.expired(); });
  live_count_ = live_by_text_.size();
  const std::string text = text_of(request);
  if (auto found = live_by_text_.find(text); found != live_by_text_.end()) {
    auto query = found->second.lock();
    if (query && !query->current().error && live_.has(*query)) return started(std::move(query));
  }
  if (live_by_text_.size() >= shared_->live_max)
    return started(fail(Code::kBusy, "LIVE_TOO_MANY: too many live queries run on this database"));
  auto query = std::make_shared<LiveQuery>(std::move(request), live_.shared());
  auto added = live_.add(query, live_state());
  {
    std::lock_guard lock(mutex_);
    is_rested_ = false;
  }
  if (!added) {
    query.reset();
    live_.forget_unused();
    return started(fail(std::move(added).error()));
  }
  live_by_text_[text] = query;
  live_count_ = live_by_text_.size();
  started(std::move(query));
}

// A read transaction that is old keeps the -wal from starting again.
void DatabaseFeed::rest_later() {
  {
    std::lock_guard lock(mutex_);
    if (error_ || is_rested_ || std::exchange(rest_planned_, true)) return;
  }
  shared_->timers.at(SteadyClock::now() + kRestAfter, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->post([feed = self.get()] {
      {
        std::lock_guard lock(feed->mutex_);
        feed->rest_planned_ = false;
        feed->is_rested_ = feed->live_.empty();
      }
      if (!feed->reader_) return;
      feed->live_.forget_unused();
      feed->reader_->walk().rest();
    });
  });
}

void DatabaseFeed::end(Error error) {
  log::debug("the feed of '{}' ends: {}", name_.text(), error.message());
  if (!shared_->store.position(name_)) error = Error(Code::kNotFound, "the database was dropped");
  {
    std::lock_guard lock(mutex_);
    error_ = error;
    kept_.clear();
  }
  live_.end(error);
  reader_.reset();
  listeners_.call();
}

}  // namespace offprint::feed
