#include "cluster/group_log.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace offprint::cluster {
namespace {

// Records of the epochs 1,1,2,2,2,5.
GroupLog sample() {
  GroupLog log;
  log.append(Epoch{1}, Lsn{2});
  log.append(Epoch{2}, Lsn{5});
  log.append(Epoch{5}, Lsn{6});
  return log;
}

TEST(GroupLogTest, KnowsEachRecordsEpoch) {
  GroupLog log = sample();
  std::vector<std::uint32_t> epochs;
  for (std::uint64_t i = 0; i <= 6; ++i) epochs.push_back(log.epoch_at(Lsn{i}).value);
  EXPECT_EQ(epochs, (std::vector<std::uint32_t>{0, 1, 1, 2, 2, 2, 5}));
  EXPECT_EQ(log.last(), Lsn{6});
  EXPECT_EQ(log.last_epoch(), Epoch{5});
}

TEST(GroupLogTest, FindsWhereLogsMayMeet) {
  GroupLog log = sample();
  EXPECT_EQ(log.newest_of(Lsn{6}, Epoch{5}), Lsn{6});
  EXPECT_EQ(log.newest_of(Lsn{6}, Epoch{4}), Lsn{5});
  EXPECT_EQ(log.newest_of(Lsn{4}, Epoch{2}), Lsn{4});
  EXPECT_EQ(log.newest_of(Lsn{4}, Epoch{1}), Lsn{2});
  EXPECT_EQ(log.newest_of(Lsn{9}, Epoch{9}), Lsn{6});
  EXPECT_EQ(log.newest_of(Lsn{9}, Epoch{0}), Lsn{0});
}

TEST(GroupLogTest, FindsTheFirstConflict) {
  GroupLog log = sample();
  EXPECT_EQ(log.first_conflict({{Epoch{2}, Lsn{4}, Lsn{5}}, {Epoch{5}, Lsn{6}, Lsn{9}}}), Lsn{0});
  EXPECT_EQ(log.first_conflict({{Epoch{2}, Lsn{4}, Lsn{5}}, {Epoch{6}, Lsn{6}, Lsn{9}}}), Lsn{6});
  EXPECT_EQ(log.first_conflict({{Epoch{2}, Lsn{2}, Lsn{5}}}), Lsn{2});
  EXPECT_EQ(log.first_conflict({{Epoch{7}, Lsn{7}, Lsn{9}}}), Lsn{0});
}

// Against a plain list of epochs.
TEST(GroupLogTest, IsAListOfEpochs) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::uint32_t> model;  // by lsn - 1
    std::uint64_t base = 0;
    std::uint32_t epoch = 1;
    GroupLog log;
    for (int step = 0; step < 40; ++step) {
      switch (random() % 4) {
        case 0: {
          std::uint64_t to = base + random() % (model.size() - base + 1);
          model.resize(to);
          log.truncate(Lsn{to});
          break;
        }
        case 1: {
          std::uint64_t to = base + random() % (model.size() - base + 1);
          if (random() % 3 != 0) break;
          base = to;
          log.forget(Lsn{base});
          break;
        }
        default:
          epoch += static_cast<std::uint32_t>(random() % 2);
          model.resize(model.size() + 1 + random() % 3, epoch);
          log.append(Epoch{epoch}, Lsn{model.size()});
      }
      ASSERT_EQ(log.last().value, model.size());
      ASSERT_EQ(log.base().value, base);
      for (std::uint64_t i = base + 1; i <= model.size(); ++i)
        ASSERT_EQ(log.epoch_at(Lsn{i}).value, model[i - 1]);
      for (const EpochRun& run : log.runs(Lsn{base}, log.last())) {
        for (std::uint64_t i = run.first.value; i <= run.last.value; ++i)
          ASSERT_EQ(run.epoch.value, model[i - 1]);
      }
    }
  }
}

}  // namespace
}  // namespace offprint::cluster
