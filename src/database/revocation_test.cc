// Revoked tokens in the catalog.
#include "database/testing.h"

namespace offprint::database::testing {
namespace {

class RevocationTest : public StoreTest {};

TEST_F(RevocationTest, TheyAreKeptOverRestarts) {
  create("a");
  EXPECT_TRUE(store_->revocations().value().empty());
  std::int64_t later = unix_time_ms() / 1000 + 1000;
  ASSERT_TRUE(store_->revoke({"one", later, {}, 0}));
  ASSERT_TRUE(store_->revoke({"one", later - 500, {}, 0}));  // does not shorten it
  ASSERT_TRUE(store_->revoke({"two", later, {}, 0}));
  ASSERT_TRUE(store_->revoke({{}, 0, "a", 50}));
  ASSERT_TRUE(store_->revoke({{}, 0, "a", 40}));
  ASSERT_TRUE(store_->revoke({{}, 0, "*", 7}));
  open();
  auto all = store_->revocations().value();
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].token_id, "one");
  EXPECT_EQ(all[0].until_s, later);
  EXPECT_EQ(all[1].token_id, "two");
  EXPECT_EQ(all[2].database, "*");
  EXPECT_EQ(all[2].not_before_s, 7);
  EXPECT_EQ(all[3].not_before_s, 50);
  create("b");
  EXPECT_EQ(query("b", "SELECT 1"), "1");
}

// A token that has expired is refused without the list.
TEST_F(RevocationTest, EntriesOfExpiredTokensAreDropped) {
  ASSERT_TRUE(store_->revoke({"old", 1, {}, 0}));
  ASSERT_TRUE(store_->revoke({"new", unix_time_ms() / 1000 + 1000, {}, 0}));
  auto all = store_->revocations().value();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].token_id, "new");
}

}  // namespace
}  // namespace offprint::database::testing
