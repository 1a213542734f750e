#include "database/wal_map.h"

#include <gtest/gtest.h>

namespace offprint::database {
namespace {

sqlite::WalPoint point(std::uint32_t generation, std::uint32_t frame) {
  return {generation, generation, frame};
}

TEST(WalMapTest, KnowsWhichTransactionASnapshotIs) {
  WalMap map;
  map.reset(TxId{7});
  EXPECT_EQ(map.find(point(0, 0)), TxId{7});
  EXPECT_EQ(map.find(point(5, 40)), TxId{7});  // frames from before the files were opened
  map.add(point(5, 43), TxId{8});
  map.add(point(5, 50), TxId{9});
  EXPECT_EQ(map.find(point(0, 0)), TxId{7});
  EXPECT_EQ(map.find(point(5, 40)), TxId{7});
  EXPECT_EQ(map.find(point(5, 43)), TxId{8});
  EXPECT_EQ(map.find(point(5, 50)), TxId{9});
  EXPECT_EQ(map.find(point(5, 47)), std::nullopt);  // not one of ours
  EXPECT_EQ(map.find(point(6, 0)), TxId{9});        // restarted, nothing in it yet
  map.add(point(6, 2), TxId{10});
  EXPECT_EQ(map.find(point(6, 0)), TxId{9});
  EXPECT_EQ(map.find(point(6, 2)), TxId{10});
  EXPECT_EQ(map.find(point(5, 43)), TxId{8});  // a reader may still hold it
  EXPECT_EQ(map.frames(), 2u);
}

TEST(WalMapTest, ACheckpointCoversWhatItSaw) {
  WalMap map;
  map.reset(TxId{7});
  EXPECT_EQ(map.covered_since(map.stage(), 40, 40), TxId{7});
  EXPECT_EQ(map.covered_since(map.stage(), 39, 40), std::nullopt);
  map.add(point(5, 43), TxId{8});
  map.add(point(5, 50), TxId{9});
  WalMap::Stage before = map.stage();
  EXPECT_EQ(map.covered_since(before, 42, 50), std::nullopt);
  EXPECT_EQ(map.covered_since(before, 49, 50), TxId{8});
  EXPECT_EQ(map.covered_since(before, 50, 50), TxId{9});
  map.add(point(5, 60), TxId{10});  // beside the checkpoint
  EXPECT_EQ(map.covered_since(before, 50, 50), TxId{9});
}

TEST(WalMapTest, AWalThatStartsAnewBesideACheckpointIsAllInTheFile) {
  WalMap map;
  map.reset(TxId{7});
  map.add(point(5, 43), TxId{8});
  WalMap::Stage before = map.stage();
  map.add(point(6, 3), TxId{9});
  EXPECT_EQ(map.covered_since(before, 43, 43), TxId{8});  // and not 9, though 3 < 43
  EXPECT_EQ(map.covered_since(before, 10, 43), TxId{8});
}

TEST(WalMapTest, TheFirstCommitBesideACheckpointProvesNothing) {
  WalMap map;
  map.reset(TxId{7});
  WalMap::Stage before = map.stage();
  map.add(point(5, 43), TxId{8});  // the same generation as before, or a new one: not known
  EXPECT_EQ(map.covered_since(before, 30, 40), std::nullopt);
  EXPECT_EQ(map.covered_since(before, 40, 40), TxId{7});
}

TEST(WalMapTest, ACheckpointOfFilesThatWereOpenedAgainProvesNothing) {
  WalMap map;
  map.reset(TxId{7});
  map.add(point(5, 43), TxId{8});
  WalMap::Stage before = map.stage();
  map.reset(TxId{8});
  EXPECT_EQ(map.covered_since(before, 43, 43), std::nullopt);
}

}  // namespace
}  // namespace offprint::database
