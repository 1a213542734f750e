#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "main/progress.h"
#include "replica/follower.h"

namespace offprint {

// What a follower does, told to people: a status line on a terminal, and a line for each change of
// state.
class FollowText final : public replica::FollowerEvents {
 public:
  explicit FollowText(std::string file) : file_(std::move(file)) {}
  void connected(const std::string& server) override;
  void snapshot_progress(std::uint64_t pages, std::uint64_t pages_total) override;
  void applied(const Applied& applied) override;
  void heartbeat(const Position& primary, std::int64_t unix_ms) override;
  void caught_up(const Position& position) override;
  void verified(bool equal, const std::string& what) override;
  void resync(const std::string& why) override;
  void interrupted(const Error& error, int retry_ms) override;
  void pinned(std::uint64_t bytes) override;

  bool differed() const { return differed_; }

 private:
  void say(const std::string& text);
  void show_status(bool now);

  const std::string file_;
  StatusLine line_;
  std::optional<ProgressBar> bar_;
  TxId txid_, primary_;
  std::int64_t lag_ms_ = 0;
  std::uint64_t transactions_ = 0, bytes_ = 0;  // since rate_from_
  double transactions_per_s_ = 0, bytes_per_s_ = 0;
  Deadline rate_from_ = SteadyClock::now();
  std::string last_trouble_;  // said already
  Deadline pinned_said_until_{};
  bool caught_up_ = false;
  bool differed_ = false;
};

// The same for programs: one JSON object a line, {"event":…,"time":…, …}.
// docs/guides/command-line.md lists them.
class FollowJson final : public replica::FollowerEvents {
 public:
  void connected(const std::string& server) override;
  void snapshot_progress(std::uint64_t pages, std::uint64_t pages_total) override;
  void source(const Bookmark& source) override { source_ = source.text(); }
  void applied(const Applied& applied) override;
  void heartbeat(const Position& primary, std::int64_t unix_ms) override;
  void caught_up(const Position& position) override;
  void verified(bool equal, const std::string& what) override;
  void resync(const std::string& why) override;
  void interrupted(const Error& error, int retry_ms) override;
  void pinned(std::uint64_t bytes) override;
  // The last line: how it ended.
  void ended(std::string_view outcome, const std::string& message);

  bool differed() const { return differed_; }

 private:
  Deadline next_progress_{};
  bool differed_ = false;
  std::string source_;  // of an instance of a publication
};

}  // namespace offprint
