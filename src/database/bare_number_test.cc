// Which texts are numbers, and that none is another number than its writer meant.
#include "database/bare_number.h"

#include <cmath>
#include <limits>
#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace offprint::database {
namespace {

TEST(BareNumber, TakesWhatJsonTakes) {
  for (const char* text : {"0", "-1", "9223372036854775807", "-9223372036854775808"}) {
    auto value = bare_number(text);
    ASSERT_TRUE(value) << text;
    EXPECT_EQ(std::to_string(std::get<std::int64_t>(*value)), text);
  }
  for (const char* text : {"0.0", "-0.5", "1e3", "1E+3", "12.25e-2", "-0.0", "1.50"}) {
    auto value = bare_number(text);
    ASSERT_TRUE(value) << text;
    EXPECT_EQ(std::get<double>(*value), std::strtod(text, nullptr)) << text;
  }
  EXPECT_EQ(std::get<double>(*bare_number("9e999")), std::numeric_limits<double>::infinity());
  EXPECT_EQ(std::get<double>(*bare_number("-9e999")), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(std::get<double>(*bare_number("1e-999")), 0.0);
}

TEST(BareNumber, LeavesTheRestText) {
  for (const char* text : {"",
                           "-",
                           "+1",
                           "007",
                           "00",
                           "01.5",
                           ".5",
                           "5.",
                           "1.e3",
                           "1e",
                           "1e+",
                           " 1",
                           "1 ",
                           "1,5",
                           "0x10",
                           "inf",
                           "nan",
                           "1_000",
                           "9223372036854775808",
                           "-9223372036854775809",
                           "--1",
                           "1-",
                           "1.2.3"}) {
    EXPECT_FALSE(bare_number(text)) << text;
  }
}

TEST(BareNumber, EveryRealComesBack) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 20'000; ++i) {
    double value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    std::string text = fmt::format("{}", value);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    auto read = bare_number(text);
    ASSERT_TRUE(read) << text;
    EXPECT_EQ(std::bit_cast<std::uint64_t>(std::get<double>(*read)),
              std::bit_cast<std::uint64_t>(value))
        << text;
  }
}

}  // namespace
}  // namespace offprint::database
