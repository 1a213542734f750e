// A first text for schemas of all kinds: what it says is what the checker takes.
#include "publication/first_definition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include <fmt/format.h>

#include "publication/plan.h"
#include "publication/source_table.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class FirstDefinitionTest : public ::testing::Test {
 protected:
  void make(const std::string& schema) {
    auto opened = sqlite::Connection::open(":memory:", {.create = true});
    ASSERT_TRUE(opened);
    source_ = *std::move(opened);
    auto made = source_->execute(schema.c_str());
    ASSERT_TRUE(made) << made.error().message() << "\n" << schema;
  }
  std::string write(const std::vector<std::string>& tables = {}) {
    auto text = first_definition(*source_, {"first", tables});
    return text ? *text : "error: " + text.error().message();
  }
  // What it publishes, as the checker of publications sees it.
  Result<Plan> plan(const std::string& text) {
    OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(text));
    return make_plan(*source_, definition, Unkeyed::kRefuse);
  }
  std::vector<std::string> published(const std::string& text) {
    auto made = plan(text);
    EXPECT_TRUE(made) << made.error().message() << "\n" << text;
    std::vector<std::string> names;
    if (made) {
      for (const ItemPlan& item : made->items) names.push_back(item.name);
    }
    return names;
  }

  std::optional<sqlite::Connection> source_;
};

// As the data of ISO 3166 and 639 is kept: text keys, nullable columns, words of SQL as names.
TEST_F(FirstDefinitionTest, CodesOfCountriesAndLanguages) {
  make(
      "CREATE TABLE country(alpha_2 TEXT NOT NULL PRIMARY KEY, alpha_3 TEXT NOT NULL UNIQUE,"
      " numeric TEXT NOT NULL, name TEXT NOT NULL, official_name TEXT, common_name TEXT, flag TEXT)"
      " WITHOUT ROWID;"
      "CREATE TABLE subdivision(code TEXT PRIMARY KEY, country TEXT NOT NULL REFERENCES"
      " country(alpha_2), name TEXT NOT NULL, type TEXT, parent TEXT);"
      "CREATE INDEX subdivision_country ON subdivision(country, type DESC);"
      "CREATE TABLE language(alpha_3 TEXT PRIMARY KEY, alpha_2 TEXT, name TEXT, scope TEXT,"
      " \"type\" TEXT, inverted_name TEXT) STRICT;"
      "CREATE TABLE translation(lang TEXT, \"table\" TEXT, \"key\" TEXT, \"text\" TEXT COLLATE"
      " NOCASE, PRIMARY KEY(lang, \"table\", \"key\"));"
      "CREATE VIEW named AS SELECT alpha_2, name FROM country");
  const std::string text = write();
  EXPECT_EQ(published(text),
            (std::vector<std::string>{"country", "language", "subdivision", "translation"}));
  EXPECT_THAT(text, HasSubstr("TABLE translation(lang, \"table\", \"key\", text)"));
  EXPECT_THAT(text, HasSubstr("INDEX subdivision(country, type DESC)"));
  EXPECT_THAT(text, HasSubstr("INDEX country(alpha_3)"));
  EXPECT_THAT(text, HasSubstr("--   named: it is a view: VIEW named(alpha_2, name) KEY(…)"));
  EXPECT_EQ(published(write({"COUNTRY"})), std::vector<std::string>{"country"});
  EXPECT_EQ(write({"nowhere"}), "error: there is no table 'nowhere'");
}

TEST_F(FirstDefinitionTest, WhatCannotBePublishedIsLeftOutWithTheReason) {
  make(
      "CREATE TABLE good(id INTEGER PRIMARY KEY AUTOINCREMENT, n INT, double AS (n*2),"
      " stored TEXT AS (n||'') STORED);"
      "CREATE TABLE bare(a, b);"
      "CREATE VIRTUAL TABLE words USING fts5(body);"
      "CREATE TABLE _offprint(a PRIMARY KEY);"
      "CREATE INDEX by_expression ON good(n+1);"
      "CREATE INDEX partial ON good(n) WHERE n > 3;"
      "CREATE INDEX other_collation ON good(n COLLATE RTRIM)");
  const std::string text = write();
  EXPECT_EQ(published(text), std::vector<std::string>{"good"});
  EXPECT_THAT(text, HasSubstr("--   bare: it has no PRIMARY KEY"));
  EXPECT_THAT(text, HasSubstr("--   words: it is a virtual"));
  EXPECT_THAT(text, Not(HasSubstr("words_data")));
  EXPECT_THAT(text, Not(HasSubstr("INDEX good")));
  make("CREATE TABLE bare(a)");
  EXPECT_THAT(write(), HasSubstr("error: nothing here can be published as it is:\n  bare: "));
  make("");
  EXPECT_THAT(write(), HasSubstr("there are no tables"));
  // A collation that readers would not have.
  make("CREATE TABLE good(id INTEGER PRIMARY KEY)");
  sqlite3_create_collation(source_->handle(), "custom", SQLITE_UTF8, nullptr,
                           [](void*, int, const void*, int, const void*) { return 0; });
  ASSERT_TRUE(source_->execute("CREATE TABLE odd(id INTEGER PRIMARY KEY, w TEXT COLLATE custom)"));
  const std::string with_collation = write();
  EXPECT_EQ(published(with_collation), std::vector<std::string>{"good"});
  EXPECT_THAT(with_collation, HasSubstr("--   odd: "));
}

std::string random_name(std::mt19937& random, int number) {
  static constexpr const char* kNames[] = {
      "order",   "select", "naïve", "a b",   "q\"uote", "1st", "as",          "index", "Table",
      "refresh", "it's",   "n)",    "where", "key",     "--x", "line\nbreak", "x,y",   ":p"};
  return fmt::format("{}{}", kNames[random() % std::size(kNames)],
                     random() % 2 == 0 ? "" : std::to_string(number));
}

TEST_F(FirstDefinitionTest, RandomSchemas) {
  static constexpr const char* kTypes[] = {"INTEGER", "TEXT COLLATE NOCASE", "REAL", "",
                                           "BLOB",    "VARCHAR(20)",         "ANY",  "DATE"};
  for (unsigned seed = 1; seed <= 150; ++seed) {
    std::mt19937 random(seed);
    std::string schema;
    std::set<std::string> tables;
    for (int t = 0; t < 1 + static_cast<int>(random() % 6); ++t) {
      const std::string table = random_name(random, t);
      if (!tables.insert(folded(table)).second) continue;
      std::set<std::string> columns;
      std::string list, first;
      for (int c = 0; c < 1 + static_cast<int>(random() % 12); ++c) {
        const std::string column = random_name(random, c);
        if (!columns.insert(folded(column)).second) continue;
        list += (list.empty() ? "" : ", ") + quoted_name(column) + " " +
                kTypes[random() % std::size(kTypes)] + (random() % 3 == 0 ? " NOT NULL" : "");
        if (first.empty()) first = quoted_name(column);
      }
      const auto kind = random() % 4;
      if (kind > 0) list += ", PRIMARY KEY(" + first + ")";
      schema += fmt::format("CREATE TABLE {}({}){};", quoted_name(table), list,
                            kind == 1 ? " WITHOUT ROWID" : "");
      if (random() % 2 == 0)
        schema += fmt::format("CREATE INDEX {} ON {}({});", quoted_name("i" + table),
                              quoted_name(table), first);
    }
    ASSERT_NO_FATAL_FAILURE(make(schema));
    const std::string text = write();
    if (text.starts_with("error: nothing here")) continue;
    auto made = plan(text);
    ASSERT_TRUE(made) << "seed " << seed << ": " << made.error().message() << "\n" << text;
    std::int64_t keyed = 0;
    ASSERT_TRUE(each_row(*source_,
                         "SELECT count(DISTINCT t.name) FROM pragma_table_list t JOIN "
                         "pragma_table_xinfo(t.name) c WHERE t.schema='main' AND t.type='table' "
                         "AND c.pk > 0 AND t.name NOT LIKE 'sqlite%'",
                         [&](const auto& row) { keyed = row.column_int(0); }));
    EXPECT_EQ(static_cast<std::int64_t>(made->items.size()), keyed) << text;
  }
}

TEST(PublicationNameTest, ComesFromADatabasesName) {
  EXPECT_EQ(publication_name_of("shop/orders"), "orders");
  EXPECT_EQ(publication_name_of("/data/Web Shop.db"), "web-shop");
  EXPECT_EQ(publication_name_of("__"), "published");
  EXPECT_EQ(publication_name_of("as"), "published");
  EXPECT_EQ(publication_name_of(std::string(100, 'x')).size(), 63u);
}

}  // namespace
}  // namespace offprint::publication
