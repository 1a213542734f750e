#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "database/request.h"
#include "database/subscribers.h"
#include "database/user_connection.h"
#include "feed/transaction.h"
#include "publication/tree_diff.h"
#include "sqlite/page_database.h"

namespace offprint::feed {

// A query whose result is followed.
struct LiveRequest {
  database::SqlStatement statement;
  std::vector<std::string>
      key;  // names of columns; empty: rows are told from each other as a whole
  std::shared_ptr<const database::SqlRights> rights;  // null: everything
};

// The same text for what may share a result.
std::string text_of(const LiveRequest& request);

// A result at one state. Immutable.
struct LiveResult {
  Bookmark at;
  std::vector<std::string> columns;
  std::vector<std::size_t> key;  // places of the key's columns
  std::vector<std::shared_ptr<const Row>> in_order;
  std::map<std::string, std::shared_ptr<const Row>> by_key;
};

// From one result to another: what goes by its key (without one: whole rows), what comes.
struct LiveDifference {
  std::vector<Row> removed;
  std::vector<std::shared_ptr<const Row>> put;
  bool empty() const { return removed.empty() && put.empty(); }
};
LiveDifference difference(const LiveResult& from, const LiveResult& to);

// User SQL on the pages of one state, which tells which pages a run read. Thread: one at a time.
class LiveConnection {
 public:
  using Pages = std::function<Result<ByteView>(PageNo)>;
  static constexpr std::size_t kRowsMax = 10'000, kBytesMax = 8 << 20, kReadMax = 4'096;
  static constexpr std::chrono::milliseconds kTimeMax{1'000};

  explicit LiveConnection(Pages pages) : pages_(std::move(pages)) {}
  ~LiveConnection();

  // The state is another one; statements are compiled anew when the schema is.
  Result<> changed(std::uint32_t page_size, std::uint32_t page_count, bool has_new_schema);

  struct Run {
    std::shared_ptr<LiveResult> result;  // `at` is the caller's to set
    std::vector<PageNo> read;            // pages, each once, without page 1
    bool reads_everything = false;       // any change may change the result
  };
  // `kept`: where the compiled statement waits for the next run. kInvalid, kForbidden, kSql,
  // kTimeout; kTooLarge: over the limits above.
  using Kept = std::optional<database::UserConnection::Lease>;
  Result<Run> run(const LiveRequest& request, Kept& kept);
  // How often statements were lost: what is kept from before must be dropped unused.
  std::uint64_t generation() const { return generation_; }

 private:
  Result<> open();
  Result<> prepare(const LiveRequest& request, Kept& kept);
  Result<> gather(const LiveRequest& request, sqlite::Statement& statement, LiveResult& result);
  Result<bool> has_odd_views();

  const Pages pages_;
  std::uint32_t page_size_ = 0, page_count_ = 0;
  std::uint64_t generation_ = 0;
  bool records_ = false;
  std::unordered_set<PageNo> read_;
  std::unique_ptr<sqlite::PageDatabase> database_;
  std::unique_ptr<database::UserConnection> connection_;  // ends before database_
  std::optional<bool> odd_views_;
};

// What the live queries of a database have in common.
struct LiveShared {
  std::mutex mutex;
  Bookmark position;  // guarded by mutex; all results are those of it, but for what is dirty
};

// One query that is kept up. Thread: results, any; the rest is its feed's.
class LiveQuery {
 public:
  LiveQuery(LiveRequest request, std::shared_ptr<LiveShared> shared)
      : request_(std::move(request)), shared_(std::move(shared)) {}

  const LiveRequest& request() const { return request_; }
  // The newest result; null: it has ended, error() says why.
  struct Current {
    std::shared_ptr<const LiveResult> result;
    Bookmark valid_to;  // it was the result up to this state at least
    std::optional<Error> error;
  };
  Current current() const;
  // `changed` is called (on any thread, must be quick) when there is another result.
  std::unique_ptr<database::Subscription> listen(std::function<void()> changed) {
    return listeners_.add(std::move(changed));
  }

 private:
  friend class LiveQueries;
  void set(std::shared_ptr<const LiveResult> result);
  void fail_with(Error error);

  const LiveRequest request_;
  const std::shared_ptr<LiveShared> shared_;
  Current current_;        // guarded by shared_->mutex; valid_to counts while it is dirty
  bool is_dirty_ = false;  // guarded by shared_->mutex: to be run again
  database::Subscribers<> listeners_;
  // The feed's.
  LiveConnection::Kept kept_;
  std::uint64_t generation_ = 0;
  std::vector<PageNo> read_;
  Deadline not_before_{};
};

// All live queries of a database: which of them a transaction may have changed. Thread: its feed's.
class LiveQueries {
 public:
  explicit LiveQueries(LiveConnection::Pages pages) : connection_(std::move(pages)) {}
  ~LiveQueries() { end(Error(Code::kUnavailable, "the feed has ended")); }

  // For queries that are to be added.
  const std::shared_ptr<LiveShared>& shared() const { return shared_; }

  struct State {
    Bookmark at;
    std::uint32_t page_size = 0, page_count = 0;
  };
  // Runs a query for the first time and keeps it up from then on.
  Result<> add(const std::shared_ptr<LiveQuery>& query, const State& state);
  // A transaction wrote `written`. `affects_all`: beyond what pages tell, such as the schema.
  void note(const publication::PageSet& written, bool has_new_schema, bool affects_all,
            const State& state);
  // Runs those that were put off. Nothing: there are none; else when the next is due.
  std::optional<Deadline> run_due(const State& state);
  // Drops those that nobody holds.
  void forget_unused();
  void end(const Error& error);
  bool empty() const { return queries_.empty(); }
  bool has(const LiveQuery& query) const {
    return std::ranges::any_of(queries_, [&](const auto& each) { return each.get() == &query; });
  }

  // Runs so far, for metrics and tests.
  std::uint64_t runs() const { return runs_.load(std::memory_order_relaxed); }

 private:
  void run(LiveQuery& query, const State& state);
  void unlink(LiveQuery& query);
  void mark_dirty(LiveQuery& query);

  const std::shared_ptr<LiveShared> shared_ = std::make_shared<LiveShared>();
  LiveConnection connection_;
  std::vector<std::shared_ptr<LiveQuery>> queries_;
  std::unordered_map<PageNo, std::unordered_set<LiveQuery*>> readers_;  // by page
  std::unordered_set<LiveQuery*> wide_, dirty_;
  std::atomic<std::uint64_t> runs_{0};
};

}  // namespace offprint::feed
