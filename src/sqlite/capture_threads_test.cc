#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>

#include <fmt/format.h>

#include "sqlite/capture_testing.h"

// The capture under threads; the program is also run with the thread sanitizer.
namespace offprint::sqlite::testing {
namespace {

struct PointOrder {
  bool operator()(const WalPoint& a, const WalPoint& b) const {
    return std::tuple(a.salt1, a.salt2, a.frame) < std::tuple(b.salt1, b.salt2, b.frame);
  }
};

// Numbers the commits and keeps the number of each point, as a server keeps its txids.
class NumberingGate final : public CommitGate {
 public:
  Result<> commit(CapturedTransaction& transaction) override {
    std::lock_guard lock(mutex_);
    numbers_[transaction.wal_point()] = ++last_;
    return {};
  }
  Result<> foreign_commit(CapturedTransaction*) override {
    ADD_FAILURE() << "nobody else writes";
    return {};
  }
  void broken(const Error& error) override { ADD_FAILURE() << error.message(); }

  // 0: none.
  int number_of(const WalPoint& point) {
    std::lock_guard lock(mutex_);
    auto found = numbers_.find(point);
    return found == numbers_.end() ? 0 : found->second;
  }

 private:
  std::mutex mutex_;
  int last_ = 0;
  std::map<WalPoint, int, PointOrder> numbers_;
};

TEST(CaptureThreads, SnapshotPointNamesTheCommitThatAReaderSees) {
  constexpr int kCommits = 400;
  ScratchFolder folder;
  std::string path = folder / "a.db";
  Connection writer = open_hosted(path);
  must(writer, "CREATE TABLE t(n); INSERT INTO t VALUES(0)");
  NumberingGate gate;
  ASSERT_TRUE(set_commit_gate(writer, &gate));
  std::atomic<bool> done = false;
  std::atomic<int> matched = 0;
  auto read = [&] {
    Connection reader = open_connection(path, "offprint");
    while (!done) {
      must(reader, "BEGIN");
      Result<std::int64_t> seen = reader.query_int("SELECT n FROM t");
      ASSERT_TRUE(seen) << seen.error().message();
      Result<WalPoint> point = snapshot_point(reader);
      ASSERT_TRUE(point) << point.error().message();
      must(reader, "COMMIT");
      // Frame 0: the -wal was restarted, and what is seen is all in the database file. Number 0:
      // before the gate.
      if (point->frame == 0 || *seen == 0) continue;
      ASSERT_EQ(gate.number_of(*point), *seen);
      ++matched;
    }
  };
  std::thread first(read);
  std::thread second(read);
  std::thread checkpoints([&] {
    Connection own = open_connection(path, "offprint");
    while (!done) ASSERT_TRUE(checkpoint(own, SQLITE_CHECKPOINT_PASSIVE));
  });
  for (int i = 1; i <= kCommits || matched < 50; ++i) must(writer, "UPDATE t SET n=n+1");
  done = true;
  first.join();
  second.join();
  checkpoints.join();
  EXPECT_GE(matched, 50);
}

TEST(CaptureThreads, DatabasesDoNotMeet) {
  constexpr int kThreads = 4;
  ScratchFolder folder;
  register_capture_vfs();
  auto work = [&](int number) {
    std::string path = folder / fmt::format("{}.db", number);
    Connection connection = open_hosted(path);
    must(connection, "PRAGMA cache_size=5; CREATE TABLE t(v)");
    RecordingGate gate;
    ASSERT_TRUE(set_commit_gate(connection, &gate));
    capture_state(connection)->set_memory_max(number % 2 == 0 ? 0 : kCaptureMemoryMax);
    Result<Pages> model = read_pages(connection);
    ASSERT_TRUE(model);
    for (int i = 0; i < 40; ++i) {
      gate.refuse = i % 5 == 4;
      int code =
          code_of(connection,
                  "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c "
                  "WHERE i<30) SELECT randomblob(500) FROM c");
      ASSERT_EQ(code, gate.refuse ? SQLITE_IOERR_FSYNC : SQLITE_OK);
    }
    for (const RecordingGate::Seen& seen : gate.commits) {
      model->images.resize(seen.page_count);
      for (std::size_t i = 0; i < seen.pages.size(); ++i)
        model->images[seen.pages[i] - 1] = seen.images[i];
    }
    Connection reader = open_connection(path);
    Result<Pages> now = read_pages(reader);
    ASSERT_TRUE(now);
    EXPECT_TRUE(*now == *model);
    EXPECT_EQ(gate.commits.size(), 32u);
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace offprint::sqlite::testing
