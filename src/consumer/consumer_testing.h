#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "consumer/session.h"
#include "database/testing.h"

namespace offprint::consumer::testing {

// A folder with files as a service has them: shop.db its own, movies.db of others.
class ConsumerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { sqlite::initialize(); }
  void SetUp() override {
    sql("movies.db",
        "CREATE TABLE movie(id INTEGER PRIMARY KEY, title TEXT, length INT);"
        "INSERT INTO movie VALUES (1, 'Alien', 117), (2, 'Brazil', 132)");
    sql("shop.db",
        "CREATE TABLE movie_shop(id INTEGER PRIMARY KEY, quantity INT NOT NULL DEFAULT 3, price);"
        "INSERT INTO movie_shop VALUES (1, 5, 9.5)");
  }

  std::string path(const std::string& file) const { return folder_.path() + "/" + file; }
  // In a file, made when it is not there.
  void sql(const std::string& file, const std::string& statements) {
    sqlite::Connection::Options options;
    options.create = true;
    auto connection = sqlite::Connection::open(path(file), options);
    ASSERT_TRUE(connection);
    ASSERT_TRUE(connection->execute("PRAGMA journal_mode=WAL"));
    auto done = connection->execute(statements.c_str());
    ASSERT_TRUE(done) << done.error().message();
  }
  // Of a spec whose attached replicas are movies.db and what `attach` adds.
  Result<ConsumerSpec> read(const std::string& text, const std::string& attach = {}) {
    std::ofstream(path("shop.toml")) << "database = \"shop.db\"\n[attach]\nmovies = \"movies.db\"\n"
                                     << attach << text;
    return read_consumer_spec(path("shop.toml"));
  }
  std::string why_not(const std::string& text) {
    auto spec = read(text);
    if (!spec) return spec.error().message();
    auto session = open_session(*spec, {});
    return session ? "" : session.error().message();
  }

  database::testing::TemporaryFolder folder_;
};

// Rows as "a|b c|d", or the error.
inline std::string ask(sqlite::Connection& connection, const std::string& sql) {
  auto statement = connection.prepare(sql);
  if (!statement) return statement.error().message();
  std::string text;
  for (;;) {
    auto row = statement->step();
    if (!row) return row.error().message();
    if (!*row) return text;
    if (!text.empty()) text += ' ';
    for (int i = 0; i < statement->column_count(); ++i)
      text += (i > 0 ? "|" : "") + std::string(statement->column_text(i));
  }
}

}  // namespace offprint::consumer::testing
