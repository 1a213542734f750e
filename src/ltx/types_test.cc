#include "ltx/types.h"

#include <gtest/gtest.h>

#include <random>

namespace offprint {
namespace {

constexpr std::string_view kText = "00000007-00000001-0000002a-00112233445566778899aabbccddeeff";

TEST(LineageTest, TextAndBack) {
  const Lineage lineage = Lineage::random();
  EXPECT_EQ(lineage.text().size(), 32u);
  EXPECT_EQ(Lineage::parse(lineage.text()), lineage);
  EXPECT_NE(Lineage::random(), lineage);
  EXPECT_FALSE(Lineage::parse(""));
  EXPECT_FALSE(Lineage::parse(std::string(31, '0')));
  EXPECT_FALSE(Lineage::parse(std::string(34, '0')));
  EXPECT_FALSE(Lineage::parse(std::string(32, 'A')));
}

TEST(BookmarkTest, HasFixedText) {
  const auto bookmark = Bookmark::parse(kText);
  ASSERT_TRUE(bookmark);
  EXPECT_EQ(bookmark->epoch, Epoch{7});
  EXPECT_EQ(bookmark->txid, TxId{0x1'0000'002a});
  EXPECT_EQ(bookmark->lineage.text(), "00112233445566778899aabbccddeeff");
  EXPECT_EQ(bookmark->text(), kText);
  EXPECT_EQ(Bookmark{}.text(), "00000000-00000000-00000000-00000000000000000000000000000000");
}

TEST(BookmarkTest, RefusesEveryOtherForm) {
  EXPECT_FALSE(Bookmark::parse(""));
  for (std::size_t size = 0; size < kText.size(); ++size)
    EXPECT_FALSE(Bookmark::parse(kText.substr(0, size)));
  EXPECT_FALSE(Bookmark::parse(std::string(kText) + "0"));
  // One wrong character at any place; upper case is wrong too.
  for (std::size_t at = 0; at < kText.size(); ++at) {
    for (char wrong : {'g', 'F', ' ', '\0', kText[at] == '-' ? '0' : '-'}) {
      std::string text(kText);
      text[at] = wrong;
      EXPECT_FALSE(Bookmark::parse(text)) << text;
    }
  }
}

TEST(BookmarkTest, TextsSortAsBookmarksWithinOneLineage) {
  std::mt19937_64 random(1);
  const Lineage lineage = Lineage::random();
  const auto any = [&] {
    // Few bits, so that equal epochs and neighbours are frequent.
    return Bookmark{Epoch{static_cast<std::uint32_t>(random() % 3)},
                    TxId{random() >> (random() % 64)}, lineage};
  };
  for (int round = 0; round < 10'000; ++round) {
    const Bookmark a = any();
    const Bookmark b = any();
    EXPECT_EQ(a.text() <=> b.text(), a <=> b);
    EXPECT_EQ(Bookmark::parse(a.text()), a);
  }
}

}  // namespace
}  // namespace offprint
