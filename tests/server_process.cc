#include "tests/server_process.h"

#include <csignal>
#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "sqlite/connection.h"

namespace offprint::testing {

bool ServerProcess::start() {
  // The port of an earlier life may be in someone else's hands for a moment.
  for (int attempt = 0; attempt < 20; ++attempt) {
    begin_start();
    std::optional<std::string> line = process_->read_line(in_seconds(60));
    std::size_t address = line ? line->find("://127.0.0.1:") : std::string::npos;
    if (address != std::string::npos) {
      port_ = static_cast<std::uint16_t>(std::atoi(line->c_str() + address + 13));
      connection_ = std::make_unique<HttpConnection>(port_);
      return true;
    }
    if (log().find("in use") == std::string::npos) break;
  }
  ADD_FAILURE() << "the server did not start:\n" << log();
  return false;
}

void ServerProcess::begin_start() {
  Process::Options options;
  options.arguments = {program(), "serve",    "--data",
                       data_,     "--listen", "127.0.0.1:" + std::to_string(port_)};
  options.arguments.insert(options.arguments.end(), options_.begin(), options_.end());
  if (file_limit_ > 0) {
    std::string shell = "ulimit -n " + std::to_string(file_limit_) + " && exec \"$0\" \"$@\"";
    options.arguments.insert(options.arguments.begin(), {"sh", "-c", shell});
  }
  options.stderr_path = log_;
  process_ = std::make_unique<Process>(options);
}

void ServerProcess::kill() {
  if (process_) process_->kill();
}

std::optional<int> ServerProcess::terminate(double seconds) {
  process_->signal(SIGTERM);
  return process_->wait(in_seconds(seconds));
}

bool ServerProcess::restart() {
  kill();
  return start();
}

std::optional<HttpConnection::Answer> ServerProcess::request(const std::string& method,
                                                             const std::string& path,
                                                             const std::string& body) {
  return connection_->request(method, path, body);
}

void ServerProcess::create(const std::string& name, const std::string& settings) {
  auto answer = request("POST", "/v1/databases", "{\"name\":" + json_quoted(name) + settings + "}");
  ASSERT_TRUE(answer.has_value()) << "cut";
  ASSERT_EQ(answer->status, 201) << answer->body;
}

std::string ServerProcess::query(const std::string& name, const std::string& sql,
                                 const std::string& args) {
  auto answer = request("POST", "/db/" + name + "/query", sql_body(sql, args));
  if (!answer || answer->status != 200) {
    ADD_FAILURE() << sql << ": " << (answer ? answer->body : "cut") << "\n" << log();
    return {};
  }
  return rows_of(answer->body);
}

std::uint64_t ServerProcess::metric(const std::string& name) {
  auto answer = request("GET", "/metrics");
  std::string line = "\noffprint_" + name + " ";
  std::size_t at = answer ? answer->body.find(line) : std::string::npos;
  if (at == std::string::npos) return 0;
  return std::strtoull(answer->body.c_str() + at + line.size(), nullptr, 10);
}

std::string ServerProcess::file_with_table(const std::string& table) const {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(data_)) {
    if (entry.path().extension() != ".db") continue;
    sqlite::Connection::Options options;
    options.read_only = true;
    options.busy_timeout_ms = 5000;
    auto db = sqlite::Connection::open(entry.path().string(), options);
    if (!db) continue;
    auto found = db->prepare("SELECT 1 FROM sqlite_schema WHERE name = ?");
    if (!found) continue;
    found->bind_text(1, table);
    if (auto row = found->step(); row && *row) return entry.path().string();
  }
  return {};
}

Finished ServerProcess::run(const std::vector<std::string>& arguments, const std::string& input,
                            double seconds) const {
  std::vector<std::string> all = {program()};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return run_program(all, {{"OFFPRINT_SERVER", url()}}, input, seconds);
}

void FollowerProcess::start() {
  Process::Options options;
  options.arguments = {program(), "follow", url_, file_};
  options.arguments.insert(options.arguments.end(), options_.begin(), options_.end());
  options.stdout_path = log_;
  options.stderr_path = log_;
  process_ = std::make_unique<Process>(options);
}

std::optional<int> FollowerProcess::terminate(double seconds) {
  process_->signal(SIGTERM);
  return process_->wait(in_seconds(seconds));
}

StockReader::StockReader(const std::string& file, const std::string& uri_options)
    : process_([&] {
        Process::Options options;
        options.arguments = {"python3", test_script("stock_sqlite.py"), file, uri_options};
        options.pipe_input = true;
        return options;
      }()) {}

std::string StockReader::query(const std::string& sql, double seconds) {
  if (!process_.write(json_quoted(sql) + "\n")) return "error: the reader has ended";
  return process_.read_line(in_seconds(seconds)).value_or("error: no answer in time");
}

std::string program() {
  const char* other = std::getenv("OFFPRINT_TEST_PROGRAM");
  return other != nullptr ? other : OFFPRINT_PROGRAM;
}

std::string test_script(const std::string& name) {
  return (std::filesystem::path(__FILE__).parent_path() / name).string();
}

void expect_soon(const std::string& file, const std::string& sql, const std::string& rows) {
  StockReader reader(file);
  std::string found;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  do {
    found = reader.query(sql);
    if (found == rows) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  } while (std::chrono::steady_clock::now() < until);
  EXPECT_EQ(found, rows) << sql;
}

}  // namespace offprint::testing
