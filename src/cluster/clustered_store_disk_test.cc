// What was acknowledged outlives the power of all nodes at once; and a journal that does not sync
// before it says so is found out by the same test.
#include <gtest/gtest-spi.h>

#include "cluster/clustered_store_testing.h"

namespace offprint::cluster {
namespace {

using testing::StoreNode;

class ClusteredStoreDiskTest : public testing::StoreCluster {
 protected:
  void create_table() {
    create("d");
    ASSERT_TRUE(write("d", "CREATE TABLE t(a INTEGER PRIMARY KEY)"));
  }
  // Some writes, then no node has power, then all have. What was acknowledged and is gone.
  void lose_power_of_all(std::uint64_t seed) {
    for (int i = 0; i < 5; ++i) {
      ++tried_;
      if (write("d", fmt::format("INSERT INTO t VALUES({})", tried_)))
        acknowledged_.push_back(tried_);
    }
    for (std::size_t n = 0; n < nodes_.size(); ++n) nodes_[n]->stop(seed * nodes_.size() + n);
    for (auto& node : nodes_) {
      node->start();
      if (!node->runs() || !node->running()) return;
    }
    connect();
    ASSERT_TRUE(write("d", "UPDATE t SET a = a WHERE 0"));
    const std::string found =
        rows(*nodes_[primary().value_or(0)]->running()->store, "d", "SELECT a FROM t ORDER BY a");
    for (int each : acknowledged_)
      ASSERT_NE(("\n" + found).find(fmt::format("\n{}\n", each)), std::string::npos)
          << each << " was acknowledged; there is: " << found;
  }

 private:
  int tried_ = 0;
  std::vector<int> acknowledged_;
};

TEST_F(ClusteredStoreDiskTest, AllNodesLosePower) {
  create_table();
  for (std::uint64_t seed = 1; seed <= 10 && !HasFailure(); ++seed) lose_power_of_all(seed);
}

// The mutant: an acknowledgement without an fsync.
TEST_F(ClusteredStoreDiskTest, ADiskThatDoesNotSyncIsFoundOut) {
  create_table();
  for (auto& node : nodes_) disks_.of(node->folder()).ignore_syncs("/journal/");
  ::testing::TestPartResultArray found;
  {
    ::testing::ScopedFakeTestPartResultReporter reporter(
        ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ALL_THREADS, &found);
    for (std::uint64_t seed = 1; seed <= 20 && found.size() == 0; ++seed) lose_power_of_all(seed);
  }
  ASSERT_GT(found.size(), 0);
  fmt::print("noticed: {}\n", found.GetTestPartResult(0).message());
}

}  // namespace
}  // namespace offprint::cluster
