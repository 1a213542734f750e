#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "base/clock.h"

namespace offprint::testing {

inline Deadline in_seconds(double seconds) {
  return SteadyClock::now() +
         std::chrono::duration_cast<SteadyClock::duration>(std::chrono::duration<double>(seconds));
}

// A folder of its own below TMPDIR, removed with what is in it; kept for a look when the test
// failed, unless `always`.
class TemporaryFolder {
 public:
  enum class Remove { kUnlessFailed, kAlways };
  explicit TemporaryFolder(Remove remove = Remove::kUnlessFailed);
  ~TemporaryFolder();
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  const Remove remove_;
  std::string path_;
};

// A child process. Killed (-9) by the destructor, and by the system when this process dies: start
// it from the test's main thread, for it dies with the thread that started it. Thread: one.
class Process {
 public:
  struct Options {
    std::vector<std::string> arguments;  // the program first, found in PATH
    std::vector<std::pair<std::string, std::string>> environment;  // besides our own
    std::string stdin_path = "/dev/null";
    std::string stdout_path;  // appended to; empty: read_line() gets it
    std::string stderr_path = "/dev/null";
    bool pipe_input = false;  // write() instead of stdin_path
  };
  explicit Process(const Options& options);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  bool running();
  void signal(int number);
  // Waits for the end: exit code, or 128 + signal; nothing when it still runs at the deadline.
  std::optional<int> wait(Deadline deadline);
  // SIGKILL, and waits.
  void kill();

  // The next line of its standard output, without its end; nothing at the end, or at the deadline.
  std::optional<std::string> read_line(Deadline deadline);
  // False: it does not read any more.
  bool write(const std::string& text);
  void close_input();

 private:
  pid_t pid_ = -1;
  int input_ = -1, output_ = -1;
  std::string buffer_;
  std::optional<int> exit_code_;
};

struct Finished {
  int exit_code = -1;  // 124: it did not end in time and was killed
  std::string out, err;
};
// Runs a program to its end.
Finished run_program(const std::vector<std::string>& arguments,
                     const std::vector<std::pair<std::string, std::string>>& environment = {},
                     const std::string& input = {}, double seconds = 60);

// A value of /proc/PID/status in KiB ("VmRSS", "VmHWM"); 0 when it is not there, and under a
// sanitizer, which needs far more memory than the program.
std::uint64_t process_memory_kib(pid_t pid, const std::string& field);
// User and system time so far.
double process_cpu_seconds(pid_t pid);
// What the process's descriptors point to.
std::vector<std::string> process_open_files(pid_t pid);

// A port of loopback that nobody has at the moment.
std::uint16_t free_port();

// The whole of a file; empty when there is none.
std::string file_text(const std::string& path);

// A positive number from the environment, or `otherwise`.
int number_from_environment(const char* name, int otherwise);
// OFFPRINT_TEST_SEED, else a new one; printed, so that a failure can be repeated.
std::uint64_t test_seed();

}  // namespace offprint::testing
