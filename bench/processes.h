#pragma once

#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

#include "replica/http_client.h"

// Programs that are measured, as processes of their own. Whatever fails ends the benchmark with a
// message.
namespace offprint::bench {

// OFFPRINT_PROGRAM, else that of the release build.
std::string program();

// A child process; ended with the object (SIGTERM, and SIGKILL when that takes over 30 seconds).
class Child {
 public:
  // Its standard output goes to `log`, its errors to `log`.err.
  Child(std::vector<std::string> arguments, const std::string& log);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t pid() const { return pid_; }
  // Waits for the end: its exit code.
  int wait();

 private:
  pid_t pid_;
};

// Runs a program to its end: seconds that it took. One that fails ends the benchmark.
double run(const std::vector<std::string>& arguments, const std::string& log);

std::string read_all(const std::string& path);
// 0 when the key is not there.
double number_after(const std::string& text, const std::string& key);
// A size in bytes, of a file or of what a folder holds.
double size_of(const std::string& path);

// Of a process: user and system time in seconds; resident memory in MiB.
double cpu_seconds(pid_t pid);
double memory_mib(pid_t pid);

class Http {
 public:
  explicit Http(std::string url)
      : url_(std::move(url)), client_(replica::HttpClient::create().value()) {}

  const std::string& url() const { return url_; }
  // The answer's body; other statuses than 2xx end the benchmark.
  std::string post(const std::string& path, const std::string& body,
                   std::vector<std::string> headers = {});
  std::string get(const std::string& path);
  double metric(const std::string& name);
  // The answer's body.
  std::string sql(const std::string& database, const std::string& sql,
                  std::vector<std::string> headers = {});

 private:
  std::string ask(replica::HttpClient::Request request);

  std::string url_;
  std::unique_ptr<replica::HttpClient> client_;
};

// `offprint serve` on a folder of its own and a free port.
class Server {
 public:
  // What it keeps is in `folder`/NAME, its log is `folder`/NAME.log.
  Server(const std::string& folder, const std::string& name,
         const std::vector<std::string>& options = {}, const std::string& listen = "127.0.0.1:0");
  const std::string& url() const { return url_; }
  Http& http() { return *http_; }
  pid_t pid() const { return child_->pid(); }

 private:
  std::unique_ptr<Child> child_;
  std::string url_;
  std::unique_ptr<Http> http_;
};

struct Measured {
  double rate, p50_us, p99_us, cpu_us;
};
// `offprint bench` against a server; `options` are its own.
Measured load(const std::string& url, const char* mode, int clients, double seconds,
              const std::vector<std::string>& options = {});

}  // namespace offprint::bench
