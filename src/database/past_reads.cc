#include "database/past_reads.h"

#include <algorithm>

#include "database/reader_session.h"
#include "database/user_connection.h"
#include "sqlite/page_database.h"

namespace offprint::database {
namespace {

constexpr std::size_t kStatesMax = 8;

void answer(Request& request, Error error, const Bookmark& bookmark) {
  Outcome outcome;
  outcome.state = Outcome::State::kRejected;
  outcome.error = std::move(error);
  outcome.bookmark = bookmark;
  request.done(std::move(outcome));
}

}  // namespace

class PastReads::State {
 public:
  // Makes it, once, for the first who asks; the others wait.
  Result<> open(const Source& source, Environment& environment) {
    std::lock_guard lock(mutex_);
    if (connection_) return {};
    OFFPRINT_TRY_ASSIGN(snapshot_, source.make());
    sqlite::PageDatabase::Content content;
    content.page_size = snapshot_->page_size();
    content.page_count = snapshot_->page_count();
    content.read = [this](std::uint32_t page) { return snapshot_->page(page); };
    pages_ = std::make_unique<sqlite::PageDatabase>(std::move(content));
    UserConnection::Options options;
    options.vfs = pages_->vfs();
    options.foreign_keys = source.options.foreign_keys;
    options.encoding = source.options.encoding;
    options.reads_only = true;
    options.watchdog = &environment.watchdog;
    OFFPRINT_TRY_ASSIGN(connection_, UserConnection::open(pages_->path(), options));
    return {};
  }

  void run(const Source& source, std::unique_ptr<Request> request) {
    std::lock_guard lock(mutex_);
    UserConnection& connection = *connection_;
    connection.set_limits(source.limits, snapshot_->page_size(), ++limits_version_);
    ReaderSession session(connection);
    connection.clear_timed_out();
    connection.set_deadline(request->deadline);
    session.set_rights(request->rights.get());
    request->run(session);
    connection.set_deadline(Deadline::max());
    connection.clear_timed_out();
    const bool stays_open = request->keep_transaction() && !session.autocommit();
    session.finish();
    if (!connection.autocommit()) (void)connection.run_internal("ROLLBACK");
    const Bookmark bookmark = snapshot_->position().bookmark();
    if (session.lost()) {
      return answer(
          *request,
          Error(Code::kInvalid, "EARLIER_STATE: an earlier state of a database can only be read"),
          bookmark);
    }
    if (stays_open) {
      return answer(
          *request,
          Error(Code::kInvalid, "EARLIER_STATE: no transaction can stay open on an earlier state"),
          bookmark);
    }
    Outcome outcome;
    outcome.bookmark = bookmark;
    request->done(std::move(outcome));
  }

  Deadline used;  // guarded by PastReads::mutex_

 private:
  std::mutex mutex_;
  // State below is guarded by mutex_; each needs the one before it.
  std::unique_ptr<Snapshot> snapshot_;
  std::unique_ptr<sqlite::PageDatabase> pages_;
  std::unique_ptr<UserConnection> connection_;
  std::uint64_t limits_version_ = 0;
};

void PastReads::run(const Source& source, std::unique_ptr<Request> request) {
  auto state = find(source);
  if (!state) return answer(*request, state.error(), {});
  (*state)->run(source, std::move(request));
  {
    std::lock_guard lock(mutex_);
    (*state)->used = SteadyClock::now();
  }
  state->reset();
  environment_.timers.at(SteadyClock::now() + kKept + std::chrono::milliseconds(50), [this] {
    environment_.helpers.post([this] { close_idle(SteadyClock::now() - kKept); });
  });
}

Result<std::shared_ptr<PastReads::State>> PastReads::find(const Source& source) {
  std::shared_ptr<State> state;
  const Key key{source.database_id, source.at};
  std::vector<std::shared_ptr<State>> closed;  // without the lock: that may take long
  {
    std::lock_guard lock(mutex_);
    std::shared_ptr<State>& place = states_[key];
    if (!place) place = std::make_shared<State>();
    place->used = SteadyClock::now();
    state = place;
    while (states_.size() > kStatesMax) {
      auto oldest =
          std::ranges::min_element(states_, {}, [](const auto& each) { return each.second->used; });
      closed.push_back(std::move(oldest->second));
      states_.erase(oldest);
    }
  }
  closed.clear();
  if (auto opened = state->open(source, environment_); !opened) {
    std::lock_guard lock(mutex_);
    if (auto found = states_.find(key); found != states_.end() && found->second == state)
      states_.erase(found);
    return fail(std::move(opened).error());
  }
  return state;
}

void PastReads::close_idle(Deadline used_before) {
  std::vector<std::shared_ptr<State>> closed;
  std::lock_guard lock(mutex_);
  std::erase_if(states_, [&](auto& each) {
    if (each.second.use_count() > 1 || each.second->used > used_before) return false;
    closed.push_back(std::move(each.second));
    return true;
  });
}

void PastReads::clear() { close_idle(Deadline::max()); }

}  // namespace offprint::database
