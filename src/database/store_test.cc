#include <fstream>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "database/testing.h"
#include "ltx/checksum.h"

namespace offprint::database::testing {
namespace {

using namespace std::chrono_literals;

TEST_F(StoreTest, CreateWriteReadReopen) {
  create("shop/orders");
  Answers made = run("shop/orders", {"CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)"});
  EXPECT_EQ(made.outcome.state, Outcome::State::kCommitted);
  EXPECT_EQ(made.outcome.bookmark.txid.value, 1u);
  Answers inserted = run("shop/orders", {"INSERT INTO t(v) VALUES('a'),('b')"});
  EXPECT_EQ(inserted.statements[0].changes, 2);
  EXPECT_EQ(inserted.statements[0].last_insert_rowid, 2);
  EXPECT_EQ(inserted.outcome.bookmark.txid.value, 2u);
  Answers read = run("shop/orders", {"SELECT v FROM t ORDER BY id"});
  EXPECT_EQ(read.statements[0].rows, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read.outcome.bookmark, inserted.outcome.bookmark);
  open();
  EXPECT_EQ(query("shop/orders", "SELECT group_concat(v) FROM t"), "a,b");
  EXPECT_EQ(run("shop/orders", {"INSERT INTO t(v) VALUES('c')"}).outcome.bookmark.txid.value, 3u);
}

TEST_F(StoreTest, CatalogRefusesDuplicatesAndBadNames) {
  create("orders");
  EXPECT_EQ(store_->create(name("orders"), {}).error().code(), Code::kConflict);
  for (const char* bad :
       {"", "Orders", "a/b/c", "-a", "a//b", "query", "shop/stream", "a/", "../x"}) {
    EXPECT_FALSE(DatabaseName::parse(bad)) << bad;
  }
  EXPECT_EQ(run("nothere", {"SELECT 1"}).outcome.error->code(), Code::kNotFound);
}

TEST_F(StoreTest, DropForgetsContentButNeverGoesBackInEpoch) {
  create("orders");
  Bookmark before = run("orders", {"CREATE TABLE t(a)"}).outcome.bookmark;
  ASSERT_TRUE(store_->drop(name("orders")));
  EXPECT_EQ(run("orders", {"SELECT 1"}).outcome.error->code(), Code::kNotFound);
  open();
  create("orders");
  Bookmark after = run("orders", {"CREATE TABLE u(a)"}).outcome.bookmark;
  EXPECT_EQ(query("orders", "SELECT name FROM sqlite_schema"), "u");
  EXPECT_GT(after.epoch, before.epoch);
  EXPECT_NE(after.lineage, before.lineage);
}

TEST_F(StoreTest, AFailingRequestLeavesItsNeighboursAlone) {
  create("b");
  run("b", {"CREATE TABLE u(k INTEGER UNIQUE, v)"});
  std::vector<std::future<Answers>> futures;
  for (int i = 0; i < 60; ++i) {
    std::string sql = i % 10 == 3   ? fmt::format("INSERT OR ROLLBACK INTO u VALUES({}, 0)", i - 1)
                      : i % 10 == 6 ? "INSERT INTO nowhere VALUES(1)"
                                    : fmt::format("INSERT INTO u VALUES({}, {})", i, i);
    futures.push_back(start("b", {sql}));
  }
  int good = 0;
  for (int i = 0; i < 60; ++i) {
    Answers answers = futures[static_cast<std::size_t>(i)].get();
    EXPECT_EQ(answers.outcome.state, Outcome::State::kCommitted);
    bool fails = i % 10 == 3 || i % 10 == 6;
    EXPECT_EQ(answers.statements.at(0).code != 0, fails) << i << answers.statements[0].message;
    good += fails ? 0 : 1;
  }
  EXPECT_EQ(query("b", "SELECT count(*) FROM u"), std::to_string(good));
}

TEST_F(StoreTest, InteractiveTransactionHoldsTheWriteSlotAndExpires) {
  options_.transaction_idle_ms = 150;
  open();
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  Answers begun = run("b", {"BEGIN", "INSERT INTO t VALUES(1)"}, true);
  ASSERT_TRUE(begun.outcome.held);
  auto other = start("b", {"INSERT INTO t VALUES(2)"});
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "0");
  EXPECT_EQ(run_held(begun.outcome.held, {"SELECT count(*) FROM t"}).statements[0].rows[0], "1");
  EXPECT_EQ(other.wait_for(0s), std::future_status::timeout);
  EXPECT_FALSE(run_held(begun.outcome.held, {"COMMIT"}).outcome.held);
  other.get();
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "1,2");

  Answers lost = run("b", {"BEGIN IMMEDIATE", "INSERT INTO t VALUES(3)"}, true);
  auto waiting = start("b", {"INSERT INTO t VALUES(4)"});
  EXPECT_EQ(waiting.get().outcome.state, Outcome::State::kCommitted);
  Answers late = run_held(lost.outcome.held, {"COMMIT"});
  EXPECT_EQ(late.outcome.error->code(), Code::kTimeout);
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "1,2,4");
}

TEST_F(StoreTest, ReadTransactionKeepsItsSnapshotAndBlocksNobody) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  auto request =
      std::make_unique<TextRequest>(std::vector<std::string>{"SELECT count(*) FROM t"}, true);
  Answers begun = run("b", {"BEGIN TRANSACTION READONLY", "SELECT count(*) FROM t"}, true);
  if (!begun.outcome.held) GTEST_FAIL() << "the transaction did not stay open";
  Bookmark seen = begun.outcome.bookmark;
  run("b", {"INSERT INTO t VALUES(1)"});
  Answers again = run_held(begun.outcome.held, {"SELECT count(*) FROM t"});
  EXPECT_EQ(again.statements.at(0).rows.at(0), "0");
  EXPECT_EQ(again.outcome.bookmark, seen);
  store_->release(begun.outcome.held);
}

TEST_F(StoreTest, AReadWaitsForItsBookmark) {
  create("b");
  Bookmark now = run("b", {"CREATE TABLE t(a)"}).outcome.bookmark;
  auto later = [&](Deadline deadline) {
    auto request =
        std::make_unique<TextRequest>(std::vector<std::string>{"SELECT count(*) FROM t"}, false);
    request->at_least = Bookmark{now.epoch, now.txid.next(), now.lineage};
    request->deadline = deadline;
    auto future = request->future();
    store_->submit(name("b"), std::move(request));
    return future;
  };
  auto patient = later(Deadline::max());
  EXPECT_EQ(later(SteadyClock::now() + 50ms).get().outcome.error->code(), Code::kBehind);
  run("b", {"INSERT INTO t VALUES(1)"});
  EXPECT_EQ(patient.get().statements.at(0).rows.at(0), "1");
  auto never = std::make_unique<TextRequest>(std::vector<std::string>{"SELECT 1"}, false);
  never->at_least = Bookmark{now.epoch, now.txid, Lineage::random()};
  auto future = never->future();
  store_->submit(name("b"), std::move(never));
  EXPECT_EQ(future.get().outcome.error->code(), Code::kConflict);
}

TEST_F(StoreTest, PolicyRefusesWhatWouldLeak) {
  create("b");
  for (const char* sql :
       {"ATTACH 'x' AS y", "VACUUM INTO '/tmp/x'", "CREATE TEMP TABLE t(a)",
        "PRAGMA journal_mode=DELETE", "PRAGMA locking_mode=EXCLUSIVE", "PRAGMA synchronous=OFF",
        "PRAGMA writable_schema=ON", "SELECT load_extension('x')", "PRAGMA page_size=512"}) {
    Answers answers = run("b", {sql});
    ASSERT_EQ(answers.statements.size(), 1u) << sql;
    EXPECT_NE(answers.statements[0].code, 0) << sql;
  }
  EXPECT_EQ(query("b", "PRAGMA foreign_keys"), "1");
  EXPECT_EQ(run("b", {"PRAGMA foreign_keys=OFF"}).statements[0].code, 0);
  EXPECT_EQ(query("b", "PRAGMA foreign_keys"), "1");
  EXPECT_EQ(
      run("b", {"CREATE TABLE t(a)", "VACUUM", "PRAGMA user_version=7"}).statements[1].message, "");
  EXPECT_EQ(query("b", "PRAGMA user_version"), "7");
  EXPECT_EQ(query("b", "SELECT last_insert_rowid(), changes()"), "0|0");
}

// The rolling checksum, kept without ever scanning, is the one that a scan of all pages gives.
void expect_checksum(Store& store, const DatabaseName& name) {
  auto snapshot = store.snapshot(name);
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  Checksum sum = ltx::kEmptyDatabase;
  for (PageNo page = 1; page <= (*snapshot)->page_count(); ++page) {
    auto image = (*snapshot)->page(page);
    ASSERT_TRUE(image);
    sum = ltx::toggle(sum, ltx::page_checksum(page, *image));
  }
  EXPECT_EQ(to_hex(as_bytes(std::string_view(reinterpret_cast<const char*>(&sum), 8))).size(), 16u);
  EXPECT_EQ(sum, (*snapshot)->position().checksum) << (*snapshot)->position().txid.value;
}

TEST_F(StoreTest, RollingChecksumEqualsAScan) {
  std::mt19937 random(7);
  for (std::uint32_t page_size : {512u, 4096u, 65536u}) {
    CreateOptions options;
    options.page_size = page_size;
    options.auto_vacuum = static_cast<int>(random() % 3);
    std::string database = fmt::format("p{}", page_size);
    create(database, options);
    run(database, {"CREATE TABLE t(id INTEGER PRIMARY KEY, k, v)", "CREATE INDEX ti ON t(k)"});
    for (int round = 0; round < 60; ++round) {
      switch (random() % 6) {
        case 0:
          run(database, {fmt::format("DELETE FROM t WHERE id % {} = 0", 2 + random() % 4)});
          break;
        case 1:
          run(database, {"VACUUM"});
          break;
        case 2:
          run(database,
              {fmt::format("UPDATE t SET v = randomblob({}) WHERE id % 7 = 0", random() % 5000)});
          break;
        default:
          run(database, {fmt::format("INSERT INTO t(k, v) WITH RECURSIVE c(i) AS (SELECT 1 UNION "
                                     "ALL SELECT i + 1 FROM c"
                                     " WHERE i < {}) SELECT random(), randomblob({}) FROM c",
                                     1 + random() % 80, random() % 3000)});
      }
      if (round % 10 == 9) expect_checksum(*store_, name(database));
      if (round == 30) open();
    }
  }
}

TEST_F(StoreTest, ManyDatabasesShareTheJournalAndCloseWhenIdle) {
  options_.idle_close_ms = 100;
  open();
  for (int i = 0; i < 40; ++i) create(fmt::format("t{}", i));
  std::vector<std::future<Answers>> futures;
  for (int i = 0; i < 40; ++i)
    futures.push_back(start(fmt::format("t{}", i), {"CREATE TABLE t(a)"}));
  for (auto& future : futures) EXPECT_EQ(future.get().outcome.state, Outcome::State::kCommitted);
  Deadline deadline = SteadyClock::now() + 20s;
  while (store_->metrics().open_databases > 0 && SteadyClock::now() < deadline)
    std::this_thread::sleep_for(20ms);
  EXPECT_EQ(store_->metrics().open_databases, 0u);
  EXPECT_EQ(query("t7", "SELECT count(*) FROM t"), "0");
  EXPECT_LE(store_->metrics().journal_syncs, 200u);
}

TEST_F(StoreTest, LogGivesEveryTransactionOnce) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  for (int i = 0; i < 20; ++i) run("b", {fmt::format("INSERT INTO t VALUES({})", i)});
  Position now = store_->position(name("b")).value();
  Bookmark from{now.epoch, TxId{5}, now.lineage};
  auto entries = store_->log_after(name("b"), from, 100).value();
  ASSERT_EQ(entries.size(), 16u);
  EXPECT_EQ(entries.front().txid.value, 6u);
  EXPECT_EQ(entries.back().checksum, now.checksum);
  EXPECT_EQ(store_->checksum_at(name("b"), from).value(), entries.front().before);
  Bookmark other{now.epoch, TxId{5}, Lineage::random()};
  EXPECT_EQ(store_->log_after(name("b"), other, 1).error().code(), Code::kBehind);
}

TEST_F(StoreTest, ImportIsOneTransaction) {
  std::string file = folder_.path() + "/source.db";
  {
    sqlite::Connection::Options options;
    options.create = true;
    auto source = sqlite::Connection::open(file, options).value();
    ASSERT_TRUE(
        source.execute("PRAGMA page_size=8192; CREATE TABLE t(a, b); INSERT INTO t VALUES(1, "
                       "randomblob(100000))"));
  }
  create("b");
  auto imported = store_->import_file(name("b"), file);
  ASSERT_TRUE(imported) << imported.error().message();
  EXPECT_EQ(imported->txid.value, 1u);
  EXPECT_EQ(query("b", "SELECT a, length(b) FROM t"), "1|100000");
  EXPECT_EQ(store_->info(name("b"))->page_size, 8192u);
  expect_checksum(*store_, name("b"));
  EXPECT_EQ(store_->import_file(name("b"), file).error().code(), Code::kConflict);
  ASSERT_TRUE(store_->import_file(name("made"), file));
  EXPECT_EQ(query("made", "SELECT a, length(b) FROM t"), "1|100000");
  open();
  EXPECT_EQ(query("b", "SELECT a, length(b) FROM t"), "1|100000");
}

// A reader's connection keeps its read transaction for the next request.
TEST_F(StoreTest, ReadsSeeEveryCommitAtOnce) {
  create("b");
  run("b", {"CREATE TABLE t(a)", "INSERT INTO t VALUES(0)"});
  for (int i = 1; i <= 200; ++i) {
    run("b", {fmt::format("UPDATE t SET a = {}", i)});
    for (int again = 0; again < 2; ++again) {
      Answers read = run("b", {"SELECT a FROM t"});
      ASSERT_EQ(read.statements[0].rows.at(0), std::to_string(i));
      ASSERT_EQ(read.outcome.bookmark.txid, store_->position(name("b"))->txid);
    }
  }
  run("b", {"ALTER TABLE t ADD COLUMN more DEFAULT 'x'"});
  EXPECT_EQ(query("b", "SELECT * FROM t"), "200|x");
  EXPECT_FALSE(run("b", {"SELECT nothing FROM t"}).statements[0].message.empty());
  EXPECT_EQ(query("b", "SELECT * FROM t"), "200|x");
  // What another program commits, too.
  auto stock = sqlite::Connection::open(file_of("b"), {}).value();
  ASSERT_TRUE(stock.execute("UPDATE t SET a = 'foreign'"));
  EXPECT_EQ(query("b", "SELECT a FROM t"), "foreign");
}

TEST_F(StoreTest, ReadersDoNotKeepTheWalFromStartingAgain) {
  options_.checkpoint_frames = 20;
  open();
  create("b");
  run("b", {"CREATE TABLE t(a)", "INSERT INTO t VALUES(0)"});
  std::uintmax_t longest = 0;
  for (int i = 0; i < 1'000; ++i) {
    run("b", {"UPDATE t SET a = a + 1"});
    if (i < 500) query("b", "SELECT a FROM t");
    longest = std::max(longest, std::filesystem::file_size(file_of("b") + "-wal"));
  }
  EXPECT_LT(longest, 500u * 4120);  // checkpoints run beside the commits
}

TEST_F(StoreTest, NorDoLongReadsThatOverlap) {
  options_.checkpoint_frames = 20;
  open();
  create("b");
  run("b", {"CREATE TABLE t(a)", "INSERT INTO t VALUES(0)"});
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        query("b",
              "WITH RECURSIVE c(i) AS (SELECT a FROM t UNION ALL SELECT i + 1 FROM c WHERE i < "
              "100000) SELECT max(i) FROM c");
      }
    });
  }
  std::uintmax_t longest = 0;
  for (int i = 0; i < 3'000; ++i) {
    run("b", {"UPDATE t SET a = a + 1"});
    longest = std::max(longest, std::filesystem::file_size(file_of("b") + "-wal"));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_LT(longest, 1'000u * 4120);
}

TEST_F(StoreTest, AnImportThatFailsLeavesNothing) {
  std::string file = folder_.path() + "/text.db";
  std::ofstream(file) << "this is no database, and longer than the header of one: " +
                             std::string(200, 'x');
  EXPECT_EQ(store_->import_file(name("b"), file).error().code(), Code::kInvalid);
  EXPECT_FALSE(store_->import_file(name("b"), file + ".none"));
  EXPECT_EQ(store_->info(name("b")).error().code(), Code::kNotFound);
  EXPECT_TRUE(store_->list("", "", 10).empty());
  open();
  EXPECT_TRUE(store_->list("", "", 10).empty());
  create("b");
}

TEST_F(StoreTest, SegmentsAreFreedAndOldPositionsSaySo) {
  options_.journal.segment_size = 1 << 20;
  options_.log_bytes_max = 2 << 20;
  open();
  create("b");
  create("quiet");
  run("quiet", {"CREATE TABLE q(a)", "INSERT INTO q VALUES(42)"});
  Position first = store_->position(name("quiet")).value();
  run("b", {"CREATE TABLE t(a)"});
  Position start = store_->position(name("b")).value();
  for (int i = 0; i < 400; ++i)
    run("b", {"INSERT INTO t VALUES(randomblob(20000))", "DELETE FROM t WHERE rowid % 5 = 0"});
  Deadline deadline = SteadyClock::now() + 20s;
  while (store_->metrics().journal_disk_bytes > (6u << 20) && SteadyClock::now() < deadline)
    std::this_thread::sleep_for(20ms);
  EXPECT_LE(store_->metrics().journal_disk_bytes, 6u << 20);
  EXPECT_EQ(store_->log_after(name("b"), start.bookmark(), 1).error().code(), Code::kBehind);
  std::string count = query("b", "SELECT count(*) FROM t");
  open();
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), count);
  EXPECT_EQ(query("quiet", "SELECT a FROM q"), "42");
  EXPECT_EQ(store_->position(name("quiet")).value(), first);
  expect_checksum(*store_, name("b"));
}

TEST_F(StoreTest, AForeignWriteIsCaptured) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  {
    auto foreign = sqlite::Connection::open(file_of("b"), {}).value();
    ASSERT_TRUE(foreign.execute("INSERT INTO t VALUES('foreign')"));
  }
  Answers own = run("b", {"INSERT INTO t VALUES('own')"});
  EXPECT_EQ(own.outcome.state, Outcome::State::kCommitted);
  EXPECT_EQ(own.outcome.bookmark.txid.value, 3u);
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "foreign,own");
  expect_checksum(*store_, name("b"));
}

TEST_F(StoreTest, AForeignWriteIsCapturedBeforeTheFileIsClosed) {
  options_.idle_close_ms = 100;
  open();
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  auto write_foreign = [&] {
    auto foreign = sqlite::Connection::open(file_of("b"), {}).value();
    ASSERT_TRUE(foreign.execute("INSERT INTO t VALUES('foreign')"));
  };
  write_foreign();
  for (Deadline end = SteadyClock::now() + 20s;
       store_->info(name("b"))->open && SteadyClock::now() < end;)
    std::this_thread::sleep_for(10ms);
  EXPECT_EQ(store_->position(name("b"))->txid.value, 2u);
  options_.idle_close_ms = 60'000;
  open();
  query("b", "SELECT 1 FROM t");
  write_foreign();
  open();  // an orderly end, too
  EXPECT_EQ(store_->position(name("b"))->txid.value, 3u);
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "2");
  EXPECT_EQ(store_->info(name("b"))->stopped, "");
  expect_checksum(*store_, name("b"));
}

// What recovery finds is compared with what the journal says, page by page.
TEST_F(StoreTest, AFileThatDiffersAfterACrashIsNotServed) {
  create("b");
  run("b", {"CREATE TABLE t(a)", "INSERT INTO t VALUES('ours')", "CREATE TABLE u(a)",
            "INSERT INTO u VALUES('ours')"});
  open();  // everything is in the file now
  run("b", {"INSERT INTO t VALUES('ours')"});
  const std::string directory = options_.directory;
  for (const char* sql : {"", "INSERT INTO u VALUES('foreign')", "UPDATE u SET a = 'foreign'"}) {
    // As a kill would leave it.
    options_.directory = folder_.path() + "/killed";
    std::filesystem::remove_all(options_.directory);
    std::filesystem::copy(directory, options_.directory, std::filesystem::copy_options::recursive);
    {
      auto foreign = sqlite::Connection::open(file_of("b"), {}).value();
      ASSERT_TRUE(foreign.execute(sql));
    }
    auto killed = std::move(store_);
    open();
    if (*sql == '\0') {
      EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "2");
    } else {
      Answers refused = run("b", {"SELECT count(*) FROM t"});
      ASSERT_TRUE(refused.outcome.error);
      EXPECT_EQ(refused.outcome.error->code(), Code::kCorrupt);
      EXPECT_NE(store_->info(name("b"))->stopped, "");
    }
    store_ = std::move(killed);
  }
  options_.directory = directory;
}

TEST_F(StoreTest, DatabasesWithoutTheirJournalAreRefused) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  store_.reset();
  std::filesystem::remove_all(options_.directory + "/journal");
  auto opened = Store::open(options_);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message().find("journal is missing"), std::string::npos);
}

TEST_F(StoreTest, AFileInAnotherJournalModeIsTurnedBack) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  std::string path = file_of("b");
  store_.reset();
  {
    auto foreign = sqlite::Connection::open(path, {}).value();
    ASSERT_TRUE(foreign.execute("PRAGMA journal_mode=DELETE"));
  }
  open();
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "0");
  EXPECT_EQ(run("b", {"INSERT INTO t VALUES(1)"}).outcome.state, Outcome::State::kCommitted);
  expect_checksum(*store_, name("b"));
}

TEST_F(StoreTest, AForeignWriteToAClosedFileStopsTheDatabase) {
  create("b");
  create("untouched");
  run("b", {"CREATE TABLE t(a)"});
  run("untouched", {"CREATE TABLE t(a)"});
  std::string path = file_of("b");
  store_.reset();
  {
    auto foreign = sqlite::Connection::open(path, {}).value();
    ASSERT_TRUE(foreign.execute("INSERT INTO t VALUES('foreign')"));
  }
  open();
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "1");
  Answers refused = run("b", {"INSERT INTO t VALUES('own')"});
  ASSERT_TRUE(refused.outcome.error);
  EXPECT_EQ(refused.outcome.error->code(), Code::kUnavailable);
  EXPECT_NE(store_->info(name("b"))->stopped, "");
  EXPECT_EQ(run("untouched", {"INSERT INTO t VALUES('own')"}).outcome.state,
            Outcome::State::kCommitted);
}

TEST_F(StoreTest, PiecesOfLongWorkGiveWayToWrites) {
  auto begins_after = [&](std::chrono::nanoseconds rest) {
    Deadline posted = SteadyClock::now();
    std::promise<std::chrono::nanoseconds> begun;
    store_->post_piece(rest, [&] { begun.set_value(SteadyClock::now() - posted); });
    return begun.get_future().get();
  };
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  EXPECT_GE(begins_after(20ms), 20ms);
  std::this_thread::sleep_for(150ms);
  EXPECT_LT(begins_after(60s), 50s);
  run("b", {"INSERT INTO t VALUES(1)"});
  EXPECT_GE(begins_after(20ms), 20ms);
}

// However many of one database run, also in its past.
TEST_F(StoreTest, LongReadsOfOneDatabaseLeaveThreadsToOthers) {
  options_.statement_inline_ms = 0;
  open();
  create("b");
  create("c");
  const auto begun = run("b", {"CREATE TABLE t(a)"}).outcome.bookmark;
  run("c", {"CREATE TABLE t(a)"});
  std::vector<std::future<Answers>> endless;
  for (int i = 0; i < 12; ++i) {
    auto slow = std::make_unique<TextRequest>(
        std::vector<std::string>{"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) "
                                 "SELECT sum(i) FROM c"},
        true);
    slow->deadline = SteadyClock::now() + 2s;
    if (i % 2 == 0) slow->as_of = Moment(begun);
    endless.push_back(slow->future());
    store_->submit(name("b"), std::move(slow));
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(query("c", "SELECT count(*) FROM t"), "0");
  EXPECT_EQ(endless.front().wait_for(0s), std::future_status::timeout)
      << "the others' reads waited for it";
  for (auto& future : endless) {
    Answers answers = future.get();
    EXPECT_TRUE(answers.outcome.error || answers.statements.at(0).code != 0);
  }
}

TEST_F(StoreTest, StatementDeadlineEndsOneRequestOnly) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  auto slow = std::make_unique<TextRequest>(
      std::vector<std::string>{"INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i "
                               "+ 1 FROM c) SELECT i FROM c"},
      false);
  slow->deadline = SteadyClock::now() + 300ms;
  auto slow_future = slow->future();
  auto first = start("b", {"INSERT INTO t VALUES('first')"});
  store_->submit(name("b"), std::move(slow));
  auto last = start("b", {"INSERT INTO t VALUES('last')"});
  EXPECT_EQ(slow_future.get().outcome.error->code(), Code::kTimeout);
  EXPECT_EQ(first.get().outcome.state, Outcome::State::kCommitted);
  EXPECT_EQ(last.get().outcome.state, Outcome::State::kCommitted);
  EXPECT_EQ(query("b", "SELECT group_concat(a) FROM t"), "first,last");
}

}  // namespace
}  // namespace offprint::database::testing
