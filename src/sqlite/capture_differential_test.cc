#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>

#include <fmt/format.h>

#include "sqlite/capture_testing.h"

// Differential test of the capture: whatever a random workload does, the transactions that the gate
// accepted, applied in order, are the database; and a crash image (copies of the files, opened by
// stock SQLite) shows exactly those. Rounds: some seconds of them, or OFFPRINT_TEST_ROUNDS. A
// failure names the seed of its round.
namespace offprint::sqlite::testing {
namespace {

constexpr std::uint32_t kUsualPendingByte = 0x40000000;

struct Totals {
  int refused = 0, foreign_refused = 0, rolled_back = 0, vacuums = 0, checkpoints = 0, empty = 0;
  int comparisons = 0, crash_images = 0;
  CaptureCounts counts;

  void add(const CaptureCounts& more) {
    counts.commits += more.commits;
    counts.refusals += more.refusals;
    counts.held_again += more.held_again;
    counts.overlays += more.overlays;
    counts.in_place += more.in_place;
    counts.from_file += more.from_file;
    counts.foreign += more.foreign;
    counts.foreign_lost += more.foreign_lost;
  }
};

// randomblob() and salts repeat with the seed; 0: by chance again.
void seed_sqlite(unsigned seed) {
  sqlite3* none = nullptr;
  sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, static_cast<int>(seed), none);
}

// One database, one seed, some dozens of steps.
class Round final : public CommitGate {
 public:
  Round(unsigned seed, const CaptureRules& rules, Totals& totals)
      : seed_(seed), totals_(totals), random_(seed) {
    const std::uint32_t sizes[] = {512, 512, 512, 1024, 1024, 2048, 4096, 4096, 8192, 65536};
    page_size_ = sizes[below(10)];
    max_blob_ = std::min<int>(static_cast<int>(page_size_) * 6, 60'000);
    if (below(2) == 0) max_blob_ = std::min<int>(static_cast<int>(page_size_) / 2, max_blob_);
    bool lock_page_inside = below(3) == 0;
    std::uint32_t pending = lock_page_inside ? 65536 : kUsualPendingByte;
    sqlite3_test_control(SQLITE_TESTCTRL_PENDING_BYTE, pending);
    seed_sqlite(seed + 1);
    if (lock_page_inside) lock_page_ = 65536 / page_size_ + 1;
    set_up(rules);
  }
  ~Round() override {
    if (state_ != nullptr) totals_.add(state_->counts());
    third_.reset();
    reader_.reset();
    writer_.reset();
    sqlite3_test_control(SQLITE_TESTCTRL_PENDING_BYTE, kUsualPendingByte);
    seed_sqlite(0);
  }

  // The first thing that was wrong.
  const std::optional<std::string>& run() {
    int steps = page_size_ < 65536 ? 60 : 20;
    for (step_ = 0; step_ < steps && !failure_; ++step_) one_step();
    if (!failure_) final_checks();
    return failure_;
  }

  Result<> commit(CapturedTransaction& transaction) override {
    check_shape(transaction);
    if (below(4) == 0) check_crash_image("crash image while undecided");
    if (below(8) == 0) {
      ++totals_.refused;
      return fail(Code::kUnavailable, "refused");
    }
    model_.apply(transaction);
    accepted_ = true;
    return {};
  }
  Result<> foreign_commit(CapturedTransaction* transaction) override {
    if (below(8) == 0) {
      ++totals_.foreign_refused;
      foreign_refused_ = true;
      return fail(Code::kUnavailable, "refused");
    }
    if (transaction == nullptr) {
      reload_model();
    } else {
      check_shape(*transaction);
      model_.apply(*transaction);
    }
    return {};
  }
  void broken(const Error& error) override { wrong("broken: " + error.message()); }

 private:
  int below(int limit) { return static_cast<int>(random_() % static_cast<unsigned>(limit)); }

  void wrong(const std::string& what) {
    if (failure_) return;
    failure_ = fmt::format("seed {} step {} page size {}: {}", seed_, step_, page_size_, what);
  }

  int write(const std::string& sql) { return code_of(*writer_, sql); }
  int foreign(const std::string& sql) { return code_of(*reader_, sql); }

  void set_up(const CaptureRules& rules) {
    register_capture_vfs();
    path_ = folder_ / "a.db";
    writer_.emplace(open_connection(path_, "offprint"));
    write(fmt::format("PRAGMA page_size={}; PRAGMA auto_vacuum={}; PRAGMA journal_mode=WAL",
                      page_size_, below(3)));
    write(
        fmt::format("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size={}; "
                    "PRAGMA secure_delete={}; PRAGMA cache_spill=1",
                    1 + below(12), below(2)));
    write(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, k, v); CREATE INDEX ti ON t(k);"
        "CREATE TABLE u(k, v); CREATE INDEX ui ON u(k, v)");
    reader_.emplace(open_connection(path_));
    foreign("PRAGMA wal_autocheckpoint=0");
    third_.emplace(open_connection(path_));
    state_ = capture_state(*writer_);
    state_->rules = rules;
    const std::size_t memory[] = {0, 3 * std::size_t{page_size_}, kCaptureMemoryMax};
    state_->set_memory_max(memory[below(3)]);
    if (Result<> set = set_commit_gate(*writer_, this); !set) wrong(set.error().message());
    reload_model();
  }

  void reload_model() {
    if (Result<Pages> now = read_pages(*third_)) {
      model_ = *std::move(now);
    } else {
      wrong("cannot read: " + now.error().message());
    }
  }

  void check_shape(CapturedTransaction& transaction) {
    if (transaction.page_size() != page_size_) wrong("a transaction has another page size");
    std::uint32_t last = 0;
    for (std::uint32_t page : transaction.pages()) {
      if (page <= last || page > transaction.page_count())
        wrong("pages are not ascending and within the size");
      if (page == lock_page_) wrong("a transaction has the lock page");
      last = page;
    }
    // Every page by which the database grows is in the transaction.
    std::size_t grown = 0;
    for (std::uint32_t page : transaction.pages()) grown += page > model_.count() ? 1 : 0;
    if (transaction.page_count() > model_.count()) {
      std::size_t needed = transaction.page_count() - model_.count();
      if (lock_page_ > model_.count() && lock_page_ <= transaction.page_count()) --needed;
      if (grown < needed) wrong("a transaction lacks pages by which the database grew");
    }
  }

  void compare(const Result<Pages>& found, const std::string& what) {
    ++totals_.comparisons;
    if (!found) return wrong(what + ": " + found.error().message());
    if (found->count() != model_.count()) {
      return wrong(fmt::format("{}: {} pages instead of {}", what, found->count(), model_.count()));
    }
    for (std::uint32_t page = 1; page <= model_.count(); ++page) {
      if (page == lock_page_ || found->images[page - 1] == model_.images[page - 1]) continue;
      return wrong(fmt::format("{}: page {} of {} differs", what, page, model_.count()));
    }
  }

  void check_crash_image(const std::string& what) {
    ++totals_.crash_images;
    std::string copy = folder_ / "crash.db";
    for (const char* suffix : {"", "-wal"}) {
      std::filesystem::copy_file(path_ + suffix, copy + suffix,
                                 std::filesystem::copy_options::overwrite_existing);
    }
    {
      Connection crashed = open_connection(copy);
      compare(read_pages(crashed), what);
      if (below(4) == 0) check_integrity(crashed, what);
    }
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(copy + suffix);
  }

  void check_integrity(Connection& connection, const std::string& what) {
    Result<std::string> answer = connection.query_text("PRAGMA integrity_check");
    if (!answer) return wrong(what + ": " + answer.error().message());
    if (*answer != "ok") wrong(what + ": " + *answer);
  }

  // A change to the data, by the connection that `run` stands for.
  template <class Run>
  void change(Run run) {
    int blob = 1 + below(max_blob_);
    switch (below(11)) {
      case 0:
      case 1:
      case 2:
        run(fmt::format("INSERT INTO t(k, v) VALUES({}, randomblob({}))", below(1000), blob));
        break;
      case 3:
        run(fmt::format("UPDATE t SET v=randomblob({}) WHERE id%{}={}", 1 + blob / 4, 2 + below(20),
                        below(20)));
        break;
      case 4:
        run(fmt::format("DELETE FROM t WHERE id%{}={}", 2 + below(6), below(6)));
        break;
      case 5:
        run(fmt::format("INSERT INTO u SELECT k, substr(v, 1, {}) FROM t LIMIT {}", 1 + below(200),
                        below(80)));
        break;
      case 6:
        run(fmt::format("UPDATE u SET k=k+{} WHERE k%{}=0", below(100), 1 + below(8)));
        break;
      case 7:
        run(below(3) == 0 ? "DELETE FROM u" : fmt::format("DELETE FROM u WHERE k>{}", below(500)));
        break;
      case 8:
        run(fmt::format(
            "INSERT INTO t(k, v) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c "
            "WHERE i<{}) SELECT i, randomblob({}) FROM c",
            1 + below(60), 1 + blob / 3));
        break;
      case 9:
        if (below(4) == 0) {
          run("CREATE TABLE IF NOT EXISTS x(a, b); CREATE INDEX IF NOT EXISTS xi ON x(b);"
              "INSERT INTO x SELECT id, v FROM t LIMIT 40");
        } else {
          run("DROP TABLE IF EXISTS x");
        }
        break;
      case 10:
        run(fmt::format("PRAGMA incremental_vacuum({})", below(20)));
        break;
    }
  }

  void changes(int depth) {
    auto run = [this](const std::string& sql) { write(sql); };
    for (int left = 1 + below(8); left > 0; --left) {
      if (depth < 3 && below(3) == 0) {
        write(fmt::format("SAVEPOINT s{}", depth));
        changes(depth + 1);
        if (below(2) == 0) write(fmt::format("ROLLBACK TO s{}", depth));
        write(fmt::format("RELEASE s{}", depth));
      } else {
        change(run);
      }
    }
  }

  // BEGIN IMMEDIATE, again while the gate refuses what a foreign program wrote.
  bool begin() {
    for (int attempt = 0; attempt < 50; ++attempt) {
      foreign_refused_ = false;
      int code = write("BEGIN IMMEDIATE");
      if (code == SQLITE_OK) return true;
      if (!foreign_refused_ || code != SQLITE_IOERR_LOCK) {
        wrong(fmt::format("BEGIN IMMEDIATE: {}", extended_name(code)));
        return false;
      }
    }
    return false;
  }

  int commit_transaction() {
    int code = write("COMMIT");
    if (code == SQLITE_BUSY) code = write("COMMIT");  // only when a refusal wrongly is BUSY
    return code;
  }

  int write_transaction() {
    if (!begin()) return SQLITE_OK;
    for (int requests = 1 + below(4); requests > 0; --requests) {
      write("SAVEPOINT r");
      changes(0);
      if (below(4) == 0) write("ROLLBACK TO r");
      write("RELEASE r");
    }
    if (below(6) != 0) return commit_transaction();
    ++totals_.rolled_back;
    write("ROLLBACK");
    return SQLITE_OK;
  }

  int everything_undone() {
    ++totals_.empty;
    if (!begin()) return SQLITE_OK;
    write("SAVEPOINT a");
    changes(1);
    changes(1);
    write("ROLLBACK TO a; RELEASE a");
    return commit_transaction();
  }

  void random_checkpoint() {
    ++totals_.checkpoints;
    Connection* by[] = {&*writer_, &*reader_, &*third_};
    const int modes[] = {SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_FULL,
                         SQLITE_CHECKPOINT_RESTART, SQLITE_CHECKPOINT_TRUNCATE};
    Result<CheckpointResult> done = checkpoint(*by[below(3)], modes[below(4)]);
    if (!done && !foreign_refused_) wrong("checkpoint: " + done.error().message());
  }

  void foreign_program_writes() {
    auto run = [this](const std::string& sql) { foreign(sql); };
    for (int commits = 1 + below(3); commits > 0; --commits) {
      foreign("BEGIN IMMEDIATE");
      for (int left = 1 + below(3); left > 0; --left) change(run);
      foreign("COMMIT");
      if (below(12) == 0) foreign("VACUUM");
      foreign_refused_ = false;
      if (below(4) == 0) random_checkpoint();
    }
    if (!begin()) return;
    write("COMMIT");
  }

  void one_step() {
    accepted_ = false;
    foreign_refused_ = false;
    int code = SQLITE_OK;
    int kind = below(40);
    if (kind == 0) {
      ++totals_.vacuums;
      code = write("VACUUM");
    } else if (kind < 5) {
      random_checkpoint();
    } else if (kind < 8) {
      foreign_program_writes();
    } else if (kind == 8) {
      code = everything_undone();
    } else if (kind == 9) {
      ++totals_.empty;
      write("BEGIN IMMEDIATE; COMMIT");
      if (accepted_) wrong("an empty commit was handed over");
    } else if (kind == 10) {
      code = write(fmt::format("PRAGMA user_version={}", below(1000)));
    } else {
      code = write_transaction();
    }
    if (!writer_->autocommit()) write("ROLLBACK");
    if (accepted_ && code != SQLITE_OK) wrong(fmt::format("accepted, but {}", extended_name(code)));
    compare(read_pages(*reader_), accepted_ ? "after a commit" : "after a step without a commit");
    if (below(10) == 0) check_crash_image("crash image after a step");
    if (below(25) == 0) compare(read_pages(*writer_), "the writer's own view");
  }

  void final_checks() {
    check_integrity(*writer_, "at the end");
    if (Result<CheckpointResult> done = checkpoint(*writer_, SQLITE_CHECKPOINT_TRUNCATE);
        !done || done->busy) {
      return wrong("the last checkpoint did not finish");
    }
    std::ifstream file(path_, std::ios::binary);
    std::string content{std::istreambuf_iterator<char>(file), {}};
    Pages pages;
    for (std::size_t at = 0; at < content.size(); at += page_size_) {
      pages.images.push_back(content.substr(at, page_size_));
    }
    compare(pages, "the checkpointed file");
  }

  unsigned seed_;
  Totals& totals_;
  std::mt19937 random_;
  std::uint32_t page_size_;
  int max_blob_;
  std::uint32_t lock_page_ = 0;
  ScratchFolder folder_;
  std::string path_;
  std::optional<Connection> writer_;
  std::optional<Connection> reader_;  // stock, also the foreign writer
  std::optional<Connection> third_;   // stock
  CaptureState* state_ = nullptr;
  Pages model_;
  bool accepted_ = false;
  bool foreign_refused_ = false;
  int step_ = 0;
  std::optional<std::string> failure_;
};

// Rounds to run: as many as the environment says, else up to some dozens within a few seconds.
class Budget {
 public:
  Budget() {
    if (const char* wanted = std::getenv("OFFPRINT_TEST_ROUNDS")) wanted_ = std::atoi(wanted);
  }
  bool has(int round) const {
    if (wanted_ >= 0) return round < wanted_;
    return round < kFewest || (round < kMost && std::chrono::steady_clock::now() < end_);
  }

 private:
  static constexpr int kFewest = 6;
  static constexpr int kMost = 60;
  int wanted_ = -1;
  std::chrono::steady_clock::time_point end_ =
      std::chrono::steady_clock::now() + std::chrono::seconds(12);
};

TEST(CaptureDifferential, AcceptedTransactionsAreTheDatabase) {
  Totals totals;
  Budget budget;
  for (int i = 0; budget.has(i); ++i) {
    Round round(static_cast<unsigned>(1000 + i), CaptureRules{}, totals);
    std::optional<std::string> failure = round.run();
    ASSERT_FALSE(failure) << *failure;
  }
  const CaptureCounts& counts = totals.counts;
  fmt::print(
      "{} commits, {} refused, {} rolled back, {} VACUUM, {} checkpoints, {} empty; foreign: {} "
      "captured, {} "
      "unknown, {} refused; {} comparisons, {} crash images; in place {}, held again {}, overlays "
      "{}, "
      "read back {}\n",
      counts.commits, counts.refusals, totals.rolled_back, totals.vacuums, totals.checkpoints,
      totals.empty, counts.foreign, counts.foreign_lost, totals.foreign_refused, totals.comparisons,
      totals.crash_images, counts.in_place, counts.held_again, counts.overlays, counts.from_file);
  // What the test is about did happen.
  EXPECT_GT(counts.commits, 0u);
  EXPECT_GT(counts.refusals, 0u);
  EXPECT_GT(counts.in_place, 0u);
  EXPECT_GT(counts.held_again, 0u);
  EXPECT_GT(counts.overlays, 0u);
  EXPECT_GT(counts.from_file, 0u);
  EXPECT_GT(counts.foreign, 0u);
  EXPECT_GT(totals.crash_images, 0);
}

struct Mutant {
  const char* name;
  CaptureRules rules;
};

class CaptureMutant : public ::testing::TestWithParam<Mutant> {};

// Each rule is needed: without it the differential test fails.
TEST_P(CaptureMutant, IsCaught) {
  Totals totals;
  for (unsigned seed = 1000; seed < 1200; ++seed) {
    Round round(seed, GetParam().rules, totals);
    if (std::optional<std::string> failure = round.run()) {
      fmt::print("caught: {}\n", *failure);
      return;
    }
  }
  ADD_FAILURE() << "nothing was noticed";
}

CaptureRules busy_refusal() {
  CaptureRules rules;
  rules.refusal = SQLITE_BUSY;
  return rules;
}

INSTANTIATE_TEST_SUITE_P(Rules, CaptureMutant,
                         ::testing::Values(Mutant{"Overlay", {.overlay_held_header = false}},
                                           Mutant{"Clear", {.clear_at_write_lock = false}},
                                           Mutant{"Cut", {.cut_after_commit = false}},
                                           Mutant{"LastFrameWins", {.last_frame_wins = false}},
                                           Mutant{"Size", {.drop_beyond_size = false}},
                                           Mutant{"Hold", {.hold_commit_header = false}},
                                           Mutant{"Busy", busy_refusal()}),
                         [](const auto& mutant) { return std::string(mutant.param.name); });

}  // namespace
}  // namespace offprint::sqlite::testing
