#include "ltx/page_delta.h"

#include <gtest/gtest.h>

#include <random>

#include "ltx/test_pages.h"

namespace offprint::ltx {
namespace {

TEST(PageDeltaTest, GivesThePageBack) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    const std::uint32_t size = std::uint32_t{512} << random() % 8;
    Bytes base = random() % 8 == 0 ? Bytes() : random_page(random, size);
    Bytes page = base.empty() || random() % 4 == 0 ? random_page(random, size) : base;
    for (std::size_t i = 0, n = random() % 9; i < n; ++i)
      page[random() % size] = static_cast<std::uint8_t>(random());
    Bytes bytes = {1, 2, 3};
    append_page_delta(base, page, bytes);
    Bytes back(size);
    ASSERT_TRUE(apply_page_delta(base, ByteView(bytes).subspan(3), back));
    ASSERT_EQ(back, page);
  }
}

TEST(PageDeltaTest, IsSmallForASmallChange) {
  std::mt19937_64 random(2);
  Bytes base(4096);
  for (auto& byte : base) byte = static_cast<std::uint8_t>(random());
  Bytes page = base;
  // As an insertion into the middle of a page's cell pointers does.
  std::copy(base.begin() + 100, base.begin() + 300, page.begin() + 102);
  for (std::size_t i = 2000; i < 2040; ++i) page[i] = static_cast<std::uint8_t>(random());
  Bytes delta;
  append_page_delta(base, page, delta);
  EXPECT_LT(delta.size(), 300U);
}

TEST(PageDeltaTest, DamageIsRefusedOrAnotherPage) {
  std::mt19937_64 random(3);
  Bytes base = random_page(random, 4096), page = base;
  for (std::size_t i = 0; i < 300; ++i) page[random() % 4096] = static_cast<std::uint8_t>(random());
  Bytes delta, back(4096);
  append_page_delta(base, page, delta);
  Bytes small;
  page = base;
  for (std::size_t i = 0; i < 10; ++i) page[random() % 4096] = static_cast<std::uint8_t>(random());
  append_page_delta(base, page, small);
  for (int round = 0; round < 10000; ++round) {
    Bytes damaged = round % 3 == 0 ? small : delta;
    if (round % 2 == 0) damaged.resize(random() % damaged.size());
    for (std::size_t i = 0; i < 3 && !damaged.empty(); ++i)
      damaged[random() % damaged.size()] = static_cast<std::uint8_t>(random());
    (void)apply_page_delta(base, damaged, back);  // sanitizers look on
    if (round % 2 == 0 && damaged.empty()) EXPECT_FALSE(apply_page_delta(base, damaged, back));
  }
}

}  // namespace
}  // namespace offprint::ltx
