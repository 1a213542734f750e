// Databases that follow a program's own file, with the program in this process: SQLite keeps its
// connections apart as it does those of other processes.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tail/tail_testing.h"

namespace offprint::tail::testing {
namespace {

using ::testing::HasSubstr;

class TailerTest : public TailTest {
 protected:
  Lineage lineage() { return store_->position(name("orders"))->lineage; }
  Position position() { return *store_->position(name("orders")); }
};

constexpr char kTable[] = "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT)";

TEST_F(TailerTest, TakesWhatIsThereAndWhatComes) {
  auto writer = program();
  run(writer, kTable);
  start_tail();
  expect_equal_soon();
  for (int i = 0; i < 50; ++i) run(writer, fmt::format("INSERT INTO t VALUES({}, 'x')", i));
  expect_equal_soon();
  EXPECT_EQ(status().comparisons, 1u);
  EXPECT_EQ(status().state, TailState::kFollowing);
  EXPECT_EQ(query("orders", "SELECT count(*) FROM t"), "50");
}

TEST_F(TailerTest, IsReadOnlyAndSaysWhoseFileItIs) {
  auto writer = program();
  run(writer, kTable);
  start_tail();
  expect_equal_soon();
  auto refused = run("orders", {"INSERT INTO t VALUES(1, 'x')"});
  ASSERT_TRUE(refused.outcome.error);
  EXPECT_EQ(refused.outcome.error->code(), Code::kForbidden);
  EXPECT_THAT(refused.outcome.error->message(), HasSubstr("DATABASE_TAILED"));
  EXPECT_THAT(refused.outcome.error->message(), HasSubstr(path_));
  EXPECT_EQ(store_->import_file(name("orders"), path_).error().code(), Code::kConflict);
  // An interactive transaction may read.
  auto begun = run("orders", {"BEGIN TRANSACTION READONLY", "SELECT count(*) FROM t"}, true);
  ASSERT_TRUE(begun.outcome.held);
  run(writer, "INSERT INTO t VALUES(1, 'x')");
  expect_equal_soon();
  EXPECT_EQ(run_held(begun.outcome.held, {"SELECT count(*) FROM t"}, false).statements[0].rows[0],
            "0");
  EXPECT_EQ(query("orders", "SELECT count(*) FROM t"), "1");
}

TEST_F(TailerTest, WaitsForAFileThatIsNotThere) {
  start_tail();
  EXPECT_TRUE(wait_until([&] { return status().error == "it does not exist"; }));
  EXPECT_EQ(status().state, TailState::kWaiting);
  auto writer = program();
  run(writer, kTable);
  expect_equal_soon();
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFollowing; }));
}

TEST_F(TailerTest, WaitsForAFolderThatIsNotThere) {
  std::filesystem::remove_all(folder_.path() + "/app");
  start_tail();
  EXPECT_TRUE(wait_until([&] { return status().error == "its folder does not exist"; }));
  std::filesystem::create_directories(folder_.path() + "/app");
  auto writer = program();
  run(writer, kTable);
  expect_equal_soon();
}

TEST_F(TailerTest, TakesWhatHappenedWhileItWasAway) {
  auto writer = program();
  run(writer, kTable);
  start_tail();
  expect_equal_soon();
  Position before = position();
  tailer_.reset();
  for (int i = 0; i < 300; ++i)
    run(writer, fmt::format("INSERT INTO t VALUES({}, '{}')", i, std::string(200, 'x')));
  run(writer, "DELETE FROM t WHERE id < 100; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
  open();  // the store, too
  start_tail();
  expect_equal_soon();
  EXPECT_EQ(position().txid, before.txid.next());  // as one transaction
  EXPECT_EQ(lineage(), before.lineage);
  tailer_.reset();
  start_tail();
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFollowing; }));
  EXPECT_EQ(position().txid, before.txid.next());  // nothing happened, nothing is sent
}

TEST_F(TailerTest, AnotherFileIsAnotherLineage) {
  {
    auto writer = program();
    run(writer, std::string(kTable) + "; INSERT INTO t VALUES(1, 'old')");
  }
  start_tail();
  expect_equal_soon();
  Position before = position();
  EXPECT_TRUE(wait_until([&] { return status().wal_bytes == 0; }));
  const std::string first = path_;
  path_ = folder_.path() + "/app/other.db";
  {
    auto writer = program();
    run(writer, "CREATE TABLE u(a); INSERT INTO u VALUES('new'); PRAGMA wal_checkpoint(TRUNCATE)");
  }
  std::filesystem::rename(path_, first);
  path_ = first;
  expect_equal_soon();
  EXPECT_NE(lineage(), before.lineage);
  EXPECT_EQ(position().epoch.value, before.epoch.value + 1);
  EXPECT_GT(position().txid, before.txid);
  EXPECT_EQ(query("orders", "SELECT a FROM u"), "new");
  EXPECT_TRUE(wait_until([&] { return status().lineages == 1; }));
  auto writer = program();
  run(writer, "INSERT INTO u VALUES('newer')");
  expect_equal_soon();
}

TEST_F(TailerTest, AFileThatIsGoneStaysReadableAndComesBack) {
  {
    auto writer = program();
    run(writer, std::string(kTable) + "; INSERT INTO t VALUES(1, 'old')");
  }
  start_tail();
  expect_equal_soon();
  Lineage before = lineage();
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kWaiting; }));
  EXPECT_EQ(query("orders", "SELECT text FROM t"), "old");
  auto writer = program();
  run(writer, std::string(kTable) + "; INSERT INTO t VALUES(1, 'new')");
  expect_equal_soon();
  EXPECT_EQ(query("orders", "SELECT text FROM t"), "new");
  EXPECT_NE(lineage(), before);
}

// `cp backup.db program.db` when all is quiet, as people restore backups.
TEST_F(TailerTest, AFileThatIsWrittenOverIsTaken) {
  const std::string first = path_;
  for (const char* text : {"backup", "first"}) {
    path_ = text == std::string("first") ? first : folder_.path() + "/app/backup.db";
    auto writer = program();
    run(writer, fmt::format("{}; INSERT INTO t VALUES(1, '{}{}')", kTable, text,
                            std::string(text == std::string("first") ? 10 : 100'000, 'x')));
  }
  start_tail();
  expect_equal_soon();
  auto is_at_rest = [&] {  // times of files have steps of some milliseconds
    auto age = std::filesystem::file_time_type::clock::now() -
               std::max(std::filesystem::last_write_time(path_),
                        std::filesystem::last_write_time(path_ + "-wal"));
    return std::filesystem::file_size(path_ + "-wal") == 0 && age > std::chrono::milliseconds(50);
  };
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(wait_until(is_at_rest));
    std::filesystem::copy_file(folder_.path() + "/app/backup.db", path_,
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_TRUE(wait_until([&] {
      return query("orders", "SELECT group_concat(id || substr(text, 1, 6)) FROM t") == "1backup";
    })) << status().error;
    expect_equal_soon();
    {
      auto writer = program();  // which reads all of it, and goes on
      EXPECT_EQ(*writer.query_text("PRAGMA integrity_check"), "ok");
      run(writer, "INSERT INTO t(text) VALUES('more')");
      expect_equal_soon();
    }
  }
  EXPECT_EQ(status().comparisons, 3u);
}

// What no program of SQLite's does, and scripts do: what is left beside a closed file goes. (Of the
// -shm all connections of one process share the one that was there.)
TEST_F(TailerTest, AWalMayBeRemovedFromAClosedFile) {
  {
    auto writer = program();
    run(writer, fmt::format("{}; INSERT INTO t VALUES(1, 'first')", kTable));
  }
  start_tail();
  expect_equal_soon();
  for (int round = 0; round < 2; ++round) {
    const std::uint64_t comparisons = status().comparisons;
    {
      auto writer = program();
      for (int i = 0; i < 50; ++i) run(writer, "INSERT INTO t(text) VALUES(hex(randomblob(2000)))");
      run(writer, "PRAGMA wal_checkpoint(FULL)");
    }
    std::filesystem::remove(path_ + "-wal");
    auto writer = program();
    for (int i = 0; i < 50; ++i)
      run(writer, "UPDATE t SET text = hex(randomblob(2000)) WHERE id = 1 + abs(random() % 50)");
    EXPECT_TRUE(wait_until([&] { return status().comparisons > comparisons; }));
    expect_equal_soon();
    EXPECT_EQ(*writer.query_text("PRAGMA integrity_check"), "ok");
    EXPECT_EQ(query("orders", "PRAGMA integrity_check"), "ok");
  }
}

// Comparing a large file takes its time; nobody waits for that who stops.
TEST_F(TailerTest, AComparisonEndsWhenItIsToStop) {
  {
    auto writer = program();
    run(writer,
        "PRAGMA synchronous=OFF; CREATE TABLE t(b); WITH RECURSIVE n(i) AS (SELECT 1 UNION "
        "ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO t SELECT randomblob(1000000) "
        "FROM n");
  }
  start_tail();
  ASSERT_TRUE(wait_until([&] { return status().state == TailState::kComparing; }));
  Deadline begun = SteadyClock::now();
  tailer_->stop();
  EXPECT_LT(SteadyClock::now() - begun, std::chrono::seconds(1));
  EXPECT_NE(status().state, TailState::kFollowing);
  EXPECT_EQ(position().txid.value, 0u);  // nothing of it
  start_tail();
  ASSERT_TRUE(wait_until([&] { return status().state == TailState::kComparing; }));
  ASSERT_TRUE(store_->drop(name("orders")));
  EXPECT_TRUE(wait_until([&] { return status().error.find("was dropped") != std::string::npos; }));
}

TEST_F(TailerTest, PagesOfAnotherSizeAreAnotherLineage) {
  {
    auto writer = program();
    run(writer, std::string(kTable) + "; INSERT INTO t VALUES(1, 'x')");
  }
  start_tail();
  expect_equal_soon();
  Lineage before = lineage();
  tailer_.reset();
  {
    auto writer = program("DELETE");
    run(writer, "PRAGMA page_size=1024; VACUUM");
    run(writer, "PRAGMA journal_mode=WAL");
  }
  start_tail();
  expect_equal_soon();
  EXPECT_EQ(store_->info(name("orders"))->page_size, 1024u);
  EXPECT_NE(lineage(), before);
  EXPECT_EQ(query("orders", "SELECT text FROM t"), "x");
}

TEST_F(TailerTest, RollbackModeIsRefusedUntilItIsLeft) {
  auto writer = program("DELETE");
  run(writer, kTable);
  start_tail();
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFailed; }));
  EXPECT_THAT(status().error, HasSubstr("PRAGMA journal_mode=WAL"));
  run(writer, "INSERT INTO t VALUES(1, 'x')");  // it is not disturbed
  EXPECT_TRUE(writer.query_text("PRAGMA journal_mode=WAL"));
  expect_equal_soon();
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFollowing; }));
}

TEST_F(TailerTest, RollbackModeIsLeftWhenAsked) {
  auto writer = program("DELETE");
  run(writer, kTable);
  tail_options_.each.set_wal = true;
  start_tail();
  expect_equal_soon();
  run(writer, "INSERT INTO t VALUES(1, 'x')");
  expect_equal_soon();
  EXPECT_EQ(*writer.query_text("PRAGMA journal_mode"), "wal");
}

TEST_F(TailerTest, WhatIsNoDatabaseIsRefused) {
  std::ofstream(path_) << std::string(5000, 'x');
  start_tail();
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFailed; }));
  EXPECT_THAT(status().error, HasSubstr("no SQLite database"));
  std::filesystem::remove(path_);
  auto writer = program();
  run(writer, kTable);
  expect_equal_soon();
}

TEST_F(TailerTest, ADatabaseOfItsOwnIsNotTaken) {
  create("orders");
  auto writer = program();
  run(writer, kTable);
  start_tail();
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFailed; }));
  EXPECT_THAT(status().error, HasSubstr("one of its own"));
  EXPECT_EQ(run("orders", {"CREATE TABLE mine(a)"}).statements[0].code, 0);
}

// A writer that never rests, and never checkpoints.
TEST_F(TailerTest, TheWalStaysBoundedUnderAWriterThatNeverRests) {
  tail_options_.each.checkpoint_frames = 50;
  tail_options_.each.restart_frames = 400;
  auto writer = program();
  run(writer, std::string("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF; ") + kTable);
  start_tail();
  expect_equal_soon();
  const std::string text(1000, 'y');
  bool restarted = wait_until(
      [&] {
        for (int i = 0; i < 10; ++i)
          run(writer, fmt::format("INSERT INTO t(text) VALUES('{}{}')", text, i));
        return status().restarts >= 3;
      },
      60);
  EXPECT_TRUE(restarted);
  EXPECT_LT(std::filesystem::file_size(path_ + "-wal"), 40u << 20);
  expect_equal_soon();
  EXPECT_EQ(status().comparisons, 1u);  // by its -wal alone
}

// A program's own checkpoints begin the -wal anew as if nobody looked on: SQLite's default for them
// keeps it at 1,000 pages.
TEST_F(TailerTest, AFastProgramsCheckpointsAreNotInTheWay) {
  auto writer = program();
  run(writer, std::string("PRAGMA synchronous=OFF; ") + kTable);
  start_tail();
  expect_equal_soon();
  auto insert = *writer.prepare("INSERT INTO t(text) VALUES(hex(randomblob(20)))");
  std::uintmax_t largest = 0;
  int written = 0;
  for (Deadline until = SteadyClock::now() + std::chrono::seconds(2); SteadyClock::now() < until;) {
    for (int i = 0; i < 10; ++i, ++written) ASSERT_TRUE(insert.run());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    largest = std::max(largest, std::filesystem::file_size(path_ + "-wal"));
  }
  expect_equal_soon();
  std::printf("%d commits, at most %.1f MiB in the -wal, %zu transactions, %zu comparisons\n",
              written, static_cast<double>(largest) / (1 << 20),
              static_cast<std::size_t>(status().transactions),
              static_cast<std::size_t>(status().comparisons));
  EXPECT_LT(largest, std::size_t{tail_options_.each.restart_frames} * 4096 / 2);
  EXPECT_EQ(status().restarts, 0u);
}

TEST_F(TailerTest, AnIdleWalIsEmptied) {
  auto writer = program();
  run(writer, std::string(kTable) + "; INSERT INTO t VALUES(1, 'x')");
  start_tail();
  expect_equal_soon();
  EXPECT_TRUE(wait_until([&] { return std::filesystem::file_size(path_ + "-wal") == 0; }));
  run(writer, "INSERT INTO t VALUES(2, 'x')");
  expect_equal_soon();
  EXPECT_EQ(status().comparisons, 1u);
}

// A program's own checkpoints end, whatever Offprint holds. One that meets the moment in which
// Offprint looks whether there is one is busy at once, as beside any other checkpoint, and is made
// again.
TEST_F(TailerTest, CheckpointsOfTheProgramSucceed) {
  tail_options_.each.quiet = std::chrono::milliseconds(600'000);
  auto writer = program();
  run(writer, std::string("PRAGMA wal_autocheckpoint=0; ") + kTable);
  start_tail();
  expect_equal_soon();
  for (int i = 0; i < 20; ++i) {
    run(writer, fmt::format("INSERT INTO t VALUES({}, 'x')", i));
    const char* mode = i % 3 == 0 ? "TRUNCATE" : i % 3 == 1 ? "RESTART" : "FULL";
    const Deadline before = SteadyClock::now();
    std::int64_t busy = 1;
    for (int tries = 0; busy != 0 && tries < 5; ++tries)
      busy = *writer.query_int(fmt::format("PRAGMA wal_checkpoint({})", mode).c_str());
    EXPECT_EQ(busy, 0) << mode;
    EXPECT_LT(SteadyClock::now() - before, std::chrono::seconds(8))
        << mode;  // its busy timeout: 10 s
  }
  expect_equal_soon();
}

TEST_F(TailerTest, TheDatabasesOwnDamageIsMended) {
  auto writer = program();
  run(writer, std::string(kTable) + "; INSERT INTO t VALUES(1, 'x')");
  start_tail();
  expect_equal_soon();
  const std::string file = file_of("orders");
  Lineage before = lineage();
  tailer_.reset();
  store_.reset();
  {
    auto foreigner = sqlite::Connection::open(file, {});
    ASSERT_TRUE(foreigner && foreigner->execute("INSERT INTO t VALUES(2, 'not his')"));
  }
  open();
  start_tail();
  run(writer, "INSERT INTO t VALUES(3, 'y')");
  expect_equal_soon();
  EXPECT_EQ(query("orders", "SELECT group_concat(id) FROM t"), "1,3");
  EXPECT_EQ(lineage(), before);
}

// Random transactions, checkpoints and VACUUM; sizes from one page to thousands.
TEST_F(TailerTest, RandomTransactionsAreTakenExactly) {
  std::mt19937 random(std::random_device{}());
  tail_options_.each.checkpoint_frames = 100;
  tail_options_.each.restart_frames = 500;
  tail_options_.each.quiet = std::chrono::milliseconds(20);
  auto writer = program();
  run(writer,
      "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA synchronous=OFF; VACUUM; "
      "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)");
  start_tail();
  for (int i = 0; i < 400; ++i) {
    switch (random() % 12) {
      case 0:
        run(writer, "DELETE FROM t WHERE id % 3 = 0; PRAGMA incremental_vacuum");
        break;
      case 1:
        run(writer, "PRAGMA wal_checkpoint(PASSIVE)");
        break;
      case 2:
        if (random() % 8 == 0) run(writer, "VACUUM");
        break;
      case 3:
        run(writer, "UPDATE t SET b = randomblob(length(b)) WHERE id % 11 = 0");
        break;
      case 4:
        if (random() % 10 == 0) run(writer, "INSERT INTO t(b) VALUES(randomblob(6000000))");
        break;
      default:
        run(writer, fmt::format("INSERT INTO t(b) VALUES(randomblob({}))", random() % 20'000));
    }
    if (i % 20 == 0) expect_equal_soon();
  }
  expect_equal_soon();
}

TEST(TailedFileTest, NameAndPath) {
  auto file = parse_tailed_file("shop/orders=/srv/a=b.db");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->name.text(), "shop/orders");
  EXPECT_EQ(file->path, "/srv/a=b.db");
  EXPECT_FALSE(parse_tailed_file("orders"));
  EXPECT_FALSE(parse_tailed_file("orders="));
  EXPECT_FALSE(parse_tailed_file("Orders!=/x"));
}

}  // namespace
}  // namespace offprint::tail::testing
