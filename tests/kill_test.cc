// The server is killed at random moments while clients write and readers read.
//
// Each round: 32 clients write to three databases at once, one request after the other, and note
// what they were told; two readers, one over HTTP and one with the system's SQLite on the server's
// own file, note what they saw; kill -9; start again; compare. OFFPRINT_TEST_ROUNDS says how many
// rounds, OFFPRINT_TEST_SEED repeats a run.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include <fmt/format.h>
#include <simdjson.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

constexpr int kClients = 32;
constexpr std::array kDatabases = {"kill/a", "kill/b", "kill/c"};
constexpr const char* kSchema =
    "CREATE TABLE w (client INT, seq INT, part INT, payload TEXT, PRIMARY KEY (client, seq, part))";

const char* database_of(int client) {
  return kDatabases[static_cast<std::size_t>(client) % kDatabases.size()];
}

// What became of a client's requests; a request writes `parts` rows with one seq, all or none.
struct Told {
  std::map<std::int64_t, int> acknowledged;  // seq -> parts
  std::set<std::int64_t> refused;
  std::map<std::int64_t, int> unknown;  // cut off before an answer
};

// How long a payload is: most are small, some do not fit a page, a few go to files of their own.
std::size_t payload_size(std::mt19937_64& random) {
  std::uint64_t roll = random() % 1000;
  return roll < 900 ? 20 + roll / 10 : roll < 997 ? 5'000 + roll * 10 : 1'500'000;
}

class Writer {
 public:
  Writer(int client, std::uint16_t port, std::int64_t first_seq, std::uint64_t seed)
      : client_(client), seq_(first_seq), random_(seed), connection_(port) {}

  void run(const std::atomic<bool>& stop) {
    while (!stop) {
      ++seq_;
      bool refuse = random_() % 8 == 0;
      int parts = random_() % 4 == 0 ? 3 : 1;
      std::string body = request_body(parts, refuse);
      auto answer =
          connection_.request("POST", std::string("/db/") + database_of(client_) + "/query", body);
      if (!answer) {
        if (!connection_.refused()) told_.unknown[seq_] = parts;
        return;
      }
      note(*answer, parts, refuse);
    }
  }
  Told& told() { return told_; }
  std::int64_t seq() const { return seq_; }
  const std::string& surprise() const { return surprise_; }

 private:
  // An array is one transaction; the one to be refused breaks the primary key at its end.
  std::string request_body(int parts, bool refuse) {
    std::string list;
    for (int part = 0; part < parts + (refuse ? 1 : 0); ++part) {
      std::string row =
          fmt::format("INSERT INTO w VALUES ({}, {}, {}, printf('%.*c', {}, 'x'))", client_, seq_,
                      std::min(part, parts - 1), payload_size(random_));
      list += (part == 0 ? "" : ",") + sql_body(row);
    }
    return parts == 1 && !refuse ? list : "[" + list + "]";
  }

  void note(const HttpConnection::Answer& answer, int parts, bool refuse) {
    if (answer.status == 200 && !refuse) {
      told_.acknowledged[seq_] = parts;
    } else if (answer.status == 503 || (answer.status == 400 && refuse)) {
      told_.refused.insert(seq_);
    } else {
      told_.unknown[seq_] = parts;
      surprise_ = fmt::format("client {} seq {}: {} {}", client_, seq_, answer.status, answer.body);
    }
  }

  const int client_;
  std::int64_t seq_;
  std::mt19937_64 random_;
  HttpConnection connection_;
  Told told_;
  std::string surprise_;
};

// The greatest seq of each client that anybody has seen.
class Seen {
 public:
  void note(int client, std::int64_t seq) {
    std::lock_guard lock(mutex_);
    greatest_[client] = std::max(greatest_[client], seq);
    ++notes_;
  }
  std::map<int, std::int64_t> take() {
    std::lock_guard lock(mutex_);
    return std::move(greatest_);
  }
  std::size_t notes() const { return notes_; }

 private:
  std::mutex mutex_;
  std::map<int, std::int64_t> greatest_;  // guarded by mutex_
  std::size_t notes_ = 0;
};

// [[a, b, …], …] of integers.
std::vector<std::vector<std::int64_t>> parse_rows(const std::string& text) {
  std::vector<std::vector<std::int64_t>> rows;
  simdjson::dom::parser parser;
  simdjson::padded_string padded(text);
  simdjson::dom::element root;
  if (parser.parse(padded).get(root) != simdjson::SUCCESS) return rows;
  simdjson::dom::array parsed = root.get_array().value();
  for (simdjson::dom::element row : parsed) {
    rows.emplace_back();
    simdjson::dom::array values = row.get_array().value();
    for (simdjson::dom::element value : values) rows.back().push_back(value.get_int64().value());
  }
  return rows;
}

void watch_over_http(std::uint16_t port, Seen& seen, const std::atomic<bool>& stop) {
  HttpConnection connection(port);
  for (std::size_t i = 0; !stop; ++i) {
    auto answer = connection.request(
        "POST", std::string("/db/") + kDatabases[i % kDatabases.size()] + "/query",
        sql_body("SELECT client, max(seq) FROM w GROUP BY client"));
    if (!answer) return;
    for (const auto& row : parse_rows(rows_of(answer->body)))
      seen.note(static_cast<int>(row[0]), row[1]);
  }
}

class KillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(server_.start());
    for (const char* name : kDatabases) {
      server_.create(name);
      server_.query(name, kSchema);
    }
    watched_file_ = server_.file_with_table("w");
    ASSERT_FALSE(watched_file_.empty());
  }

  Process::Options watcher() const {
    Process::Options options;
    options.arguments = {"python3", test_script("row_watcher.py"), watched_file_};
    options.pipe_input = true;
    options.stderr_path = folder_ / "watcher.log";
    return options;
  }

  // Everybody at work until the server is killed.
  void run_until_killed(double seconds) {
    std::vector<std::unique_ptr<Writer>> writers;
    std::vector<std::thread> threads;
    std::atomic<bool> stop = false;
    Process stock(watcher());
    for (int client = 0; client < kClients; ++client) {
      writers.push_back(std::make_unique<Writer>(client, server_.port(), next_seq_, random_()));
      threads.emplace_back([&, writer = writers.back().get()] { writer->run(stop); });
    }
    threads.emplace_back([&] { watch_over_http(server_.port(), seen_, stop); });
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    server_.kill();
    std::this_thread::sleep_for(
        std::chrono::milliseconds(20));  // the stock reader reads on in what was left
    stop = true;
    for (std::thread& thread : threads) thread.join();
    take_stock_view(stock);
    for (int client = 0; client < kClients; ++client) {
      Writer& writer = *writers[static_cast<std::size_t>(client)];
      told_[client] = std::move(writer.told());
      next_seq_ = std::max(next_seq_, writer.seq());
      EXPECT_EQ(writer.surprise(), "");
    }
  }

  void take_stock_view(Process& stock) {
    stock.close_input();
    std::optional<std::string> line = stock.read_line(in_seconds(30));
    ASSERT_TRUE(line.has_value()) << file_text(folder_ / "watcher.log");
    simdjson::dom::parser parser;
    simdjson::padded_string padded(*line);
    simdjson::dom::element root = parser.parse(padded);
    stock_reads_ += root["reads"].get_int64().value();
    simdjson::dom::object seen = root["seen"].get_object().value();
    for (auto field : seen) {
      seen_.note(std::stoi(std::string(field.key)), field.value.get_int64().value());
    }
  }

  // What the databases hold of this round: client -> seq -> number of parts.
  std::map<int, std::map<std::int64_t, int>> stored(std::int64_t after) {
    std::map<int, std::map<std::int64_t, int>> rows;
    for (const char* name : kDatabases) {
      EXPECT_EQ(server_.query(name, "PRAGMA integrity_check"), "[[\"ok\"]]");
      std::string text = server_.query(
          name, fmt::format("SELECT client, seq, count(*) FROM w WHERE seq > {} GROUP BY "
                            "client, seq",
                            after));
      for (const auto& row : parse_rows(text))
        rows[static_cast<int>(row[0])][row[1]] = static_cast<int>(row[2]);
    }
    return rows;
  }

  void compare(std::int64_t round_start) {
    auto rows = stored(round_start);
    std::map<int, std::int64_t> seen = seen_.take();
    for (auto& [client, told] : told_) {
      std::map<std::int64_t, int>& there = rows[client];
      for (auto [seq, parts] : told.acknowledged) {
        EXPECT_EQ(there[seq], parts)
            << "acknowledged, but lost: client " << client << " seq " << seq;
      }
      for (std::int64_t seq : told.refused) {
        EXPECT_FALSE(there.contains(seq))
            << "refused, but there: client " << client << " seq " << seq;
      }
      for (auto [seq, parts] : told.unknown) {
        EXPECT_TRUE(!there.contains(seq) || there[seq] == parts)
            << "half there: client " << client << " seq " << seq;
      }
      for (auto [seq, parts] : there) {
        bool known = told.acknowledged.contains(seq) || told.unknown.contains(seq);
        EXPECT_TRUE(known) << "invented: client " << client << " seq " << seq;
      }
      EXPECT_TRUE(seen[client] <= round_start || there.contains(seen[client]))
          << "seen by a reader, then gone: client " << client << " seq " << seen[client];
      acknowledged_ += told.acknowledged.size();
      refused_ += told.refused.size();
      unknown_ += told.unknown.size();
    }
    told_.clear();
  }

  // Nothing of the rounds before has gone since.
  void compare_totals() {
    for (std::size_t i = 0; i < kDatabases.size(); ++i) {
      std::string count =
          server_.query(kDatabases[i], "SELECT count(*), coalesce(max(seq), 0) FROM w");
      auto rows = parse_rows(count);
      ASSERT_EQ(rows.size(), 1U);
      EXPECT_GE(rows[0][0], totals_[i]) << kDatabases[i];
      totals_[i] = rows[0][0];
    }
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
  std::string watched_file_;
  std::mt19937_64 random_{test_seed()};
  std::map<int, Told> told_;
  Seen seen_;
  std::array<std::int64_t, kDatabases.size()> totals_{};
  std::int64_t next_seq_ = 0, stock_reads_ = 0;
  std::size_t acknowledged_ = 0, refused_ = 0, unknown_ = 0;
};

TEST_F(KillTest, NoAcknowledgedWriteIsLost) {
  const int rounds = number_from_environment("OFFPRINT_TEST_ROUNDS", 8);
  Deadline enough = in_seconds(std::getenv("OFFPRINT_TEST_ROUNDS") ? 36'000 : 60);
  int done = 0;
  for (; done < rounds && SteadyClock::now() < enough && !HasFailure(); ++done) {
    std::int64_t round_start = next_seq_;
    double seconds = 0.05 + static_cast<double>(random_() % 1000) / 1000;
    run_until_killed(seconds);
    if (random_() % 4 == 0) {  // killed once more, while it recovers
      ServerProcess& again = server_;
      ASSERT_TRUE(again.restart());
      again.kill();
    }
    ASSERT_TRUE(server_.restart());
    compare(round_start);
    compare_totals();
  }
  fmt::print(
      "{} rounds: {} writes acknowledged, {} refused, {} unknown; {} views over HTTP and {} by "
      "stock SQLite\n",
      done, acknowledged_, refused_, unknown_, seen_.notes(), stock_reads_);
  EXPECT_GT(acknowledged_, 0U);
  EXPECT_GT(stock_reads_, 0);
  EXPECT_EQ(server_.terminate(), 0);
}

}  // namespace
}  // namespace offprint::testing
