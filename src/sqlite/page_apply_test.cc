#include "sqlite/page_apply.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <memory>

#include "sqlite/page_apply_testing.h"

namespace offprint::sqlite {
namespace {

using testing::Change;
using testing::content_hash;
using testing::must;
using testing::open_plain;
using testing::RandomPrimary;
using testing::TemporaryFolder;

std::unique_ptr<PageApplier> open_applier(const std::string& path, std::uint32_t page_size,
                                          int busy_timeout_ms = 5000) {
  PageApplier::Options options;
  options.busy_timeout_ms = busy_timeout_ms;
  auto applier = PageApplier::open(path, page_size, options);
  EXPECT_TRUE(applier) << applier.error().message();
  return applier ? *std::move(applier) : nullptr;
}

void apply(PageApplier& applier, const Change& change) {
  Result<> done = applier.begin();
  ASSERT_TRUE(done) << done.error().message();
  for (const auto& [page, image] : change.pages) {
    done = applier.write(page, image);
    ASSERT_TRUE(done) << done.error().message();
  }
  done = applier.commit(change.page_count);
  ASSERT_TRUE(done) << done.error().message();
}

// What COMMIT itself writes in page 1, and the file's own journal mode.
void mask(Bytes& page_one) {
  for (unsigned at : {18u, 19u, 24u, 25u, 26u, 27u, 92u, 93u, 94u, 95u, 96u, 97u, 98u, 99u})
    page_one[at] = 0;
}

void expect_same_pages(PageApplier& applier, const RandomPrimary& primary) {
  auto count = applier.page_count();
  ASSERT_TRUE(count) << count.error().message();
  ASSERT_EQ(*count, primary.images().rbegin()->first);
  Bytes copy(primary.page_size());
  for (const auto& [page, image] : primary.images()) {
    auto found = applier.read(page, copy);
    ASSERT_TRUE(found && *found) << "page " << page;
    Bytes original = image;
    if (page == 1) {
      EXPECT_EQ(copy[18], 2);
      EXPECT_EQ(copy[19], 2);
      mask(original);
      mask(copy);
    }
    ASSERT_EQ(copy, original) << "page " << page;
  }
}

struct StreamCase {
  std::uint32_t page_size;
  int auto_vacuum;
  int transactions;
  int batch;
};

class Streams : public ::testing::TestWithParam<StreamCase> {};

// Random transactions appear in the copy page by page, while one stock reader with cached
// statements reads the newest state after each, and another keeps its snapshot.
TEST_P(Streams, CopyEqualsPrimaryAfterEachTransaction) {
  StreamCase stream = GetParam();
  TemporaryFolder folder;
  RandomPrimary::Options options{
      .page_size = stream.page_size, .seed = 7, .auto_vacuum = stream.auto_vacuum};
  RandomPrimary primary(folder / "primary.db", options);
  std::string path = folder / "copy.db";
  auto applier = open_applier(path, stream.page_size);
  ASSERT_TRUE(applier);
  primary.make_tables();
  apply(*applier, primary.capture());
  Connection reader = open_plain(path);
  auto cached = reader.prepare("SELECT count(*), total(a) FROM t");
  ASSERT_TRUE(cached);
  Connection holder = open_plain(path);
  std::optional<std::int64_t> held;
  for (int i = 0; i < stream.transactions; ++i) {
    Change change;
    for (int j = 0; j < stream.batch; ++j) {
      primary.random_transaction();
      change.merge(primary.capture());
    }
    apply(*applier, change);
    if (HasFatalFailure()) FAIL() << "at transaction " << i;
    expect_same_pages(*applier, primary);
    if (HasFatalFailure()) FAIL() << "at transaction " << i;
    auto row = cached->step();
    ASSERT_TRUE(row && *row) << row.error().message();
    ASSERT_EQ(cached->column_int(0), *primary.db().query_int("SELECT count(*) FROM t"));
    cached->reset();
    const char* match = "SELECT count(*) FROM f WHERE f MATCH 'word7'";
    ASSERT_EQ(*reader.query_int(match), *primary.db().query_int(match));
    if (i % 5 == 0)
      ASSERT_EQ(content_hash(reader), content_hash(primary.db())) << "at transaction " << i;
    if (held) ASSERT_EQ(*holder.query_int("SELECT total(id) FROM t"), *held);
    if (i % 16 == 15) {
      if (held) must(holder, "COMMIT");
      held.reset();
      ASSERT_TRUE(
          applier->checkpoint(i % 3 == 0 ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE));
    } else if (i % 16 == 3) {
      must(holder, "BEGIN");
      held = *holder.query_int("SELECT total(id) FROM t");
    }
  }
  // On a connection of its own: FTS5's check does not notice that its cached structure is old, on a
  // primary neither.
  EXPECT_EQ(*open_plain(path).query_text("PRAGMA integrity_check"), "ok");
}

INSTANTIATE_TEST_SUITE_P(PageSizes, Streams,
                         ::testing::Values(StreamCase{512, 0, 900, 1}, StreamCase{1024, 1, 500, 1},
                                           StreamCase{2048, 2, 250, 1}, StreamCase{4096, 0, 250, 1},
                                           StreamCase{4096, 1, 60, 12}, StreamCase{512, 2, 60, 20},
                                           StreamCase{8192, 1, 120, 1}, StreamCase{16384, 0, 80, 1},
                                           StreamCase{65536, 2, 80, 1}));

// A long-lived applier that does nothing but apply, across many schema changes: its own parsed
// pages must not go stale.
TEST(PageApply, LongStreamsDoNotWearOut) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    TemporaryFolder folder;
    RandomPrimary primary(
        folder / "primary.db",
        {.page_size = 1024, .seed = seed, .auto_vacuum = static_cast<int>(seed % 3)});
    auto applier = open_applier(folder / "copy.db", 1024);
    primary.make_tables();
    for (int i = 0; i < 400; ++i) {
      apply(*applier, primary.capture());
      if (HasFatalFailure()) FAIL() << "seed " << seed << ", transaction " << i;
      primary.random_transaction();
    }
    apply(*applier, primary.capture());
    expect_same_pages(*applier, primary);
  }
}

// Images of a primary in rollback mode do not turn the copy's journal mode.
TEST(PageApply, CopyStaysInWalMode) {
  TemporaryFolder folder;
  std::string path = folder / "copy.db";
  RandomPrimary primary(folder / "primary.db", {});
  primary.make_tables();
  must(primary.db(), "PRAGMA journal_mode=DELETE");
  auto applier = open_applier(path, 4096);
  Change change = primary.capture();
  ASSERT_EQ(change.pages[1][18], 1);
  apply(*applier, change);
  ASSERT_TRUE(applier->checkpoint(SQLITE_CHECKPOINT_TRUNCATE));
  expect_same_pages(*applier, primary);
  Connection reader = open_plain(path);
  EXPECT_EQ(*reader.query_text("PRAGMA journal_mode"), "wal");
}

// A database whose text encoding is not UTF-8 cannot be attached to a UTF-8 connection.
class Encodings : public ::testing::TestWithParam<const char*> {};
TEST_P(Encodings, FollowTheFile) {
  TemporaryFolder folder;
  RandomPrimary primary(folder / "primary.db",
                        {.page_size = 1024, .seed = 3, .encoding = GetParam()});
  std::string path = folder / "copy.db";
  {
    auto applier = open_applier(path, 1024);
    apply(*applier, primary.capture());  // no table yet: no encoding yet
    primary.make_tables();
    apply(*applier, primary.capture());
    expect_same_pages(*applier, primary);
  }
  auto applier = open_applier(path, 1024);
  ASSERT_TRUE(applier);
  for (int i = 0; i < 30; ++i) {
    primary.random_transaction();
    apply(*applier, primary.capture());
    expect_same_pages(*applier, primary);
    if (HasFatalFailure()) FAIL() << "at transaction " << i;
  }
  Connection reader = open_plain(path);
  EXPECT_EQ(*reader.query_text("PRAGMA encoding"), GetParam());
  EXPECT_EQ(content_hash(reader), content_hash(primary.db()));
}
INSTANTIATE_TEST_SUITE_P(All, Encodings, ::testing::Values("UTF-8", "UTF-16le", "UTF-16be"));

// Auto-vacuum is FULL before, and the images say INCREMENTAL with free pages: COMMIT must move none
// of them.
TEST(PageApply, CommitNeverVacuumsReceivedImages) {
  TemporaryFolder folder;
  RandomPrimary primary(folder / "primary.db", {.page_size = 1024, .seed = 5, .auto_vacuum = 1});
  primary.make_tables();
  auto applier = open_applier(folder / "copy.db", 1024);
  apply(*applier, primary.capture());
  must(primary.db(),
       "PRAGMA auto_vacuum=2; INSERT INTO t(b) VALUES(randomblob(200000)); DELETE FROM t");
  Change change = primary.capture();
  ASSERT_GT(*primary.db().query_int("PRAGMA freelist_count"), 100);
  apply(*applier, change);
  expect_same_pages(*applier, primary);
}

TEST(PageApply, RollbackLeavesTheFileAsItWas) {
  TemporaryFolder folder;
  RandomPrimary primary(folder / "primary.db", {.page_size = 1024});
  primary.make_tables();
  auto applier = open_applier(folder / "copy.db", 1024);
  apply(*applier, primary.capture());
  Change before = primary.whole();
  must(primary.db(), "INSERT INTO t(b) VALUES(randomblob(50000))");
  RandomPrimary untouched(folder / "untouched.db", {.page_size = 1024});
  Change change = primary.capture();

  ASSERT_TRUE(applier->begin());
  for (const auto& [page, image] : change.pages) ASSERT_TRUE(applier->write(page, image));
  applier->rollback();
  EXPECT_EQ(*applier->page_count(), before.page_count);

  // An image of a wrong size, a size that lacks pages, and pages above the size end the
  // transaction.
  ASSERT_TRUE(applier->begin());
  EXPECT_EQ(applier->write(2, Bytes(512)).error().code(), Code::kInvalid);
  ASSERT_TRUE(applier->begin());
  EXPECT_EQ(applier->commit(change.page_count).error().code(), Code::kInvalid);
  ASSERT_TRUE(applier->begin());
  for (const auto& [page, image] : change.pages) ASSERT_TRUE(applier->write(page, image));
  EXPECT_EQ(applier->commit(change.page_count - 1).error().code(), Code::kInvalid);
  EXPECT_EQ(*applier->page_count(), before.page_count);
  apply(*applier, change);
  expect_same_pages(*applier, primary);
}

TEST(PageApply, ShrinksTheFileBesideAReader) {
  TemporaryFolder folder;
  std::string path = folder / "copy.db";
  RandomPrimary primary(folder / "primary.db", {.page_size = 4096});
  primary.make_tables();
  must(primary.db(), "INSERT INTO t(b) VALUES(randomblob(500000))");
  auto applier = open_applier(path, 4096);
  apply(*applier, primary.capture());
  Connection reader = open_plain(path);
  must(reader, "BEGIN");
  EXPECT_EQ(*reader.query_int("SELECT length(b) FROM t"), 500000);
  must(primary.db(), "DELETE FROM t; VACUUM");
  apply(*applier, primary.capture());
  expect_same_pages(*applier, primary);
  EXPECT_EQ(*reader.query_int("SELECT length(b) FROM t"), 500000);
  must(reader, "COMMIT");
  EXPECT_EQ(*reader.query_int("SELECT count(*) FROM t"), 0);
  auto moved = applier->checkpoint(SQLITE_CHECKPOINT_TRUNCATE);
  ASSERT_TRUE(moved);
  EXPECT_FALSE(moved->busy);
  EXPECT_EQ(std::filesystem::file_size(path), 4096u * primary.images().rbegin()->first);
}

TEST(PageApply, SaysWhoIsInTheWay) {
  TemporaryFolder folder;
  std::string path = folder / "copy.db";
  RandomPrimary primary(folder / "primary.db", {});
  primary.make_tables();
  apply(*open_applier(path, 4096), primary.capture());

  PageApplier::Options options;
  options.busy_timeout_ms = 50;
  {
    Connection exclusive = open_plain(path);
    must(exclusive, "PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; COMMIT");
    auto refused = PageApplier::open(path, 4096, options);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kBusy);
    EXPECT_NE(refused.error().message().find("a program holds " + path + " exclusively"),
              std::string::npos)
        << refused.error().message();
  }
  auto applier = open_applier(path, 4096, 50);
  Connection writer = open_plain(path);
  must(writer, "BEGIN IMMEDIATE");
  Result<> refused = applier->begin();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kBusy);
  must(writer, "COMMIT");
  EXPECT_TRUE(applier->begin());
  applier->rollback();
}

TEST(PageApply, TurnsTheFileBackToWal) {
  TemporaryFolder folder;
  std::string path = folder / "copy.db";
  RandomPrimary primary(folder / "primary.db", {});
  primary.make_tables();
  apply(*open_applier(path, 4096), primary.capture());
  {
    Connection user = open_plain(path);
    EXPECT_EQ(*user.query_text("PRAGMA journal_mode=DELETE"), "delete");
  }
  auto applier = open_applier(path, 4096);
  Connection reader = open_plain(path);
  EXPECT_EQ(*reader.query_text("PRAGMA journal_mode"), "wal");
  expect_same_pages(*applier, primary);
}

TEST(PageApply, RefusesOtherFiles) {
  TemporaryFolder folder;
  RandomPrimary primary(folder / "primary.db", {.page_size = 4096});
  primary.make_tables();
  auto other_size = PageApplier::open(folder / "primary.db", 1024, {});
  ASSERT_FALSE(other_size);
  EXPECT_EQ(other_size.error().code(), Code::kInvalid);
  std::ofstream(folder / "text.db") << std::string(5000, 'x');
  auto text = PageApplier::open(folder / "text.db", 4096, {});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code(), Code::kCorrupt) << text.error().message();
  EXPECT_FALSE(PageApplier::open(folder / "new.db", 1000, {}));
  EXPECT_FALSE(PageApplier::open(folder / "absent/new.db", 4096, {}));
}

// The page with SQLite's lock bytes begins at 1 GiB; asked for by name because it writes 4 GiB.
TEST(PageApply, SkipsTheLockPage) {
  if (std::getenv("OFFPRINT_TEST_LARGE") == nullptr) GTEST_SKIP() << "set OFFPRINT_TEST_LARGE=1";
  TemporaryFolder folder;
  constexpr std::uint32_t kPageSize = 65536;
  constexpr std::uint32_t kLockPage = 0x40000000 / kPageSize + 1;
  Connection primary = open_plain(folder / "primary.db");
  must(
      primary,
      "PRAGMA page_size=65536; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE t(b)");
  for (int i = 0; i < 11; ++i) must(primary, "INSERT INTO t VALUES(zeroblob(100000000))");
  auto applier = open_applier(folder / "copy.db", kPageSize);
  ASSERT_TRUE(applier->begin());
  auto pages = primary.prepare("SELECT pgno, data FROM sqlite_dbpage");
  std::uint32_t count = 0;
  while (*pages->step()) {
    count = static_cast<std::uint32_t>(pages->column_int(0));
    ASSERT_TRUE(applier->write(count, pages->column_blob(1)));
  }
  ASSERT_GT(count, kLockPage);
  Result<> done = applier->commit(count);
  ASSERT_TRUE(done) << done.error().message();
  Connection reader = open_plain(folder / "copy.db");
  EXPECT_EQ(*reader.query_text("PRAGMA quick_check"), "ok");
  EXPECT_EQ(*reader.query_int("SELECT count(*) FROM t"), 11);
}

}  // namespace
}  // namespace offprint::sqlite
