#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "database/executor.h"
#include "database/store.h"
#include "database/subscribers.h"
#include "feed/change_reader.h"
#include "feed/live_query.h"

namespace offprint::feed {

// What the feeds of a node share. Thread: any.
struct FeedShared {
  database::Store& store;
  std::size_t transaction_bytes_max = 16 << 20;  // of more, no rows are told
  std::size_t kept_bytes_max = 16 << 20;         // transactions in memory, of one database …
  std::size_t kept_count_max = 10'000;
  std::size_t bytes_max = 256 << 20;  // … and of all, with those that slow listeners still hold
  std::size_t live_max = 10'000;      // live queries of one database
  std::size_t readers_max = 16;       // listeners that keep what they read behind the memory with
  int threads = 2;
  std::shared_ptr<std::atomic<std::size_t>> bytes = std::make_shared<std::atomic<std::size_t>>(0);
  std::atomic<std::size_t> readers{0};
  std::atomic<std::uint64_t> transactions{0}, live_runs{0};
  database::Timers timers{};
  database::ThreadPool followers{threads}, catching_up{threads};
};

class ChangeCursor;

// Follows one database as long as somebody listens: its last transactions, and the results of its
// live queries. After an error it has ended, and who listens is told. Thread: any.
class DatabaseFeed : public std::enable_shared_from_this<DatabaseFeed> {
 public:
  // Blocks. From the database's newest state on.
  static Result<std::shared_ptr<DatabaseFeed>> open(std::shared_ptr<FeedShared> shared,
                                                    const database::DatabaseName& name);
  ~DatabaseFeed();

  const database::DatabaseName& name() const { return name_; }
  FeedShared& shared() { return *shared_; }

  // Where it stands. From memory.
  Bookmark position() const;
  std::optional<Error> error() const;

  // `changed` is called (on any thread, must be quick) when it stands at a further transaction, or
  // has ended. `with_rows`: what rows changed is looked at from about then on.
  std::unique_ptr<database::Subscription> listen(bool with_rows, std::function<void()> changed);
  // The transaction that follows on a position, if it is in memory.
  struct Next {
    std::shared_ptr<const Transaction> transaction;
    bool is_behind = false;  // memory does not reach back there, or has no rows of it
  };
  Next after(const Bookmark& position, bool with_rows) const;
  void add_cursor(const std::shared_ptr<ChangeCursor>& cursor);

  // The query that is kept up for all who ask for the same with the same rights; run when it calls
  // `started` with nothing, or the error. Thread of `started`: any.
  void open_live(LiveRequest request,
                 std::function<void(Result<std::shared_ptr<LiveQuery>>)> started);
  std::size_t live_count() const { return live_count_.load(std::memory_order_relaxed); }

 private:
  using Task = std::function<void()>;
  DatabaseFeed(std::shared_ptr<FeedShared> shared, database::DatabaseName name);
  void note();
  void post(Task task);
  void work();
  bool take_turn();
  bool advance();
  void publish(std::shared_ptr<const Transaction> transaction, bool with_rows);
  void shrink();
  Result<> on_step(StateWalk& walk);
  Result<ByteView> live_page(PageNo page);
  LiveQueries::State live_state();
  void start_live(LiveRequest request,
                  const std::function<void(Result<std::shared_ptr<LiveQuery>>)>& started);
  void rest_later();
  void end(Error error);

  const std::shared_ptr<FeedShared> shared_;
  const database::DatabaseName name_;
  std::unique_ptr<database::Subscription> commits_;
  database::Subscribers<> listeners_;
  std::shared_ptr<std::atomic<int>> row_listeners_ = std::make_shared<std::atomic<int>>(0);
  std::atomic<std::size_t> live_count_{0};

  // Of the thread whose turn it is.
  std::unique_ptr<ChangeReader> reader_;
  LiveQueries live_;
  bool in_step_ = false;
  std::uint64_t runs_counted_ = 0;
  std::map<std::string, std::weak_ptr<LiveQuery>> live_by_text_;

  struct Kept {
    std::shared_ptr<const Transaction> transaction;
    bool has_rows;
  };
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  bool busy_ = false, again_ = false, rest_planned_ = false, is_rested_ = true;
  std::deque<Task> tasks_;
  Bookmark position_;
  std::deque<Kept> kept_;
  std::size_t kept_bytes_ = 0;
  std::optional<Error> error_;
  std::vector<std::weak_ptr<ChangeCursor>> cursors_;
};

}  // namespace offprint::feed
