#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replica/replica_file.h"
#include "replica/replica_testing.h"

// A follower that is killed again and again, beside readers: everything in processes of their own,
// for SQLite's locks belong to a process.
namespace offprint::replica {
namespace {

using sqlite::Connection;
using sqlite::testing::content_hash;
using sqlite::testing::open_plain;
using testing::LtxPrimary;
using testing::SentState;
using testing::SentTransaction;
using testing::TemporaryFolder;

int rounds_wanted() {
  const char* text = std::getenv("OFFPRINT_TEST_ROUNDS");
  return text == nullptr ? 40 : std::max(1, std::atoi(text));
}

// What a replica is led through: step i makes state i+1 of state i, by a transaction or by a
// resync.
struct Script {
  struct Step {
    bool resync = false;
    SentTransaction transaction;
    SentState state;  // of a resync
  };
  std::uint32_t page_size = 0;
  SentState first;
  std::vector<Step> steps;
  std::vector<Position> positions;            // of state 0, 1, …
  std::vector<std::uint64_t> content_hashes;  // the same

  // The state a position stands for, and the number of states when there is none.
  std::size_t find(const Position& position) const {
    return static_cast<std::size_t>(std::find(positions.begin(), positions.end(), position) -
                                    positions.begin());
  }
};

Script make_script(const TemporaryFolder& folder, std::uint32_t page_size, std::uint64_t seed,
                   int transactions) {
  Script script;
  script.page_size = page_size;
  for (int lineage = 0; lineage < 3; ++lineage) {
    sqlite::testing::RandomPrimary::Options options;
    options.page_size = page_size;
    options.seed = seed * 10 + static_cast<std::uint64_t>(lineage);
    options.auto_vacuum = lineage;
    options.cookie_jumps = true;
    options.rows_max = 120;
    LtxPrimary primary(folder / ("primary" + std::to_string(lineage)), options);
    primary.primary().make_tables();
    primary.capture();
    for (int i = 0; i < 20; ++i) primary.random_transaction();
    SentState state = primary.state();
    script.positions.push_back(state.position);
    script.content_hashes.push_back(state.content_hash);
    if (lineage == 0) {
      script.first = std::move(state);
    } else {
      script.steps.push_back({true, {}, std::move(state)});
    }
    for (int i = 0; i < transactions / 3; ++i) {
      SentTransaction sent = primary.random_transaction();
      script.positions.push_back(sent.position);
      script.content_hashes.push_back(sent.content_hash);
      script.steps.push_back({false, std::move(sent), {}});
    }
  }
  return script;
}

// Shared with the child processes.
struct Board {
  std::atomic<std::uint64_t> reached;  // states the follower has applied
  std::atomic<std::uint64_t> reads;
  std::atomic<bool> stop;
};

Board* make_board() {
  void* memory =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return new (memory) Board{};
}

[[noreturn]] void die(int code, const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  _exit(code);
}

// Goes on from where FILE stands, to the end of the script. Ends with 0, or is killed.
[[noreturn]] void run_follower(const Script& script, const std::string& path, std::uint64_t seed,
                               Board& board) {
  std::mt19937_64 random(seed);
  ReplicaFile::Options options;
  options.busy_timeout_ms = 20'000;
  auto replica = ReplicaFile::open(path, options);
  if (!replica) die(10, "open: " + replica.error().message());
  if ((*replica)->absent()) {
    if (auto done = testing::send_snapshot(**replica, script.first, nullptr); !done)
      die(11, done.error().message());
  }
  auto position = (*replica)->position();
  if (!position) die(12, "the position is not known: " + (*replica)->doubt());
  std::size_t state = script.find(*position);
  if (state == script.positions.size()) die(13, "the position is no state of the primary");
  if (state < board.reached.load()) die(14, "the position went back");
  auto verified = (*replica)->verify();
  if (!verified || !*verified) die(15, "FILE is not what its note says: " + (*replica)->doubt());
  while (state < script.steps.size()) {
    Result<> done;
    std::size_t count = 1;
    if (script.steps[state].resync) {
      done = testing::resync(**replica, script.steps[state].state);
    } else {
      TransactionBatch batch(*(*replica)->position(), script.page_size);
      std::size_t most = 1 + (random() % 3 == 0 ? random() % 6 : 0);
      for (count = 0; count < most && state + count < script.steps.size(); ++count) {
        const Script::Step& step = script.steps[state + count];
        if (step.resync) break;
        auto file = ltx::decode(step.transaction.ltx);
        if (!file) die(16, file.error().message());
        if (auto added = batch.add(step.transaction.position.epoch, *std::move(file)); !added) {
          die(17, added.error().message());
        }
      }
      done = (*replica)->apply(batch);
    }
    if (!done) die(18, "apply: " + done.error().message());
    state += count;
    board.reached.store(state);
    if (random() % 8 == 0) {
      if (auto moved = (*replica)->checkpoint(true); !moved) die(19, moved.error().message());
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 1500));
  }
  _exit(0);
}

// Reads FILE until told to stop: each view must be one state, never an older one than before.
[[noreturn]] void run_reader(const Script& script, const std::string& path, bool keep_connection,
                             Board& board) {
  while (access(path.c_str(), F_OK) != 0 && !board.stop)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::optional<Connection> reader;
  std::size_t last = 0;
  std::mt19937_64 random(keep_connection ? 1 : 2);
  try {
    while (!board.stop) {
      if (!reader) reader.emplace(open_plain(path, 20'000));
      std::uint64_t hash = content_hash(*reader);
      std::size_t state = last;
      while (state < script.content_hashes.size() && script.content_hashes[state] != hash) ++state;
      if (state == script.content_hashes.size()) {
        bool older =
            std::count(script.content_hashes.begin(), script.content_hashes.end(), hash) > 0;
        die(20, older ? "a reader went back" : "a reader saw what never was");
      }
      last = state;
      ++board.reads;
      if (keep_connection && random() % 20 == 0) {  // hold a snapshot for a while
        sqlite::testing::must(*reader, "BEGIN; SELECT count(*) FROM t");
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 30));
        sqlite::testing::must(*reader, "COMMIT");
      }
      if (!keep_connection && random() % 4 == 0) reader.reset();
      if (!keep_connection && reader && random() % 10 == 0) {
        sqlite::testing::must(
            *reader,
            "PRAGMA busy_timeout=3; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout=20000");
      }
    }
  } catch (const std::exception& error) {
    die(21, std::string("a reader failed: ") + error.what());
  }
  _exit(0);
}

template <class Body>
pid_t start_process(const Body& body) {
  std::fflush(nullptr);
  pid_t child = fork();
  if (child == 0) body();
  return child;
}

void expect_exit(pid_t child, int wanted) {
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (wanted == SIGKILL && WIFSIGNALED(status)) {
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    return;
  }
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 0);
}

class ReplicaKill : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(ReplicaKill, ReadersSeeCommittedStatesOnlyAndThePositionIsExact) {
  int rounds_left = rounds_wanted() / 2;
  int kills = 0;
  int finished = 0;
  std::uint64_t reads = 0;
  for (std::uint64_t pass = 0; rounds_left > 0; ++pass) {
    TemporaryFolder folder;
    std::uint64_t seed = GetParam() + pass;
    SCOPED_TRACE("page size " + std::to_string(GetParam()) + ", pass " + std::to_string(pass));
    // The primaries' connections are closed before any process is forked.
    Script script = make_script(folder, GetParam(), seed, 300);
    std::string path = folder / "copy.db";
    Board* board = make_board();
    pid_t kept = start_process([&] { run_reader(script, path, true, *board); });
    pid_t fresh = start_process([&] { run_reader(script, path, false, *board); });
    std::mt19937_64 random(seed);
    bool done = false;
    while (rounds_left > 0 && !done && !HasFatalFailure()) {
      std::uint64_t child_seed = random();
      pid_t child = start_process([&] { run_follower(script, path, child_seed, *board); });
      std::this_thread::sleep_for(std::chrono::microseconds(2000 + random() % 40'000));
      kill(child, SIGKILL);
      expect_exit(child, SIGKILL);
      ++kills;
      --rounds_left;
      done = board->reached.load() >= script.steps.size();
    }
    // The last one is left alone.
    if (!HasFatalFailure()) {
      pid_t child = start_process([&] { run_follower(script, path, 1, *board); });
      expect_exit(child, 0);
      ++finished;
    }
    board->stop = true;
    expect_exit(kept, 0);
    expect_exit(fresh, 0);
    reads += board->reads.load();
    if (!HasFatalFailure()) {
      Connection reader = open_plain(path);
      EXPECT_EQ(content_hash(reader), script.content_hashes.back());
      EXPECT_EQ(*reader.query_text("PRAGMA integrity_check"), "ok");
    }
    munmap(board, sizeof(Board));
    if (HasFatalFailure()) return;
  }
  std::printf("page size %u: %d kills, %d followers that finished, %llu reads\n", GetParam(), kills,
              finished, static_cast<unsigned long long>(reads));
  EXPECT_GT(reads, 0u);
}

INSTANTIATE_TEST_SUITE_P(PageSizes, ReplicaKill, ::testing::Values(1024u, 4096u));

}  // namespace
}  // namespace offprint::replica
