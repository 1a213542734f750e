// Archives in a folder: an object is a file.
#include "archive/file_store.h"

#include <algorithm>
#include <atomic>

#include <fmt/format.h>
#include <unistd.h>

#include "base/clock.h"

namespace offprint::archive {
namespace {

constexpr std::size_t kPieceBytes = 1 << 20;
constexpr std::string_view kTemporarySuffix =
    ".tmp";  // of files that are being written; no objects

class FileSource final : public ltx::ByteSource {
 public:
  FileSource(std::unique_ptr<File> file, std::uint64_t offset, const std::atomic<bool>& cancelled)
      : file_(std::move(file)), offset_(offset), cancelled_(cancelled) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    if (cancelled_) return fail(Code::kUnavailable, "cancelled");
    OFFPRINT_TRY_ASSIGN(std::size_t got, file_->read_at(offset_, to));
    offset_ += got;
    return got;
  }

 private:
  std::unique_ptr<File> file_;
  std::uint64_t offset_;
  const std::atomic<bool>& cancelled_;
};

class FileStore final : public ObjectStore {
 public:
  FileStore(std::string folder, FileSystem& files, std::chrono::milliseconds leftovers_after)
      : folder_(std::move(folder)),
        url_("file://" + folder_),
        files_(files),
        leftovers_after_(leftovers_after) {}

  const std::string& url() const override { return url_; }
  std::string level_prefix(int level) const override { return fmt::format("ltx/{}/", level); }

  Result<ObjectInfo> put(const std::string& key, ltx::ByteSource& from,
                         const PutOptions& options) override;
  Result<std::unique_ptr<ltx::ByteSource>> get(const std::string& key,
                                               std::uint64_t offset) override {
    OFFPRINT_TRY(check());
    OFFPRINT_TRY(status_of(key));
    OFFPRINT_TRY_ASSIGN(auto file, files_.open(path_of(key), FileSystem::Mode::kRead));
    return std::make_unique<FileSource>(std::move(file), offset, cancelled_);
  }
  Result<ObjectInfo> info(const std::string& key) override {
    OFFPRINT_TRY(check());
    OFFPRINT_TRY_ASSIGN(FileStatus status, status_of(key));
    return info_of(key, status);
  }
  Result<std::vector<ObjectInfo>> list(const std::string& prefix) override {
    OFFPRINT_TRY(check());
    std::vector<ObjectInfo> found;
    // Only folders at or below the prefix's own can have such keys.
    std::size_t slash = prefix.rfind('/');
    OFFPRINT_TRY(
        walk(slash == std::string::npos ? "" : prefix.substr(0, slash + 1), prefix, found));
    std::sort(found.begin(), found.end(),
              [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
    return found;
  }
  Result<> remove(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) {
      OFFPRINT_TRY(check());
      OFFPRINT_TRY(files_.remove(path_of(key)));
    }
    return {};
  }
  void cancel() override { cancelled_ = true; }

 private:
  std::string path_of(const std::string& key) const { return folder_ + "/" + key; }
  Result<> check() const {
    if (cancelled_) return fail(Code::kUnavailable, "cancelled");
    return {};
  }
  Result<FileStatus> status_of(const std::string& key) {
    OFFPRINT_TRY_ASSIGN(auto status, files_.status(path_of(key)));
    if (!status || status->is_directory)
      return fail(Code::kNotFound, fmt::format("{}/{}: no such object", url_, key));
    return *status;
  }
  static ObjectInfo info_of(const std::string& key, const FileStatus& status) {
    return {key, status.size, status.modified_ms,
            fmt::format("{:x}-{:x}-{:x}", status.inode, status.changed_ns, status.size)};
  }
  Result<> make_folder(const std::string& folder);
  Result<> walk(const std::string& folder, const std::string& prefix,
                std::vector<ObjectInfo>& found);
  Result<> publish(const std::string& temporary, const std::string& key, const PutOptions& options);
  void remove_leftover(const std::string& key, const FileStatus& status);

  const std::string folder_, url_;
  FileSystem& files_;
  const std::chrono::milliseconds leftovers_after_;
  std::atomic<bool> cancelled_{false};
  static inline std::atomic<std::uint64_t> next_temporary_{0};
};

Result<> FileStore::walk(const std::string& folder, const std::string& prefix,
                         std::vector<ObjectInfo>& found) {
  OFFPRINT_TRY_ASSIGN(auto status, files_.status(path_of(folder)));
  if (!status) return {};
  OFFPRINT_TRY_ASSIGN(auto names, files_.list(path_of(folder)));
  std::ranges::sort(names);  // who lists levels relies on it (chain.cc)
  for (const std::string& name : names) {
    std::string key = folder + name;
    OFFPRINT_TRY_ASSIGN(auto each, files_.status(path_of(key)));
    if (!each) continue;  // removed meanwhile
    if (each->is_directory) {
      key += '/';
      if (key.starts_with(prefix) || prefix.starts_with(key))
        OFFPRINT_TRY(walk(key, prefix, found));
    } else if (name.ends_with(kTemporarySuffix)) {
      remove_leftover(key, *each);
    } else if (key.starts_with(prefix)) {
      found.push_back({key, each->size, each->modified_ms, ""});
    }
  }
  return {};
}

// What a server left that was killed while it wrote.
void FileStore::remove_leftover(const std::string& key, const FileStatus& status) {
  const std::int64_t age_ms = unix_time_ms() - status.changed_ns / 1'000'000;
  if (status.changed_ns != 0 && age_ms >= leftovers_after_.count())
    (void)files_.remove(path_of(key));
}

// Gives the finished file its name. Between "is of this version" and the rename another writer
// could come: who relies on it alone leaves time for that (archive/lease.h).
Result<> FileStore::publish(const std::string& temporary, const std::string& key,
                            const PutOptions& options) {
  std::string path = path_of(key);
  if (options.if_absent) return files_.rename_new(temporary, path);
  if (!options.if_version.empty()) {
    OFFPRINT_TRY_ASSIGN(auto status, files_.status(path));
    if (!status || info_of(key, *status).version != options.if_version)
      return fail(Code::kConflict, "changed by somebody else");
  }
  return files_.rename(temporary, path);
}

Result<ObjectInfo> FileStore::put(const std::string& key, ltx::ByteSource& from,
                                  const PutOptions& options) {
  OFFPRINT_TRY(check());
  std::string path = path_of(key);
  std::string parent = path.substr(0, path.rfind('/'));
  OFFPRINT_TRY(make_folder(parent));
  std::string temporary =
      fmt::format("{}/.{}-{}{}", parent, ::getpid(), next_temporary_++, kTemporarySuffix);
  Result<> written = [&]() -> Result<> {
    OFFPRINT_TRY_ASSIGN(auto file, files_.open(temporary, FileSystem::Mode::kCreateNew));
    Bytes piece(kPieceBytes);
    for (std::uint64_t offset = 0;;) {
      OFFPRINT_TRY(check());
      OFFPRINT_TRY_ASSIGN(std::size_t got, from.read(piece));
      if (got == 0) break;
      OFFPRINT_TRY(file->write_at(offset, ByteView(piece).first(got)));
      offset += got;
    }
    OFFPRINT_TRY(file->sync());
    file.reset();
    if (options.timestamp_ms != 0)
      OFFPRINT_TRY(files_.set_modified(temporary, options.timestamp_ms));
    OFFPRINT_TRY(publish(temporary, key, options));
    return files_.sync_directory(parent);
  }();
  if (!written) {
    (void)files_.remove(temporary);
    return fail(written.error().with_context(fmt::format("{}/{}", url_, key)));
  }
  return info(key);
}

// With its parents, each durable in its own.
Result<> FileStore::make_folder(const std::string& folder) {
  OFFPRINT_TRY_ASSIGN(auto status, files_.status(folder));
  if (status || folder.empty()) return {};
  std::string parent = folder.substr(0, folder.rfind('/'));
  OFFPRINT_TRY(make_folder(parent));
  OFFPRINT_TRY(files_.create_directories(folder));
  return files_.sync_directory(parent.empty() ? "/" : parent);
}

}  // namespace

Result<std::unique_ptr<ObjectStore>> open_file_store(const std::string& folder, FileSystem& files,
                                                     std::chrono::milliseconds leftovers_after) {
  return std::make_unique<FileStore>(folder, files, leftovers_after);
}

}  // namespace offprint::archive
