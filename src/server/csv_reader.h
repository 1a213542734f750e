#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace offprint::server {

// Takes CSV (RFC 4180) apart into rows and fields, however the bytes are cut into pieces. Lines end
// with CR LF or LF; a byte order mark at the beginning is read over; a quoted field may hold
// anything. Stricter than many: a quote within a field that does not begin with one, text behind a
// closing quote, and a CR that no LF follows are errors. Pure. Thread: one. Memory: one row.
class CsvReader {
 public:
  struct Field {
    std::string_view text;  // without quotes
    bool quoted = false;
  };

  // A row of more than `row_bytes_max` bytes is refused.
  CsvReader(char delimiter, std::size_t row_bytes_max)
      : delimiter_(delimiter), row_bytes_max_(row_bytes_max) {}

  // Takes bytes from the front of `input`. True: a row is there, until the next call. False: all of
  // it was taken, and the row is not complete. kInvalid "line N: …", kTooLarge.
  Result<bool> take(std::string_view& input);
  // There is no more input. True: a last row is there, which no end of line follows.
  Result<bool> finish();

  // The row's first line, counted from 1.
  std::uint64_t line() const { return row_line_; }
  std::size_t field_count() const { return fields_.size(); }
  Field field(std::size_t index) const;
  // An empty line: one empty field without quotes.
  bool is_blank() const;

 private:
  enum class Place { kMark, kRowBegin, kFieldBegin, kBare, kQuoted, kQuoteSeen, kReturnSeen };
  struct Span {
    std::size_t begin;
    std::size_t end;
    bool quoted;
  };

  Result<bool> take_byte(char c);
  std::size_t take_run(std::string_view input);
  void begin_row();
  void begin_field();
  void end_field();
  std::unexpected<Error> refuse(std::uint64_t line, std::string_view what) const;

  const char delimiter_;
  const std::size_t row_bytes_max_;
  Place place_ = Place::kMark;
  std::size_t mark_bytes_ = 0;  // of the byte order mark, seen so far
  std::uint64_t line_ = 1;      // of the next byte
  std::uint64_t row_line_ = 1;
  std::uint64_t field_line_ = 1;
  bool row_is_complete_ = false;
  std::string text_;  // of the row's fields, one behind the other
  std::vector<Span> fields_;
};

}  // namespace offprint::server
