#include <cerrno>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/machine.h"
#include "base/result.h"

namespace offprint {
namespace {

TEST(Bytes, BigEndianRoundTrip) {
  std::uint8_t raw[8];
  store_be<std::uint64_t>(raw, 0x0102030405060708u);
  EXPECT_EQ(raw[0], 1);
  EXPECT_EQ(raw[7], 8);
  EXPECT_EQ(load_be<std::uint64_t>(raw), 0x0102030405060708u);
  EXPECT_EQ(load_be<std::uint16_t>(raw), 0x0102);
}

TEST(Bytes, HexRefusesWhatItDoesNotWrite) {
  EXPECT_EQ(to_hex(Bytes{0x00, 0xff, 0x1a}), "00ff1a");
  EXPECT_EQ(from_hex("00ff1a"), (Bytes{0x00, 0xff, 0x1a}));
  EXPECT_FALSE(from_hex("0"));
  EXPECT_FALSE(from_hex("0F"));
  EXPECT_FALSE(parse_hex("12", 3));
  EXPECT_EQ(parse_hex("00ff", 4), 0xffu);
}

TEST(Crc32c, KnownValueAndSplit) {
  ByteView text = as_bytes("123456789");
  EXPECT_EQ(crc32c(text), 0xe3069283u);
  EXPECT_EQ(crc32c(text.subspan(4), crc32c(text.first(4))), 0xe3069283u);
}

TEST(Clock, Rfc3339) {
  EXPECT_EQ(format_rfc3339(1767323045678), "2026-01-02T03:04:05.678Z");
  for (const char* text : {"2026-01-02T03:04:05.678Z", "2026-01-02t05:04:05.6789+02:00",
                           "2026-01-01T21:34:05.678-05:30"}) {
    EXPECT_EQ(parse_rfc3339(text), 1767323045678) << text;
  }
  EXPECT_EQ(parse_rfc3339("1970-01-01T00:00:01Z"), 1000);
  for (const char* text :
       {"", "2026", "2026-01-02", "2026-02-30T00:00:00Z", "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:05", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05Zx",
        "2026-1-2T03:04:05Z", "2026-01-02T03:04:05+2:00", "-026-01-02T03:04:05Z"}) {
    EXPECT_FALSE(parse_rfc3339(text)) << text;
  }
}

Result<int> half(int number) {
  if (number % 2 != 0) return fail(Code::kInvalid, "odd");
  return number / 2;
}
Result<int> quarter(int number) {
  OFFPRINT_TRY_ASSIGN(int first, half(number));
  return half(first);
}

TEST(Result, PassesErrorsUp) {
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(6).error().code(), Code::kInvalid);
  EXPECT_EQ(io_error("write x", ENOSPC).code(), Code::kFull);
  EXPECT_EQ(Error(Code::kIo, "b").with_context("a").message(), "a: b");
}

TEST(Machine, TellsOfDisksAndClocks) {
  auto memory = file_system_of("/dev/shm");
  ASSERT_TRUE(memory) << memory.error().message();
  EXPECT_EQ(memory->name, "tmpfs");
  EXPECT_TRUE(memory->is_volatile);
  auto flushes = measure_flushes("/dev/shm", 5);
  ASSERT_TRUE(flushes) << flushes.error().message();
  EXPECT_LE(flushes->median, flushes->longest);
  EXPECT_FALSE(measure_flushes("/dev/shm/there is no such folder", 5));
  EXPECT_FALSE(file_system_of("/dev/shm/there is no such folder"));
  const double drift = clock_drift_ppm(std::chrono::milliseconds(50));
  EXPECT_LT(drift < 0 ? -drift : drift, 50'000);
}

}  // namespace
}  // namespace offprint
