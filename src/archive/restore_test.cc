#include "archive/restore.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <unistd.h>

#include "archive/database_output.h"
#include "archive/restore_testing.h"

namespace offprint::archive {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string said(const Result<Restored>& restored) {
  if (restored) return "done";
  return fmt::format("{}: {}", code_name(restored.error().code()), restored.error().message());
}

void expect_state(TestArchive& archive, const DatabaseLife& life, const RestoreTarget& target,
                  std::uint64_t txid) {
  const auto restored = archive.restore(target);
  ASSERT_TRUE(restored) << said(restored);
  EXPECT_EQ(restored->txid.value, txid);
  EXPECT_EQ(restored->page_size, life.page_size);
  EXPECT_EQ(restored->page_count, life.states[txid].size());
  EXPECT_EQ(restored->timestamp_ms, DatabaseLife::time_of(txid));
  EXPECT_EQ(restored->checksum, ltx::checksum_of(life.states[txid]));
  EXPECT_EQ(restored->proven, life.writer != Writer::kStock);
  EXPECT_GT(restored->bytes, 0u);
  EXPECT_TRUE(archive.take_output() == life.content_at(txid));
  EXPECT_THAT(archive.output_names(), IsEmpty());
}

// Property: every moment that can be restored is restored as it was, and no other.
TEST(RestoreTest, EveryMomentIsAsItWas) {
  std::uint64_t moments = 0;
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const std::uint32_t page_size = seed % 10 == 0 ? 512u << random() % 8 : 512u;
    const DatabaseLife life =
        random_life(random, 1 + random() % 20, static_cast<Writer>(random() % 3), page_size);
    TestArchive archive(random() % 2 == 0 ? "" : "shop/orders/");
    fill_randomly(archive, life, random);
    const Chain chain = archive.chain();
    for (std::uint64_t txid = 1; txid <= life.length(); ++txid) {
      const auto& restorable = chain.restorable();
      const auto later = std::ranges::upper_bound(restorable, TxId{txid});
      const bool there = std::ranges::binary_search(restorable, TxId{txid});
      if (there) {
        expect_state(archive, life, TxId{txid}, txid);
        ++moments;
      } else {
        EXPECT_NE(said(archive.restore(TxId{txid})), "done");
      }
      // A time shortly after it is that moment, or the last one before that can be restored.
      const RestoreTarget time = AtTime{DatabaseLife::time_of(txid) + 999};
      if (later != restorable.begin() && later != restorable.end())
        expect_state(archive, life, time, std::prev(later)->value);
      if (later == restorable.begin()) EXPECT_NE(said(archive.restore(time)), "done");
    }
    if (!chain.restorable().empty() && chain.restorable().back() == chain.newest())
      expect_state(archive, life, Newest{}, chain.newest().value);
  }
  EXPECT_GT(moments, 500u);
}

TEST(RestoreTest, MoreFilesThanAreReadAtOnceAreMergedFirst) {
  for (const Writer writer : {Writer::kStock, Writer::kOurs, Writer::kTracked}) {
    std::mt19937_64 random(5);
    const DatabaseLife life = random_life(random, 1100, writer);
    TestArchive archive;
    archive.put_level_0(life);
    for (const std::uint64_t txid : {32u, 33u, 64u, 65u, 1025u, 1100u})
      expect_state(archive, life, TxId{txid}, txid);
  }
}

TEST(RestoreTest, NothingIsReplacedUnlessAsked) {
  std::mt19937_64 random(1);
  const DatabaseLife life = random_life(random, 3, Writer::kOurs);
  TestArchive archive;
  archive.put_level_0(life);
  archive.files.put("/out/a.db", as_bytes("precious"));
  archive.files.put("/out/a.db-wal", as_bytes("precious too"));
  EXPECT_THAT(said(archive.restore(Newest{})), HasSubstr("conflict: /out/a.db is there already"));
  EXPECT_EQ(as_text(archive.files.content("/out/a.db")), "precious");

  // A log that another database left would become part of the new one.
  ASSERT_TRUE(archive.files.remove("/out/a.db"));
  EXPECT_THAT(said(archive.restore(Newest{})), HasSubstr("/out/a.db-wal is there already"));
  archive.files.put("/out/a.db", as_bytes("precious"));
  EXPECT_EQ(said(archive.restore(Newest{}, {.replace = true})), "done");
  EXPECT_THAT(archive.output_names(), ElementsAre("a.db"));
  EXPECT_TRUE(archive.take_output() == life.content_at(3));

  archive.files.put("/out/a.db-offprint", as_bytes("position"));
  EXPECT_THAT(said(archive.restore(Newest{}, {.replace = true})), HasSubstr("offprint follow"));
}

TEST(RestoreTest, TheJournalModeIsAsAskedAndTheChecksumAsArchived) {
  std::mt19937_64 random(1);
  const DatabaseLife life = random_life(random, 3, Writer::kOurs);
  TestArchive archive;
  archive.put_level_0(life);
  const std::pair<RestoreOptions::JournalMode, std::uint8_t> modes[] = {
      {RestoreOptions::JournalMode::kWal, 2}, {RestoreOptions::JournalMode::kRollback, 1}};
  for (const auto& [mode, value] : modes) {
    const auto restored = archive.restore(Newest{}, {.journal_mode = mode});
    ASSERT_TRUE(restored) << said(restored);
    EXPECT_TRUE(restored->proven);
    Bytes expected = life.content_at(3);
    expected[18] = expected[19] = value;
    EXPECT_TRUE(archive.take_output() == expected);
  }
}

TEST(RestoreTest, TheArchiveMustReachWhatItsHistoryPromises) {
  std::mt19937_64 random(2);
  const DatabaseLife life = random_life(random, 9, Writer::kOurs);
  TestArchive archive;
  archive.put_level_0(life);
  archive.put_history(history_of(life));
  const auto restored = archive.restore(Newest{});
  ASSERT_TRUE(restored) << said(restored);
  EXPECT_EQ(restored->bookmark, history_of(life).head.bookmark());
  archive.take_output();

  ASSERT_TRUE(archive.files.remove(archive.path_of(0, 9, 9)));
  ASSERT_TRUE(archive.files.remove(archive.path_of(0, 8, 8)));
  const std::string lost =
      "corrupt: the archive must reach transaction 9, but objects after transaction 7 are missing";
  EXPECT_EQ(said(archive.restore(Newest{})), lost);
  EXPECT_EQ(said(archive.restore(TxId{8})), lost);
  EXPECT_EQ(said(archive.restore(AtTime{DatabaseLife::time_of(9)})), lost);
  EXPECT_EQ(said(archive.restore(TxId{10})), "not_found: the archive ends at transaction 7");
  EXPECT_EQ(said(archive.restore(AtTime{DatabaseLife::time_of(9) - 1})), "done");
  EXPECT_TRUE(archive.take_output() == life.content_at(7));
  for (std::uint64_t txid = 1; txid <= 7; ++txid)
    ASSERT_TRUE(archive.files.remove(archive.path_of(0, txid, txid)));
  EXPECT_THAT(said(archive.restore(Newest{})),
              HasSubstr("objects after transaction 0 are missing"));
}

TEST(RestoreTest, ABookmarkMustBeOfTheHistory) {
  std::mt19937_64 random(3);
  const DatabaseLife life = random_life(random, 5, Writer::kOurs);
  TestArchive archive;
  archive.put_level_0(life);
  Bookmark bookmark = history_of(life).head.bookmark();
  bookmark.txid.value = 4;
  EXPECT_THAT(said(archive.restore(bookmark)), HasSubstr("not_found: the archive has no history"));
  archive.put_history(history_of(life));
  const auto restored = archive.restore(bookmark);
  ASSERT_TRUE(restored) << said(restored);
  EXPECT_EQ(restored->bookmark, bookmark);
  EXPECT_TRUE(archive.take_output() == life.content_at(4));
  bookmark.epoch.value = 4;
  EXPECT_THAT(said(archive.restore(bookmark)),
              HasSubstr("is no bookmark of this archive's history"));
}

// Files that are sound each by itself, one of another database: the checksums tell.
TEST(RestoreTest, APageOfAnotherDatabaseIsNoticedAndItsFileNamed) {
  std::mt19937_64 random(4);
  const DatabaseLife life = random_life(random, 6, Writer::kOurs);
  const std::uint64_t txid = 4;
  auto decoded = ltx::decode(life.files[txid - 1]);
  ASSERT_TRUE(decoded && !decoded->pages.empty());
  decoded->pages[0].second[100] ^= 1;
  const Bytes wrong = ltx::encode(decoded->header, decoded->pages, Checksum{});
  TestArchive archive;
  archive.put_level_0(life);
  archive.put(0, txid, txid, wrong);
  for (std::uint64_t target = txid; target <= life.length(); ++target) {
    EXPECT_THAT(
        said(archive.restore(TxId{target})),
        HasSubstr("corrupt: ltx/0/0000000000000004-0000000000000004.ltx: the database after "
                  "it adds up to checksum"));
  }
  EXPECT_THAT(archive.output_names(), IsEmpty());
  EXPECT_EQ(said(archive.restore(TxId{txid - 1})), "done");
  archive.take_output();

  // The snapshot alone, too.
  auto snapshot = ltx::decode(compacted(life, 1, 5));
  ASSERT_TRUE(snapshot);
  snapshot->pages[0].second[100] ^= 1;
  archive.put(9, 1, 5, ltx::encode(snapshot->header, snapshot->pages, Checksum{}));
  EXPECT_THAT(said(archive.restore(TxId{6})), HasSubstr("ltx/9/0000000000000001-"));
}

TEST(RestoreTest, TheHistorysChecksumCountsToo) {
  std::mt19937_64 random(6);
  const DatabaseLife life = random_life(random, 4, Writer::kStock);
  TestArchive archive;
  archive.put_level_0(life);
  History history = history_of(life);
  archive.put_history(history);
  const auto restored = archive.restore(Newest{});
  ASSERT_TRUE(restored) << said(restored);
  EXPECT_TRUE(restored->proven);
  archive.take_output();
  history.head.checksum.value ^= 1;
  archive.put_history(history);
  EXPECT_THAT(said(archive.restore(Newest{})), HasSubstr("the archive's history says"));
  archive.files.corrupt("/archive/offprint/history", 30, 1);
  EXPECT_THAT(said(archive.restore(Newest{})),
              HasSubstr("offprint/history: the archive's history is damaged"));
}

TEST(RestoreTest, AFileThatIsNotWhatItsNameSaysIsNamed) {
  std::mt19937_64 random(7);
  const DatabaseLife life = random_life(random, 4, Writer::kStock);
  TestArchive archive("a/");
  archive.put_level_0(life);
  archive.put(0, 3, 3, life.files[3]);
  EXPECT_EQ(
      said(archive.restore(TxId{3})),
      "corrupt: a/ltx/0/0000000000000003-0000000000000003.ltx: holds transactions 4 to 4, not "
      "what its name says");
  archive.put(0, 3, 3, {});
  EXPECT_THAT(said(archive.restore(TxId{3})),
              HasSubstr("corrupt: a/ltx/0/0000000000000003-0000000000000003.ltx"));
}

TEST(RestoreTest, AnEmptyPlaceAndADeletedDatabaseAreSaid) {
  TestArchive archive("a/");
  EXPECT_EQ(said(archive.restore(Newest{})),
            "not_found: file:///archive/a/: no archive of a database is there");
  std::mt19937_64 random(8);
  const DatabaseLife life = random_life(random, 1, Writer::kTracked);
  archive.put_level_0(life);
  const ltx::Header header{.page_size = 512,
                           .page_count = 0,
                           .min_txid = {2},
                           .max_txid = {2},
                           .pre_apply = ltx::checksum_of(life.states[1])};
  archive.put(0, 2, 2, ltx::encode(header, {}, ltx::kEmptyDatabase));
  EXPECT_EQ(said(archive.restore(Newest{})),
            "not_found: the database was deleted by transaction 2");
}

TEST(RestoreTest, ProgressIsToldAndCancellingLeavesNothing) {
  std::mt19937_64 random(9);
  DatabaseLife life = random_life(random, 3, Writer::kStock);
  // Larger than what is read ahead.
  ltx::Pages pages;
  for (PageNo page = 1; page <= 600; ++page) {
    Bytes image(8192);
    for (std::uint8_t& byte : image) byte = static_cast<std::uint8_t>(random());
    pages.emplace_back(page, std::move(image));
  }
  const ltx::Header header{.flags = ltx::kNoChecksumFlag,
                           .page_size = 8192,
                           .page_count = 600,
                           .min_txid = {1},
                           .max_txid = {1}};
  TestArchive archive;
  archive.put(0, 1, 1, ltx::encode(header, pages, Checksum{}));
  std::vector<std::uint64_t> done;
  const auto progress = [&](std::uint64_t pages_done, std::uint64_t total) {
    EXPECT_EQ(total, 600u);
    done.push_back(pages_done);
  };
  EXPECT_EQ(said(archive.restore(Newest{}, {.progress = progress})), "done");
  EXPECT_TRUE(std::ranges::is_sorted(done));
  EXPECT_EQ(done.back(), 600u);
  EXPECT_EQ(archive.take_output().size(), 600u * 8192);

  std::atomic<bool> cancelled{false};
  const auto cancel = [&](std::uint64_t, std::uint64_t) { cancelled = true; };
  EXPECT_EQ(said(archive.restore(Newest{}, {.progress = cancel, .cancelled = &cancelled})),
            "unavailable: cancelled");
  EXPECT_THAT(archive.output_names(), IsEmpty());
}

// Before the first read of `key`, the archive's writer compacts it away.
class CompactingStore final : public ObjectStore {
 public:
  CompactingStore(ObjectStore& store, std::string key, std::function<void()> compact)
      : store_(store), key_(std::move(key)), compact_(std::move(compact)) {}
  const std::string& url() const override { return store_.url(); }
  std::string level_prefix(int level) const override { return store_.level_prefix(level); }
  Result<ObjectInfo> put(const std::string& key, ltx::ByteSource& from,
                         const PutOptions& options) override {
    return store_.put(key, from, options);
  }
  Result<std::unique_ptr<ltx::ByteSource>> get(const std::string& key,
                                               std::uint64_t offset) override {
    if (key == key_ && compact_) std::exchange(compact_, nullptr)();
    return store_.get(key, offset);
  }
  Result<ObjectInfo> info(const std::string& key) override { return store_.info(key); }
  Result<std::vector<ObjectInfo>> list(const std::string& prefix) override {
    return store_.list(prefix);
  }
  Result<> remove(const std::vector<std::string>& keys) override { return store_.remove(keys); }
  void cancel() override { store_.cancel(); }

 private:
  ObjectStore& store_;
  const std::string key_;
  std::function<void()> compact_;
};

TEST(RestoreTest, ObjectsThatAreCompactedMeanwhileAreFoundAgain) {
  std::mt19937_64 random(10);
  const DatabaseLife life = random_life(random, 6, Writer::kOurs);
  for (const RestoreTarget& target : {RestoreTarget(Newest{}), RestoreTarget(AtTime{INT64_MAX})}) {
    TestArchive archive;
    archive.put_level_0(life);
    CompactingStore store(*archive.store, "ltx/0/" + ltx::file_name({5}, {5}), [&] {
      archive.put(1, 4, 5, compacted(life, 4, 5));
      for (const std::uint64_t txid : {4u, 5u})
        ASSERT_TRUE(archive.files.remove(archive.path_of(0, txid, txid)));
    });
    RestoreOptions options;
    options.files = &archive.files;
    const auto restored = restore_file(store, "", target, "/out/a.db", options);
    ASSERT_TRUE(restored) << said(restored);
    EXPECT_TRUE(archive.take_output() == life.content_at(6));
  }
}

// With real files: through the URL, and the folder of the output as it is named.
TEST(RestoreTest, RestoresFromAFolderIntoAFile) {
  const std::string folder = testing::TempDir() + fmt::format("offprint_restore_{}", ::getpid());
  std::filesystem::remove_all(folder);
  std::mt19937_64 random(11);
  const DatabaseLife life = random_life(random, 8, Writer::kOurs, 4096);
  auto store = open_object_store("file://" + folder + "/archive");
  ASSERT_TRUE(store);
  for (std::uint64_t txid = 1; txid <= life.length(); ++txid) {
    ltx::BytesSource source(life.files[txid - 1]);
    PutOptions options;
    options.timestamp_ms = DatabaseLife::time_of(txid);
    ASSERT_TRUE((*store)->put(
        "orders/" + (*store)->level_prefix(0) + ltx::file_name({txid}, {txid}), source, options));
  }
  const auto restored = restore_file(**store, "orders/", Newest{}, folder + "/a.db");
  ASSERT_TRUE(restored) << said(restored);
  std::ifstream file(folder + "/a.db", std::ios::binary);
  const Bytes content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_TRUE(content == life.content_at(8));
  EXPECT_FALSE(restore_file(**store, "orders/", Newest{}, folder + "/a.db"));
  std::filesystem::remove_all(folder);
}

// What is not there, the lock page, reads as zeros.
TEST(DatabaseOutputTest, PagesLeftOutAreZeros) {
  FaultFileSystem files;
  ASSERT_TRUE(files.create_directories("/out"));
  DatabaseOutput output(files, "/out/a.db");
  ASSERT_TRUE(output.open(512));
  ASSERT_TRUE(output.put(1, Bytes(512, 1)));
  ASSERT_TRUE(output.put(3, Bytes(512, 3)));
  ASSERT_TRUE(output.publish(4, false));
  Bytes expected(4 * 512);
  std::fill_n(expected.begin(), 512, std::uint8_t{1});
  std::fill_n(expected.begin() + 1024, 512, std::uint8_t{3});
  EXPECT_TRUE(files.content("/out/a.db") == expected);
}

}  // namespace
}  // namespace offprint::archive
