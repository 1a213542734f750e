#include "replica/transaction_delta.h"

#include <gtest/gtest.h>

#include <random>

#include "replica/replica_testing.h"

namespace offprint::replica {
namespace {

using testing::LtxPrimary;
using testing::SentTransaction;
using testing::TemporaryFolder;
using Images = std::map<std::uint32_t, Bytes>;

Result<DeltaTransaction> rebuild_upon(ByteView delta, Checksum before, const Images& images,
                                      std::uint32_t page_size) {
  return rebuild(delta, before, page_size, [&](PageNo page, std::span<std::uint8_t> image) {
    auto found = images.find(page);
    if (found != images.end()) std::ranges::copy(found->second, image.begin());
    return Result<bool>(found != images.end());
  });
}

class TransactionDelta : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(TransactionDelta, MakesTheTransactionOfItsFormerPagesAndNothingOfOthers) {
  TemporaryFolder folder;
  LtxPrimary primary(folder / "p.db", {.page_size = GetParam(), .seed = 5});
  primary.primary().make_tables();
  primary.capture();
  std::mt19937 random(3);
  int refused = 0;
  for (int i = 0; i < 120; ++i) {
    const Images former = primary.state().pages;
    const Checksum before = primary.position().checksum;
    const SentTransaction sent = primary.random_transaction();
    if (sent.delta.empty()) continue;
    auto file = *ltx::decode(sent.ltx);
    auto made = rebuild_upon(sent.delta, before, former, GetParam());
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->file.header, file.header);
    EXPECT_EQ(made->file.trailer.post_apply, file.trailer.post_apply);
    EXPECT_EQ(made->file.pages, file.pages);

    if (sent.position.checksum != before) {
      made = rebuild_upon(sent.delta, sent.position.checksum, former, GetParam());
      ASSERT_FALSE(made);
      EXPECT_EQ(made.error().code(), Code::kConflict);
    }
    // Other former pages: the right transaction, or none.
    Images wrong = former;
    const std::size_t at = random() % GetParam();
    for (auto& [page, image] : wrong) image[at] ^= 0x20;
    made = rebuild_upon(sent.delta, before, wrong, GetParam());
    if (made) EXPECT_EQ(made->file.pages, file.pages);
    if (!made) EXPECT_EQ(made.error().code(), Code::kConflict);
    refused += made ? 0 : 1;
  }
  EXPECT_GT(refused, 50);
}
INSTANTIATE_TEST_SUITE_P(PageSizes, TransactionDelta, ::testing::Values(512, 4096, 65536));

TEST(TransactionDeltaFormat, RefusesEveryDamagedByte) {
  TemporaryFolder folder;
  LtxPrimary primary(folder / "p.db", {.page_size = 1024, .seed = 6});
  primary.primary().make_tables();
  primary.capture();
  const Images former = primary.state().pages;
  const Checksum before = primary.position().checksum;
  sqlite::testing::must(primary.db(), "INSERT INTO t(a, b) VALUES(1, randomblob(100))");
  const SentTransaction sent = primary.capture();
  ASSERT_TRUE(rebuild_upon(sent.delta, before, former, 1024));
  for (std::size_t i = 0; i < sent.delta.size(); ++i) {
    EXPECT_FALSE(rebuild_upon(ByteView(sent.delta).first(i), before, former, 1024)) << i;
    for (int bit = 0; bit < 8; ++bit) {
      Bytes damaged = sent.delta;
      damaged[i] = static_cast<std::uint8_t>(damaged[i] ^ (1 << bit));
      auto made = rebuild_upon(damaged, before, former, 1024);
      if (made) EXPECT_EQ(made->file.pages, ltx::decode(sent.ltx)->pages) << i;
      if (i < 44) EXPECT_FALSE(made) << i;
    }
  }
}

// The rolling checksum would not see it: both pages' sums change by the same.
TEST(TransactionDeltaFormat, AnErrorThatTwoPagesHaveIsSeen) {
  std::mt19937 random(7);
  Bytes one(512), two(512);
  for (std::uint8_t& byte : one) byte = static_cast<std::uint8_t>(random());
  for (std::uint8_t& byte : two) byte = static_cast<std::uint8_t>(random());
  Bytes one_after = one, two_after = two;
  one_after[5] = 9;
  two_after[5] = 9;
  std::vector<DeltaPage> pages = {{2, one, one_after}, {3, two, two_after}};
  DeltaHead head{Epoch{1}, TxId{9}, 0, 512, 3, Checksum{4}, Checksum{5}};
  const Bytes delta = encode_delta(head, pages).value();
  EXPECT_TRUE(rebuild_upon(delta, Checksum{4}, {{2, one}, {3, two}}, 512));
  one[100] ^= 1;
  two[100] ^= 1;
  auto made = rebuild_upon(delta, Checksum{4}, {{2, one}, {3, two}}, 512);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), Code::kConflict);
  EXPECT_EQ(rebuild_upon(delta, Checksum{4}, {{2, one}}, 512).error().code(), Code::kConflict);
  EXPECT_EQ(rebuild_upon(delta, Checksum{4}, {}, 1024).error().code(), Code::kConflict);
}

TEST(TransactionDeltaFormat, WhatIsTooLargeIsNone) {
  Bytes image(65536);
  std::vector<DeltaPage> pages;
  for (PageNo page = 1; page <= 257; ++page) pages.push_back({page, {}, image});
  DeltaHead head{Epoch{1}, TxId{9}, 0, 65536, 300, Checksum{4}, Checksum{5}};
  EXPECT_FALSE(encode_delta(head, pages));
  pages.pop_back();
  auto delta = encode_delta(head, pages);
  ASSERT_TRUE(delta);
  EXPECT_LT(delta->size(), 10'000u);
  EXPECT_EQ(rebuild_upon(*delta, Checksum{4}, {}, 65536)->file.pages.size(), 256u);
}

TEST(TransactionDeltaFormat, EncodingsAreAListThatMayNameOthers) {
  for (const char* list : {"delta", " delta ", "zip,delta", "zip, delta ,x", "delta,"})
    EXPECT_TRUE(has_encoding(list, kDeltaEncoding)) << list;
  for (const char* list : {"", ",", "deltas", "del ta", "zip", "DELTA"})
    EXPECT_FALSE(has_encoding(list, kDeltaEncoding)) << list;
}

}  // namespace
}  // namespace offprint::replica
