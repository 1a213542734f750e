#include "main/progress.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "main/result_writer.h"

namespace offprint {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(100);
constexpr std::size_t kBarWidth = 24;

std::size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

bool is_terminal(std::FILE* file) { return ::isatty(::fileno(file)) == 1; }

std::string size_text(std::uint64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string duration_text(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  if (seconds < 5400) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.0f} h", seconds / 3600);
}

StatusLine::StatusLine() : visible_(is_terminal(stderr) && is_terminal(stdout)) {}

StatusLine::~StatusLine() { clear(); }

void StatusLine::show(std::string_view text, bool now) {
  if (!visible_ || (!now && SteadyClock::now() < next_)) return;
  next_ = SteadyClock::now() + kInterval;
  std::string line(text);
  std::size_t width = terminal_width();
  while (line.size() > 1 && display_width(line) >= width) line.pop_back();
  std::fprintf(stderr, "\r%s\033[K", line.c_str());
  std::fflush(stderr);
  shown_ = true;
}

void StatusLine::clear() {
  if (!shown_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

std::string ProgressBar::amount(std::uint64_t count) const {
  if (unit_ == Unit::kBytes) return size_text(count);
  return fmt::format("{} {}", count, unit_ == Unit::kPages ? "pages" : "steps");
}

void ProgressBar::update(std::uint64_t done, std::uint64_t total) {
  if (!line_.visible()) return;
  double seconds = std::chrono::duration<double>(SteadyClock::now() - start_).count();
  double rate = seconds > 0.2 ? static_cast<double>(done) / seconds : 0;
  std::string speed = rate > 0 ? amount(static_cast<std::uint64_t>(rate)) + "/s" : "";
  if (total == 0) return line_.show(fmt::format("{}  {}  {}", label_, amount(done), speed));
  done = std::min(done, total);
  double share = static_cast<double>(done) / static_cast<double>(total);
  auto filled = static_cast<std::size_t>(share * static_cast<double>(kBarWidth));
  std::string bar = std::string(filled, '=') + (filled < kBarWidth ? ">" : "");
  std::string left = rate > 0 && done < total
                         ? duration_text(static_cast<double>(total - done) / rate) + " left"
                         : "";
  line_.show(fmt::format("{} [{:<{}}] {:3.0f} %  {}  {}", label_, bar, kBarWidth, share * 100,
                         speed, left));
}

}  // namespace offprint
