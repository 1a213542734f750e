#include "sqlite/connection.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace offprint::sqlite {
namespace {

Connection memory() {
  Result<Connection> opened = Connection::open(":memory:", {.create = true});
  EXPECT_TRUE(opened);
  return *std::move(opened);
}

TEST(Connection, OpenOfWhatIsNotThereSaysWhich) {
  Result<Connection> opened = Connection::open("/nonexistent/a.db", {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::kIo);
  EXPECT_EQ(opened.error().message(),
            "open /nonexistent/a.db: unable to open database file (SQLITE_CANTOPEN)");
}

TEST(Connection, ErrorsCarryExtendedCodeAndMessage) {
  Connection connection = memory();
  ASSERT_TRUE(connection.execute("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1)"));
  Result<> failed = connection.execute("INSERT INTO t VALUES(1)");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), Code::kSql);
  EXPECT_EQ(failed.error().sqlite_code(), SQLITE_CONSTRAINT_UNIQUE);
  EXPECT_EQ(failed.error().message(), "UNIQUE constraint failed: t.a");
  EXPECT_EQ(extended_name(SQLITE_CONSTRAINT_UNIQUE), "SQLITE_CONSTRAINT_UNIQUE");
  EXPECT_EQ(base_name(SQLITE_CONSTRAINT_UNIQUE), "SQLITE_CONSTRAINT");
  EXPECT_EQ(extended_name(SQLITE_BUSY | 77 << 8), "SQLITE_BUSY");  // one of a later SQLite
}

TEST(Connection, ValuesComeBackAsTheyWent) {
  Connection connection = memory();
  Result<Statement> statement =
      connection.prepare("SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, typeof(?6), typeof(?7)");
  ASSERT_TRUE(statement);
  ASSERT_TRUE(statement->bind_value(1, std::int64_t{INT64_MIN}));
  ASSERT_TRUE(statement->bind_value(2, 0.5));
  ASSERT_TRUE(statement->bind_value(3, std::string("a\0b", 3)));
  ASSERT_TRUE(statement->bind_value(4, Bytes{0, 255}));
  ASSERT_TRUE(statement->bind_value(5, std::monostate()));
  statement->bind_text(6, {});                   // '' and not NULL
  statement->bind_blob_borrowed(7, {});          // x'' and not NULL
  EXPECT_FALSE(statement->bind_value(10, 0.5));  // no such parameter
  Result<bool> row = statement->step();
  ASSERT_TRUE(row && *row);
  EXPECT_EQ(statement->column_int(0), INT64_MIN);
  EXPECT_EQ(statement->column_double(1), 0.5);
  EXPECT_EQ(statement->column_text(2), std::string_view("a\0b", 3));
  EXPECT_EQ(statement->column_blob(3).size(), 2u);
  EXPECT_EQ(statement->column_type(4), SQLITE_NULL);
  EXPECT_EQ(statement->column_text(7), "text");
  EXPECT_EQ(statement->column_text(8), "blob");
}

TEST(Connection, QueriesOfOneValue) {
  Connection connection = memory();
  EXPECT_EQ(connection.query_int("SELECT 41+1").value_or(0), 42);
  EXPECT_EQ(connection.query_text("SELECT 'x'||'y'").value_or(""), "xy");
  Result<std::int64_t> none = connection.query_int("SELECT 1 WHERE 0");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code(), Code::kNotFound);
}

TEST(Connection, FailedRunResetsTheStatement) {
  Connection connection = memory();
  ASSERT_TRUE(connection.execute("CREATE TABLE t(a UNIQUE)"));
  Result<Statement> insert = connection.prepare("INSERT INTO t VALUES(?)");
  ASSERT_TRUE(insert);
  insert->bind(1, 7);
  EXPECT_TRUE(insert->run());
  EXPECT_FALSE(insert->run());
  insert->bind(1, 8);
  EXPECT_TRUE(insert->run());
  EXPECT_EQ(connection.query_int("SELECT count(*) FROM t").value_or(0), 2);
}

}  // namespace
}  // namespace offprint::sqlite
