#include "archive/chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <random>
#include <set>

#include <fmt/format.h>
#include <unistd.h>

#include "archive/file_store.h"

namespace offprint::archive {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ArchivedFile file(int level, std::uint64_t min, std::uint64_t max) {
  return {level, {min}, {max}, fmt::format("{}/{}", level, ltx::file_name({min}, {max})), 1};
}

// "9:1-10 0:11-11".
std::string text(const std::vector<ArchivedFile>& files) {
  std::string all;
  for (const ArchivedFile& each : files) {
    all += fmt::format("{}{}:{}-{}", all.empty() ? "" : " ", each.level, each.min_txid.value,
                       each.max_txid.value);
  }
  return all;
}

std::string plan(const Chain& chain, std::uint64_t target) {
  const auto found = chain.files_to(TxId{target});
  return found ? text(*found)
               : fmt::format("{}: {}", code_name(found.error().code()), found.error().message());
}

TEST(ChainTest, BeginsAtASnapshotAndGoesByTheLongestSteps) {
  const Chain chain({file(9, 1, 10), file(0, 10, 10), file(0, 11, 11), file(0, 12, 12),
                     file(0, 13, 13), file(1, 11, 12), file(2, 5, 12), file(9, 1, 5)});
  EXPECT_THAT(chain.restorable(), ElementsAre(TxId{5}, TxId{10}, TxId{11}, TxId{12}, TxId{13}));
  EXPECT_EQ(chain.newest(), TxId{13});
  EXPECT_EQ(plan(chain, 5), "9:1-5");
  EXPECT_EQ(plan(chain, 10), "9:1-10");
  EXPECT_EQ(plan(chain, 11), "9:1-10 0:11-11");
  EXPECT_EQ(plan(chain, 12), "9:1-10 1:11-12");
  EXPECT_EQ(plan(chain, 13), "9:1-10 1:11-12 0:13-13");
}

TEST(ChainTest, AnyFileThatBeginsAtTheFirstTransactionIsABeginning) {
  const Chain chain({file(0, 1, 1), file(0, 2, 2), file(1, 1, 2), file(0, 3, 3)});
  EXPECT_EQ(plan(chain, 1), "0:1-1");
  EXPECT_EQ(plan(chain, 2), "1:1-2");
  EXPECT_EQ(plan(chain, 3), "1:1-2 0:3-3");
}

TEST(ChainTest, OfEqualFilesTheHigherLevelIsTaken) {
  const Chain chain({file(0, 1, 4), file(9, 1, 4), file(1, 5, 6), file(3, 5, 6), file(2, 3, 6)});
  EXPECT_EQ(plan(chain, 6), "9:1-4 3:5-6");
}

TEST(ChainTest, SaysWhichTransactionsAreMissing) {
  const Chain gap({file(9, 1, 56), file(0, 61, 61), file(0, 62, 62)});
  EXPECT_EQ(plan(gap, 62),
            "corrupt: transactions 57–60 are missing: no file of any level begins at or before 57; "
            "transaction 56 can be restored");
  EXPECT_EQ(plan(gap, 56), "9:1-56");
  const Chain one({file(9, 1, 56), file(0, 58, 58)});
  EXPECT_THAT(plan(one, 58), HasSubstr("transaction 57 is missing"));
  const Chain headless({file(0, 5, 5), file(0, 6, 6)});
  EXPECT_EQ(plan(headless, 6),
            "corrupt: transactions 1–4 are missing: no file of any level begins at or before 1; "
            "nothing before can be restored");
  EXPECT_THAT(headless.restorable(), IsEmpty());
}

TEST(ChainTest, SaysWhatCanBeRestoredInstead) {
  const Chain chain({file(9, 1, 49), file(1, 50, 70), file(0, 71, 71)});
  EXPECT_EQ(plan(chain, 57),
            "not_found: transaction 57 is kept only together with others; the nearest that can be "
            "restored are 49 and 70");
  EXPECT_EQ(plan(chain, 30),
            "not_found: transaction 30 is before the first that can be restored, 49");
  EXPECT_EQ(plan(chain, 72), "not_found: the archive ends at transaction 71");
  EXPECT_EQ(plan(Chain({}), 1), "not_found: the archive has no files");
}

// A state of files by brute force: every way to apply them.
std::set<std::uint64_t> reachable(const std::vector<ArchivedFile>& files) {
  std::set<std::uint64_t> found;
  std::vector<std::uint64_t> todo = {0};
  while (!todo.empty()) {
    const std::uint64_t at = todo.back();
    todo.pop_back();
    for (const ArchivedFile& each : files) {
      if (each.min_txid.value <= at + 1 && each.max_txid.value > at &&
          found.insert(each.max_txid.value).second) {
        todo.push_back(each.max_txid.value);
      }
    }
  }
  return found;
}

// Property: a moment has a plan exactly if there is any way to it, and the plan is one.
TEST(ChainTest, FindsAWayWheneverThereIsOne) {
  int ways = 0;
  int refusals = 0;
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const std::uint64_t length = 1 + random() % 25;
    std::vector<ArchivedFile> files;
    for (std::uint64_t count = random() % 30; count > 0; --count) {
      const std::uint64_t min = random() % 4 == 0 ? 1 : 1 + random() % length;
      const std::uint64_t max = min + random() % (random() % 3 == 0 ? length : 3);
      files.push_back(file(static_cast<int>(random() % 10), min, max));
    }
    const std::set<std::uint64_t> expected = reachable(files);
    const Chain chain(files);
    std::set<std::uint64_t> restorable;
    for (TxId txid : chain.restorable()) restorable.insert(txid.value);
    ASSERT_EQ(restorable, expected);
    for (std::uint64_t target = 1; target <= chain.newest().value + 1; ++target) {
      const auto found = chain.files_to(TxId{target});
      ASSERT_EQ(found.has_value(), expected.contains(target)) << target;
      if (!found) {
        ++refusals;
        continue;
      }
      ++ways;
      std::uint64_t at = 0;
      for (const ArchivedFile& step : *found) {
        ASSERT_TRUE(std::ranges::find(files, step) != files.end());
        ASSERT_LE(step.min_txid.value, at + 1);
        ASSERT_GT(step.max_txid.value, at);
        at = step.max_txid.value;
      }
      ASSERT_EQ(at, target);
    }
  }
  EXPECT_GT(ways, 10'000);
  EXPECT_GT(refusals, 10'000);
}

// Transaction N was made at N * 10.
struct Times {
  Result<TxId> at(const Chain& chain, std::int64_t unix_ms) {
    reads = 0;
    return chain.at_time(unix_ms, [this](const ArchivedFile& each) -> Result<std::int64_t> {
      ++reads;
      return static_cast<std::int64_t>(each.max_txid.value * 10);
    });
  }
  int reads = 0;
};

TEST(ChainTest, ATimeIsTheLastMomentThatIsNotLater) {
  const Chain chain({file(9, 1, 5), file(0, 6, 6), file(1, 7, 9), file(0, 10, 10)});
  Times times;
  const std::map<std::int64_t, std::uint64_t> expected = {{50, 5}, {59, 5}, {60, 6},   {75, 6},
                                                          {90, 9}, {99, 9}, {100, 10}, {5000, 10}};
  for (const auto& [time, txid] : expected) {
    const auto found = times.at(chain, time);
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(found->value, txid) << time;
  }
  const auto before = times.at(chain, 49);
  ASSERT_FALSE(before);
  EXPECT_EQ(before.error().code(), Code::kNotFound);
  EXPECT_THAT(before.error().message(), HasSubstr("1970-01-01T00:00:00.050Z (transaction 5)"));
}

TEST(ChainTest, ATimeReadsFewHeaders) {
  std::vector<ArchivedFile> files = {file(9, 1, 1)};
  for (std::uint64_t txid = 2; txid <= 10'000; ++txid) files.push_back(file(0, txid, txid));
  const Chain chain(std::move(files));
  Times times;
  const auto found = times.at(chain, 77'775);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->value, 7777u);
  EXPECT_LE(times.reads, 15);
}

TEST(ChainTest, ATimeWithinMissingFilesIsAnError) {
  const Chain chain({file(9, 1, 5), file(0, 8, 8), file(0, 9, 9)});
  Times times;
  EXPECT_TRUE(times.at(chain, 79));
  const auto after = times.at(chain, 80);
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().code(), Code::kCorrupt);
  EXPECT_THAT(after.error().message(), HasSubstr("transactions 6–7 are missing"));
  EXPECT_FALSE(times.at(Chain({}), 80));
  EXPECT_FALSE(times.at(Chain({file(0, 2, 2)}), 80));
}

TEST(ChainTest, ListsTheFilesOfAllLevelsAndNothingElse) {
  const std::string folder = testing::TempDir() + fmt::format("offprint_chain_{}", ::getpid());
  std::filesystem::remove_all(folder);
  auto store = open_file_store(folder, FileSystem::real());
  ASSERT_TRUE(store);
  const Bytes content(7);
  for (const char* key : {"a/ltx/0/0000000000000001-0000000000000002.ltx",
                          "a/ltx/9/0000000000000001-000000000000000a.ltx", "a/ltx/0/notes",
                          "a/ltx/0/0000000000000002-0000000000000001.ltx",
                          "a/ltx/0/0000000000000000-0000000000000001.ltx",
                          "a/ltx/0/sub/0000000000000001-0000000000000002.ltx",
                          "a/ltx/10/0000000000000001-0000000000000002.ltx", "a/offprint/history",
                          "ab/ltx/0/0000000000000003-0000000000000003.ltx"}) {
    ltx::BytesSource source(content);
    ASSERT_TRUE((*store)->put(key, source));
  }
  const auto files = list_files(**store, "a/");
  ASSERT_TRUE(files);
  EXPECT_EQ(text(*files), "0:1-2 9:1-10");
  EXPECT_EQ(files->at(0).size, 7u);
  EXPECT_EQ(files->at(1).key, "a/ltx/9/0000000000000001-000000000000000a.ltx");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace offprint::archive
