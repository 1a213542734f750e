#include "bench/archive_watch.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <thread>

#include <fmt/format.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

namespace offprint::bench {
namespace {

// MIN-MAX.ltx, each 16 hexadecimal digits; 0 of another name.
std::uint64_t last_txid(const std::string& name) {
  constexpr std::size_t kDigits = 16;
  if (name.size() != 2 * kDigits + 5 || !name.ends_with(".ltx")) return 0;
  return std::strtoull(name.substr(kDigits + 1, kDigits).c_str(), nullptr, 16);
}

[[noreturn]] void give_up(const std::string& folder) {
  fmt::print(stderr, "no object appeared in {}\n", folder);
  std::exit(1);
}

}  // namespace

ArchiveWatch::ArchiveWatch(const std::string& folder) : folder_(folder) {
  for (auto start = Clock::now(); !std::filesystem::exists(folder);) {
    if (seconds_since(start) > 60) give_up(folder);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  events_ = ::inotify_init1(IN_CLOEXEC);
  if (::inotify_add_watch(events_, folder.c_str(), IN_MOVED_TO | IN_CREATE) < 0) give_up(folder);
  const std::filesystem::directory_iterator there(folder);
  for (const auto& entry : there)
    newest_ = std::max(newest_, last_txid(entry.path().filename().string()));
}

ArchiveWatch::~ArchiveWatch() { ::close(events_); }

bool ArchiveWatch::take_events(int timeout_ms) {
  pollfd ready{.fd = events_, .events = POLLIN, .revents = 0};
  if (::poll(&ready, 1, timeout_ms) <= 0) return false;
  alignas(inotify_event) std::array<char, 16 << 10> buffer;
  const ssize_t size = ::read(events_, buffer.data(), buffer.size());
  for (ssize_t at = 0; at < size;) {
    const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
    if (event->len > 0) newest_ = std::max(newest_, last_txid(event->name));
    at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
  }
  return true;
}

void ArchiveWatch::drain() {
  while (take_events(0)) {
  }
}

Clock::time_point ArchiveWatch::wait_beyond(std::uint64_t txid) {
  const auto start = Clock::now();
  while (newest_ <= txid) {
    if (!take_events(1'000) && seconds_since(start) > 60) give_up(folder_);
  }
  return Clock::now();
}

}  // namespace offprint::bench
