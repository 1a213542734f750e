// Copies of another store's databases: journaled, applied, replaced, recovered.
#include <random>

#include "database/testing.h"
#include "ltx/checksum.h"

namespace offprint::database::testing {
namespace {

Result<Bytes> read_all(ltx::ByteSource& source) {
  Bytes all;
  Bytes piece(64 << 10);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(std::size_t size, source.read(piece));
    all.insert(all.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(size));
    if (size < piece.size()) return all;
  }
}

// The primary is StoreTest's own store; the copy is another one.
class ReplicationTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    copy_options_.directory = folder_.path() + "/copy";
    copy_options_.journal.segment_size = 4 << 20;
    copy_options_.copies = true;
    copy_options_.copy_wait_ms = 50;
    open_copy();
  }
  void open_copy() {
    copy_.reset();
    auto store = Store::open(copy_options_);
    ASSERT_TRUE(store) << store.error().message();
    copy_ = std::move(*store);
  }

  // All pages, or those that differ.
  Result<> copy_pages(const std::string& database, bool whole = true) {
    OFFPRINT_TRY_ASSIGN(auto snapshot, store_->snapshot(name(database)));
    CopyTarget target{snapshot->position(), snapshot->page_size(), snapshot->page_count(), whole};
    std::unique_ptr<Snapshot> there;
    if (!whole) {
      OFFPRINT_TRY_ASSIGN(there, copy_->snapshot(name(database)));
    }
    OFFPRINT_TRY_ASSIGN(auto writer, copy_->begin_copy(name(database), target));
    for (PageNo page = 1; page <= snapshot->page_count(); ++page) {
      OFFPRINT_TRY_ASSIGN(ByteView image, snapshot->page(page));
      if (there && page <= there->page_count()) {
        OFFPRINT_TRY_ASSIGN(ByteView old, there->page(page));
        if (std::ranges::equal(old, image)) continue;
      }
      OFFPRINT_TRY(writer->page(page, image));
    }
    return writer->finish();
  }
  // Everything that the log has beyond the copy, `at_once` transactions at a time.
  Result<> follow(const std::string& database, std::size_t at_once = 1000) {
    for (;;) {
      OFFPRINT_TRY_ASSIGN(Position position, copy_->position(name(database)));
      OFFPRINT_TRY_ASSIGN(auto entries,
                          store_->log_after(name(database), position.bookmark(), at_once));
      if (entries.empty()) return {};
      std::vector<IncomingTransaction> incoming;
      for (const LogEntry& entry : entries) {
        IncomingTransaction transaction;
        transaction.epoch = entry.epoch;
        if (entry.location.large) {
          transaction.open = [this, entry] { return store_->open_payload(entry.location); };
        } else {
          OFFPRINT_TRY_ASSIGN(auto source, store_->open_payload(entry.location));
          OFFPRINT_TRY_ASSIGN(transaction.ltx, read_all(*source));
        }
        incoming.push_back(std::move(transaction));
      }
      OFFPRINT_TRY(apply(database, std::move(incoming)));
    }
  }
  Result<> apply(const std::string& database, std::vector<IncomingTransaction> incoming) {
    std::promise<Result<>> done;
    copy_->apply(name(database), std::move(incoming),
                 [&](Result<> result) { done.set_value(std::move(result)); });
    return done.get_future().get();
  }
  Answers run_at_copy(const std::string& database, std::vector<std::string> statements,
                      std::optional<Bookmark> at_least = {}, bool primary = false,
                      bool keep = false) {
    auto request = std::make_unique<TextRequest>(std::move(statements), keep);
    request->at_least = at_least;
    request->needs_primary = primary;
    auto future = request->future();
    copy_->submit(name(database), std::move(request));
    return future.get();
  }
  std::string query_copy(const std::string& database, const std::string& sql) {
    std::swap(store_, copy_);
    std::string text = query(database, sql);
    std::swap(store_, copy_);
    return text;
  }
  // Position and every page as the primary has them.
  void expect_equal(const std::string& database) {
    expect_equal(store_->snapshot(name(database)), copy_->snapshot(name(database)));
    EXPECT_EQ(query_copy(database, "PRAGMA integrity_check"), "ok");
  }
  // The same of one of its earlier states. 0: one of them does not know it any more.
  int expect_equal_in_the_past(const std::string& database, std::uint64_t which) {
    Bookmark at = store_->position(name(database))->bookmark();
    at.txid.value -= which % std::min<std::uint64_t>(at.txid.value, 20);
    auto ours = store_->snapshot_at(name(database), at);
    auto theirs = copy_->snapshot_at(name(database), at);
    if (!ours || !theirs) return 0;
    expect_equal(std::move(ours), std::move(theirs));
    return 1;
  }
  static void expect_equal(Result<std::unique_ptr<Snapshot>> ours,
                           Result<std::unique_ptr<Snapshot>> theirs) {
    ASSERT_TRUE(ours) << ours.error().message();
    ASSERT_TRUE(theirs) << theirs.error().message();
    EXPECT_EQ((*ours)->position(), (*theirs)->position());
    ASSERT_EQ((*ours)->page_count(), (*theirs)->page_count());
    for (PageNo page = 1; page <= (*ours)->page_count(); ++page) {
      auto a = (*ours)->page(page);
      auto b = (*theirs)->page(page);
      ASSERT_TRUE(a && b);
      if (!std::ranges::equal(*a, *b)) ADD_FAILURE() << "page " << page << " differs";
    }
  }
  std::string copy_file_of(const std::string& database) {
    return fmt::format("{}/databases/{:016x}.db", copy_options_.directory,
                       copy_->info(name(database))->id);
  }

  StoreOptions copy_options_;
  std::unique_ptr<Store> copy_;
};

TEST_F(ReplicationTest, PagesThenTransactions) {
  create("b");
  run("b", {"CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t(v) VALUES('one')"});
  ASSERT_TRUE(copy_pages("b"));
  expect_equal("b");
  for (int i = 0; i < 20; ++i) run("b", {fmt::format("INSERT INTO t(v) VALUES('v{}')", i)});
  run("b", {"CREATE TABLE u(a)", "INSERT INTO u VALUES(zeroblob(100000))"});
  run("b", {"DROP TABLE u"});
  ASSERT_TRUE(follow("b", 3));
  EXPECT_EQ(query_copy("b", "SELECT count(*), max(v) FROM t"), "21|v9");
  expect_equal("b");
  Answers read = run_at_copy("b", {"SELECT 1 FROM t LIMIT 1"});
  EXPECT_EQ(read.outcome.bookmark, store_->position(name("b"))->bookmark());
}

TEST_F(ReplicationTest, ADatabaseThatWasNeverWritten) {
  create("b", {.page_size = 1024});
  ASSERT_TRUE(copy_pages("b"));
  EXPECT_EQ(query_copy("b", "SELECT count(*) FROM sqlite_schema"), "0");
  EXPECT_EQ(copy_->position(name("b"))->bookmark(), store_->position(name("b"))->bookmark());
  run("b", {"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)"});
  ASSERT_TRUE(follow("b"));
  EXPECT_EQ(query_copy("b", "SELECT a FROM t"), "1");
  expect_equal("b");
}

TEST_F(ReplicationTest, OnlyThePrimaryWrites) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  ASSERT_TRUE(copy_pages("b"));
  auto refused = [&](Answers answers) {
    return answers.outcome.error && answers.outcome.error->code() == Code::kNotPrimary;
  };
  EXPECT_TRUE(refused(run_at_copy("b", {"INSERT INTO t VALUES(1)"})));
  EXPECT_TRUE(
      refused(run_at_copy("b", {"WITH x(a) AS (VALUES(1)) INSERT INTO t SELECT a FROM x"})));
  EXPECT_TRUE(refused(run_at_copy("b", {"SELECT 1"}, {}, true)));
  EXPECT_TRUE(refused(run_at_copy("b", {"BEGIN", "SELECT 1"}, {}, false, true)));
  Bookmark ahead = store_->position(name("b"))->bookmark();
  ahead.txid = ahead.txid.next();
  EXPECT_TRUE(refused(run_at_copy("b", {"SELECT 1"}, ahead)));
  EXPECT_EQ(copy_->create(name("c"), {}).error().code(), Code::kNotPrimary);
  EXPECT_EQ(copy_->import_file(name("b"), "x").error().code(), Code::kNotPrimary);
  EXPECT_EQ(query_copy("b", "SELECT count(*) FROM t"), "0");
}

TEST_F(ReplicationTest, AReadWaitsForItsBookmark) {
  copy_options_.copy_wait_ms = 10'000;
  open_copy();
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  ASSERT_TRUE(copy_pages("b"));
  Bookmark written = run("b", {"INSERT INTO t VALUES(7)"}).outcome.bookmark;
  auto request = std::make_unique<TextRequest>(std::vector<std::string>{"SELECT a FROM t"}, false);
  request->at_least = written;
  auto future = request->future();
  copy_->submit(name("b"), std::move(request));
  ASSERT_TRUE(follow("b"));
  Answers read = future.get();
  ASSERT_EQ(read.statements.size(), 1u);
  EXPECT_EQ(read.statements[0].rows, std::vector<std::string>{"7"});
}

TEST_F(ReplicationTest, WhatDoesNotFollowIsRefused) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  ASSERT_TRUE(copy_pages("b"));
  Position at = *copy_->position(name("b"));
  run("b", {"INSERT INTO t VALUES(1)"});
  run("b", {"INSERT INTO t VALUES(2)"});
  auto entries = store_->log_after(name("b"), at.bookmark(), 10);
  ASSERT_EQ(entries->size(), 2u);
  auto second = read_all(**store_->open_payload((*entries)[1].location));
  IncomingTransaction skips{(*entries)[1].epoch, *second, {}};
  std::vector<IncomingTransaction> batch;
  batch.push_back(skips);
  EXPECT_EQ(apply("b", std::move(batch)).error().code(), Code::kBehind);
  auto first = *read_all(**store_->open_payload((*entries)[0].location));
  first[first.size() / 2] ^= 1;
  batch.clear();
  batch.push_back({(*entries)[0].epoch, first, {}});
  EXPECT_FALSE(apply("b", std::move(batch)));
  EXPECT_EQ(*copy_->position(name("b")), at);
  // What is right of a batch counts.
  batch.clear();
  first[first.size() / 2] ^= 1;
  batch.push_back({(*entries)[0].epoch, first, {}});
  batch.push_back({(*entries)[0].epoch, first, {}});
  EXPECT_FALSE(apply("b", std::move(batch)));
  EXPECT_EQ(copy_->position(name("b"))->txid, at.txid.next());
  ASSERT_TRUE(follow("b"));
  expect_equal("b");
}

TEST_F(ReplicationTest, LargeTransactionsAndManyPages) {
  create("b");
  run("b", {"CREATE TABLE t(id INTEGER PRIMARY KEY, v)"});
  ASSERT_TRUE(copy_pages("b"));
  run("b", {"INSERT INTO t(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE "
            "i<3000) SELECT randomblob(2000) FROM n"});
  ASSERT_TRUE(follow("b"));
  expect_equal("b");
  run("b", {"DELETE FROM t WHERE id % 3"});
  run("b", {"VACUUM"});
  ASSERT_TRUE(follow("b"));
  expect_equal("b");
}

TEST_F(ReplicationTest, ReopensWhereItStood) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  ASSERT_TRUE(copy_pages("b"));
  for (int i = 0; i < 5; ++i) run("b", {"INSERT INTO t VALUES(1)"});
  ASSERT_TRUE(follow("b", 2));
  open_copy();
  EXPECT_EQ(*copy_->position(name("b")), *store_->position(name("b")));
  run("b", {"INSERT INTO t VALUES(2)"});
  ASSERT_TRUE(follow("b"));
  expect_equal("b");
  // The copy is followed in its turn.
  auto entries = copy_->log_after(name("b"), store_->position(name("b"))->bookmark(), 10);
  ASSERT_TRUE(entries);
  EXPECT_TRUE(entries->empty());
}

TEST_F(ReplicationTest, DifferencesReplaceAndReadersSeeTheNewSchema) {
  create("b");
  run("b", {"CREATE TABLE t(a, b)", "INSERT INTO t VALUES('a', 'b')"});
  ASSERT_TRUE(copy_pages("b"));
  EXPECT_EQ(query_copy("b", "SELECT a, b FROM t"), "a|b");
  // Another history under the same name, with the same schema cookie.
  ASSERT_TRUE(store_->drop(name("b")));
  create("b");
  run("b", {"CREATE TABLE t(b, a)", "INSERT INTO t VALUES('b', 'a')"});
  auto other = sqlite::Connection::open(copy_file_of("b"), {.read_only = true});
  ASSERT_TRUE(other);
  EXPECT_EQ(*other->query_text("SELECT a || b FROM t"), "ab");
  ASSERT_TRUE(copy_pages("b", false));
  EXPECT_EQ(query_copy("b", "SELECT a, b FROM t"), "a|b");
  EXPECT_EQ(*other->query_text("SELECT a || b FROM t"), "ab");
  expect_equal("b");
  run("b", {"INSERT INTO t VALUES(1, 2)"});
  ASSERT_TRUE(follow("b"));
  expect_equal("b");
  open_copy();
  expect_equal("b");
}

TEST_F(ReplicationTest, AnotherPageSizeMakesTheFileAgain) {
  create("b", {.page_size = 4096});
  run("b", {"CREATE TABLE t(a)"});
  ASSERT_TRUE(copy_pages("b"));
  ASSERT_TRUE(store_->drop(name("b")));
  create("b", {.page_size = 1024});
  run("b", {"CREATE TABLE u(a)", "INSERT INTO u VALUES(3)"});
  ASSERT_TRUE(copy_pages("b"));
  EXPECT_EQ(query_copy("b", "SELECT a FROM u"), "3");
  expect_equal("b");
}

TEST_F(ReplicationTest, AProgramThatWritesIntoACopyIsNoticedAndUndone) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  ASSERT_TRUE(copy_pages("b"));
  EXPECT_EQ(query_copy("b", "SELECT count(*) FROM t"), "0");
  {
    auto other = sqlite::Connection::open(copy_file_of("b"), {});
    ASSERT_TRUE(other);
    ASSERT_TRUE(other->execute("INSERT INTO t VALUES('foreign')"));
  }
  run("b", {"INSERT INTO t VALUES('ours')"});
  EXPECT_EQ(follow("b").error().code(), Code::kConflict);
  ASSERT_TRUE(copy_pages("b", false));
  EXPECT_EQ(query_copy("b", "SELECT a FROM t"), "ours");
  expect_equal("b");
  run("b", {"INSERT INTO t VALUES('more')"});
  ASSERT_TRUE(follow("b"));
  expect_equal("b");
}

TEST_F(ReplicationTest, AWrongCopyIsRefused) {
  create("b");
  run("b", {"CREATE TABLE t(a)"});
  auto snapshot = store_->snapshot(name("b"));
  CopyTarget target{(*snapshot)->position(), 4096, (*snapshot)->page_count(), true};
  target.position.checksum.value ^= 1;
  auto writer = copy_->begin_copy(name("b"), target);
  for (PageNo page = 1; page <= target.page_count; ++page)
    ASSERT_TRUE((*writer)->page(page, *(*snapshot)->page(page)));
  EXPECT_EQ((*writer)->finish().error().code(), Code::kCorrupt);
  EXPECT_FALSE(copy_->info(name("b")));
}

// Random work, with reopenings; the copy is compared each time.
TEST_F(ReplicationTest, RandomWork) {
  std::mt19937 random(7);
  int compared = 0;
  create("b");
  run("b", {"CREATE TABLE t(id INTEGER PRIMARY KEY, v)"});
  ASSERT_TRUE(copy_pages("b"));
  for (int round = 0; round < 60; ++round) {
    int writes = static_cast<int>(random() % 6);
    for (int i = 0; i < writes; ++i) {
      switch (random() % 6) {
        case 0:
          run("b", {fmt::format("DELETE FROM t WHERE id % 7 = {}", random() % 7)});
          break;
        case 1:
          run("b", {fmt::format("CREATE TABLE IF NOT EXISTS u{}(a, b)", random() % 3)});
          break;
        case 2:
          run("b", {fmt::format("DROP TABLE IF EXISTS u{}", random() % 3)});
          break;
        default:
          run("b", {fmt::format("INSERT INTO t(v) VALUES(randomblob({}))", random() % 9000)});
      }
    }
    Result<> followed = follow("b", 1 + random() % 4);
    if (!followed && followed.error().code() == Code::kBehind) followed = copy_pages("b", false);
    ASSERT_TRUE(followed) << followed.error().message();
    expect_equal("b");
    compared += expect_equal_in_the_past("b", random());
    if (random() % 10 == 0) open_copy();
    if (random() % 10 == 0) open();
  }
  EXPECT_GT(compared, 30);
}

}  // namespace
}  // namespace offprint::database::testing
