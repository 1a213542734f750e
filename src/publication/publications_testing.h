#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "database/testing.h"
#include "publication/publications.h"

namespace offprint::publication::testing {

using database::DatabaseName;

// Publications of the database 'shop' in a store of its own.
class PublicationsTest : public database::testing::StoreTest {
 protected:
  template <class Condition>
  void wait_for(Condition condition) {
    for (Deadline until = SteadyClock::now() + std::chrono::seconds(20);
         SteadyClock::now() < until;) {
      if (condition()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    FAIL() << "it does not come about";
  }
  void SetUp() override {
    StoreTest::SetUp();
    create("shop");
    serve();
  }
  void TearDown() override {
    publications_.reset();
    StoreTest::TearDown();
  }
  void serve() { publications_ = std::make_unique<Publications>(*store_, Publications::Options()); }
  void sql(const std::vector<std::string>& statements) {
    auto answers = run("shop", statements);
    for (const auto& answer : answers.statements) ASSERT_EQ(answer.code, 0) << answer.message;
  }
  Result<PublicationInfo> publish(const std::string& text) {
    return publications_->create(name("shop"), text);
  }
  std::string refusal(const std::string& text) {
    auto published = publish(text);
    return published ? "none" : published.error().message();
  }
  using Given = std::vector<std::pair<std::string, std::string>>;
  DatabaseName open_instance(const std::string& publication, const Given& given = {}) {
    auto opened =
        publications_->open(name("shop"), PublicationName::parse(publication).value(), given);
    EXPECT_TRUE(opened) << opened.error().message();
    return opened ? *opened : DatabaseName::catalog();
  }
  void settle() {
    const auto there = store_->info(name("shop"))->bookmark;
    ASSERT_TRUE(comes_to([&](const Materialiser::Status& status) {
      return status.source == there && status.stale == 0;
    })) << "the instances do not get there";
  }
  // Whether it becomes so soon: a status may be of a moment ago.
  template <class Holds>
  bool comes_to(Holds holds) {
    for (Deadline until = SteadyClock::now() + std::chrono::seconds(20);
         SteadyClock::now() < until;) {
      if (auto status = publications_->status(name("shop")); status && holds(*status)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  std::vector<std::string> rows(const DatabaseName& database, const std::string& sql) {
    auto request = std::make_unique<database::testing::TextRequest>(std::vector{sql}, false);
    auto future = request->future();
    store_->submit(database, std::move(request));
    auto answers = future.get();
    if (answers.statements.empty()) return {"nothing"};
    EXPECT_EQ(answers.statements[0].code, 0) << answers.statements[0].message;
    return answers.statements[0].rows;
  }
  std::vector<std::string> shop(const std::string& sql) { return rows(name("shop"), sql); }

  std::unique_ptr<Publications> publications_;
};

}  // namespace offprint::publication::testing
