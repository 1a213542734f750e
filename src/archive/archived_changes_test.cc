// What archived transactions changed, against what the log says of the same ones.
#include <random>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "archive/archive_testing.h"
#include "archive/archived_changes.h"

namespace offprint::archive::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ArchivedChangesTest : public ArchiveTest {
 protected:
  void SetUp() override {
    ArchiveTest::SetUp();
    ASSERT_TRUE(store_->create(name("a"), {}));
    write("a", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    archive_ = load("a").value();
    ship();
  }
  // What was committed since goes there as one object.
  void ship() {
    ASSERT_TRUE(archive_->put_transactions());
    pass(2s);
  }
  std::vector<ArchivedMoment> moments() {
    return list_moments(*objects_, "a/", store_->position(name("a"))->lineage, TxId{1'000'000}, 100)
        .value();
  }
  std::vector<Result<database::TransactionDetails>> described() {
    return describe_moments(*objects_, moments(), [this](const Bookmark& at) {
      ++states_;
      return store_->snapshot_at(name("a"), at);
    });
  }

  std::unique_ptr<DatabaseArchive> archive_;
  int states_ = 0;
};

TEST_F(ArchivedChangesTest, SaysWhatTheLogSays) {
  std::mt19937 random(1);
  write("a", "CREATE TABLE u(a INTEGER PRIMARY KEY, b)");
  write("a", "CREATE INDEX u_b ON u(b)");
  ship();
  for (int i = 0; i < 40; ++i) {
    const char* const table = random() % 2 == 0 ? "t" : "u";
    const int rows = 1 + static_cast<int>(random() % 30);
    write("a",
          fmt::format("INSERT INTO {}(b) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + "
                      "1 FROM c WHERE i < {}) SELECT hex(randomblob(100)) FROM c",
                      table, rows));
    if (i % 10 == 8) write("a", fmt::format("CREATE TABLE new{}(a)", i));
    if (i % 10 == 9) write("a", fmt::format("DROP TABLE new{}", i - 1));
    if (i % 7 == 0) write("a", fmt::format("DELETE FROM {} WHERE a % 3 = 0", table));
    ship();
  }
  ASSERT_GT(store_->position(name("a"))->txid.value, 45u);
  const auto all = moments();
  const auto details = described();
  ASSERT_EQ(details.size(), all.size());
  EXPECT_EQ(states_, 1);  // that of the first one, and all others are made of it
  auto entries = store_->log_before(name("a"), {}, 1'000).value();
  int compared = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_TRUE(details[i]) << details[i].error().message();
    if (all[i].first != all[i].bookmark.txid) continue;  // several together
    auto entry = std::ranges::find(entries, all[i].bookmark.txid, &database::LogEntry::txid);
    ASSERT_NE(entry, entries.end());
    auto expected = store_->details(name("a"), *entry).value();
    EXPECT_EQ(details[i]->tables, expected.tables) << all[i].bookmark.text();
    // SQLite writes a page now and then as it was: the log has it, and it is no change.
    EXPECT_LE(details[i]->pages, expected.pages);
    EXPECT_GE(details[i]->pages + 2, expected.pages);
    EXPECT_EQ(details[i]->page_count, expected.page_count);
    EXPECT_EQ(details[i]->schema_changed, expected.schema_changed);
    ++compared;
  }
  EXPECT_GT(compared, 20);
}

TEST_F(ArchivedChangesTest, TellsOfSeveralTogether) {
  write("a", "CREATE TABLE u(a)");
  ship();
  write("a", "INSERT INTO t VALUES(1, 'one')");
  write("a", "INSERT INTO u VALUES(1)");
  ship();
  const auto all = moments();
  const auto details = described();
  ASSERT_TRUE(details[0]);
  if (all[0].first != all[0].bookmark.txid) EXPECT_THAT(details[0]->tables, ElementsAre("t", "u"));
  EXPECT_FALSE(details[0]->schema_changed);
}

// So much that it is not kept in memory: a further state is made.
TEST_F(ArchivedChangesTest, LargeChangesAreToldToo) {
  write("a", "CREATE TABLE u(a, b)");
  ship();
  for (int i = 0; i < 3; ++i) {
    write("a", "INSERT INTO u(a) VALUES(zeroblob(40000000))");
    ship();
    write("a", "INSERT INTO t(b) VALUES('x')");
    ship();
  }
  const auto details = described();
  ASSERT_GE(details.size(), 7u);
  for (std::size_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(details[i]) << details[i].error().message();
    EXPECT_THAT(details[i]->tables, ElementsAre(i % 2 == 0 ? "t" : "u"));
  }
}

TEST_F(ArchivedChangesTest, SaysWhatIsNotKnown) {
  for (int i = 0; i < 3; ++i) {
    write("a", fmt::format("INSERT INTO t(b) VALUES({})", i));
    ship();
  }
  auto all = moments();
  ASSERT_EQ(all.size(), 4u);
  all[1].former.reset();  // as of the oldest one that is kept
  ASSERT_TRUE(objects_->remove({all[2].key}));
  auto details = describe_moments(
      *objects_, all, [this](const Bookmark& at) { return store_->snapshot_at(name("a"), at); });
  EXPECT_TRUE(details[0]);
  ASSERT_FALSE(details[1]);
  EXPECT_THAT(details[1].error().message(), HasSubstr("does not have what was before"));
  ASSERT_FALSE(details[2]);
  EXPECT_EQ(details[2].error().code(), Code::kNotFound);
  EXPECT_TRUE(details[3]);
  // What fails for all is asked once.
  int asked = 0;
  details = describe_moments(*objects_, all, [&](const Bookmark&) {
    ++asked;
    return Result<std::unique_ptr<database::Snapshot>>(fail(Code::kUnavailable, "no answer"));
  });
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(details[0].error().message(), "no answer");
}

}  // namespace
}  // namespace offprint::archive::testing
