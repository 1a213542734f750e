#include "database/insights.h"

#include <algorithm>
#include <bit>
#include <map>

namespace offprint::database {
namespace {

constexpr std::size_t kTextMax = 1'000;
constexpr std::int64_t kHourMs = 3'600'000;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '$' ||
         (static_cast<unsigned char>(c) & 0x80) != 0;
}

// Behind the quoted text that begins at `at`.
std::size_t behind_quoted(std::string_view sql, std::size_t at) {
  char close = sql[at] == '[' ? ']' : sql[at];
  std::size_t end = sql.find(close, at + 1);
  while (end != std::string_view::npos) {
    if (close == ']' || end + 1 == sql.size() || sql[end + 1] != close) return end + 1;
    end = sql.find(close, end + 2);
  }
  return sql.size();
}

std::size_t behind_comment(std::string_view sql, std::size_t at) {
  bool is_line = sql[at] == '-';
  std::size_t end = is_line ? sql.find('\n', at) : sql.find("*/", at + 2);
  if (end == std::string_view::npos) return sql.size();
  return end + (is_line ? 1 : 2);
}

// A number, or a parameter with its name.
std::size_t behind_value(std::string_view sql, std::size_t at) {
  std::size_t end = at + 1;
  while (end < sql.size() && (is_word(sql[end]) || sql[end] == '.' ||
                              ((sql[end] == '+' || sql[end] == '-') &&
                               (sql[end - 1] | 0x20) == 'e' && is_digit(sql[at]))))
    ++end;
  return end;
}

// One "?" for a list of them.
void append_value(std::string& to, std::size_t from) {
  std::string_view so_far = std::string_view(to).substr(from);
  if (so_far.ends_with("?, ")) {
    to.resize(to.size() - 2);
  } else if (so_far.ends_with("?,")) {
    to.pop_back();
  } else {
    to += '?';
  }
}

}  // namespace

void normalise_sql(std::string_view sql, std::string& to) {
  const std::size_t from = to.size();
  for (std::size_t at = 0; at < sql.size() && to.size() - from < kTextMax;) {
    char c = sql[at];
    char next = at + 1 < sql.size() ? sql[at + 1] : '\0';
    if (is_blank(c)) {
      while (at < sql.size() && is_blank(sql[at])) ++at;
      if (to.size() > from && to.back() != ' ') to += ' ';
    } else if ((c == '-' && next == '-') || (c == '/' && next == '*')) {
      at = behind_comment(sql, at);
    } else if (c == '\'') {
      at = behind_quoted(sql, at);
      append_value(to, from);
    } else if ((c == 'x' || c == 'X') && next == '\'') {
      at = behind_quoted(sql, at + 1);
      append_value(to, from);
    } else if (is_digit(c) || (c == '.' && is_digit(next)) || c == '?' || c == ':' || c == '@') {
      at = behind_value(sql, at);
      append_value(to, from);
    } else if (c == '"' || c == '`' || c == '[') {
      std::size_t end = behind_quoted(sql, at);
      to += sql.substr(at, end - at);
      at = end;
    } else if (is_word(c)) {
      std::size_t end = at;
      while (end < sql.size() && is_word(sql[end])) ++end;
      to += sql.substr(at, end - at);
      at = end;
    } else {
      to += c;
      ++at;
    }
  }
  while (to.size() > from && (to.back() == ' ' || to.back() == ';')) to.pop_back();
  if (to.size() - from > kTextMax) to.resize(from + kTextMax);
}

StatementInsights::~StatementInsights() {
  entries_ -= static_cast<std::int64_t>(slow_.size());
  for (const Window& window : windows_)
    entries_ -= static_cast<std::int64_t>(window.entries.size());
}

std::size_t StatementInsights::bucket_of(std::uint64_t time_us) {
  if (time_us < 4) return time_us;
  unsigned octave = static_cast<unsigned>(std::bit_width(time_us)) - 1;
  std::size_t quarter = (time_us >> (octave - 2)) & 3;
  return std::min<std::size_t>((octave - 1) * std::size_t{4} + quarter, kBuckets - 1);
}

// The greatest time of a bucket, in microseconds.
std::uint64_t StatementInsights::top_of(std::size_t bucket) {
  if (bucket < 4) return bucket;
  std::size_t octave = bucket / 4 + 1;
  return (((bucket % 4) + 5) << (octave - 2)) - 1;
}

StatementInsights::Window& StatementInsights::window_now() {
  std::int64_t hour = unix_time_ms() / kHourMs;
  if (windows_.empty() || windows_.front().hour < hour) {
    windows_.emplace_front().hour = hour;
    while (windows_.size() > kWindowsMax || windows_.back().hour + 24 <= hour) {
      entries_ -= static_cast<std::int64_t>(windows_.back().entries.size());
      windows_.pop_back();
    }
  }
  return windows_.front();
}

StatementInsights::Entry& StatementInsights::entry_of(Window& window, const std::string& sql) {
  if (auto found = window.by_sql.find(sql); found != window.by_sql.end()) {
    window.entries.splice(window.entries.begin(), window.entries, found->second);
    return window.entries.front();
  }
  if (window.entries.size() >= kTextsMax) {
    window.by_sql.erase(window.entries.back().sql);
    window.entries.pop_back();
    --entries_;
  }
  window.entries.emplace_front().sql = sql;
  window.by_sql.emplace(window.entries.front().sql, window.entries.begin());
  ++entries_;
  return window.entries.front();
}

void StatementInsights::record(std::string_view sql, const StatementSample& sample) {
  thread_local std::string text;  // keeps its memory
  text.clear();
  normalise_sql(sql, text);
  auto time_ns = static_cast<std::uint64_t>(sample.time.count());
  std::lock_guard lock(mutex_);
  Entry& entry = entry_of(window_now(), text);
  ++entry.count;
  entry.errors += sample.failed ? 1 : 0;
  entry.rows_read += sample.rows_read;
  entry.rows_written += sample.rows_written;
  entry.time_ns += time_ns;
  entry.time_ns_max = std::max(entry.time_ns_max, time_ns);
  ++entry.times[bucket_of(time_ns / 1000)];
}

std::vector<StatementInsight> StatementInsights::read(std::int64_t since_ms,
                                                      std::size_t limit) const {
  std::map<std::string, Entry> merged;
  {
    std::lock_guard lock(mutex_);
    for (const Window& window : windows_) {
      if ((window.hour + 1) * kHourMs <= since_ms) break;
      for (const Entry& each : window.entries) {
        Entry& sum = merged[each.sql];
        sum.count += each.count;
        sum.errors += each.errors;
        sum.rows_read += each.rows_read;
        sum.rows_written += each.rows_written;
        sum.time_ns += each.time_ns;
        sum.time_ns_max = std::max(sum.time_ns_max, each.time_ns_max);
        for (std::size_t i = 0; i < kBuckets; ++i) sum.times[i] += each.times[i];
      }
    }
  }
  std::vector<StatementInsight> list;
  for (const auto& [sql, entry] : merged) {
    StatementInsight insight{.sql = sql,
                             .count = entry.count,
                             .errors = entry.errors,
                             .rows_read = entry.rows_read,
                             .rows_written = entry.rows_written,
                             .time_us_total = entry.time_ns / 1000,
                             .time_us_max = entry.time_ns_max / 1000};
    std::uint64_t passed = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      std::uint64_t upto = passed + entry.times[i];
      if (passed * 2 < entry.count && upto * 2 >= entry.count) insight.time_us_p50 = top_of(i);
      if (passed * 100 < entry.count * 99 && upto * 100 >= entry.count * 99)
        insight.time_us_p99 = top_of(i);
      passed = upto;
    }
    list.push_back(std::move(insight));
  }
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return a.time_us_total != b.time_us_total ? a.time_us_total > b.time_us_total : a.sql < b.sql;
  });
  if (list.size() > limit) list.resize(limit);
  return list;
}

void StatementInsights::add_slow(SlowStatement statement) {
  std::lock_guard lock(mutex_);
  if (slow_.size() == kSlowMax) {
    slow_.pop_front();
  } else {
    ++entries_;
  }
  slow_.push_back(std::move(statement));
}

std::vector<SlowStatement> StatementInsights::slow(std::size_t limit) const {
  std::lock_guard lock(mutex_);
  auto count = static_cast<std::ptrdiff_t>(std::min(limit, slow_.size()));
  return {slow_.rbegin(), slow_.rbegin() + count};
}

std::shared_ptr<StatementInsights> InsightsOfAll::of(std::uint64_t database_id) {
  std::lock_guard lock(mutex_);
  if (auto found = by_id_.find(database_id); found != by_id_.end()) {
    known_.splice(known_.begin(), known_, found->second);
    return known_.front().insights;
  }
  while (entries_ > kEntriesMax && !known_.empty()) {
    by_id_.erase(known_.back().id);
    known_.pop_back();
  }
  known_.push_front({database_id, std::make_shared<StatementInsights>(entries_)});
  by_id_.emplace(database_id, known_.begin());
  return known_.front().insights;
}

std::shared_ptr<StatementInsights> InsightsOfAll::find(std::uint64_t database_id) {
  std::lock_guard lock(mutex_);
  auto found = by_id_.find(database_id);
  return found == by_id_.end() ? nullptr : found->second->insights;
}

void InsightsOfAll::forget(std::uint64_t database_id) {
  std::lock_guard lock(mutex_);
  auto found = by_id_.find(database_id);
  if (found == by_id_.end()) return;
  known_.erase(found->second);
  by_id_.erase(found);
}

}  // namespace offprint::database
