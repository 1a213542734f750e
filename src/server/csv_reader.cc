#include "server/csv_reader.h"

#include <algorithm>

#include <fmt/format.h>

namespace offprint::server {
namespace {

constexpr std::string_view kMark = "\xEF\xBB\xBF";  // UTF-8's byte order mark

}  // namespace

Result<bool> CsvReader::take(std::string_view& input) {
  if (row_is_complete_) begin_row();
  while (!input.empty()) {
    bool complete = false;
    if (std::size_t run = take_run(input); run > 0) {
      input.remove_prefix(run);
    } else {
      char c = input.front();
      input.remove_prefix(1);
      OFFPRINT_TRY_ASSIGN(complete, take_byte(c));
    }
    if (text_.size() + fields_.size() > row_bytes_max_) {
      return fail(Code::kTooLarge, fmt::format("line {}: the row is longer than {} bytes",
                                               row_line_, row_bytes_max_));
    }
    if (complete) return true;
  }
  return false;
}

Result<bool> CsvReader::finish() {
  if (row_is_complete_) begin_row();
  switch (place_) {
    case Place::kMark:
      if (mark_bytes_ == 0) return false;
      begin_field();
      text_ += kMark.substr(0, mark_bytes_);
      break;
    case Place::kRowBegin:
      return false;
    case Place::kFieldBegin:
      begin_field();
      break;
    case Place::kQuoted:
      return refuse(field_line_, "a quoted field begins here and never ends");
    case Place::kReturnSeen:
      return refuse(line_, "a carriage return without a line feed");
    default:
      break;
  }
  end_field();
  place_ = Place::kRowBegin;
  row_is_complete_ = true;
  return true;
}

CsvReader::Field CsvReader::field(std::size_t index) const {
  const Span& span = fields_[index];
  return {std::string_view(text_).substr(span.begin, span.end - span.begin), span.quoted};
}

bool CsvReader::is_blank() const {
  return fields_.size() == 1 && !fields_[0].quoted && text_.empty();
}

// Bytes that are nothing but text, at once.
std::size_t CsvReader::take_run(std::string_view input) {
  std::size_t end = 0;
  if (place_ == Place::kQuoted) {
    end = std::min(input.find('"'), input.size());
    line_ += static_cast<std::uint64_t>(std::count(input.begin(), input.begin() + end, '\n'));
  } else if (place_ == Place::kBare) {
    auto ends = [this](char c) { return c == delimiter_ || c == '"' || c == '\r' || c == '\n'; };
    while (end < input.size() && !ends(input[end])) ++end;
  }
  text_.append(input.substr(0, end));
  return end;
}

// True: the row is complete.
Result<bool> CsvReader::take_byte(char c) {
  if (place_ == Place::kMark) {
    if (c == kMark[mark_bytes_]) {
      if (++mark_bytes_ == kMark.size()) place_ = Place::kRowBegin;
      return false;
    }
    place_ = Place::kRowBegin;
    if (mark_bytes_ > 0) {
      begin_field();
      text_ += kMark.substr(0, mark_bytes_);
      place_ = Place::kBare;
    }
    if (c == '\xFE' || c == '\xFF')
      return refuse(line_, "the file is not UTF-8; it begins as UTF-16 does");
  }
  if (place_ == Place::kReturnSeen) {
    if (c != '\n') return refuse(line_, "a carriage return without a line feed");
  } else if (place_ == Place::kQuoteSeen && c == '"') {
    text_ += c;
    place_ = Place::kQuoted;
    return false;
  } else if (place_ == Place::kQuoted) {
    place_ = Place::kQuoteSeen;  // take_run() took everything else
    return false;
  }
  if (place_ == Place::kRowBegin || place_ == Place::kFieldBegin) begin_field();
  if (c == '\n') {
    end_field();
    ++line_;
    place_ = Place::kRowBegin;
    row_is_complete_ = true;
    return true;
  }
  if (c == '\r') {
    place_ = Place::kReturnSeen;
  } else if (c == delimiter_) {
    end_field();
    place_ = Place::kFieldBegin;
  } else if (place_ == Place::kQuoteSeen) {
    return refuse(line_, "text behind the closing quote of a field");
  } else if (c == '"') {
    if (place_ == Place::kBare)
      return refuse(line_, "a quote within a field that does not begin with one");
    fields_.back().quoted = true;
    place_ = Place::kQuoted;
  } else {
    text_ += c;
    place_ = Place::kBare;
  }
  return false;
}

void CsvReader::begin_row() {
  row_is_complete_ = false;
  text_.clear();
  fields_.clear();
  row_line_ = line_;
}

void CsvReader::begin_field() {
  field_line_ = line_;
  fields_.push_back({text_.size(), text_.size(), false});
}

void CsvReader::end_field() { fields_.back().end = text_.size(); }

std::unexpected<Error> CsvReader::refuse(std::uint64_t line, std::string_view what) const {
  return fail(Code::kInvalid, fmt::format("line {}: {}", line, what));
}

}  // namespace offprint::server
