#include "main/follow_report.h"

#include <algorithm>
#include <cstdio>
#include <initializer_list>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

constexpr auto kRateInterval = std::chrono::seconds(1);
constexpr auto kPinnedInterval = std::chrono::minutes(1);
constexpr auto kProgressInterval = std::chrono::milliseconds(200);

// `fields` are names and values that are JSON already.
void print_event(std::string_view event,
                 const std::vector<std::pair<const char*, std::string>>& fields) {
  std::string line =
      fmt::format(R"({{"event":"{}","time":"{}")", event, format_rfc3339(unix_time_ms()));
  for (const auto& [name, value] : fields) line += fmt::format(R"(,"{}":{})", name, value);
  line += "}\n";
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
}

std::string quoted(std::string_view text) {
  std::string result;
  server::append_json_string(result, text);
  return result;
}

std::string txid_of(const Position& position) { return std::to_string(position.txid.value); }
std::string bookmark_of(const Position& position) { return quoted(position.bookmark().text()); }
std::string flag(bool value) { return value ? "true" : "false"; }

}  // namespace

void FollowText::say(const std::string& text) {
  line_.clear();
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

void FollowText::connected(const std::string& server) {
  if (!last_trouble_.empty()) say("connected again: " + server);
  last_trouble_.clear();
}

void FollowText::snapshot_progress(std::uint64_t pages, std::uint64_t pages_total) {
  if (!bar_) bar_.emplace(line_, "snapshot", ProgressBar::Unit::kPages);
  bar_->update(pages, pages_total);
}

void FollowText::applied(const Applied& applied) {
  bar_.reset();
  txid_ = applied.position.txid;
  primary_ = std::max(primary_, txid_);
  lag_ms_ = applied.lag_ms;
  transactions_ += applied.transactions;
  bytes_ += applied.bytes;
  if (applied.snapshot)
    say(fmt::format("{} is a copy of the database at txid {}", file_, txid_.value));
  show_status(false);
}

void FollowText::heartbeat(const Position& primary, std::int64_t) {
  primary_ = primary.txid;
  if (txid_ == primary_) lag_ms_ = 0;
  show_status(false);
}

void FollowText::show_status(bool now) {
  if (!line_.visible() || bar_) return;
  Deadline time = SteadyClock::now();
  if (time - rate_from_ >= kRateInterval) {
    double seconds = std::chrono::duration<double>(time - rate_from_).count();
    transactions_per_s_ = static_cast<double>(std::exchange(transactions_, 0)) / seconds;
    bytes_per_s_ = static_cast<double>(std::exchange(bytes_, 0)) / seconds;
    rate_from_ = time;
  }
  std::uint64_t behind = primary_ > txid_ ? primary_.value - txid_.value : 0;
  line_.show(fmt::format("{}  txid {}  lag {} ms{}  {:.0f} tx/s  {}/s", file_, txid_.value, lag_ms_,
                         behind > 0 ? fmt::format(" ({} transactions)", behind) : "",
                         transactions_per_s_, size_text(static_cast<std::uint64_t>(bytes_per_s_))),
             now);
}

void FollowText::caught_up(const Position& position) {
  txid_ = position.txid;
  primary_ = std::max(primary_, txid_);
  if (!std::exchange(caught_up_, true)) {
    say(fmt::format("{} has caught up at txid {}; any SQLite program can read it", file_,
                    txid_.value));
  }
  show_status(true);
}

void FollowText::verified(bool equal, const std::string& what) {
  differed_ |= !equal;
  if (equal) return say(fmt::format("verified: all of {} equals the primary", file_));
  say(fmt::format("verified: {} differs from the primary ({}); the pages that differ are fetched",
                  file_, what));
}

void FollowText::resync(const std::string& why) { say("comparing pages with the server: " + why); }

void FollowText::interrupted(const Error& error, int retry_ms) {
  bar_.reset();
  if (error.message() != last_trouble_) {
    line_.clear();
    std::fprintf(stderr, "offprint: %s; trying again until it works\n", error.message().c_str());
  }
  last_trouble_ = error.message();
  line_.show(fmt::format("{}  txid {}  not connected, next try in {:.1f} s", file_, txid_.value,
                         static_cast<double>(retry_ms) / 1000),
             true);
}

void FollowText::pinned(std::uint64_t bytes) {
  Deadline now = SteadyClock::now();
  if (now < pinned_said_until_) return;
  pinned_said_until_ = now + kPinnedInterval;
  say(fmt::format(
      "a reader of {0} holds an old snapshot: {0}-wal keeps growing until it ends ({1} now)", file_,
      size_text(bytes)));
}

void FollowJson::connected(const std::string& server) {
  print_event("connected", {{"server", quoted(server)}});
}

void FollowJson::snapshot_progress(std::uint64_t pages, std::uint64_t pages_total) {
  if (pages < pages_total && SteadyClock::now() < next_progress_) return;
  next_progress_ = SteadyClock::now() + kProgressInterval;
  print_event("snapshot",
              {{"pages", std::to_string(pages)}, {"pages_total", std::to_string(pages_total)}});
}

void FollowJson::applied(const Applied& applied) {
  print_event("applied", {{"txid", txid_of(applied.position)},
                          {"bookmark", bookmark_of(applied.position)},
                          {"transactions", std::to_string(applied.transactions)},
                          {"bytes", std::to_string(applied.bytes)},
                          {"lag_ms", std::to_string(applied.lag_ms)},
                          {"snapshot", flag(applied.snapshot)},
                          {"source", source_.empty() ? "null" : quoted(source_)}});
}

void FollowJson::heartbeat(const Position& primary, std::int64_t unix_ms) {
  print_event("heartbeat", {{"txid", txid_of(primary)},
                            {"bookmark", bookmark_of(primary)},
                            {"primary_time", quoted(format_rfc3339(unix_ms))},
                            {"source", source_.empty() ? "null" : quoted(source_)}});
}

void FollowJson::caught_up(const Position& position) {
  print_event("caught_up", {{"txid", txid_of(position)}, {"bookmark", bookmark_of(position)}});
}

void FollowJson::verified(bool equal, const std::string& what) {
  differed_ |= !equal;
  print_event("verified", {{"equal", flag(equal)}, {"message", quoted(what)}});
}

void FollowJson::resync(const std::string& why) {
  print_event("resync", {{"message", quoted(why)}});
}

void FollowJson::interrupted(const Error& error, int retry_ms) {
  print_event("interrupted",
              {{"message", quoted(error.message())}, {"retry_ms", std::to_string(retry_ms)}});
}

void FollowJson::pinned(std::uint64_t bytes) {
  print_event("pinned", {{"wal_bytes", std::to_string(bytes)}});
}

void FollowJson::ended(std::string_view outcome, const std::string& message) {
  print_event("ended", {{"outcome", quoted(outcome)}, {"message", quoted(message)}});
}

}  // namespace offprint
