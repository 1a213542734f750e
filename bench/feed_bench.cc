// Change feeds and live queries: how soon who listens is told, and what 1,000 live queries cost.
// Usage: feed_bench [FOLDER] [WRITES]
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/figures.h"
#include "bench/floors.h"
#include "bench/processes.h"

namespace {

using namespace offprint;
using namespace offprint::bench;

constexpr int kRows = 100'000, kQueries = 1'000;

[[noreturn]] void give_up(const std::string& why) {
  fmt::print(stderr, "{}\n", why);
  std::exit(1);
}

// One request whose answer does not end.
class Stream {
 public:
  Stream(const std::string& url, const std::string& method, const std::string& path,
         const std::string& body = {}) {
    socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(url.substr(url.rfind(':') + 1))));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      give_up("no connection");
    const std::string request =
        fmt::format("{} {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", method, path,
                    body.size(), body);
    if (::send(socket_, request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size()))
      give_up("the request was not taken");
  }
  Stream(Stream&& other) noexcept
      : socket_(std::exchange(other.socket_, -1)), text_(std::move(other.text_)) {}
  ~Stream() {
    if (socket_ >= 0) ::close(socket_);
  }
  // Reads until there is such a text, and drops all up to it.
  void wait_for(const std::string& what) {
    for (;;) {
      if (std::size_t at = text_.find(what); at != std::string::npos) {
        text_.erase(0, at + what.size());
        return;
      }
      pollfd wanted{socket_, POLLIN, 0};
      if (::poll(&wanted, 1, 20'000) != 1) give_up("nothing comes: " + text_);
      char piece[65536];
      const ssize_t size = ::recv(socket_, piece, sizeof piece, 0);
      if (size <= 0) give_up("the stream was cut: " + text_);
      text_.append(piece, static_cast<std::size_t>(size));
    }
  }

 private:
  int socket_;
  std::string text_;
};

std::string bookmark_in(const std::string& answer) {
  const std::string key = "\"bookmark\":\"";
  const std::size_t from = answer.find(key) + key.size();
  return answer.substr(from, answer.find('"', from) - from);
}

struct Delays {
  std::vector<double> from_request, from_answer;
};

// Writes one after the other; each until the stream tells of it.
Delays notified(Http& http, Stream& stream, int writes, int id) {
  Delays delays;
  for (int i = 0; i < writes; ++i) {
    const auto begin = Clock::now();
    const std::string answer =
        http.sql("a", fmt::format("UPDATE t SET n = n + 1 WHERE id = {}", id));
    const double answered = seconds_since(begin) * 1e3;
    stream.wait_for("\"at\":\"" + bookmark_in(answer));
    const double told = seconds_since(begin) * 1e3;
    delays.from_request.push_back(told);
    delays.from_answer.push_back(std::max(0.0, told - answered));
  }
  return delays;
}

void report(const char* what, const Delays& delays) {
  fmt::print("{:<28} after the request {}\n", what, latencies(delays.from_request));
  fmt::print("{:<28} after its answer  {}\n", "", latencies(delays.from_answer));
}

// Updates of rows that no query asks for: milliseconds of each.
std::vector<double> unrelated(Http& http, int writes) {
  std::vector<double> took;
  for (int i = 0; i < writes; ++i) {
    const int id = 2 + i * 7'919 % (kRows - 3);
    const auto begin = Clock::now();
    http.sql("a", fmt::format("UPDATE t SET n = n + 1 WHERE id = {}", id % 100 == 1 ? id + 1 : id));
    took.push_back(seconds_since(begin) * 1e3);
  }
  return took;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string folder = std::filesystem::absolute(argc > 1 ? argv[1] : "feed-bench");
  const int writes = argc > 2 ? std::atoi(argv[2]) : 1'000;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  Server server(folder, "server");
  Http& http = server.http();
  http.post("/v1/databases", R"({"name":"a"})");
  http.sql("a", "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, filler TEXT)");
  http.sql("a", fmt::format("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r WHERE "
                            "i<{}) INSERT INTO t SELECT i, 0, printf('%080d', i) FROM r",
                            kRows));
  fmt::print("writes alone: {}\n", latencies(unrelated(http, writes)));
  {
    Stream changes(server.url(), "GET", "/db/a/changes");
    changes.wait_for("watermark");
    notified(http, changes, 20, 1);
    report("a line of the feed", notified(http, changes, writes, 1));
  }
  {
    Stream live(server.url(), "POST", "/db/a/live",
                R"({"sql":"SELECT * FROM t WHERE id = 1","key":["id"]})");
    live.wait_for("\"rows\":");
    notified(http, live, 20, 1);
    report("a live query", notified(http, live, writes, 1));
  }
  std::vector<Stream> streams;
  for (int i = 0; i < kQueries; ++i) {
    streams.emplace_back(
        server.url(), "POST", "/db/a/live",
        fmt::format(R"({{"sql":"SELECT * FROM t WHERE id = {}","key":["id"]}})", i * 100 + 1));
  }
  for (Stream& stream : streams) stream.wait_for("\"rows\":");
  const double runs = http.metric("live_query_runs_total");
  const double cpu = cpu_seconds(server.pid());
  fmt::print("writes beside {} live queries of other rows: {}\n", kQueries,
             latencies(unrelated(http, writes)));
  const double again = http.metric("live_query_runs_total") - runs;
  fmt::print("  queries run again: {:.3f} % of {} x {}; {:.0f} us of CPU for a write\n",
             100 * again / kQueries / writes, kQueries, writes,
             (cpu_seconds(server.pid()) - cpu) * 1e6 / writes);
  report("one of the 1,000", notified(http, streams[0], writes, 1));
  fmt::print("memory: {:.0f} MiB\n", memory_mib(server.pid()));
}
