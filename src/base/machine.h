#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"

// What the machine under a server does, measured. Calls block.
namespace offprint {

// How long fdatasync takes after a write of 4 KiB.
struct FlushTimes {
  std::chrono::microseconds median{}, longest{};
};
// In a file of its own in the folder, which goes again. kIo, kFull.
Result<FlushTimes> measure_flushes(const std::string& directory, int count);

// The file system that a folder is on.
struct FileSystemKind {
  std::string name;          // "ext4", "tmpfs"; else its number in hex
  bool is_volatile = false;  // in memory: nothing is left after a restart of the machine
  bool is_shared = false;    // of a network, or of a program
  std::uint64_t free_bytes = 0, size_bytes = 0;
};
Result<FileSystemKind> file_system_of(const std::string& directory);

// By how many parts in a million the clock that leases are counted by (CLOCK_BOOTTIME) runs faster
// than the machine's own oscillator, over that time.
double clock_drift_ppm(std::chrono::milliseconds over);
// The kernel says that somebody keeps the wall clock right.
bool wall_clock_is_kept();

}  // namespace offprint
