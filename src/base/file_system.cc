#include "base/file_system.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace offprint {
namespace {

class PosixFile final : public File {
 public:
  PosixFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  ~PosixFile() override { ::close(descriptor_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> to) override {
    std::size_t done = 0;
    while (done < to.size()) {
      ssize_t got = ::pread(descriptor_, to.data() + done, to.size() - done,
                            static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(io_error("read " + path_, errno));
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

  Result<> write_at(std::uint64_t offset, ByteView bytes) override {
    while (!bytes.empty()) {
      ssize_t put = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return fail(io_error("write " + path_, errno));
      if (put == 0) return fail(io_error("write " + path_, ENOSPC));
      bytes = bytes.subspan(static_cast<std::size_t>(put));
      offset += static_cast<std::uint64_t>(put);
    }
    return {};
  }

  Result<> sync() override {
    if (::fdatasync(descriptor_) != 0) return fail(io_error("fdatasync " + path_, errno));
    return {};
  }

  Result<std::uint64_t> size() override {
    struct stat status{};
    if (::fstat(descriptor_, &status) != 0) return fail(io_error("stat " + path_, errno));
    return static_cast<std::uint64_t>(status.st_size);
  }

  Result<> truncate(std::uint64_t size) override {
    if (::ftruncate(descriptor_, static_cast<off_t>(size)) != 0)
      return fail(io_error("truncate " + path_, errno));
    return {};
  }

  Result<> allocate(std::uint64_t size) override {
    int error = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(size));
    if (error != 0) return fail(io_error("allocate " + path_, error));
    return {};
  }

 private:
  int descriptor_;
  std::string path_;
};

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override {
    int flags = O_CLOEXEC;
    switch (mode) {
      case Mode::kRead:
        flags |= O_RDONLY;
        break;
      case Mode::kReadWrite:
        flags |= O_RDWR;
        break;
      case Mode::kCreate:
        flags |= O_RDWR | O_CREAT;
        break;
      case Mode::kCreateNew:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
    }
    int descriptor = ::open(path.c_str(), flags, 0644);
    if (descriptor < 0) return fail(io_error("open " + path, errno));
    return std::make_unique<PosixFile>(descriptor, path);
  }

  Result<> rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0)
      return fail(io_error("rename " + from + " to " + to, errno));
    return {};
  }

  Result<> rename_new(const std::string& from, const std::string& to) override {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
    if (errno == EEXIST) return fail(Code::kConflict, to + " is there already");
    return fail(io_error("rename " + from + " to " + to, errno));
  }

  Result<> remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT)
      return fail(io_error("remove " + path, errno));
    return {};
  }

  Result<bool> exists(const std::string& path) override {
    struct stat status{};
    if (::stat(path.c_str(), &status) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return fail(io_error("stat " + path, errno));
  }

  Result<std::optional<FileStatus>> status(const std::string& path) override {
    struct stat found{};
    if (::stat(path.c_str(), &found) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) return std::optional<FileStatus>();
      return fail(io_error("stat " + path, errno));
    }
    FileStatus status;
    status.size = static_cast<std::uint64_t>(found.st_size);
    status.modified_ms = found.st_mtim.tv_sec * 1000LL + found.st_mtim.tv_nsec / 1'000'000;
    status.is_directory = S_ISDIR(found.st_mode);
    status.inode = found.st_ino;
    status.changed_ns = found.st_ctim.tv_sec * 1'000'000'000LL + found.st_ctim.tv_nsec;
    return status;
  }

  Result<> set_modified(const std::string& path, std::int64_t modified_ms) override {
    std::array<struct timespec, 2> times{};
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = modified_ms / 1000;
    times[1].tv_nsec = modified_ms % 1000 * 1'000'000;
    if (::utimensat(AT_FDCWD, path.c_str(), times.data(), 0) != 0)
      return fail(io_error("set the time of " + path, errno));
    return {};
  }

  Result<std::vector<std::string>> list(const std::string& directory) override {
    std::error_code error;
    std::vector<std::string> names;
    std::filesystem::directory_iterator entries(directory, error);
    if (error) return fail(io_error("list " + directory, error.value()));
    for (; entries != std::filesystem::directory_iterator(); entries.increment(error)) {
      names.push_back(entries->path().filename().string());
    }
    if (error) return fail(io_error("list " + directory, error.value()));
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<> create_directories(const std::string& directory) override {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error) return fail(io_error("create " + directory, error.value()));
    return {};
  }

  Result<> sync_directory(const std::string& directory) override {
    int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return fail(io_error("open " + directory, errno));
    int error = ::fsync(descriptor) == 0 ? 0 : errno;
    ::close(descriptor);
    if (error != 0) return fail(io_error("fsync " + directory, error));
    return {};
  }
};

std::string folder_of(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace

FileSystem& FileSystem::real() {
  static PosixFileSystem files;
  return files;
}

Result<> write_file_atomically(FileSystem& files, const std::string& path, ByteView content) {
  std::string temporary = path + ".tmp";
  OFFPRINT_TRY(files.remove(temporary));
  {
    OFFPRINT_TRY_ASSIGN(auto file, files.open(temporary, FileSystem::Mode::kCreateNew));
    OFFPRINT_TRY(file->write_at(0, content));
    OFFPRINT_TRY(file->sync());
  }
  OFFPRINT_TRY(files.rename(temporary, path));
  return files.sync_directory(folder_of(path));
}

Result<Bytes> read_file(FileSystem& files, const std::string& path, std::uint64_t limit) {
  OFFPRINT_TRY_ASSIGN(auto file, files.open(path, FileSystem::Mode::kRead));
  OFFPRINT_TRY_ASSIGN(std::uint64_t size, file->size());
  if (size > limit) return fail(Code::kTooLarge, "read " + path + ": larger than expected");
  Bytes content(size);
  OFFPRINT_TRY_ASSIGN(std::size_t got, file->read_at(0, content));
  content.resize(got);
  return content;
}

}  // namespace offprint
