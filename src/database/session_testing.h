#pragma once

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "base/fault_file_system.h"
#include "database/fault_vfs_testing.h"
#include "database/testing.h"

// For tests only: requests between neighbours that must survive them.
namespace offprint::database::testing {

using Texts = std::vector<std::string>;

// A request made of code.
class CodeRequest final : public Request {
 public:
  explicit CodeRequest(std::function<void(Session&)> code) : code_(std::move(code)) {}
  std::future<Outcome> future() { return promise_.get_future(); }
  void run(Session& session) override { code_(session); }
  void done(Outcome outcome) override { promise_.set_value(std::move(outcome)); }
  bool likely_read_only() const override { return false; }

 private:
  std::function<void(Session&)> code_;
  std::promise<Outcome> promise_;
};

class FunctionSink final : public RowSink {
 public:
  explicit FunctionSink(std::function<Result<>(const sqlite::Statement&)> take)
      : take_(std::move(take)) {}
  void columns(const sqlite::Statement&) override {}
  Result<> row(const sqlite::Statement& statement) override { return take_(statement); }

 private:
  std::function<Result<>(const sqlite::Statement&)> take_;
};

class SessionTest : public StoreTest {
 protected:
  void SetUp() override {
    FaultVfs::instance().use(&disk_);
    options_.directory = "data";
    options_.files = &disk_;
    options_.base_vfs = FaultVfs::kName;
    options_.journal.segment_size = 256 << 10;
    open();
    create("b");
  }
  void TearDown() override {
    store_.reset();
    FaultVfs::instance().use(nullptr);
  }

  // Requests that wait together and share a transaction where they can, between two neighbours,
  // which must both be there afterwards.
  std::vector<Answers> together(const std::vector<Texts>& requests) {
    run("b", {"CREATE TABLE IF NOT EXISTS neighbour(id INTEGER PRIMARY KEY)"});
    Answers slot = run("b", {"BEGIN IMMEDIATE"}, true);
    EXPECT_TRUE(slot.outcome.held);
    auto before = start("b", {"INSERT INTO neighbour DEFAULT VALUES"});
    std::vector<std::future<Answers>> futures;
    for (const Texts& statements : requests) futures.push_back(start("b", statements));
    auto after = start("b", {"INSERT INTO neighbour DEFAULT VALUES"});
    store_->release(slot.outcome.held);
    std::vector<Answers> answers;
    for (auto& future : futures) answers.push_back(future.get());
    for (auto* neighbour : {&before, &after}) {
      Answers got = neighbour->get();
      EXPECT_EQ(got.outcome.state, Outcome::State::kCommitted);
      EXPECT_EQ(got.statements.at(0).message, "");
    }
    neighbours_ += 2;
    EXPECT_EQ(query("b", "SELECT count(*) FROM neighbour"), std::to_string(neighbours_));
    return answers;
  }
  // The code of the last statement.
  int code_of(const Texts& statements) {
    std::vector<Answers> answers = together({statements});
    EXPECT_EQ(answers[0].outcome.state, Outcome::State::kCommitted);
    return answers[0].statements.back().code;
  }
  Outcome run_code(std::function<void(Session&)> code, Deadline deadline = Deadline::max()) {
    auto request = std::make_unique<CodeRequest>(std::move(code));
    request->deadline = deadline;
    auto future = request->future();
    store_->submit(name("b"), std::move(request));
    return future.get();
  }
  void make(const Texts& statements) {
    for (const std::string& sql : statements)
      ASSERT_EQ(run("b", {sql}).statements.at(0).message, "") << sql;
  }

  FaultFileSystem disk_;
  int neighbours_ = 0;
};

}  // namespace offprint::database::testing
