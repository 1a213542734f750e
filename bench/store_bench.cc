// Durable single-row INSERTs and point SELECTs through the store, without HTTP, beside their floors
// in the same run: this disk's fdatasync on a preallocated file, and SQLite in process with WAL and
// synchronous=FULL. Usage: store_bench [FOLDER] [SECONDS]
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>

#include <sys/resource.h>

#include <fmt/format.h>

#include "bench/floors.h"
#include "database/session.h"
#include "database/store.h"

namespace {

using namespace offprint;
using namespace offprint::bench;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

class Load {
 public:
  Load(database::Store& store, bool reads, double seconds)
      : store_(store),
        reads_(reads),
        end_(Clock::now() +
             std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds))) {}

  void run(int clients) {
    active_ = clients;
    for (int i = 0; i < clients; ++i) submit();
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return active_ == 0; });
  }
  std::uint64_t count() const { return count_; }

 private:
  class OneRequest final : public database::Request {
   public:
    explicit OneRequest(Load& load) : load_(load) {
      std::uint64_t n = load.next_++;
      statement_.sql =
          load.reads_ ? fmt::format("SELECT name, n FROM t WHERE id = {}", n * 7919 % 100'000 + 1)
                      : fmt::format("INSERT INTO t(name, n) VALUES('name of a row', {})", n);
    }
    void run(database::Session& session) override {
      Sink sink;
      if (!session.execute(statement_, sink) && !session.lost()) std::abort();
    }
    void done(database::Outcome outcome) override {
      if (outcome.error) std::abort();
      load_.completed();
    }
    bool likely_read_only() const override { return load_.reads_; }

   private:
    class Sink final : public database::RowSink {
      void columns(const sqlite::Statement&) override {}
      Result<> row(const sqlite::Statement&) override { return {}; }
    };
    Load& load_;
    database::SqlStatement statement_;
  };

  void submit() {
    store_.submit(database::DatabaseName::parse("b").value(), std::make_unique<OneRequest>(*this));
  }
  void completed() {
    ++count_;
    if (Clock::now() < end_) {
      if (!reads_) return submit();
      return;
    }
    std::lock_guard lock(mutex_);
    if (--active_ == 0) ended_.notify_all();
  }

 public:
  void run_reads() {
    active_ = 1;
    while (Clock::now() < end_) submit();
  }

 private:
  database::Store& store_;
  const bool reads_;
  const Clock::time_point end_;
  std::atomic<std::uint64_t> next_{0};
  std::atomic<std::uint64_t> count_{0};
  std::mutex mutex_;
  std::condition_variable ended_;
  int active_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::string folder = argc > 1 ? argv[1] : "store-bench";
  double seconds = argc > 2 ? std::atof(argv[2]) : 3;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  double floor = fdatasync_rate(folder, 1);
  double plain = sqlite_rate(folder, seconds);
  fmt::print("fdatasync {:.0f}/s, SQLite in process FULL {:.0f}/s\n", floor, plain);
  database::StoreOptions options;
  options.directory = folder + "/data";
  auto store = database::Store::open(options).value();
  (void)store->create(database::DatabaseName::parse("b").value(), {});
  auto run_sql = [&](const char* sql) {
    auto db = database::DatabaseName::parse("b").value();
    struct Once final : database::Request {
      std::string sql;
      std::atomic<bool>* finished = nullptr;
      void run(database::Session& session) override { check(session.execute_script(sql)); }
      void done(database::Outcome) override {
        finished->store(true);
        finished->notify_all();
      }
      bool likely_read_only() const override { return false; }
    };
    std::atomic<bool> finished{false};
    auto request = std::make_unique<Once>();
    request->sql = sql;
    request->finished = &finished;
    store->submit(db, std::move(request));
    finished.wait(false);
  };
  run_sql("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)");
  for (int clients : {1, 16, 64, 256}) {
    auto before = store->metrics();
    double cpu = cpu_seconds();
    auto start = Clock::now();
    Load load(*store, false, seconds);
    load.run(clients);
    double wall = seconds_since(start);
    auto after = store->metrics();
    double rate = static_cast<double>(load.count()) / wall;
    fmt::print(
        "insert, {:3} clients: {:7.0f}/s = {:.2f} x SQLite, {:5.1f} us CPU each, {:.1f} a batch, "
        "{} syncs\n",
        clients, rate, rate / plain,
        (cpu_seconds() - cpu) / static_cast<double>(load.count()) * 1e6,
        static_cast<double>(load.count()) / static_cast<double>(after.batches - before.batches),
        after.journal_syncs - before.journal_syncs);
  }
  run_sql(
      "DELETE FROM t; INSERT INTO t(name, n) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + "
      "1 FROM c WHERE i < 100000) SELECT 'name of a row', i FROM c");
  double cpu = cpu_seconds();
  Load load(*store, true, seconds);
  load.run_reads();
  fmt::print("point select: {:.0f}/s, {:.1f} us CPU each\n",
             static_cast<double>(load.count()) / seconds,
             (cpu_seconds() - cpu) / static_cast<double>(load.count()) * 1e6);
  store.reset();
  std::filesystem::remove_all(folder);
}
