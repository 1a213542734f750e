#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "database/testing.h"
#include "ltx/checksum.h"
#include "sqlite/connection.h"
#include "tail/tailer.h"

// What the tests of this folder share: a program's file, and a store with a database that follows
// it.
namespace offprint::tail::testing {

using database::DatabaseName;

inline bool wait_until(const std::function<bool()>& holds, double seconds = 20) {
  Deadline deadline =
      SteadyClock::now() + std::chrono::milliseconds(static_cast<int>(seconds * 1000));
  while (!holds()) {
    if (SteadyClock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

class TailTest : public database::testing::StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    path_ = folder_.path() + "/app/program.db";
    std::filesystem::create_directories(folder_.path() + "/app");
    tail_options_.files = {{name("orders"), path_}};
    tail_options_.each.directory = folder_.path() + "/data/tail";
    tail_options_.each.quiet = std::chrono::milliseconds(200);
  }
  void TearDown() override {
    tailer_.reset();
    store_.reset();
  }

  // The program's connection; in WAL mode unless `journal_mode` says otherwise.
  sqlite::Connection program(const std::string& journal_mode = "WAL") {
    sqlite::Connection::Options options;
    options.create = true;
    options.busy_timeout_ms = 10'000;
    auto connection = sqlite::Connection::open(path_, options);
    EXPECT_TRUE(connection) << connection.error().message();
    EXPECT_TRUE(connection->query_text(("PRAGMA journal_mode=" + journal_mode).c_str()));
    return *std::move(connection);
  }
  using StoreTest::run;
  void run(sqlite::Connection& connection, const std::string& sql) {
    auto done = connection.execute(sql.c_str());
    ASSERT_TRUE(done) << sql << ": " << done.error().message();
  }

  void start_tail() {
    auto tailer = Tailer::create(tail_options_, *store_);
    ASSERT_TRUE(tailer) << tailer.error().message();
    tailer_ = *std::move(tailer);
    ASSERT_TRUE(tailer_->start());
  }
  TailStatus status() { return *tailer_->status("orders"); }

  // Every page of the file equals that of the database, whose checksum is right.
  ::testing::AssertionResult equal() {
    auto copy = store_->snapshot(name("orders"));
    if (!copy) return ::testing::AssertionFailure() << copy.error().message();
    auto source = SourceFile::open(path_);
    if (!source) return ::testing::AssertionFailure() << source.error().message();
    if (auto begun = (*source)->begin(); !begun)
      return ::testing::AssertionFailure() << begun.error().message();
    auto count = (*source)->page_count();
    if (!count || *count != (*copy)->page_count())
      return ::testing::AssertionFailure()
             << (*copy)->page_count() << " pages, not " << count.value_or(0);
    Checksum checksum = ltx::kEmptyDatabase;
    for (PageNo page = 1; page <= *count; ++page) {
      if (page == ltx::lock_page((*copy)->page_size())) continue;
      auto theirs = (*source)->page(page);
      if (!theirs) return ::testing::AssertionFailure() << theirs.error().message();
      auto ours = (*copy)->page(page);
      if (!ours) return ::testing::AssertionFailure() << ours.error().message();
      if (!std::ranges::equal(*ours, *theirs))
        return ::testing::AssertionFailure() << "page " << page << " differs";
      checksum = ltx::toggle(checksum, ltx::page_checksum(page, *ours));
    }
    if (checksum != (*copy)->position().checksum)
      return ::testing::AssertionFailure() << "the checksum is wrong";
    return ::testing::AssertionSuccess();
  }
  void expect_equal_soon() {
    wait_until([&] { return static_cast<bool>(equal()); });
    EXPECT_TRUE(equal()) << status().error;
  }

  std::string path_;
  TailerOptions tail_options_;
  std::unique_ptr<Tailer> tailer_;
};

}  // namespace offprint::tail::testing
