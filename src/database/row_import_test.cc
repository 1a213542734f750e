// Rows into hosted databases, and out of them: what neither their form nor HTTP has to do with.
#include "database/row_import.h"

#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "database/row_export.h"
#include "database/testing.h"

namespace offprint::database {
namespace {

// Rows (i, i * 10) of the columns a and b, one a line.
class CountingRows final : public RowReader {
 public:
  explicit CountingRows(int count) : count_(count) {}
  Result<> begin(std::size_t) override { return {}; }
  const std::vector<std::string>& columns() const override { return columns_; }
  Result<bool> next(FileRow& row) override {
    if (at_ == count_) return false;
    row.line = static_cast<std::uint64_t>(++at_);
    row.columns = columns_;
    row.cells.resize(2);
    row.cells[0].value = std::int64_t{at_};
    row.cells[1].value = std::to_string(at_ * 10);
    row.cells[1].bare = true;
    return true;
  }

 private:
  const int count_;
  int at_ = 0;
  const std::vector<std::string> columns_ = {"a", "b"};
};

// Values with commas between, rows with semicolons.
class PlainFormat final : public RowFormat {
 public:
  Result<> begin(const sqlite::Statement&, std::string&) override { return {}; }
  Result<> row(const sqlite::Statement& row, std::string& to) override {
    for (int i = 0; i < row.column_count(); ++i) {
      if (i > 0) to += ',';
      to += row.column_text(i);
    }
    to += ';';
    return {};
  }
};

class RowImportTest : public testing::StoreTest {
 protected:
  Result<ImportResult> import(int count,
                              const std::function<void(RowImportOptions&)>& change = {}) {
    std::string path = folder_.path() + "/rows";
    std::ofstream(path) << "rows";
    RowImportOptions options;
    options.table = "t";
    options.reader = [count](std::FILE*) { return std::make_unique<CountingRows>(count); };
    if (change) change(options);
    return import_rows(*store_, name("a"), path, options);
  }
  std::string message(const Result<ImportResult>& done) {
    return done ? "done" : done.error().message();
  }
  Result<std::unique_ptr<TextExport>> start_export(RowExportOptions options) {
    return export_rows(*store_, name("a"), std::move(options), std::make_unique<PlainFormat>());
  }
};

TEST_F(RowImportTest, IsOneTransaction) {
  create("a");
  auto create_table = [](RowImportOptions& options) { options.create = true; };
  auto done = import(3, create_table);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(done->statements, 3U);
  EXPECT_EQ(done->rows, 3U);
  EXPECT_EQ(done->bookmark, store_->info(name("a"))->bookmark);
  EXPECT_EQ(done->bookmark.txid.value, 1U);
  EXPECT_EQ(query("a", "SELECT sum(a), sum(b), max(typeof(b)) FROM t"), "6|60|integer");
  EXPECT_EQ(store_->info(name("none")).error().code(), Code::kNotFound);
}

TEST_F(RowImportTest, OthersReadAndAreRefusedToWriteMeanwhile) {
  create("a");
  create("other");
  run("a", {"CREATE TABLE t(a, b TEXT)", "INSERT INTO t VALUES (0, 0)"});
  std::string during, refused, elsewhere;
  auto watch = [&](RowImportOptions& options) {
    options.watcher = [&](const LoadProgress&) {
      if (!during.empty()) return true;
      during = query("a", "SELECT count(*) FROM t");
      refused = query("a", "INSERT INTO t VALUES (-1, 0)");
      elsewhere = query("other", "CREATE TABLE t(v)");
      return true;
    };
  };
  auto done = import(1000, watch);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(during, "1");
  EXPECT_NE(refused.find("IMPORT_RUNNING"), std::string::npos) << refused;
  EXPECT_EQ(elsewhere, "");
  EXPECT_EQ(query("a", "SELECT count(*), max(typeof(b)) FROM t"), "1001|text");
  EXPECT_EQ(query("a", "INSERT INTO t VALUES (-1, 0)"), "");
}

TEST_F(RowImportTest, CanBeCancelled) {
  create("a");
  auto cancel = [](RowImportOptions& options) {
    options.create = true;
    options.watcher = [](const LoadProgress&) { return false; };
  };
  EXPECT_TRUE(message(import(1000, cancel)).starts_with("JOB_CANCELLED"));
  EXPECT_EQ(query("a", "SELECT count(*) FROM sqlite_schema"), "0");
  EXPECT_EQ(store_->info(name("a"))->bookmark.txid.value, 0U);
}

TEST_F(RowImportTest, WhatEndsTheTransactionLeavesNothing) {
  create("a");
  run("a", {"CREATE TABLE t(a, b)",
            "CREATE TRIGGER two AFTER INSERT ON t WHEN new.a = 2 BEGIN SELECT RAISE(ROLLBACK, "
            "'not two'); END"});
  EXPECT_EQ(message(import(3)), "line 2: not two");
  EXPECT_EQ(query("a", "SELECT count(*) FROM t"), "0");
  EXPECT_EQ(query("a", "INSERT INTO t VALUES (1, 1)"), "");
  DatabaseLimits limits;
  limits.size_bytes_max = 64 << 10;
  ASSERT_TRUE(store_->set_limits(name("a"), limits));
  run("a", {"DROP TRIGGER two"});
  EXPECT_NE(message(import(100'000)).find(": database or disk is full"), std::string::npos);
  EXPECT_EQ(query("a", "SELECT count(*) FROM t"), "1");
  limits.writes_blocked = true;
  ASSERT_TRUE(store_->set_limits(name("a"), limits));
  EXPECT_NE(message(import(1)).find("DATABASE_BLOCKED"), std::string::npos);
}

TEST_F(RowImportTest, AnExportLetsGoAfterItsTimeLimit) {
  options_.copy_timeout_ms = 200;
  open();
  create("a");
  ASSERT_TRUE(import(10, [](RowImportOptions& options) { options.create = true; }));
  RowExportOptions table;
  table.table = "t";
  auto text = start_export(table);
  ASSERT_TRUE(text) << text.error().message();
  Deadline late = SteadyClock::now() + std::chrono::seconds(20);
  std::string to;
  Result<bool> more = true;
  while (more && SteadyClock::now() < late) {
    std::this_thread::yield();
    more = (*text)->next(to, 0);
  }
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code(), Code::kTimeout);
}

TEST_F(RowImportTest, AnExportComesInPieces) {
  create("a");
  ASSERT_TRUE(import(1000, [](RowImportOptions& options) { options.create = true; }));
  run("a", {"CREATE INDEX i ON t(b DESC, a)"});
  std::string whole;
  for (int i = 1; i <= 1000; ++i) whole += fmt::format("{},{};", i, i * 10);
  for (std::size_t piece : {1U, 100U, 1U << 20}) {
    RowExportOptions table;
    table.table = "t";
    auto text = start_export(table);
    ASSERT_TRUE(text) << text.error().message();
    std::string to;
    for (Result<bool> more = true; *more;) {
      std::size_t before = to.size();
      more = (*text)->next(to, piece);
      ASSERT_TRUE(more);
      if (*more) EXPECT_GE(to.size(), before + piece);
      EXPECT_LT(to.size(), before + piece + 20);
    }
    EXPECT_EQ(to, whole);  // in the table's order, not the index's
  }
}

}  // namespace
}  // namespace offprint::database
