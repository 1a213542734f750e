#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/http_connection.h"
#include "tests/process.h"

namespace offprint::testing {

// `offprint serve` on a folder of its own. Started again it has the same folder and port. Failures
// to start end the test program's current test. Thread: one (the test's main thread); the port may
// be read by any.
class ServerProcess {
 public:
  // `folder`/data is the server's; `folder`/serve.log is where it speaks.
  explicit ServerProcess(const TemporaryFolder& folder, std::vector<std::string> options = {})
      : data_(folder / "data"), log_(folder / "serve.log"), options_(std::move(options)) {}

  // Waits until it serves. False, with a failure of the test, when it does not.
  bool start();
  // Does not wait for that.
  void begin_start();
  void kill();
  // SIGTERM; its exit code, or nothing when it did not end within `seconds`.
  std::optional<int> terminate(double seconds = 30);
  bool restart();
  void set_options(std::vector<std::string> options) { options_ = std::move(options); }

  // It listens there, in place of a port of its own.
  void set_port(std::uint16_t port) { port_ = port; }
  // Open files that the system allows it, from its next start on.
  void set_file_limit(int count) { file_limit_ = count; }

  bool running() { return process_ && process_->running(); }
  pid_t pid() const { return process_->pid(); }
  std::uint16_t port() const { return port_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::string database_url(const std::string& name) const { return url() + "/db/" + name; }
  const std::string& data() const { return data_; }
  std::string log() const { return file_text(log_); }

  // Over a connection of this object. Nothing when it was cut.
  std::optional<HttpConnection::Answer> request(const std::string& method, const std::string& path,
                                                const std::string& body = {});
  // POST /v1/databases; a failure of the test when it is refused. `settings`: ",\"page_size\":512".
  void create(const std::string& name, const std::string& settings = {});
  // Rows of a statement as JSON text; a failure of the test when it is refused.
  std::string query(const std::string& name, const std::string& sql,
                    const std::string& args = "[]");
  // A number of GET /metrics by its name without "offprint_"; 0 when there is none.
  std::uint64_t metric(const std::string& name);
  // Path of the hosted SQLite file that has such a table. Empty when there is none.
  std::string file_with_table(const std::string& table) const;
  // The program with arguments and OFFPRINT_SERVER set to this one.
  Finished run(const std::vector<std::string>& arguments, const std::string& input = {},
               double seconds = 60) const;

 private:
  const std::string data_, log_;
  std::vector<std::string> options_;
  int file_limit_ = 0;
  std::uint16_t port_ = 0;
  std::unique_ptr<Process> process_;
  std::unique_ptr<HttpConnection> connection_;
};

// `offprint follow`.
class FollowerProcess {
 public:
  FollowerProcess(const TemporaryFolder& folder, std::string url, std::string file,
                  std::vector<std::string> options = {})
      : url_(std::move(url)),
        file_(std::move(file)),
        log_(folder / "follow.log"),
        options_(std::move(options)) {}
  void start();
  void kill() { process_.reset(); }
  std::optional<int> terminate(double seconds = 30);
  bool running() { return process_ && process_->running(); }
  Process& process() { return *process_; }
  const std::string& file() const { return file_; }
  std::string log() const { return file_text(log_); }

 private:
  const std::string url_, file_, log_;
  const std::vector<std::string> options_;
  std::unique_ptr<Process> process_;
};

// A program with the system's own SQLite (Python's module) that holds one connection to a file.
class StockReader {
 public:
  // Read-only unless `uri_options` say otherwise.
  explicit StockReader(const std::string& file, const std::string& uri_options = "mode=ro");
  // The rows as JSON text, or "error: …".
  std::string query(const std::string& sql, double seconds = 30);

 private:
  Process process_;
};

// The program under test: OFFPRINT_TEST_PROGRAM, else that of the same build.
std::string program();
// Path of a helper script beside the tests.
std::string test_script(const std::string& name);

// What a statement answers on the file, soon: within 30 seconds.
void expect_soon(const std::string& file, const std::string& sql, const std::string& rows);

}  // namespace offprint::testing
