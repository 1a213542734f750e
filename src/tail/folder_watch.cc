#include "tail/folder_watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace offprint::tail {
namespace {

constexpr std::uint32_t kEvents = IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                                  IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr std::size_t kBufferBytes = 64 << 10;

}  // namespace

Result<FolderWatch> FolderWatch::create() {
  int descriptor = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (descriptor < 0) return fail(io_error("inotify", errno));
  return FolderWatch(descriptor);
}

FolderWatch::FolderWatch(FolderWatch&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), folders_(std::move(other.folders_)) {}

FolderWatch::~FolderWatch() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::pair<std::string, std::string> FolderWatch::split(const std::string& path) {
  std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

Result<> FolderWatch::add(const std::string& path) {
  std::string folder = split(path).first;
  int number = ::inotify_add_watch(descriptor_, folder.c_str(), kEvents);
  if (number < 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      return fail(Code::kNotFound, fmt::format("no folder {}", folder));
    if (errno == ENOSPC)
      return fail(Code::kFull,
                  "the system allows no more inotify watches "
                  "(fs.inotify.max_user_watches)");
    return fail(io_error("watch " + folder, errno));
  }
  std::vector<std::string>& names = folders_[number];
  if (std::find(names.begin(), names.end(), folder) == names.end()) names.push_back(folder);
  return {};
}

std::vector<FolderWatch::Notice> FolderWatch::read() {
  std::vector<Notice> notices;
  alignas(inotify_event) char buffer[kBufferBytes];
  for (;;) {
    ssize_t size = ::read(descriptor_, buffer, sizeof buffer);
    if (size <= 0) return notices;
    for (ssize_t at = 0; at < size;) {
      inotify_event event;
      std::memcpy(&event, buffer + at, sizeof event);
      const char* text = buffer + at + sizeof event;
      std::string name(text, ::strnlen(text, event.len));
      at += static_cast<ssize_t>(sizeof event + event.len);
      if ((event.mask & IN_Q_OVERFLOW) != 0) {
        for (const auto& [number, folders] : folders_) {
          for (const std::string& folder : folders) notices.push_back({folder, {}});
        }
        continue;
      }
      auto found = folders_.find(event.wd);
      if (found == folders_.end()) continue;
      for (const std::string& folder : found->second) {
        if (notices.empty() || notices.back().folder != folder || notices.back().name != name)
          notices.push_back({folder, name});
      }
      if ((event.mask & IN_IGNORED) != 0) folders_.erase(found);
    }
  }
}

}  // namespace offprint::tail
