#include "ltx/checksum.h"

#include <gtest/gtest.h>

#include <random>

#include "ltx/crc64.h"
#include "ltx/reference_writer.h"

namespace offprint::ltx {
namespace {

Bytes random_bytes(std::mt19937_64& random, std::size_t size) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

TEST(Crc64Test, HasItsCheckValue) {
  Crc64 crc;
  crc.update(as_bytes("123456789"));
  EXPECT_EQ(crc.value(), 0xb90956c775a41001u);
  EXPECT_EQ(Crc64().value(), 0u);
}

// Every length around the steps of both ways, and every alignment, against byte by byte.
TEST(Crc64Test, BothWaysEqualByteByByte) {
  std::mt19937_64 random(1);
  const Bytes bytes = random_bytes(random, 700);
  for (std::size_t size = 0; size <= 600; ++size) {
    const ByteView view = ByteView(bytes).subspan(size % 17, size);
    const std::uint64_t expected = ~reference::crc64(view);
    EXPECT_EQ(crc64::update_by_tables(~std::uint64_t{0}, view), expected) << size;
    if (crc64::can_fold()) {
      EXPECT_EQ(crc64::update_by_folding(~std::uint64_t{0}, view), expected) << size;
    }
  }
}

TEST(Crc64Test, PiecesGiveWhatTheWholeGives) {
  std::mt19937_64 random(2);
  const Bytes bytes = random_bytes(random, 100'000);
  const std::uint64_t expected = reference::crc64(bytes);
  for (int round = 0; round < 20; ++round) {
    Crc64 crc;
    for (ByteView left = bytes; !left.empty();) {
      const std::size_t size = std::min<std::size_t>(left.size(), random() % 5000);
      crc.update(left.first(size));
      left = left.subspan(size);
    }
    EXPECT_EQ(crc.value(), expected);
  }
}

TEST(PageChecksumTest, KnownValues) {
  const Bytes zeros(512);
  Bytes ramp(512);
  for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<std::uint8_t>(i);
  const Checksum first = page_checksum(1, zeros);
  const Checksum second = page_checksum(2, ramp);
  EXPECT_EQ(first.value, 0xefb1f44fecd99000u);
  EXPECT_EQ(second.value, 0xc6232e56cb62cc9fu);
  const Checksum both = toggle(toggle(kEmptyDatabase, first), second);
  EXPECT_EQ(both.value, 0xa992da1927bb5c9fu);
  // The rolling checksum moves by the old and the new image of a changed page.
  const Checksum changed = page_checksum(1, Bytes(512, 0xaa));
  EXPECT_EQ(toggle(toggle(both, first), changed).value, 0xe5963a1927bb5c9fu);
  EXPECT_EQ(toggle(toggle(both, second), first), kEmptyDatabase);
}

TEST(PageChecksumTest, EqualsTheReferenceForAllPageSizes) {
  std::mt19937_64 random(3);
  for (std::size_t size = 512; size <= 65536; size *= 2) {
    const Bytes page = random_bytes(random, size);
    const auto number = static_cast<PageNo>(random());
    EXPECT_EQ(page_checksum(number, page).value, reference::page_crc(number, page));
  }
}

TEST(LockPageTest, LiesAtOneGibibyte) {
  EXPECT_EQ(lock_page(4096), 262145u);
  EXPECT_EQ(lock_page(512), 2097153u);
  EXPECT_EQ(lock_page(65536), 16385u);
}

}  // namespace
}  // namespace offprint::ltx
