// CSV taken apart: the same whatever the pieces, and with the lines that a person would count.
#include "server/csv_reader.h"

#include <random>

#include <gtest/gtest.h>

namespace offprint::server {
namespace {

// Rows as text: fields between <>, quoted ones between [], each row with its line before it.
std::string parse(std::string_view text, std::size_t piece_bytes, char delimiter = ',') {
  CsvReader reader(delimiter, 1000);
  std::string result;
  auto add_row = [&] {
    result += std::to_string(reader.line());
    for (std::size_t i = 0; i < reader.field_count(); ++i) {
      CsvReader::Field field = reader.field(i);
      result += (field.quoted ? "[" : "<") + std::string(field.text) + (field.quoted ? "]" : ">");
    }
    result += ';';
  };
  while (!text.empty()) {
    std::string piece(text.substr(0, piece_bytes));
    text.remove_prefix(piece.size());
    std::string_view rest = piece;
    for (;;) {
      Result<bool> row = reader.take(rest);
      if (!row) return result + row.error().message();
      if (!*row) break;
      add_row();
    }
    EXPECT_TRUE(rest.empty());
  }
  for (;;) {
    Result<bool> row = reader.finish();
    if (!row) return result + row.error().message();
    if (!*row) return result;
    add_row();
  }
}

void expect(std::string_view text, const std::string& rows, char delimiter = ',') {
  for (std::size_t piece = 1; piece <= text.size() + 1; ++piece)
    ASSERT_EQ(parse(text, piece, delimiter), rows) << text << " in pieces of " << piece;
}

TEST(CsvReader, TakesRowsApart) {
  expect("", "");
  expect("a,b\r\n1,2\r\n", "1<a><b>;2<1><2>;");
  expect("a,b\n1,2", "1<a><b>;2<1><2>;");
  expect("a,,\n,\n\n", "1<a><><>;2<><>;3<>;");
  expect("a,", "1<a><>;");
  expect("\"\",\"a\"\"b\",\" , \"\n", "1[][a\"b][ , ];");
  expect("\"a\nb\r\nc\",d\ne", "1[a\nb\r\nc]<d>;4<e>;");
  expect("\"a\"", "1[a];");
  expect("\"a\",\"\"\r\n", "1[a][];");
  expect(std::string_view("a\0b\n", 4), std::string("1<a\0b>;", 7));
  expect("a\tb,c\t\"\t\"\n", "1<a><b,c>[\t];", '\t');
  expect("a;b\n", "1<a><b>;", ';');
}

TEST(CsvReader, ReadsOverAByteOrderMark) {
  expect(
      "\xEF\xBB\xBF"
      "a,b\n",
      "1<a><b>;");
  expect(
      "\xEF\xBB\xBF"
      "\"a\"\n",
      "1[a];");
  expect("\xEF\xBB\xBF", "");
  expect("\xEF\xBB", "1<\xEF\xBB>;");
  expect("\xEF\xBB,x\n", "1<\xEF\xBB><x>;");
  expect(
      "\xEF\xBB\xBF\xEF\xBB\xBF"
      "a\n",
      "1<\xEF\xBB\xBF"
      "a>;");
  expect(
      "a\n\xEF\xBB\xBF"
      "b\n",
      "1<a>;2<\xEF\xBB\xBF"
      "b>;");
}

TEST(CsvReader, SaysWhereItIsWrong) {
  expect("a\n\"b\n\nc", "1<a>;line 2: a quoted field begins here and never ends");
  expect("\"x\ny\"z\n", "line 2: text behind the closing quote of a field");
  expect("a\nb\"c\"\n", "1<a>;line 2: a quote within a field that does not begin with one");
  expect("a\rb\n", "line 1: a carriage return without a line feed");
  expect("a\n\"b\"\r", "1<a>;line 2: a carriage return without a line feed");
  expect(
      "\xFF\xFE"
      "a",
      "line 1: the file is not UTF-8; it begins as UTF-16 does");
}

TEST(CsvReader, ARowHasALimit) {
  std::string most(900, 'x');
  expect(most + "\n" + most + "\n", "1<" + most + ">;2<" + most + ">;");
  EXPECT_EQ(parse(std::string(5000, 'x'), 64), "line 1: the row is longer than 1000 bytes");
  EXPECT_EQ(parse("\n\"" + std::string(5000, '\n'), 64),
            "1<>;line 2: the row is longer than 1000 bytes");
  EXPECT_EQ(parse(std::string(5000, ','), 64), "line 1: the row is longer than 1000 bytes");
}

TEST(CsvReader, RandomTextIsTheSameInAnyPieces) {
  std::mt19937 random(3);
  const std::string_view alphabet = "a,\"\r\n\xEF\xBB\xBF";
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (auto left = random() % 12; left > 0; --left) text += alphabet[random() % alphabet.size()];
    std::string whole = parse(text, text.size() + 1);
    for (std::size_t piece : {1U, 2U, 5U}) ASSERT_EQ(parse(text, piece), whole) << text;
  }
}

}  // namespace
}  // namespace offprint::server
