#include "tail/tailer.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include <fmt/format.h>

#include "base/log.h"
#include "database/executor.h"
#include "tail/folder_watch.h"

namespace offprint::tail {
namespace {

using std::chrono::nanoseconds;

// What SQLite makes beside a database file; its shared memory says nothing by its notices.
constexpr std::string_view kSuffixes[] = {"", "-wal"};
constexpr int kLinksMax = 16;
constexpr std::chrono::seconds kWatchAgain{2};  // folders that are not there: one may be mounted
constexpr std::chrono::milliseconds kDeafFolderLook{250};
// Each notice that wakes this process takes time from the program that caused it. So when they come
// without a pause, they are heard now and then.
constexpr std::chrono::milliseconds kNoPause{8};
constexpr int kHeardAtOnce = 8;
constexpr std::chrono::microseconds kDeafMin{100};
constexpr std::chrono::microseconds kDeafMax{4'000};

// Where links lead, also when there is no file yet, or no folder for it.
std::string real_path(const std::string& path) {
  std::error_code error;
  std::filesystem::path at = path;
  for (int i = 0; i < kLinksMax && std::filesystem::is_symlink(at, error); ++i)
    at = at.parent_path() / std::filesystem::read_symlink(at, error);
  std::filesystem::path folder = std::filesystem::canonical(at.parent_path(), error);
  return error ? at.lexically_normal().string() : (folder / at.filename()).string();
}

class TailerImpl final : public Tailer {
 public:
  TailerImpl(TailerOptions options, database::Store& store, FolderWatch watch, int wake)
      : watch_(std::move(watch)), wake_(wake), workers_(options.threads) {
    for (TailedFile& file : options.files) {
      auto each = std::make_unique<Entry>();
      each->tail = std::make_unique<FileTail>(store, file.name, file.path, options.each);
      by_name_[file.name.text()] = entries_.size();
      entries_.push_back(std::move(each));
    }
  }
  ~TailerImpl() override {
    stop();
    ::close(wake_);
  }

  Result<> start() override;
  void stop() override;
  std::vector<TailStatus> status() const override;
  std::optional<TailStatus> status(const std::string& name) const override;

 private:
  struct Entry {
    std::unique_ptr<FileTail> tail;
    // --- guarded by mutex_
    bool running = false;
    bool changed = true;  // something happened that no step has seen
    bool deaf = false;    // it looks by itself
    Deadline look_at{};
    // --- of the noticing thread
    bool watched = false;
    bool files_watched = false;
    bool is_link = false;       // its path, or a folder of it
    std::string real;           // where that leads
    bool is_unwatched = false;  // because it is deaf
  };

  void run();
  void watch_folders();
  Result<> watch_folder(Entry& entry, std::size_t index);
  Result<> add_or_await(const std::string& path);
  void watch_files(Entry& entry);
  void change_hearing();
  void change_hearing(Entry& entry, bool deaf);
  void take_notices();
  void look_soon(std::size_t index);
  Deadline begin_what_is_due();
  void work(std::size_t index);
  void wake();

  FolderWatch watch_;
  const int wake_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::unordered_map<std::string, std::vector<std::size_t>> by_file_;  // of the noticing thread
  Deadline watch_again_at_{};                                          // the same
  std::unordered_map<std::string, int> deaf_folders_;  // the same: how many files of theirs are
  Deadline heard_at_{}, listens_at_{};                 // the same
  int heard_in_a_row_ = 0;                             // the same

  mutable std::mutex mutex_;
  std::condition_variable rests_;
  std::set<std::pair<Deadline, std::size_t>> due_;  // guarded by mutex_: entries that do not run
  std::set<std::size_t> hearing_changes_;           // guarded by mutex_
  int running_ = 0;                                 // guarded by mutex_
  bool stopping_ = false;                           // guarded by mutex_

  database::ThreadPool workers_;
  std::thread thread_;
};

Result<> TailerImpl::start() {
  for (auto& entry : entries_) (void)entry->tail->make_database();  // its first step tells why not
  {
    std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < entries_.size(); ++i) due_.insert({entries_[i]->look_at, i});
  }
  thread_ = std::thread([this] { run(); });
  return {};
}

void TailerImpl::stop() {
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    for (auto& entry : entries_) entry->tail->interrupt();
    wake();
    rests_.wait(lock, [this] { return running_ == 0; });
  }
  if (thread_.joinable()) thread_.join();
  for (auto& entry : entries_) entry->tail->close();
}

void TailerImpl::wake() {
  std::uint64_t one = 1;
  (void)!::write(wake_, &one, sizeof one);
}

void TailerImpl::run() {
  for (;;) {
    change_hearing();
    watch_folders();
    take_notices();
    Deadline next = begin_what_is_due();
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    Deadline now = SteadyClock::now();
    const bool listens = now >= listens_at_;
    next = std::min(next, watch_again_at_);
    if (!listens) next = std::min(next, listens_at_);
    nanoseconds wait = std::max(nanoseconds(0), next - now);
    timespec timeout{};
    timeout.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(wait).count();
    timeout.tv_nsec = (wait % std::chrono::seconds(1)).count();
    pollfd descriptors[] = {{listens ? watch_.descriptor() : -1, POLLIN, 0}, {wake_, POLLIN, 0}};
    (void)::ppoll(descriptors, std::size(descriptors), &timeout, nullptr);
    std::uint64_t ignored = 0;
    if ((descriptors[1].revents & POLLIN) != 0) (void)!::read(wake_, &ignored, sizeof ignored);
  }
}

// Folders that are not watched: they are not there yet, or were replaced; or a file in them is
// deaf.
void TailerImpl::watch_folders() {
  const Deadline now = SteadyClock::now();
  if (now < watch_again_at_) return;
  watch_again_at_ = deaf_folders_.empty() ? Deadline::max() : now + kDeafFolderLook;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = *entries_[i];
    if (!entry.watched) {
      if (auto added = watch_folder(entry, i); !added) {  // it is looked at now and then
        watch_again_at_ = std::min(watch_again_at_, now + kWatchAgain);
        if (added.error().code() != Code::kNotFound)
          log::warn("{} is not watched: {}", entry.tail->path(), added.error().message());
        continue;
      }
    } else {
      const bool is_told = entry.files_watched && !entry.is_link;
      if (is_told || entry.is_unwatched || deaf_folders_.empty() ||
          !deaf_folders_.contains(FolderWatch::split(entry.real).first))
        continue;
    }
    watch_files(entry);
    std::lock_guard lock(mutex_);
    look_soon(i);  // it may have changed before it was watched
  }
}

Result<> TailerImpl::watch_folder(Entry& entry, std::size_t index) {
  const std::string& path = entry.tail->path();
  std::string real = real_path(path);
  entry.is_link = real != path;
  entry.real = real;
  for (const std::string& each : {path, real}) {
    auto [folder, name] = FolderWatch::split(each);
    std::vector<std::string> keys = {folder};
    for (std::string_view suffix : kSuffixes)
      keys.push_back(fmt::format("{}/{}{}", folder, name, suffix));
    for (const std::string& key : keys) {
      std::vector<std::size_t>& of_key = by_file_[key];
      if (std::find(of_key.begin(), of_key.end(), index) == of_key.end()) of_key.push_back(index);
    }
  }
  for (const std::string& each : {path, real}) {
    if (!deaf_folders_.contains(FolderWatch::split(each).first)) OFFPRINT_TRY(add_or_await(each));
  }
  entry.watched = true;
  return {};
}

// kNotFound: its folder is not there; it is noticed when it comes.
Result<> TailerImpl::add_or_await(const std::string& path) {
  Result<> added = watch_.add(path);
  if (added || added.error().code() != Code::kNotFound) return added;
  if (auto awaited = watch_.await(path); !awaited) return awaited;
  return watch_.add(path);  // it was made before the wait began
}

// They may be other ones than before, or not there.
void TailerImpl::watch_files(Entry& entry) {
  if (entry.is_unwatched) return;
  entry.files_watched = true;
  for (std::string_view suffix : kSuffixes) {
    const std::string path = entry.real + std::string(suffix);
    Result<> added = watch_.add_file(path);
    if (added) continue;
    entry.files_watched = false;
    if (added.error().code() != Code::kNotFound)
      log::warn("{} is not watched: {}", path, added.error().message());
  }
}

void TailerImpl::change_hearing() {
  std::set<std::size_t> changes;
  {
    std::lock_guard lock(mutex_);
    changes.swap(hearing_changes_);
  }
  for (std::size_t index : changes) {
    Entry& entry = *entries_[index];
    bool deaf;
    {
      std::lock_guard lock(mutex_);
      deaf = entry.deaf;
    }
    if (deaf != entry.is_unwatched && (!deaf || entry.watched)) change_hearing(entry, deaf);
  }
}

// Watching the folder costs those who write in it, too.
void TailerImpl::change_hearing(Entry& entry, bool deaf) {
  const std::string folder = FolderWatch::split(entry.real).first;
  entry.is_unwatched = deaf;
  if (deaf) {
    for (std::string_view suffix : kSuffixes) watch_.remove_file(entry.real + std::string(suffix));
    entry.files_watched = false;
    if (++deaf_folders_[folder] == 1) watch_.remove(folder);
    watch_again_at_ = std::min(watch_again_at_, SteadyClock::now() + kDeafFolderLook);
    return;
  }
  entry.watched = false;
  watch_again_at_ = SteadyClock::now();
  if (--deaf_folders_[folder] > 0) return;
  deaf_folders_.erase(folder);
  for (const auto& each : entries_) {  // who was not told by his files
    const bool is_told = each->files_watched && !each->is_link;
    if (!is_told && FolderWatch::split(each->real).first == folder) each->watched = false;
  }
}

void TailerImpl::take_notices() {
  Deadline now = SteadyClock::now();
  if (now < listens_at_) return;
  std::vector<FolderWatch::Notice> notices = watch_.read();
  if (!notices.empty()) {
    heard_in_a_row_ = now < heard_at_ + kNoPause ? heard_in_a_row_ + 1 : 0;
    heard_at_ = now;
    int doubled = std::clamp(heard_in_a_row_ - kHeardAtOnce, 0, 6);
    if (heard_in_a_row_ > kHeardAtOnce)
      listens_at_ = now + std::min(kDeafMax, kDeafMin * (1 << doubled));
  }
  for (const FolderWatch::Notice& notice : notices) {
    const std::string path =
        notice.name.empty() ? notice.folder : notice.folder + "/" + notice.name;
    auto found = by_file_.find(path);
    if (found == by_file_.end()) continue;
    std::lock_guard lock(mutex_);
    for (std::size_t index : found->second) {
      Entry& entry = *entries_[index];
      // The folder may be another one now, or the link lead elsewhere.
      if (notice.name.empty() || (entry.is_link && path == entry.tail->path())) {
        if (!entry.is_unwatched) entry.watched = false;
        watch_again_at_ = now;
      } else if (!notice.written) {
        watch_files(entry);
      }
      look_soon(index);
    }
  }
}

// Something happened to it. With mutex_.
void TailerImpl::look_soon(std::size_t index) {
  Entry& entry = *entries_[index];
  entry.changed = true;
  if (entry.running) return;
  Deadline at = std::max(SteadyClock::now(), entry.tail->not_before());
  if (at >= entry.look_at) return;
  due_.erase({entry.look_at, index});
  entry.look_at = at;
  due_.insert({at, index});
}

// When the next one is due.
Deadline TailerImpl::begin_what_is_due() {
  Deadline now = SteadyClock::now();
  std::lock_guard lock(mutex_);
  while (!stopping_ && !due_.empty() && due_.begin()->first <= now) {
    std::size_t index = due_.begin()->second;
    due_.erase(due_.begin());
    entries_[index]->running = true;
    ++running_;
    workers_.post([this, index] { work(index); });
  }
  return due_.empty() ? Deadline::max() : due_.begin()->first;
}

void TailerImpl::work(std::size_t index) {
  Entry& entry = *entries_[index];
  bool changed;
  {
    std::lock_guard lock(mutex_);
    changed = std::exchange(entry.changed, false);
  }
  Deadline next = entry.tail->step(changed);
  std::lock_guard lock(mutex_);
  entry.running = false;
  if (std::exchange(entry.deaf, entry.tail->is_deaf()) != entry.deaf)
    hearing_changes_.insert(index);
  if (entry.changed) next = std::min(next, std::max(SteadyClock::now(), entry.tail->not_before()));
  entry.look_at = next;
  due_.insert({next, index});
  --running_;
  if (due_.begin()->second == index || stopping_ || !hearing_changes_.empty()) wake();
  if (running_ == 0) rests_.notify_all();
}

std::vector<TailStatus> TailerImpl::status() const {
  std::vector<TailStatus> all;
  for (const auto& entry : entries_) all.push_back(entry->tail->status());
  return all;
}

std::optional<TailStatus> TailerImpl::status(const std::string& name) const {
  auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  return entries_[found->second]->tail->status();
}

}  // namespace

Result<std::unique_ptr<Tailer>> Tailer::create(TailerOptions options, database::Store& store) {
  std::set<std::string> names, paths;
  for (TailedFile& file : options.files) {
    file.path = std::filesystem::absolute(file.path).lexically_normal().string();
    if (!names.insert(file.name.text()).second)
      return fail(Code::kInvalid, fmt::format("two files for database '{}'", file.name.text()));
    if (!paths.insert(file.path).second)
      return fail(Code::kInvalid, fmt::format("two databases for {}", file.path));
  }
  OFFPRINT_TRY(options.each.files->create_directories(options.each.directory));
  OFFPRINT_TRY_ASSIGN(FolderWatch watch, FolderWatch::create());
  int wake = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake < 0) return fail(io_error("eventfd", errno));
  return std::make_unique<TailerImpl>(std::move(options), store, std::move(watch), wake);
}

Result<TailedFile> parse_tailed_file(const std::string& text) {
  std::size_t at = text.find('=');
  if (at == std::string::npos || at + 1 == text.size()) {
    return fail(Code::kInvalid,
                fmt::format("'{}' is not NAME=PATH: the database's name, and the file that it "
                            "follows",
                            text));
  }
  OFFPRINT_TRY_ASSIGN(auto name, database::DatabaseName::parse(text.substr(0, at)));
  return TailedFile{std::move(name), text.substr(at + 1)};
}

}  // namespace offprint::tail
