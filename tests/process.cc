#include "tests/process.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"

extern char** environ;

namespace offprint::testing {
namespace {

int open_or_die(const std::string& path, int flags) {
  int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  OFFPRINT_ASSERT(descriptor >= 0);
  return descriptor;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment_with(
    const std::vector<std::pair<std::string, std::string>>& more) {
  std::vector<std::string> result;
  for (const auto& [name, value] : more) result.push_back(name + "=" + value);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string_view text = *entry;
    bool replaced = std::any_of(more.begin(), more.end(), [&](const auto& item) {
      return text.starts_with(item.first) && text.substr(item.first.size()).starts_with('=');
    });
    // A server named by the environment of whoever runs the tests is none of theirs.
    if (!replaced && !text.starts_with("OFFPRINT_SERVER=")) result.emplace_back(text);
  }
  return result;
}

}  // namespace

TemporaryFolder::TemporaryFolder(Remove remove) : remove_(remove) {
  const char* parent = std::getenv("TMPDIR");
  path_ =
      std::string(parent != nullptr && *parent != '\0' ? parent : "/tmp") + "/offprint-test-XXXXXX";
  OFFPRINT_ASSERT(::mkdtemp(path_.data()) != nullptr);
}

TemporaryFolder::~TemporaryFolder() {
  if (remove_ == Remove::kUnlessFailed && ::testing::Test::HasFailure()) {
    std::fprintf(stderr, "kept for a look: %s\n", path_.c_str());
    return;
  }
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Process::Process(const Options& options) {
  std::vector<std::string> arguments = options.arguments,
                           environment = environment_with(options.environment);
  std::vector<char*> argument_pointers = pointers(arguments),
                     environment_pointers = pointers(environment);
  int in[2] = {-1, -1}, out[2] = {-1, -1};
  if (options.pipe_input) {
    OFFPRINT_ASSERT(::pipe2(in, O_CLOEXEC) == 0);
  } else {
    in[0] = open_or_die(options.stdin_path, O_RDONLY);
  }
  if (options.stdout_path.empty()) {
    OFFPRINT_ASSERT(::pipe2(out, O_CLOEXEC) == 0);
  } else {
    out[1] = open_or_die(options.stdout_path, O_WRONLY | O_CREAT | O_APPEND);
  }
  int err = open_or_die(options.stderr_path, O_WRONLY | O_CREAT | O_APPEND);
  pid_t parent = ::getpid();
  pid_ = ::fork();
  OFFPRINT_ASSERT(pid_ >= 0);
  if (pid_ == 0) {  // only what is allowed between fork and exec
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(err, 2);
    ::close_range(3, ~0U, 0);  // sockets of libraries among them, which nobody would see end
    ::execvpe(argument_pointers[0], argument_pointers.data(), environment_pointers.data());
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  ::close(err);
  input_ = in[1];
  output_ = out[0];
}

Process::~Process() {
  kill();
  close_input();
  if (output_ >= 0) ::close(output_);
}

bool Process::running() { return !wait(SteadyClock::now()).has_value(); }

void Process::signal(int number) {
  if (!exit_code_) ::kill(pid_, number);
}

std::optional<int> Process::wait(Deadline deadline) {
  while (!exit_code_) {
    int status = 0;
    pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    if (ended == pid_) {
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      break;
    }
    if (SteadyClock::now() >= deadline) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return exit_code_;
}

void Process::kill() {
  signal(SIGKILL);
  wait(Deadline::max());
}

std::optional<std::string> Process::read_line(Deadline deadline) {
  for (;;) {
    if (std::size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now())
                    .count();
    pollfd wanted{output_, POLLIN, 0};
    if (left < 0 ||
        ::poll(&wanted, 1, static_cast<int>(std::min<std::int64_t>(left, 1'000'000))) <= 0) {
      return std::nullopt;
    }
    char piece[4096];
    ssize_t got = ::read(output_, piece, sizeof piece);
    if (got <= 0) return std::nullopt;
    buffer_.append(piece, static_cast<std::size_t>(got));
  }
}

bool Process::write(const std::string& text) {
  std::signal(SIGPIPE, SIG_IGN);
  return ::write(input_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

void Process::close_input() {
  if (input_ >= 0) ::close(input_);
  input_ = -1;
}

Finished run_program(const std::vector<std::string>& arguments,
                     const std::vector<std::pair<std::string, std::string>>& environment,
                     const std::string& input, double seconds) {
  TemporaryFolder folder(TemporaryFolder::Remove::kAlways);
  std::ofstream(folder / "in") << input;
  Process::Options options;
  options.arguments = arguments;
  options.environment = environment;
  options.stdin_path = folder / "in";
  options.stdout_path = folder / "out";
  options.stderr_path = folder / "err";
  Process process(options);
  std::optional<int> code = process.wait(in_seconds(seconds));
  return {code.value_or(124), file_text(folder / "out"), file_text(folder / "err")};
}

std::uint64_t process_memory_kib(pid_t pid, const std::string& field) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 0;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return 0;
#endif
#endif
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":"))
      return std::strtoull(line.c_str() + field.size() + 1, nullptr, 10);
  }
  return 0;
}

double process_cpu_seconds(pid_t pid) {
  std::string text = file_text("/proc/" + std::to_string(pid) + "/stat");
  std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

std::vector<std::string> process_open_files(pid_t pid) {
  std::vector<std::string> files;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", error)) {
    std::error_code gone;
    files.push_back(std::filesystem::read_symlink(entry.path(), gone).string());
  }
  return files;
}

std::string file_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

int number_from_environment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::max(1, std::atoi(text));
}

std::uint64_t test_seed() {
  const char* text = std::getenv("OFFPRINT_TEST_SEED");
  std::uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
  std::printf("OFFPRINT_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

std::uint16_t free_port() {
  int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  OFFPRINT_ASSERT(socket >= 0);
  if (::bind(socket, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    OFFPRINT_ASSERT(false);
  }
  ::close(socket);
  return ntohs(address.sin_port);
}

}  // namespace offprint::testing
