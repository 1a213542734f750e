#include "server/json_writer.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "server/json_reader.h"

namespace offprint::server {
namespace {

std::string json_string(std::string_view text) {
  std::string json;
  append_json_string(json, text);
  return json;
}
std::string json_double(double value) {
  std::string json;
  append_double(json, value);
  return json;
}
std::string read_back(const std::string& json) {
  std::string copy = json;
  JsonReader reader;
  auto root = reader.parse(copy);
  EXPECT_TRUE(root) << json;
  return root ? std::string(root->get_string().value()) : std::string();
}

TEST(JsonWriter, EscapesWhatMustBe) {
  EXPECT_EQ(json_string("a\"b\\c/d"), R"("a\"b\\c/d")");
  EXPECT_EQ(json_string(std::string_view("\0\x1f\n\t\r\b\f", 7)), R"("\u0000\u001f\n\t\r\b\f")");
  EXPECT_EQ(json_string("grün €"), "\"grün €\"");
}

TEST(JsonWriter, BadUtf8BecomesReplacementCharacters) {
  const std::string mark = "\xef\xbf\xbd";
  EXPECT_EQ(json_string("a\xff"
                        "b"),
            "\"a" + mark + "b\"");
  EXPECT_EQ(json_string("\xc3"), "\"" + mark + "\"");                        // cut off
  EXPECT_EQ(json_string("\xc0\xaf"), "\"" + mark + mark + "\"");             // overlong
  EXPECT_EQ(json_string("\xed\xa0\x80"), "\"" + mark + mark + mark + "\"");  // surrogate
  EXPECT_EQ(json_string("\xf4\x90\x80\x80"), "\"" + mark + mark + mark + mark + "\"");
  EXPECT_EQ(json_string("\xf0\x9f\x98\x80"), "\"\xf0\x9f\x98\x80\"");
}

TEST(JsonWriter, AnyBytesGiveJsonThatReadsBack) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    std::string text(random() % 40, ' ');
    bool ascii = random() % 2 == 0;
    for (char& c : text) c = static_cast<char>(random() % (ascii ? 128 : 256));
    std::string back = read_back(json_string(text));
    if (ascii) EXPECT_EQ(back, text);
    EXPECT_EQ(read_back(json_string(back)), back);  // what came back is UTF-8, so it stays
  }
}

TEST(JsonWriter, DoublesAreShortestAndReadBack) {
  EXPECT_EQ(json_double(1), "1.0");
  EXPECT_EQ(json_double(-0.0), "-0.0");
  EXPECT_EQ(json_double(0.1), "0.1");
  EXPECT_EQ(json_double(1e300), "1e+300");
  EXPECT_EQ(json_double(std::numeric_limits<double>::infinity()), "null");
  EXPECT_EQ(json_double(std::nan("")), "null");
  std::mt19937_64 random(2);
  for (int round = 0; round < 5000; ++round) {
    std::uint64_t bits = random();
    double value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    std::string json = json_double(value);
    EXPECT_EQ(std::strtod(json.c_str(), nullptr), value) << json;
    JsonReader reader;
    auto root = reader.parse(json);
    ASSERT_TRUE(root);
    EXPECT_TRUE(root->is_double()) << json;
  }
}

TEST(JsonWriter, Integers) {
  std::string json;
  append_integer(json, std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(json, "-9223372036854775808");
}

TEST(Base64, KnownTexts) {
  auto encode = [](std::string_view text, Base64Padding padding) {
    std::string result;
    append_base64(result, as_bytes(text), padding);
    return result;
  };
  EXPECT_EQ(encode("", Base64Padding::kPadded), "");
  EXPECT_EQ(encode("f", Base64Padding::kNone), "Zg");
  EXPECT_EQ(encode("f", Base64Padding::kPadded), "Zg==");
  EXPECT_EQ(encode("fo", Base64Padding::kPadded), "Zm8=");
  EXPECT_EQ(encode("foobar", Base64Padding::kNone), "Zm9vYmFy");
}

TEST(Base64, RoundTripAndBothAlphabets) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    Bytes bytes(random() % 50);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
    for (auto padding : {Base64Padding::kNone, Base64Padding::kPadded}) {
      std::string text;
      append_base64(text, bytes, padding);
      Bytes back;
      ASSERT_TRUE(decode_base64(text, back));
      EXPECT_EQ(back, bytes);
      for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
      ASSERT_TRUE(decode_base64(text, back));
      EXPECT_EQ(back, bytes);
    }
  }
}

TEST(Base64, RefusesWhatIsNone) {
  Bytes bytes;
  for (const char* text : {"Z", "Zg=", "Zg===", "=", "Z g", "Zh", "Zm9=", "Zm9v=", "Z*=="}) {
    EXPECT_FALSE(decode_base64(text, bytes)) << text;
  }
}

TEST(JsonReader, LimitsDepth) {
  auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  std::string shallow = nested(kJsonDepthMax - 2);
  std::string deep = nested(kJsonDepthMax + 2);
  std::string very_deep = nested(100'000);
  std::string huge = nested(2'000'000);
  EXPECT_TRUE(JsonReader().parse(shallow));
  EXPECT_FALSE(JsonReader().parse(deep));
  EXPECT_FALSE(JsonReader().parse(very_deep));
  EXPECT_FALSE(JsonReader().parse(huge));
}

}  // namespace
}  // namespace offprint::server
