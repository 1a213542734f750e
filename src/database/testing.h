#pragma once

#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "database/session.h"
#include "database/store.h"

// What the tests of this folder share: a store in a folder of its own, requests made of SQL texts.
namespace offprint::database::testing {

// What one statement answered: its code (0 or SQLite's extended code, -1 an error that is not
// SQLite's) and its rows.
struct Answer {
  int code = 0;
  std::string message;
  std::vector<std::string> rows;  // values joined by '|'
  std::int64_t changes = 0;
  std::int64_t last_insert_rowid = 0;
};

struct Answers {
  std::vector<Answer> statements;
  Outcome outcome;
};

class TextRequest final : public Request {
 public:
  TextRequest(std::vector<std::string> statements, bool keep)
      : statements_(std::move(statements)), keep_(keep) {}

  std::future<Answers> future() { return promise_.get_future(); }

  void run(Session& session) override {
    answers_.statements.clear();
    for (const std::string& sql : statements_) {
      Answer answer;
      Sink sink(answer);
      SqlStatement statement;
      statement.sql = sql;
      auto result = session.execute(statement, sink);
      if (session.lost()) return;
      if (result) {
        answer.changes = result->changes;
        answer.last_insert_rowid = result->last_insert_rowid;
      } else {
        answer.code = result.error().sqlite_code() != 0 ? result.error().sqlite_code() : -1;
        answer.message = result.error().message();
      }
      answers_.statements.push_back(std::move(answer));
    }
  }
  void done(Outcome outcome) override {
    answers_.outcome = std::move(outcome);
    promise_.set_value(std::move(answers_));
  }
  bool likely_read_only() const override {
    for (const std::string& sql : statements_) {
      if (!looks_read_only(sql)) return false;
    }
    return true;
  }
  bool keep_transaction() const override { return keep_; }

 private:
  class Sink final : public RowSink {
   public:
    explicit Sink(Answer& answer) : answer_(answer) {}
    void columns(const sqlite::Statement&) override {}
    Result<> row(const sqlite::Statement& statement) override {
      std::string text;
      for (int i = 0; i < statement.column_count(); ++i) {
        if (i > 0) text += '|';
        text += statement.column_type(i) == SQLITE_NULL ? "NULL"
                                                        : std::string(statement.column_text(i));
      }
      answer_.rows.push_back(std::move(text));
      return {};
    }

   private:
    Answer& answer_;
  };

  std::vector<std::string> statements_;
  bool keep_;
  Answers answers_;
  std::promise<Answers> promise_;
};

// A folder that goes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "offprint-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.directory = folder_.path() + "/data";
    options_.journal.segment_size = 4 << 20;
    open();
  }
  void open() {
    store_.reset();
    auto store = Store::open(options_);
    ASSERT_TRUE(store) << store.error().message();
    store_ = std::move(*store);
  }
  static DatabaseName name(const std::string& text) { return DatabaseName::parse(text).value(); }
  void create(const std::string& text, const CreateOptions& options = {}) {
    auto created = store_->create(name(text), options);
    ASSERT_TRUE(created) << created.error().message();
  }
  std::string file_of(const std::string& database) {
    return fmt::format("{}/databases/{:016x}.db", options_.directory,
                       store_->info(name(database))->id);
  }
  std::future<Answers> start(const std::string& database, std::vector<std::string> statements,
                             bool keep = false) {
    auto request = std::make_unique<TextRequest>(std::move(statements), keep);
    auto future = request->future();
    store_->submit(name(database), std::move(request));
    return future;
  }
  Answers run(const std::string& database, std::vector<std::string> statements, bool keep = false) {
    return start(database, std::move(statements), keep).get();
  }
  Answers run_held(const std::shared_ptr<HeldTransaction>& held,
                   std::vector<std::string> statements, bool keep = true) {
    auto request = std::make_unique<TextRequest>(std::move(statements), keep);
    auto future = request->future();
    store_->submit(held, std::move(request));
    return future.get();
  }
  // Until the log of a database has forgotten a transaction; wants small segments, and limits of 0.
  void forget(const std::string& database, const Bookmark& bookmark) {
    ASSERT_TRUE(store_->checkpoint(name(database)));
    create("filler");
    run("filler", {"CREATE TABLE t(a)"});
    // Small enough to stand in the journal itself, so that its segments fill.
    for (Deadline end = SteadyClock::now() + std::chrono::seconds(20);
         store_->log_after(name(database), bookmark, 1);) {
      ASSERT_LT(SteadyClock::now(), end);
      run("filler", {"INSERT INTO t VALUES (randomblob(8000))"});
      ASSERT_TRUE(store_->checkpoint(name("filler")));
    }
  }
  // The rows of one statement, joined by newlines.
  std::string query(const std::string& database, const std::string& sql) {
    Answers answers = run(database, {sql});
    if (answers.outcome.error) return "error: " + answers.outcome.error->message();
    if (answers.statements.at(0).code != 0) return "error: " + answers.statements[0].message;
    std::string text;
    for (const std::string& row : answers.statements[0].rows)
      text += (text.empty() ? "" : "\n") + row;
    return text;
  }

  TemporaryFolder folder_;
  StoreOptions options_;
  std::unique_ptr<Store> store_;
};

}  // namespace offprint::database::testing
