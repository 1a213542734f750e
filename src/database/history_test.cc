// Earlier states out of the log: read, restored in place, forked.
#include <random>
#include <thread>

#include <fmt/format.h>

#include "database/testing.h"
#include "ltx/checksum.h"

namespace offprint::database::testing {
namespace {

using State = std::vector<Bytes>;  // pages

class HistoryTest : public StoreTest {
 protected:
  void SetUp() override {
    options_.directory = folder_.path() + "/data";  // with segments for large undos
    open();
  }
  static State state_of(Snapshot& snapshot) {
    State state;
    for (PageNo page = 1; page <= snapshot.page_count(); ++page) {
      auto image = snapshot.page(page);
      EXPECT_TRUE(image) << image.error().message();
      if (!image) break;
      state.emplace_back(image->begin(), image->end());
    }
    return state;
  }
  State newest(const std::string& database) {
    return state_of(*store_->snapshot(name(database)).value());
  }
  State at(const std::string& database, const Bookmark& bookmark) {
    auto snapshot = store_->snapshot_at(name(database), bookmark);
    EXPECT_TRUE(snapshot) << bookmark.txid.value << ": " << snapshot.error().message();
    if (!snapshot) return {};
    EXPECT_EQ((*snapshot)->position().bookmark(), bookmark);
    return state_of(**snapshot);
  }
  // But for what a restore changes on purpose.
  static State comparable(State state) {
    if (!state.empty()) {
      for (auto [offset, size] : {std::pair(24, 4), std::pair(40, 4), std::pair(92, 8)})
        std::fill_n(state[0].begin() + offset, size, 0);
    }
    return state;
  }
  static std::string random_write(std::mt19937_64& random) {
    switch (random() % 12) {
      case 0:
        return fmt::format("DELETE FROM t WHERE id % 7 = {}", random() % 7);
      case 1:
        return fmt::format("UPDATE t SET v = hex(randomblob({})) WHERE id % 5 = {}", random() % 900,
                           random() % 5);
      case 2:
        return "VACUUM";
      case 3:
        return fmt::format("CREATE TABLE IF NOT EXISTS u{0}(a, b); ", random() % 3);
      case 4:
        return fmt::format("DROP TABLE IF EXISTS u{}", random() % 3);
      case 5:
        return "DELETE FROM t";
      default:
        return fmt::format(
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {})"
            " INSERT INTO t(v) SELECT hex(randomblob({})) FROM c",
            1 + random() % 40, random() % 700);
    }
  }
};

TEST_F(HistoryTest, EveryStateOfTheLogIsFoundAgain) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937_64 random(seed);
  CreateOptions options;
  options.page_size = 1024;
  options.auto_vacuum = static_cast<int>(random() % 3);
  create("h", options);
  run("h", {"CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); "});
  std::vector<std::pair<Bookmark, State>> states;
  auto remember = [&] {
    Bookmark now = store_->position(name("h"))->bookmark();
    if (states.empty() || states.back().first != now) states.emplace_back(now, newest("h"));
  };
  remember();
  for (int round = 0; round < 150; ++round) {
    if (random() % 20 == 0) {
      open();  // from the journal
    } else if (random() % 15 == 0) {
      ASSERT_TRUE(store_->checkpoint(name("h")));
    } else if (random() % 12 == 0) {
      const auto& [bookmark, state] = states[random() % states.size()];
      auto past = store_->snapshot_at(name("h"), bookmark);
      ASSERT_TRUE(past) << past.error().message();
      auto restored = store_->rewrite(name("h"), **past);
      ASSERT_TRUE(restored) << restored.error().message();
      EXPECT_EQ(restored->txid, states.back().first.txid.next());
      EXPECT_EQ(restored->epoch.value, states.back().first.epoch.value + 1);
      ASSERT_TRUE(comparable(newest("h")) == comparable(state));
      past->reset();
    } else {
      run("h", {random_write(random)});
    }
    remember();
    if (random() % 5 == 0) {
      const auto& [bookmark, state] = states[random() % states.size()];
      ASSERT_TRUE(at("h", bookmark) == state) << bookmark.txid.value;
    }
  }
  EXPECT_GT(states.size(), 80U);
  for (const auto& [bookmark, state] : states) {
    ASSERT_TRUE(at("h", bookmark) == state) << bookmark.txid.value;
    if (HasFailure()) return;
  }
  EXPECT_EQ(query("h", "PRAGMA integrity_check"), "ok");
}

TEST_F(HistoryTest, ReadersAndWritersGoOnThroughARestore) {
  create("h");
  run("h", {"CREATE TABLE t(a INTEGER)"});
  Bookmark before = run("h", {"INSERT INTO t VALUES (1)"}).outcome.bookmark;
  run("h", {"ALTER TABLE t ADD COLUMN b"});
  Bookmark undone = run("h", {"INSERT INTO t VALUES (2, 'x')"}).outcome.bookmark;
  Answers held = run("h", {"BEGIN", "INSERT INTO t VALUES (3, 'y')"}, true);
  ASSERT_TRUE(held.outcome.held);

  auto past = store_->snapshot_at(name("h"), before);
  ASSERT_TRUE(past);
  auto restored = store_->rewrite(name("h"), **past);
  ASSERT_TRUE(restored) << restored.error().message();
  // The schema of before, also on connections that had the other one.
  EXPECT_EQ(query("h", "SELECT * FROM t"), "1");
  Answers late = run_held(held.outcome.held, {"COMMIT"});
  ASSERT_TRUE(late.outcome.error);
  EXPECT_NE(late.outcome.error->message().find("DATABASE_RESTORED"), std::string::npos);
  // Bookmarks of what was undone count as reached, and the restore can be undone.
  Answers written = run("h", {"INSERT INTO t VALUES (4)"});
  EXPECT_EQ(written.outcome.bookmark.epoch, restored->epoch);
  auto again = store_->snapshot_at(name("h"), undone);
  ASSERT_TRUE(again) << again.error().message();
  ASSERT_TRUE(store_->rewrite(name("h"), **again));
  EXPECT_EQ(query("h", "SELECT * FROM t"), "1|NULL\n2|x");
  past->reset();
  again->reset();
  open();
  EXPECT_EQ(query("h", "SELECT * FROM t"), "1|NULL\n2|x");
}

TEST_F(HistoryTest, AForkGoesItsOwnWay) {
  create("h");
  run("h", {"CREATE TABLE t(a)"});
  Bookmark early = run("h", {"INSERT INTO t VALUES (1)"}).outcome.bookmark;
  Bookmark late = run("h", {"INSERT INTO t VALUES (2)"}).outcome.bookmark;
  auto past = store_->snapshot_at(name("h"), early);
  ASSERT_TRUE(past);
  auto forked = store_->fork(name("h"), name("g"), **past);
  ASSERT_TRUE(forked) << forked.error().message();
  EXPECT_EQ(forked->bookmark.txid, early.txid);
  EXPECT_NE(forked->bookmark.lineage, early.lineage);
  ASSERT_EQ(forked->ancestors, std::vector{early});
  EXPECT_EQ(query("g", "SELECT a FROM t"), "1");
  EXPECT_EQ(store_->fork(name("h"), name("g"), **past).error().code(), Code::kConflict);
  Bookmark own = run("g", {"INSERT INTO t VALUES (3)"}).outcome.bookmark;
  EXPECT_EQ(own.txid, early.txid.next());
  EXPECT_EQ(query("h", "SELECT group_concat(a) FROM t"), "1,2");
  past->reset();
  open();
  EXPECT_EQ(query("g", "SELECT group_concat(a) FROM t"), "1,3");
  auto with = [&](const Bookmark& bookmark) {
    auto request = std::make_unique<TextRequest>(std::vector<std::string>{"SELECT 1"}, false);
    request->at_least = bookmark;
    auto future = request->future();
    store_->submit(name("g"), std::move(request));
    return future.get().outcome;
  };
  EXPECT_FALSE(with(early).error);
  EXPECT_FALSE(with(own).error);
  ASSERT_TRUE(with(late).error);  // the parent's own
  EXPECT_EQ(with(late).error->code(), Code::kConflict);
}

TEST_F(HistoryTest, TransactionsSayWhatTheyTouched) {
  create("h");
  run("h", {"CREATE TABLE a(x, y)"});
  run("h", {"CREATE TABLE b(k PRIMARY KEY, v) WITHOUT ROWID"});
  run("h", {"CREATE INDEX a_y ON a(y)"});
  run("h", {"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000)"
            " INSERT INTO b SELECT i, hex(randomblob(50)) FROM c"});
  run("h", {"INSERT INTO a VALUES (1, 2)", "UPDATE b SET v = 'x' WHERE k = 1500"});
  run("h", {"UPDATE b SET v = 'y' WHERE k IN (1, 3000)"});
  run("h", {"DELETE FROM b"});
  std::vector<std::string> told;
  for (const LogEntry& entry : store_->log_before(name("h"), std::nullopt, 100).value()) {
    auto details = store_->details(name("h"), entry);
    ASSERT_TRUE(details) << details.error().message();
    std::string text = details->schema_changed ? "schema" : "";
    for (const std::string& table : details->tables) text += " " + table;
    told.push_back(text);
  }
  EXPECT_EQ(told, (std::vector<std::string>{" b", " b", " a b", " b", "schema a", "schema b",
                                            "schema a"}));
  auto two = store_->log_before(name("h"), TxId{6}, 2).value();
  ASSERT_EQ(two.size(), 2U);
  EXPECT_EQ(two[0].txid.value, 5U);
}

TEST_F(HistoryTest, WhatTheLogDoesNotKnowIsRefused) {
  create("h");
  Bookmark first = run("h", {"CREATE TABLE t(a)"}).outcome.bookmark;
  Bookmark second = run("h", {"INSERT INTO t VALUES (1)"}).outcome.bookmark;
  auto code = [&](Bookmark bookmark) {
    auto snapshot = store_->snapshot_at(name("h"), bookmark);
    return snapshot ? std::optional<Code>() : snapshot.error().code();
  };
  EXPECT_EQ(code(first), std::nullopt);
  EXPECT_EQ(code({first.epoch, TxId{0}, first.lineage}), Code::kNotFound);
  EXPECT_EQ(code({Epoch{9}, first.txid, first.lineage}), Code::kNotFound);
  EXPECT_EQ(code({first.epoch, TxId{9}, first.lineage}), Code::kNotFound);
  EXPECT_EQ(code({first.epoch, first.txid, Lineage::random()}), Code::kNotFound);
  EXPECT_EQ(store_->bookmark_of(name("h"), AtTime{0}).error().code(), Code::kNotFound);
  EXPECT_EQ(store_->bookmark_of(name("h"), AtTime{unix_time_ms()}).value(), second);
  create("empty");
  EXPECT_EQ(store_->bookmark_of(name("empty"), AtTime{unix_time_ms()}).error().code(),
            Code::kNotFound);
}

class PastReadTest : public HistoryTest {
 protected:
  Answers run_at(const Moment& moment, std::vector<std::string> statements, bool keep = false) {
    auto request = std::make_unique<TextRequest>(std::move(statements), keep);
    request->as_of = moment;
    auto future = request->future();
    store_->submit(name("h"), std::move(request));
    return future.get();
  }
  std::string query_at(const Moment& moment, const std::string& sql) {
    Answers answers = run_at(moment, {sql});
    if (answers.outcome.error) return "error: " + answers.outcome.error->message();
    if (answers.statements.at(0).code != 0) return "error: " + answers.statements[0].message;
    return answers.statements[0].rows.empty() ? "" : answers.statements[0].rows[0];
  }
};

TEST_F(PastReadTest, SqlSeesTheStateOfThen) {
  create("h");
  run("h", {"CREATE TABLE t(a)"});
  std::vector<Bookmark> then;
  for (int i = 0; i < 30; ++i)
    then.push_back(run("h", {fmt::format("INSERT INTO t VALUES ({})", i)}).outcome.bookmark);
  run("h", {"DROP TABLE t"});
  for (int i = 0; i < 30; i += 3) {
    EXPECT_EQ(query_at(then[static_cast<std::size_t>(i)], "SELECT count(*), max(a) FROM t"),
              fmt::format("{}|{}", i + 1, i));
  }
  Answers answers = run_at(then[4], {"BEGIN", "SELECT count(*) FROM t", "COMMIT"});
  EXPECT_EQ(answers.outcome.bookmark, then[4]);
  EXPECT_EQ(answers.statements.at(1).rows.at(0), "5");
  EXPECT_EQ(query_at(AtTime{unix_time_ms()}, "SELECT count(*) FROM sqlite_schema"), "0");
  EXPECT_EQ(query_at(AtTime{0}, "SELECT 1"),
            "error: the database had no content at 1970-01-01T00:00:00.000Z");
  for (const char* sql : {"INSERT INTO t VALUES (1)", "VACUUM", "CREATE TABLE u(a)"}) {
    Answers refused = run_at(then[4], {sql});
    ASSERT_TRUE(refused.outcome.error) << sql;
    EXPECT_NE(refused.outcome.error->message().find("EARLIER_STATE"), std::string::npos) << sql;
  }
  ASSERT_TRUE(run_at(then[4], {"BEGIN", "SELECT 1 FROM t"}, true).outcome.error);
  Answers held = run("h", {"BEGIN", "CREATE TABLE v(a)"}, true);
  ASSERT_TRUE(held.outcome.held);
  {
    auto request = std::make_unique<TextRequest>(std::vector<std::string>{"SELECT 1"}, false);
    request->as_of = then[4];
    auto future = request->future();
    store_->submit(held.outcome.held, std::move(request));
    EXPECT_TRUE(future.get().outcome.error);
  }
  store_->release(held.outcome.held);
  EXPECT_EQ(query_at(then[4], "SELECT count(*) FROM t"), "5");
}

class TagTest : public PastReadTest {
 protected:
  void SetUp() override {  // a log that forgets soon
    options_.log_age_max_ms = 0;
    options_.log_bytes_max = 0;
    options_.journal.segment_size = 64 << 10;
    HistoryTest::SetUp();
  }
};

TEST_F(TagTest, TagsKeepWhatTheLogForgets) {
  create("h");
  run("h", {"CREATE TABLE t(a)", "INSERT INTO t VALUES ('first')"});
  Bookmark then = store_->position(name("h"))->bookmark();
  auto add = [&](const std::string& tag) {
    return store_->add_tag(name("h"), tag, *store_->snapshot(name("h")).value());
  };
  auto tagged = add("before-migration");
  ASSERT_TRUE(tagged) << tagged.error().message();
  EXPECT_EQ(tagged->bookmark, then);
  EXPECT_EQ(add("before-migration").error().code(), Code::kConflict);
  for (const char* bad : {"", "../x", ".x", "a b"})
    EXPECT_EQ(add(bad).error().code(), Code::kInvalid);
  {  // Several at once: one gets the name, and its file is that of its state.
    std::vector<std::jthread> threads;
    std::atomic<int> made = 0;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] { made += add("one").has_value() ? 1 : 0; });
    threads.clear();
    EXPECT_EQ(made, 1);
  }
  ASSERT_TRUE(store_->remove_tag(name("h"), "one"));
  run("h", {"UPDATE t SET a = 'second'"});
  forget("h", then);
  open();
  EXPECT_EQ(query_at(Tag{"before-migration"}, "SELECT a FROM t"), "first");
  EXPECT_EQ(query_at(Tag{"no"}, "SELECT a FROM t"), "error: no tag 'no'");
  {
    auto state = store_->snapshot_at(name("h"), Tag{"before-migration"});
    ASSERT_TRUE(state) << state.error().message();
    ASSERT_TRUE(store_->rewrite(name("h"), **state));
    ASSERT_TRUE(store_->fork(name("h"), name("g"), **state));
  }
  EXPECT_EQ(query("h", "SELECT a FROM t"), "first");
  EXPECT_EQ(query("g", "SELECT a FROM t"), "first");
  ASSERT_EQ(store_->tags(name("h"))->size(), 1U);
  ASSERT_TRUE(store_->remove_tag(name("h"), "before-migration"));
  EXPECT_EQ(store_->remove_tag(name("h"), "before-migration").error().code(), Code::kNotFound);
  ASSERT_TRUE(add("again"));
  ASSERT_TRUE(store_->drop(name("h")));
  EXPECT_TRUE(std::filesystem::is_empty(options_.directory + "/tags"));
}

}  // namespace
}  // namespace offprint::database::testing
