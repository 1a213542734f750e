// offprint bench: how fast a server answers, and what an answer costs it.
#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "main/commands.h"
#include "main/load_generator.h"
#include "main/remote.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

constexpr int kRows = 10'000;  // to read from
constexpr int kBatchRows = 100;

enum class Mode { kInsert, kRead, kBatch, kEmpty };
enum class Api { kPlain, kHrana, kD1 };

struct BenchOptions {
  RemoteOptions remote;
  std::string mode = "insert", api = "hrana", database, primary;
  int clients = 64, databases = 1;
  bool session = false;
  double seconds = 5;
  bool json = false;
};

// Takes the database away that was made for the run.
class BenchDatabase {
 public:
  BenchDatabase(const BenchOptions& options, std::string server)
      : server_(std::move(server)), remote_(options.remote), keep_(!options.database.empty()) {
    std::random_device random;
    name_ = keep_ ? options.database : fmt::format("bench-{:08x}", random());
  }
  BenchDatabase(const BenchDatabase&) = delete;
  BenchDatabase& operator=(const BenchDatabase&) = delete;
  ~BenchDatabase() {
    if (keep_ || !made_) return;
    HttpCall call;
    call.method = "DELETE";
    call.url = server_ + "/v1/databases/" + name_;
    (void)remote_.request(call);
  }
  const std::string& name() const { return name_; }

  Result<> make() {
    Result<HttpAnswer> created = post("/v1/databases", fmt::format(R"({{"name":"{}"}})", name_));
    if (!created && created.error().code() != Code::kConflict) return fail(created.error());
    made_ = created.has_value();
    return query("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT, n INTEGER)");
  }
  Result<> fill() {
    std::string sql = fmt::format(
        "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {}) INSERT OR "
        "IGNORE INTO t (id, name, "
        "n) SELECT x, 'name ' || x, x FROM c",
        kRows);
    return query(sql);
  }
  // Of the state that it was left in when it was made or filled.
  const std::string& bookmark() const { return bookmark_; }

 private:
  Result<> query(const std::string& sql) {
    OFFPRINT_TRY_ASSIGN(HttpAnswer answer,
                        post("/db/" + name_ + "/query", fmt::format(R"({{"sql":"{}"}})", sql)));
    server::JsonReader reader;
    OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
    bookmark_ = json_text(root, "bookmark");
    return {};
  }
  Result<HttpAnswer> post(const std::string& path, const std::string& body) {
    HttpCall call;
    call.method = "POST";
    call.url = server_ + path;
    call.body = body;
    return remote_.request(call);
  }

  const std::string server_;
  Remote remote_;
  const bool keep_;
  bool made_ = false;
  std::string name_;
  std::string bookmark_;
};

// User and system time of a process in seconds, from /proc/PID/stat; nothing where there is none.
std::optional<double> cpu_seconds(long pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  unsigned long user = 0, system = 0;
  // The fields from the third on; utime and stime are the 14th and 15th.
  if (std::sscanf(text.c_str() + name_end + 2,
                  "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) {
    return std::nullopt;
  }
  return static_cast<double>(user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

// The server's process, when it is on this machine; 0 otherwise.
long local_pid(const BenchOptions& options, const std::string& server) {
  Remote remote(options.remote);
  HttpCall call;
  call.url = server + "/version";
  Result<HttpAnswer> answer = remote.request(call);
  if (!answer) return 0;
  server::JsonReader reader;
  auto root = reader.parse(answer->body);
  long pid = root ? std::atol(json_text(*root, "pid").c_str()) : 0;
  std::ifstream name(fmt::format("/proc/{}/comm", pid));
  std::string command;
  bool is_offprint = pid > 0 && std::getline(name, command) && command == "offprint";
  bool is_loopback = server.find("://127.") != std::string::npos ||
                     server.find("://localhost") != std::string::npos ||
                     server.find("://[::1]") != std::string::npos;
  return is_offprint && is_loopback ? pid : 0;
}

// Every text is new, so that neither side can answer from a cache of texts. The databases take
// turns.
class Requests {
 public:
  Requests(Mode mode, Api api, const BenchOptions& options, const std::string& host,
           std::span<const std::unique_ptr<BenchDatabase>> databases)
      : mode_(mode), api_(api) {
    const std::string& token = options.remote.token;
    constexpr std::array kPaths = {"query", "v2/pipeline", "query?resultsFormat=NONE"};
    for (const auto& database : databases) {
      std::string session;
      if (options.session)
        session = fmt::format(
            "{}: {}\r\n", api == Api::kD1 ? "x-cf-d1-session-commit-token" : "Offprint-Bookmark",
            database->bookmark());
      heads_.push_back(
          fmt::format("POST /db/{}/{} HTTP/1.1\r\nHost: {}\r\nContent-Type: "
                      "application/json\r\n{}{}Content-Length: ",
                      database->name(), kPaths.at(static_cast<std::size_t>(api)), host,
                      token.empty() ? "" : "Authorization: Bearer " + token + "\r\n", session));
    }
  }

  void append(std::string& to) {
    if (mode_ == Mode::kEmpty) {
      to += "GET /health HTTP/1.1\r\nHost: offprint\r\n\r\n";
      return;
    }
    body_ =
        api_ == Api::kHrana ? R"({"requests":[{"type":"execute","stmt":{"sql":")" : R"({"sql":")";
    append_sql();
    body_ += api_ == Api::kHrana ? R"("}},{"type":"close"}]})" : R"("})";
    to += heads_[count_ % heads_.size()];
    server::append_unsigned(to, body_.size());
    to += "\r\n\r\n";
    to += body_;
  }

 private:
  void append_sql() {
    auto at = std::back_inserter(body_);
    std::uint64_t number = ++count_;
    switch (mode_) {
      case Mode::kRead:
        fmt::format_to(at, "SELECT id, name, n FROM t WHERE id = {} AND n < {}",
                       random_() % kRows + 1, number + kRows);
        break;
      case Mode::kInsert:
        fmt::format_to(at, "INSERT INTO t (name, n) VALUES ('name {}', {})", number, number);
        break;
      case Mode::kBatch:
        body_ += "INSERT INTO t (name, n) VALUES ";
        for (int i = 0; i < kBatchRows; ++i)
          fmt::format_to(at, "{}('name {}', {})", i == 0 ? "" : ",", number, i);
        break;
      case Mode::kEmpty:
        break;
    }
  }

  const Mode mode_;
  const Api api_;
  std::vector<std::string> heads_;  // of each database
  std::string body_;
  std::uint64_t count_ = 0;
  std::minstd_rand random_{std::random_device{}()};
};

struct Report {
  LoadResult load;
  std::optional<double> server_us;  // of CPU for each request
  double client_us = 0;
};

void print(const BenchOptions& options, const Report& report) {
  const LoadResult& load = report.load;
  double rate = static_cast<double>(load.requests) / load.seconds;
  std::string server_us = report.server_us ? fmt::format("{:.2f}", *report.server_us) : "null";
  if (options.json) {
    fmt::print(
        R"({{"mode":"{}","api":"{}","clients":{},"seconds":{:.3f},"requests":{},"errors":{},"requests_per_s":{:.1f},)"
        R"("p50_us":{},"p99_us":{},"max_us":{},"server_cpu_us":{},"client_cpu_us":{:.2f}}})"
        "\n",
        options.mode, options.api, options.clients, load.seconds, load.requests, load.errors, rate,
        load.latency.quantile(0.5), load.latency.quantile(0.99), load.latency.max(), server_us,
        report.client_us);
    return;
  }
  fmt::print("{} with {} clients, {:.1f} s: {:.0f} requests/s", options.mode, options.clients,
             load.seconds, rate);
  if (options.mode == "batch") fmt::print(", {:.0f} rows/s", rate * kBatchRows);
  fmt::print("\nlatency: p50 {} µs, p90 {} µs, p99 {} µs, slowest {} µs\n",
             load.latency.quantile(0.5), load.latency.quantile(0.9), load.latency.quantile(0.99),
             load.latency.max());
  fmt::print("CPU a request: server {}, this program {:.1f} µs\n",
             report.server_us ? fmt::format("{:.1f} µs", *report.server_us)
                              : "not known (it is not on this machine)",
             report.client_us);
  if (load.errors > 0) fmt::print("errors: {}; the first: {}\n", load.errors, load.first_error);
}

Result<Report> measure(const BenchOptions& options, const std::string& server) {
  Mode mode = options.mode == "read"    ? Mode::kRead
              : options.mode == "batch" ? Mode::kBatch
              : options.mode == "empty" ? Mode::kEmpty
                                        : Mode::kInsert;
  Api api = options.api == "plain" ? Api::kPlain : options.api == "d1" ? Api::kD1 : Api::kHrana;
  if (!server.starts_with("http://"))
    return fail(Code::kInvalid, "the load generator speaks http:// only, not TLS");
  std::string host = server.substr(7);
  if (host.find('/') != std::string::npos)
    return fail(Code::kInvalid, "--server must be http://HOST:PORT alone");
  std::size_t colon = host.rfind(':');
  bool has_port = colon != std::string::npos && host.find(']', colon) == std::string::npos;
  std::vector<std::unique_ptr<BenchDatabase>> databases;
  for (int i = 0; i < options.databases; ++i) {
    databases.push_back(std::make_unique<BenchDatabase>(
        options, options.primary.empty() ? server : options.primary));
    OFFPRINT_TRY(databases.back()->make());
    if (mode == Mode::kRead) OFFPRINT_TRY(databases.back()->fill());
  }
  long pid = local_pid(options, server);
  std::optional<double> server_before, server_after;
  double client_before = 0, client_after = 0;
  LoadOptions load;
  load.host = has_port ? host.substr(0, colon) : host;
  if (load.host.starts_with('[')) load.host = load.host.substr(1, load.host.size() - 2);
  load.port = has_port ? host.substr(colon + 1) : "80";
  load.clients = options.clients;
  load.duration_ms = static_cast<int>(options.seconds * 1000);
  load.on_start = [&] {
    server_before = cpu_seconds(pid);
    client_before = cpu_seconds(::getpid()).value_or(0);
  };
  load.on_end = [&] {
    server_after = cpu_seconds(pid);
    client_after = cpu_seconds(::getpid()).value_or(0);
  };
  Requests requests(mode, api, options, host, databases);
  Report report;
  OFFPRINT_TRY_ASSIGN(report.load, run_load(load, [&](std::string& to) { requests.append(to); }));
  auto answered = static_cast<double>(std::max<std::uint64_t>(report.load.requests, 1));
  if (server_before && server_after)
    report.server_us = (*server_after - *server_before) * 1e6 / answered;
  report.client_us = (client_after - client_before) * 1e6 / answered;
  return report;
}

int run(const BenchOptions& options) {
  Result<std::string> server = parse_url(options.remote.server);
  if (!server) return report_usage(server.error().message());
  if (options.databases > 1 && !options.database.empty())
    return report_usage("--database names one database, --databases asks for more");
  if (server->starts_with("https://"))
    return report_usage("bench speaks http:// only: it would measure the cost of its own TLS");
  Result<Report> report = measure(options, *server);
  if (!report) return offprint::report(report.error());
  print(options, *report);
  return report->load.errors == 0 && report->load.requests > 0 ? kExitDone : kExitFailed;
}

}  // namespace

void add_bench(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "bench", "Puts load on a server and measures it, in a database of its own.");
  auto options = std::make_shared<BenchOptions>();
  command
      ->add_option("--mode", options->mode,
                   "insert: one row; read: one row by its key; batch: 100 rows inserted; empty: a "
                   "request that does nothing, the floor of the others")
      ->check(CLI::IsMember({"insert", "read", "batch", "empty"}))
      ->capture_default_str();
  command
      ->add_option("--api", options->api,
                   "hrana: libSQL's pipelines; plain: /query; d1: /query as D1's bindings send it")
      ->check(CLI::IsMember({"hrana", "plain", "d1"}))
      ->capture_default_str();
  command
      ->add_option("--databases", options->databases,
                   "as many databases take turns, each with its share of the requests")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_flag("--session", options->session,
                    "each request carries the bookmark of its database's last preparation");
  command->add_option("--primary", options->primary,
                      "URL where databases are made, when --server is a copy of that node");
  command
      ->add_option("--clients", options->clients,
                   "connections, each busy with one request at a time")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  command->add_option("--seconds", options->seconds, "how long, after half a second of warming up")
      ->check(CLI::Range(0.1, 86'400.0))
      ->capture_default_str();
  command->add_option("--database", options->database,
                      "use and keep this one; without: one that is dropped afterwards");
  command->add_flag("--json", options->json, "the figures as one JSON object");
  add_server_option(*command, options->remote);
  add_token_option(*command, options->remote);
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace offprint
