#include "bench/processes.h"

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/floors.h"

namespace offprint::bench {
namespace {

[[noreturn]] void end(const std::string& why) {
  fmt::print(stderr, "{}\n", why);
  std::exit(1);
}

std::string joined(const std::vector<std::string>& arguments) {
  std::string text;
  for (const std::string& argument : arguments) text += argument + " ";
  return text;
}

}  // namespace

std::string program() {
  const char* path = std::getenv("OFFPRINT_PROGRAM");
  return path == nullptr ? "build/release/offprint" : path;
}

Child::Child(std::vector<std::string> arguments, const std::string& log) {
  const std::string errors = log + ".err";
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ != 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto redirect = [](const char* path, int descriptor) {
    int file = ::open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || ::dup2(file, descriptor) < 0) ::_exit(127);
  };
  redirect(log.c_str(), STDOUT_FILENO);
  redirect(errors.c_str(), STDERR_FILENO);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

Child::~Child() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGTERM);
  for (auto start = Clock::now(); seconds_since(start) < 30;) {
    if (::waitpid(pid_, nullptr, WNOHANG) != 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

int Child::wait() {
  int status = 0;
  ::waitpid(std::exchange(pid_, -1), &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

double run(const std::vector<std::string>& arguments, const std::string& log) {
  auto start = Clock::now();
  Child child(arguments, log);
  if (int code = child.wait(); code != 0)
    end(fmt::format("{}: exit code {}\n{}{}", joined(arguments), code, read_all(log),
                    read_all(log + ".err")));
  return seconds_since(start);
}

std::string read_all(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

double number_after(const std::string& text, const std::string& key) {
  std::size_t at = text.find(key);
  return at == std::string::npos ? 0 : std::atof(text.c_str() + at + key.size());
}

double size_of(const std::string& path) {
  if (!std::filesystem::is_directory(path))
    return static_cast<double>(std::filesystem::file_size(path));
  double bytes = 0;
  const std::filesystem::recursive_directory_iterator files(path);
  for (const auto& entry : files) {
    if (entry.is_regular_file()) bytes += static_cast<double>(entry.file_size());
  }
  return bytes;
}

double cpu_seconds(pid_t pid) {
  std::string text = read_all(fmt::format("/proc/{}/stat", pid));
  long user = 0, system = 0;
  std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) end(fmt::format("process {} is gone", pid));
  std::sscanf(text.c_str() + name_end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld",
              &user, &system);
  return static_cast<double>(user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double memory_mib(pid_t pid) {
  return number_after(read_all(fmt::format("/proc/{}/status", pid)), "VmRSS:") / 1024;
}

std::string Http::post(const std::string& path, const std::string& body,
                       std::vector<std::string> headers) {
  replica::HttpClient::Request request;
  request.url = url_ + path;
  request.headers = std::move(headers);
  request.body = Bytes(body.begin(), body.end());
  return ask(std::move(request));
}

std::string Http::get(const std::string& path) {
  replica::HttpClient::Request request;
  request.url = url_ + path;
  return ask(std::move(request));
}

double Http::metric(const std::string& name) {
  return number_after(get("/metrics"), "\noffprint_" + name + " ");
}

std::string Http::sql(const std::string& database, const std::string& sql,
                      std::vector<std::string> headers) {
  return post("/db/" + database + "/query", fmt::format("{{\"sql\":\"{}\"}}", sql),
              std::move(headers));
}

std::string Http::ask(replica::HttpClient::Request request) {
  const std::string url = request.url;
  client_->received().clear();
  check(client_->start(std::move(request)));
  std::string answer;
  for (;;) {
    auto event = client_->wait(120'000);
    if (!event || *event == replica::HttpClient::Event::kIdle)
      end(fmt::format("{}: {}", url, event ? "no answer" : event.error().message()));
    answer += as_text(client_->received());
    client_->received().clear();
    if (*event != replica::HttpClient::Event::kEnd) continue;
    if (client_->status() / 100 != 2) end(fmt::format("{}: {} {}", url, client_->status(), answer));
    return answer;
  }
}

Server::Server(const std::string& folder, const std::string& name,
               const std::vector<std::string>& options, const std::string& listen) {
  const std::string log = folder + "/" + name + ".log";
  std::vector<std::string> arguments = {program(),           "serve",    "--data",
                                        folder + "/" + name, "--listen", listen};
  arguments.insert(arguments.end(), options.begin(), options.end());
  child_ = std::make_unique<Child>(std::move(arguments), log);
  for (auto start = Clock::now(); seconds_since(start) < 60;) {
    const std::string text = read_all(log);
    const std::size_t at = text.find("http://");
    if (at != std::string::npos && text.find(',', at) != std::string::npos) {
      url_ = text.substr(at, text.find(',', at) - at);
      http_ = std::make_unique<Http>(url_);
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  end(fmt::format("the server did not start: {}", read_all(log + ".err")));
}

Measured load(const std::string& url, const char* mode, int clients, double seconds,
              const std::vector<std::string>& options) {
  std::string command =
      fmt::format("{} bench --json --mode {} --clients {} --seconds {} --server {} {}", program(),
                  mode, clients, seconds, url, joined(options));
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::string text;
  std::array<char, 4096> buffer;
  while (std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe))
    text.append(buffer.data(), got);
  if (::pclose(pipe) != 0) end(fmt::format("{}: {}", command, text));
  return {number_after(text, "\"requests_per_s\":"), number_after(text, "\"p50_us\":"),
          number_after(text, "\"p99_us\":"), number_after(text, "\"server_cpu_us\":")};
}

}  // namespace offprint::bench
