#include "tail/folder_watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include <fmt/format.h>

namespace offprint::tail {
namespace {

constexpr std::uint32_t kFolderEvents = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM |
                                        IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF |
                                        IN_ONLYDIR;
// Added to those of whoever else watches that folder.
constexpr std::uint32_t kAwaitEvents =
    IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_MASK_ADD;
constexpr std::uint32_t kFileEvents = IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
constexpr std::size_t kBufferBytes = 64 << 10;

std::string nearest_above(const std::string& folder) {
  std::string above = folder;
  std::error_code unknown;
  do {
    above = FolderWatch::split(above).first;
  } while (above != "/" && above != "." && !std::filesystem::is_directory(above, unknown));
  return above;
}

}  // namespace

Result<FolderWatch> FolderWatch::create() {
  int descriptor = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (descriptor < 0) return fail(io_error("inotify", errno));
  return FolderWatch(descriptor);
}

FolderWatch::FolderWatch(FolderWatch&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      watched_(std::move(other.watched_)),
      numbers_(std::move(other.numbers_)),
      awaited_(std::move(other.awaited_)) {}

FolderWatch::~FolderWatch() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::pair<std::string, std::string> FolderWatch::split(const std::string& path) {
  std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

Result<> FolderWatch::add(const std::string& path) {
  const std::string folder = split(path).first;
  OFFPRINT_TRY(watch_named(folder, kFolderEvents, {folder, {}}));
  stop_awaiting(folder);
  return {};
}

Result<> FolderWatch::add_file(const std::string& path) {
  auto [folder, name] = split(path);
  return watch_named(path, kFileEvents, {std::move(folder), std::move(name)});
}

Result<> FolderWatch::await(const std::string& path) {
  const std::string folder = split(path).first;
  for (std::string above = nearest_above(folder);;) {
    OFFPRINT_TRY_ASSIGN(const int number, watch(above, kAwaitEvents, {folder, {}, true}));
    auto known = awaited_.find(folder);
    if (known != awaited_.end() && known->second != number) stop_awaiting(folder);
    awaited_[folder] = number;
    std::string nearest = nearest_above(folder);
    if (nearest == above) return {};
    above = std::move(nearest);  // it was made, or went, before that was watched
  }
}

void FolderWatch::stop_awaiting(const std::string& folder) {
  auto awaited = awaited_.find(folder);
  if (awaited == awaited_.end()) return;
  if (auto found = watched_.find(awaited->second); found != watched_.end()) {
    std::erase(found->second, Meaning{folder, {}, true});
    if (found->second.empty()) {
      (void)::inotify_rm_watch(descriptor_, found->first);  // it may be gone
      watched_.erase(found);
    }
  }
  awaited_.erase(awaited);
}

void FolderWatch::remove(const std::string& folder) { unwatch(folder); }
void FolderWatch::remove_file(const std::string& path) { unwatch(path); }

Result<int> FolderWatch::watch(const std::string& path, std::uint32_t events, Meaning says) {
  int number = ::inotify_add_watch(descriptor_, path.c_str(), events);
  if (number < 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      return fail(Code::kNotFound, fmt::format("there is no {}", path));
    if (errno == ENOSPC)
      return fail(Code::kFull,
                  "the system allows no more inotify watches "
                  "(fs.inotify.max_user_watches)");
    return fail(io_error("watch " + path, errno));
  }
  std::vector<Meaning>& all = watched_[number];
  if (std::find(all.begin(), all.end(), says) == all.end()) all.push_back(std::move(says));
  return number;
}

Result<> FolderWatch::watch_named(const std::string& path, std::uint32_t events, Meaning says) {
  OFFPRINT_TRY_ASSIGN(const int number, watch(path, events, std::move(says)));
  auto known = numbers_.find(path);
  if (known != numbers_.end() && known->second != number) unwatch(path);  // what had that name
  numbers_[path] = number;
  return {};
}

// Nothing of it is noticed by another path either.
void FolderWatch::unwatch(const std::string& path) {
  auto number = numbers_.find(path);
  if (number == numbers_.end()) return;
  (void)::inotify_rm_watch(descriptor_, number->second);  // it may be gone
  watched_.erase(number->second);
  numbers_.erase(number);
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
        std::set<std::string> folders;
        for (const auto& [number, says] : watched_) {
          for (const Meaning& each : says) folders.insert(each.folder);
        }
        for (const std::string& folder : folders) notices.push_back({folder, {}});
        continue;
      }
      auto found = watched_.find(event.wd);
      if (found == watched_.end()) continue;
      for (const Meaning& each : found->second) {
        Notice notice{each.folder, each.name, event.mask == IN_MODIFY};
        if (each.name.empty() && !each.is_awaited) notice.name = name;
        if (notices.empty() || notices.back() != notice) notices.push_back(std::move(notice));
      }
      if ((event.mask & IN_IGNORED) != 0) watched_.erase(found);
    }
  }
}

}  // namespace offprint::tail
