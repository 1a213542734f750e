#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace offprint {

bool is_terminal(std::FILE* file);
// "12.3 MiB"
std::string size_text(std::uint64_t bytes);
// "35 s", "4 min", "2 h"
std::string duration_text(double seconds);

// One line of a terminal that is written again and again. Nothing is shown where standard error is
// no terminal. Thread: one.
class StatusLine {
 public:
  StatusLine();
  ~StatusLine();  // takes the line away
  bool visible() const { return visible_; }
  // At most ten times a second, unless `now`. Cut to the terminal's width.
  void show(std::string_view text, bool now = false);
  // Takes the line away, so that something else can be printed.
  void clear();

 private:
  const bool visible_;
  bool shown_ = false;
  Deadline next_{};
};

// "snapshot [=====>    ]  52 %  31 MiB/s  8 s left" in a status line.
class ProgressBar {
 public:
  enum class Unit { kBytes, kPages, kSteps };
  ProgressBar(StatusLine& line, std::string label, Unit unit = Unit::kBytes)
      : line_(line), label_(std::move(label)), unit_(unit), start_(SteadyClock::now()) {}
  // `total` 0: not known.
  void update(std::uint64_t done, std::uint64_t total);

 private:
  std::string amount(std::uint64_t count) const;

  StatusLine& line_;
  const std::string label_;
  const Unit unit_;
  const Deadline start_;
};

}  // namespace offprint
