#include "database/adoption.h"

#include <filesystem>
#include <fstream>

#include "database/recorder.h"
#include "database/store_folder.h"
#include "database/testing.h"
#include "ltx/checksum.h"
#include "sqlite/connection.h"

namespace offprint::database {
namespace {

using testing::StoreTest;

class AdoptionTest : public StoreTest {
 protected:
  // A file of SQLite's own making, as a database's content at a transaction.
  AdoptedFile make_file(TxId txid) {
    AdoptedFile file;
    file.path = folder_.path() + "/made.db";
    std::filesystem::remove(file.path);
    {
      auto made = sqlite::Connection::open(file.path, {.create = true}).value();
      EXPECT_TRUE(made.execute("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2), (3)"));
    }
    Bytes content = read_file(FileSystem::real(), file.path, 1 << 20).value();
    file.page_size = 4096;
    file.page_count = static_cast<std::uint32_t>(content.size() / 4096);
    Checksum sum = ltx::kEmptyDatabase;
    for (PageNo page = 1; page <= file.page_count; ++page)
      sum = ltx::toggle(
          sum, ltx::page_checksum(page, ByteView(content).subspan((page - 1) * 4096, 4096)));
    file.position = {Lineage::random(), Epoch{3}, txid, sum};
    file.timestamp_ms = 7;
    return file;
  }
  Bookmark bookmark(const std::string& database) {
    return store_->position(name(database))->bookmark();
  }
};

TEST_F(AdoptionTest, AFileBecomesADatabase) {
  AdoptedFile file = make_file(TxId{41});
  ASSERT_TRUE(store_->adopt_file(name("a"), file));
  EXPECT_FALSE(std::filesystem::exists(file.path)) << "it moves";
  EXPECT_EQ(bookmark("a"), file.position.bookmark());
  EXPECT_EQ(query("a", "SELECT count(*) FROM t"), "3");
  EXPECT_EQ(query("a", "INSERT INTO t VALUES(4) RETURNING a"), "4");
  EXPECT_EQ(bookmark("a").txid, TxId{42});
  EXPECT_EQ(store_->adopt_file(name("a"), make_file(TxId{50})).error().code(), Code::kConflict);
  open();
  EXPECT_EQ(bookmark("a").txid, TxId{42});
  EXPECT_EQ(query("a", "SELECT count(*) FROM t"), "4");
  // One that was never written takes it as well; it keeps its number.
  create("b");
  const std::uint64_t id = store_->info(name("b"))->id;
  file = make_file(TxId{7});
  ASSERT_TRUE(store_->adopt_file(name("b"), file));
  EXPECT_EQ(store_->info(name("b"))->id, id);
  EXPECT_EQ(query("b", "SELECT count(*) FROM t"), "3");
  AdoptedFile nothing;
  nothing.path = folder_.path() + "/none";
  nothing.page_size = 4096;
  nothing.page_count = 1;
  nothing.position = {Lineage::random(), Epoch{}, TxId{1}, {}};
  EXPECT_FALSE(store_->adopt_file(name("c"), nothing));
  EXPECT_FALSE(store_->info(name("c"))) << "not half there";
}

// Bookmarks of what was lost are of another history, also after a restart.
TEST_F(AdoptionTest, LostTransactionsAreNotReached) {
  AdoptedFile file = make_file(TxId{5});
  ASSERT_TRUE(store_->adopt_file(name("a"), file));
  for (int i = 0; i < 5; ++i) query("a", "INSERT INTO t VALUES(9)");
  for (bool is_restarted : {false, true}) {
    if (is_restarted) open();
    auto read = [&](Epoch epoch, std::uint64_t txid) {
      auto request = std::make_unique<testing::TextRequest>(
          std::vector<std::string>{"SELECT count(*) FROM t"}, false);
      request->at_least = Bookmark{epoch, TxId{txid}, file.position.lineage};
      auto future = request->future();
      store_->submit(name("a"), std::move(request));
      testing::Answers answers = future.get();
      return answers.outcome.error ? answers.outcome.error->code() : Code::kInternal;
    };
    EXPECT_EQ(read(Epoch{2}, 6), Code::kConflict);
    EXPECT_EQ(read(Epoch{2}, 5), Code::kInternal) << "it was before";
    EXPECT_EQ(read(Epoch{3}, 6), Code::kInternal);
  }
}

// The process ends before the file is in its place: the journal says whether it is to be there.
TEST_F(AdoptionTest, WhatWaitsIsPlacedOrGoes) {
  ASSERT_TRUE(store_->adopt_file(name("a"), make_file(TxId{5})));
  const std::string path = file_of("a");
  create("b");
  const std::string other = file_of("b");
  store_.reset();
  std::filesystem::rename(path, path + kAdoptedSuffix);
  {
    std::ofstream(other + kAdoptedSuffix) << "nobody decided it";
    std::ofstream(path) << "half of another";
  }
  open();
  EXPECT_EQ(query("a", "SELECT count(*) FROM t"), "3");
  EXPECT_EQ(query("a", "PRAGMA integrity_check"), "ok");
  EXPECT_FALSE(std::filesystem::exists(other + kAdoptedSuffix));
  EXPECT_EQ(query("b", "SELECT count(*) FROM sqlite_schema"), "0");
}

TEST_F(AdoptionTest, AFolderThatIsNotRestoredYetIsNotServed) {
  store_.reset();
  {
    std::ofstream(options_.directory + "/" + kRestoringFile) << "x";
  }
  auto refused = Store::open(options_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kInvalid);
}

}  // namespace
}  // namespace offprint::database
