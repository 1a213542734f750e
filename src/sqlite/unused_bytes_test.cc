// What rows left behind is in no page that is committed.
#include "sqlite/unused_bytes.h"

#include <optional>
#include <random>
#include <set>

#include <fmt/format.h>

#include "sqlite/btree_page.h"
#include "sqlite/capture_testing.h"

namespace offprint::sqlite::testing {
namespace {

constexpr std::size_t kMarkSize = 9;  // '#' and eight digits

// Rows come, change, move and go in tables of all kinds; each value has a mark that no other has.
class UnusedBytesTest : public ::testing::Test {
 protected:
  void open(int page_size, int cache_pages) {
    register_capture_vfs();
    connection_.emplace(open_connection(folder_ / "a.db", "offprint"));
    must(
        *connection_,
        fmt::format("PRAGMA page_size={}; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA "
                    "wal_autocheckpoint=0; PRAGMA secure_delete=ON; PRAGMA cache_size={}",
                    page_size, cache_pages));
    must(*connection_, "CREATE TABLE place(x)");
    ASSERT_TRUE(set_commit_gate(*connection_, &gate_));
    auto unused = UnusedBytes::open(*connection_);
    ASSERT_TRUE(unused) << unused.error().message();
    unused_.emplace(*std::move(unused));
    commit({"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT)", "CREATE INDEX t_a ON t(a)",
            "CREATE TABLE w(a TEXT PRIMARY KEY, b TEXT) WITHOUT ROWID",
            "CREATE INDEX w_b ON w(b, a)"});
  }
  void commit(const std::vector<std::string>& statements) {
    must(*connection_, "BEGIN IMMEDIATE");
    for (const std::string& sql : statements) must(*connection_, sql);
    finish();
  }
  // Commits, and counts the marks in what was written that are in no row.
  void finish() {
    if (clears_) {
      auto cleared = unused_->clear();
      ASSERT_TRUE(cleared) << cleared.error().message();
    }
    const std::size_t before = gate_.commits.size();
    must(*connection_, "COMMIT");
    ASSERT_EQ(gate_.commits.size(), before + 1);
    const RecordingGate::Seen& seen = gate_.commits.back();
    pages_.images.resize(seen.page_count);
    for (std::size_t i = 0; i < seen.pages.size(); ++i) {
      pages_.images[seen.pages[i] - 1] = seen.images[i];
      for (const std::string& mark : marks_in(seen.images[i]))
        strays_ += marks_.contains(mark) ? 0 : 1;
    }
    gate_.commits.clear();
  }
  static std::vector<std::string> marks_in(const std::string& bytes) {
    std::vector<std::string> found;
    for (std::size_t at = bytes.find('#'); at != std::string::npos; at = bytes.find('#', at + 1)) {
      std::string mark = bytes.substr(at, kMarkSize);
      const bool is_whole =
          mark.size() == kMarkSize && mark.find_first_not_of("0123456789", 1) == std::string::npos;
      if (is_whole) found.push_back(std::move(mark));
    }
    return found;
  }
  // A text in a place of its own in an index, of any length.
  std::string value(bool is_kept = true) {
    std::string mark = fmt::format("#{:08}", ++number_);
    const std::size_t size = random_() % 20 == 0 ? random_() % 3'000 : random_() % 60;
    if (is_kept) marks_.insert(mark);
    return fmt::format("'k{:08x}{}{}{}'", std::uint32_t(random_()), mark, std::string(size, 'x'),
                       mark);
  }
  // Marks of rows that a statement takes away.
  void forget(const std::string& select) {
    auto rows = connection_->prepare(select);
    ASSERT_TRUE(rows) << rows.error().message();
    while (rows->step().value_or(false)) {
      for (const std::string& mark : marks_in(std::string(rows->column_text(0))))
        marks_.erase(mark);
    }
  }
  std::string change() {
    const int id = static_cast<int>(random_() % 1'000);
    const std::string row = fmt::format(" FROM t WHERE id = {}", id);
    const std::string place =
        fmt::format("(SELECT a FROM w WHERE a > 'k{:08x}' LIMIT 1)", std::uint32_t(random_()));
    const std::string other = " FROM w WHERE a = " + place;
    switch (random_() % 8) {
      case 0:
        forget("SELECT a || b" + row);
        return "DELETE" + row;
      case 1:
        forget("SELECT a" + row);
        return fmt::format("UPDATE t SET a = {} WHERE id = {}", value(), id);
      case 2:
        forget("SELECT a || b" + other);
        return "DELETE" + other;
      case 3:
        forget("SELECT b" + other);
        return fmt::format("UPDATE w SET b = {} WHERE a = {}", value(), place);
      case 4:
        return fmt::format("SAVEPOINT s; INSERT INTO w VALUES({}, {}); ROLLBACK TO s; RELEASE s",
                           value(false), value(false));
      case 5:
        return fmt::format("INSERT INTO w VALUES({}, {})", value(), value());
      default:
        forget("SELECT a || b" + row);
        return fmt::format("REPLACE INTO t VALUES({}, {}, {})", id, value(), value());
    }
  }
  void run(int transactions) {
    for (int i = 0; i < transactions && !HasFatalFailure(); ++i) {
      must(*connection_, "BEGIN IMMEDIATE");
      const std::size_t count = 1 + random_() % 12;
      for (std::size_t each = 0; each < count; ++each) must(*connection_, change());
      must(*connection_, fmt::format("REPLACE INTO place(rowid, x) VALUES(1, {})", i));
      finish();
    }
  }
  void expect_sound() {
    EXPECT_EQ(connection_->query_text("PRAGMA integrity_check").value_or("?"), "ok");
    Connection stock = open_connection(folder_ / "a.db");
    auto there = read_pages(stock);
    ASSERT_TRUE(there);
    ASSERT_EQ(there->count(), pages_.count());
    for (std::size_t i = 0; i < there->images.size(); ++i) {
      if (pages_.images[i].empty()) continue;  // from before the gate
      EXPECT_EQ(there->images[i], pages_.images[i]) << i + 1;
    }
    EXPECT_TRUE(gate_.broken_with.empty());
  }

  ScratchFolder folder_;
  RecordingGate gate_;
  std::optional<Connection> connection_;
  std::optional<UnusedBytes> unused_;
  bool clears_ = true;
  std::mt19937_64 random_{20261123};
  int number_ = 0;
  std::set<std::string> marks_;  // of rows that are there
  Pages pages_;
  int strays_ = 0;
};

TEST_F(UnusedBytesTest, NothingThatWentIsInAPageThatIsCommitted) {
  open(1'024, 500);
  run(800);
  EXPECT_EQ(strays_, 0);
  expect_sound();
}

TEST_F(UnusedBytesTest, AlsoWhenTheCacheIsTooSmall) {
  open(4'096, 8);
  run(600);
  EXPECT_EQ(strays_, 0);
  expect_sound();
}

// Without it there is something: else the tests above would say nothing.
TEST_F(UnusedBytesTest, SqliteAloneLeavesCopies) {
  clears_ = false;
  open(1'024, 500);
  run(800);
  EXPECT_GT(strays_, 50);
  expect_sound();
}

TEST_F(UnusedBytesTest, ASmallTransactionWritesNoPageMore) {
  open(4'096, 500);
  commit({"INSERT INTO t VALUES(1, 'a', 'b')"});
  must(*connection_, "BEGIN IMMEDIATE; UPDATE t SET b = 'c' WHERE id = 1");
  ASSERT_TRUE(unused_->clear());
  must(*connection_, "COMMIT");
  ASSERT_EQ(gate_.commits.size(), 1u);
  EXPECT_EQ(gate_.commits[0].pages.size(), 1u);
  // Of nothing it makes nothing.
  must(*connection_, "BEGIN IMMEDIATE");
  ASSERT_TRUE(unused_->clear());
  must(*connection_, "COMMIT");
  EXPECT_EQ(gate_.commits.size(), 1u);
  // The mode that keeps users out is on again.
  sqlite3_db_config(connection_->handle(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  must(*connection_, "BEGIN IMMEDIATE; UPDATE t SET b = 'd' WHERE id = 1");
  ASSERT_TRUE(unused_->clear());
  must(*connection_, "COMMIT");
  EXPECT_NE(code_of(*connection_, "UPDATE sqlite_dbpage SET data = data WHERE pgno = 2"), 0);
}

TEST(ClearUnused, WhatIsNoPageOfATreeStaysAsItIs) {
  Bytes image(1'024, 0xab);
  for (const int kind : {0, 1, 2, 5, 10, 13}) {
    image[0] = static_cast<std::uint8_t>(kind);
    const Bytes before = image;
    EXPECT_FALSE(clear_unused(image, 2, 1'024)) << kind;
    EXPECT_EQ(image, before);
  }
  // A leaf with one cell at its end, and a free block that lies before its cells, or ends nowhere.
  image.assign(1'024, 0);
  image[0] = 13;
  image[4] = 1;
  store_be<std::uint16_t>(image.data() + 5, 1'000);
  store_be<std::uint16_t>(image.data() + 8, 1'010);
  image[500] = 7;
  const Bytes plain = image;
  for (const int free : {900, 1'022, 1'000}) {
    image = plain;
    store_be<std::uint16_t>(image.data() + 1, static_cast<std::uint16_t>(free));
    if (free == 1'000) store_be<std::uint16_t>(image.data() + free + 2, 30);
    const Bytes before = image;
    EXPECT_FALSE(clear_unused(image, 2, 1'024)) << free;
    EXPECT_EQ(image, before);
  }
  image = plain;
  store_be<std::uint16_t>(image.data() + 1, 1'000);
  store_be<std::uint16_t>(image.data() + 1'002, 8);
  image[1'005] = 9;
  EXPECT_TRUE(clear_unused(image, 2, 1'024).value());
  EXPECT_EQ(image[500], 0);
  EXPECT_EQ(image[1'005], 0);
  EXPECT_EQ(image[1'003], 8);
  EXPECT_FALSE(clear_unused(image, 2, 1'024).value());
}

}  // namespace
}  // namespace offprint::sqlite::testing
