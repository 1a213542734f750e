#include "base/machine.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/clock.h"

namespace offprint {
namespace {

constexpr std::size_t kBlock = 4096;
constexpr unsigned long kXfs = 0x58465342, kZfs = 0x2fc12fc1, kCifs = 0xff534d42;

struct Known {
  unsigned long magic;
  const char* name;
  bool is_volatile = false, is_shared = false;
};
constexpr std::array kKnown = {Known{EXT4_SUPER_MAGIC, "ext4"},
                               Known{kXfs, "xfs"},
                               Known{BTRFS_SUPER_MAGIC, "btrfs"},
                               Known{kZfs, "zfs"},
                               Known{F2FS_SUPER_MAGIC, "f2fs"},
                               Known{OVERLAYFS_SUPER_MAGIC, "overlay"},
                               Known{TMPFS_MAGIC, "tmpfs", true},
                               Known{RAMFS_MAGIC, "ramfs", true},
                               Known{NFS_SUPER_MAGIC, "nfs", false, true},
                               Known{kCifs, "cifs", false, true},
                               Known{SMB2_SUPER_MAGIC, "smb", false, true},
                               Known{CEPH_SUPER_MAGIC, "ceph", false, true},
                               Known{FUSE_SUPER_MAGIC, "fuse", false, true}};

std::unexpected<Error> failed(const std::string& what) {
  return fail(errno == ENOSPC ? Code::kFull : Code::kIo, what + ": " + std::strerror(errno));
}

std::chrono::nanoseconds now_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}  // namespace

Result<FlushTimes> measure_flushes(const std::string& directory, int count) {
  std::string path = directory + "/.offprint-flush-XXXXXX";
  const int file = ::mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) return failed("a file in " + directory);
  ::unlink(path.c_str());
  std::array<char, kBlock> block{};
  std::vector<std::chrono::microseconds> times;
  Result<> done;
  for (int i = 0; done && i < count; ++i) {
    block[0] = static_cast<char>(i);
    const auto begun = SteadyClock::now();
    const bool is_written =
        ::pwrite(file, block.data(), block.size(), 0) == ssize_t{kBlock} && ::fdatasync(file) == 0;
    if (!is_written) done = failed(directory);
    times.push_back(
        std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now() - begun));
  }
  ::close(file);
  if (!done) return fail(done.error());
  std::ranges::sort(times);
  return FlushTimes{times[times.size() / 2], times.back()};
}

Result<FileSystemKind> file_system_of(const std::string& directory) {
  struct statfs found{};
  if (::statfs(directory.c_str(), &found) != 0) return failed(directory);
  const auto magic = static_cast<unsigned long>(found.f_type) & 0xffffffffUL;
  FileSystemKind kind;
  kind.name = fmt::format("{:#x}", magic);
  if (auto known = std::ranges::find(kKnown, magic, &Known::magic); known != kKnown.end()) {
    kind.name = known->name;
    kind.is_volatile = known->is_volatile;
    kind.is_shared = known->is_shared;
  }
  const auto block = static_cast<std::uint64_t>(found.f_bsize);
  kind.free_bytes = found.f_bavail * block;
  kind.size_bytes = found.f_blocks * block;
  return kind;
}

double clock_drift_ppm(std::chrono::milliseconds over) {
  const auto raw = now_of(CLOCK_MONOTONIC_RAW), lease = now_of(CLOCK_BOOTTIME);
  std::this_thread::sleep_for(over);
  const auto raw_passed = now_of(CLOCK_MONOTONIC_RAW) - raw;
  const auto lease_passed = now_of(CLOCK_BOOTTIME) - lease;
  const auto difference = static_cast<double>((lease_passed - raw_passed).count());
  return difference / static_cast<double>(raw_passed.count()) * 1e6;
}

bool wall_clock_is_kept() {
  timex state{};
  return ::adjtimex(&state) >= 0 && (state.status & STA_UNSYNC) == 0;
}

}  // namespace offprint
