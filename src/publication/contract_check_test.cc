// The checker, rule by rule. docs/contracts.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "database/testing.h"
#include "publication/contract_check.h"
#include "publication/contract_fixtures_testing.h"
#include "publication/contract_rule.h"

namespace offprint::publication::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kToday = "2026-11-22";

std::vector<RuleFixture> all_fixtures() {
  std::vector<RuleFixture> list = table_fixtures();
  for (const auto& more : {column_fixtures(), file_fixtures(), key_fixtures(), query_fixtures()})
    list.insert(list.end(), more.begin(), more.end());
  return list;
}

CheckReport check(const std::string& before, const std::string& after,
                  const std::vector<std::string>& contract_texts = {}, CheckOptions options = {}) {
  options.today = kToday;
  std::vector<Contract> contracts;
  for (const std::string& text : contract_texts) {
    auto contract = parse_contract("k.toml", text);
    EXPECT_TRUE(contract) << text << contract.error().message();
    if (contract) contracts.push_back(*std::move(contract));
  }
  const auto old_script = script_of_text("old.sql", before);
  const auto new_script = script_of_text("new.sql", after);
  EXPECT_TRUE(old_script && new_script);
  auto report = check_contracts(*old_script, *new_script, contracts, options);
  EXPECT_TRUE(report) << before << "\n" << after << "\n" << report.error().message();
  return report ? *std::move(report) : CheckReport{};
}

std::string text_of(const CheckReport& report) {
  std::string text;
  for (const Finding& finding : report.findings)
    text += std::string(finding.rule->id) + " " + finding.message + "\n";
  return text;
}

const Finding* find(const CheckReport& report, const std::string& rule) {
  auto found = std::ranges::find_if(
      report.findings, [&](const Finding& finding) { return finding.rule->id == rule; });
  return found == report.findings.end() ? nullptr : &*found;
}

TEST(ContractCheckTest, EveryRuleFindsWhatItIsFor) {
  database::testing::TemporaryFolder folder;
  std::set<std::string> tested;
  for (const RuleFixture& fixture : all_fixtures()) {
    SCOPED_TRACE(fixture.rule + ": " + fixture.before + " -> " + fixture.found);
    tested.insert(fixture.rule);
    std::vector<std::string> contracts;
    for (const std::string& text : {fixture.contract, fixture.other_contract}) {
      if (!text.empty()) contracts.push_back(text);
    }
    CheckOptions options;
    options.severities.writers = true;
    options.large_pages = 200;
    if (!fixture.sample.empty()) {
      options.sample = folder.path() + "/sample.sql";
      std::ofstream(options.sample) << fixture.sample;
    }
    const CheckReport found = check(fixture.before, fixture.found, contracts, options);
    const Finding* finding = find(found, fixture.rule);
    ASSERT_NE(finding, nullptr) << text_of(found);
    EXPECT_EQ(finding->severity == Severity::kError, fixture.is_error) << finding->message;
    // The two versions of a contract are what differs in rules about filters.
    if (fixture.rule.starts_with("ROW_FILTER")) contracts.back() = contracts.front();
    const CheckReport other =
        check(fixture.before, fixture.not_found.empty() ? fixture.found : fixture.not_found,
              contracts, options);
    EXPECT_EQ(find(other, fixture.rule), nullptr) << fixture.not_found << "\n" << text_of(other);
  }
  for (const Rule& rule : all_rules())
    EXPECT_TRUE(tested.contains(std::string(rule.id))) << rule.id;
}

TEST(ContractCheckTest, TheGuideHasASectionOnEachRule) {
  const auto page = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path() /
                    "docs/contracts.md";
  std::stringstream text;
  text << std::ifstream(page).rdbuf();
  for (const Rule& rule : all_rules())
    EXPECT_THAT(text.str(), HasSubstr("#### " + std::string(rule.id) + "\n"));
}

TEST(ContractCheckTest, TheSameSchemaHasNoFindings) {
  for (const RuleFixture& fixture : all_fixtures()) {
    if (fixture.before.find("VIEW") != std::string::npos) continue;
    EXPECT_EQ(text_of(check(fixture.before, fixture.before)), "") << fixture.before;
  }
}

TEST(ContractCheckTest, AFindingSaysWhereAndWho) {
  const CheckReport report = check(
      "CREATE TABLE client(id INTEGER PRIMARY KEY, tier TEXT)",
      "-- the clients\nCREATE TABLE orders(id);\n\n  CREATE TABLE client(\n"
      "    id INTEGER PRIMARY KEY, tier INT);\n",
      {"name = \"orders\"\nversion = 2\nlast_used = 2026-11-20\n[reads]\nclient = [\"tier\"]"});
  const Finding* finding = find(report, "COLUMN_SAME_AFFINITY");
  ASSERT_NE(finding, nullptr);
  EXPECT_EQ(finding->label, "new.sql");
  EXPECT_EQ(finding->place->line, 5);
  EXPECT_EQ(finding->place->column, 29);
  EXPECT_EQ(finding->object, "client.tier");
  const CheckReport gone = check(
      "CREATE TABLE client(id INTEGER PRIMARY KEY, tier TEXT)",
      "\n CREATE TABLE client(id INTEGER PRIMARY KEY);",
      {"name = \"orders\"\nversion = 2\nlast_used = 2026-11-20\n[reads]\nclient = [\"tier\"]"});
  finding = find(gone, "COLUMN_NO_DELETE");
  ASSERT_NE(finding, nullptr);
  EXPECT_EQ(
      finding->message,
      "table \"client\" column \"tier\" is read by contract orders@v2 (last used 2026-11-20)");
  EXPECT_EQ(finding->place->line, 2);
  EXPECT_EQ(finding->place->column, 2);
}

TEST(ContractCheckTest, OnlyBindingContractsBind) {
  const std::string before = "CREATE TABLE t(a, b)", after = "CREATE TABLE t(a)";
  for (const char* status : {"draft", "published", "deprecated", "retired"}) {
    const std::string text =
        std::string("name = \"k\"\nstatus = \"") + status + "\"\n[reads]\nt = [\"b\"]";
    const bool binds = status[0] == 'p' || std::string_view(status) == "deprecated";
    EXPECT_EQ(find(check(before, after, {text}), "COLUMN_NO_DELETE") != nullptr, binds) << status;
  }
}

TEST(ContractCheckTest, SeveritiesFollowFlagsTheNearestFirst) {
  const std::string before = "CREATE TABLE t(a)", after = "CREATE TABLE t(a CHECK (a > 1), b)";
  CheckOptions options;
  EXPECT_EQ(check(before, after, {}, options).errors, 0);
  options.severities.writers = true;
  EXPECT_EQ(check(before, after, {}, options).errors, 1);
  options.severities.by_name["WRITE"] = Severity::kOff;
  EXPECT_EQ(find(check(before, after, {}, options), "CHECK_TIGHTENED"), nullptr);
  options.severities.by_name["CHECK_TIGHTENED"] = Severity::kWarning;
  EXPECT_EQ(find(check(before, after, {}, options), "CHECK_TIGHTENED")->severity,
            Severity::kWarning);
  options.severities.by_name["POSITION"] = Severity::kError;
  EXPECT_EQ(check(before, after, {}, options).errors, 1);
}

TEST(ContractCheckTest, IgnoresHoldForTheirObjectUntilTheirDay) {
  const std::string before = "CREATE TABLE t(a); CREATE TABLE u(a); CREATE TABLE gone(a)";
  const std::string ignore =
      "/* contract:ignore COLUMN_ADDED until=2026-11-22 reason=\"none asks for it\" */\n";
  const std::string dropped =
      "\n-- contract:ignore TABLE_NO_DELETE object=gone until=2026-12-01 reason=moved";
  const std::string after = "CREATE TABLE t(a, b); " + ignore + "CREATE TABLE u(a, b);";
  CheckReport report = check(before, after + dropped);
  EXPECT_EQ(report.errors, 0) << text_of(report);
  EXPECT_EQ(report.ignored, 2);
  ASSERT_NE(find(report, "COLUMN_ADDED"), nullptr);
  EXPECT_EQ(find(report, "COLUMN_ADDED")->object, "t.b");
  report = check(before, after);
  EXPECT_NE(find(report, "TABLE_NO_DELETE"), nullptr);
  report = check(before, after + dropped,
                 {"name = \"k\"\nignore = [{ rule = \"COLUMN_ADDED\", until = 2027-01-01,"
                  " reason = \"r\" }]\n[reads]\nt = \"*\"\nu = \"*\"\ngone = \"*\""});
  EXPECT_EQ(find(report, "COLUMN_ADDED"), nullptr) << text_of(report);
}

TEST(ContractCheckTest, ASampleTellsWhichRowsWouldBeRefused) {
  database::testing::TemporaryFolder folder;
  CheckOptions options;
  options.sample = folder.path() + "/rows.sql";
  std::ofstream(options.sample)
      << "CREATE TABLE p(id INTEGER PRIMARY KEY); INSERT INTO p VALUES(1);"
         "CREATE TABLE t(a INT, b TEXT, c INT);"
         "INSERT INTO t VALUES(1, 'x', 1), (1, 'y', 7), (3, NULL, NULL), ('q', 'z', 1);";
  const std::string before =
      "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE t(a INT, b TEXT, c INT)";
  auto told = [&](const std::string& table) {
    return text_of(check(before, "CREATE TABLE p(id INTEGER PRIMARY KEY); " + table, {}, options));
  };
  EXPECT_THAT(told("CREATE TABLE t(a INT UNIQUE, b TEXT, c INT)"),
              HasSubstr("UNIQUE_ADDED table \"t\" refuses 1 rows of the sample"));
  EXPECT_THAT(told("CREATE TABLE t(a INT CHECK (a < 2), b TEXT, c INT)"),
              HasSubstr("CHECK_TIGHTENED table \"t\" refuses 2 rows of the sample"));
  EXPECT_THAT(told("CREATE TABLE t(a INT, b TEXT NOT NULL, c INT)"),
              HasSubstr("COLUMN_NOT_NULL_ADDED table \"t\" refuses 1 rows of the sample"));
  EXPECT_THAT(told("CREATE TABLE t(a INT, b TEXT, c INT, d NOT NULL)"),
              HasSubstr("COLUMN_ADDED_REQUIRED table \"t\" refuses 4 rows of the sample"));
  EXPECT_THAT(told("CREATE TABLE t(a INT, b TEXT, c INT) STRICT"),
              HasSubstr("STRICT_ADDED table \"t\" refuses 1 rows of the sample"));
  EXPECT_THAT(told("CREATE TABLE t(a INT, b TEXT, c INT REFERENCES p(id))"),
              HasSubstr("FK_ADDED table \"t\" has 1 rows in the sample without their parent"));
}

TEST(ContractCheckTest, WhatIsNoContractIsRefused) {
  for (const char* text :
       {"version = 1", "name = \"k\"\nversion = 0", "name = \"k\"\ncolour = 1",
        "name = \"k\"\nmin_sqlite = \"new\"", "name = \"k\"\nreserved = [\"t\"]",
        "name = \"k\"\nstatus = \"old\"", "name = \"k\"\nqueries = [\" -- \"]", "name = [",
        "name = \"k\"\n[reads]\nt = 5", "name = \"k\"\nignore = [{ rules = \"X\" }]"}) {
    const auto contract = parse_contract("k.toml", text);
    ASSERT_FALSE(contract) << text;
    EXPECT_EQ(contract.error().code(), Code::kInvalid);
    EXPECT_THAT(contract.error().message(), HasSubstr("k.toml:"));
  }
}

TEST(ContractCheckTest, ASchemaThatSqliteRefusesIsNamedByItsPlace) {
  const auto good = script_of_text("old.sql", "CREATE TABLE t(a);");
  const auto bad = script_of_text("new.sql", "CREATE TABLE t(a);\n  CREATE TABLE t(b);");
  const auto report = check_contracts(*good, *bad, {}, {});
  ASSERT_FALSE(report);
  EXPECT_THAT(report.error().message(), AllOf(HasSubstr("new.sql:2:3"), HasSubstr("exists")));
}

TEST(ContractCheckTest, ScriptsReachNoFiles) {
  database::testing::TemporaryFolder folder;
  const std::string file = folder.path() + "/x.db";
  const auto good = script_of_text("old.sql", "");
  for (const std::string& sql : {"ATTACH '" + file + "' AS x", "VACUUM INTO '" + file + "'"}) {
    const auto bad = script_of_text("new.sql", sql);
    EXPECT_FALSE(check_contracts(*good, *bad, {}, {})) << sql;
    EXPECT_FALSE(std::filesystem::exists(file)) << sql;
  }
}

TEST(ContractCheckTest, ADatabaseFileIsReadAndNothingIsLeftBesideIt) {
  database::testing::TemporaryFolder folder;
  for (const char* mode : {"wal", "delete"}) {
    const std::string file = folder.path() + "/" + mode + "?#%.db";
    sqlite::Connection::Options create;
    create.create = true;
    {
      auto db = sqlite::Connection::open(file, create);
      ASSERT_TRUE(db->execute((std::string("PRAGMA journal_mode = ") + mode).c_str()));
      ASSERT_TRUE(
          db->execute("CREATE TABLE t(a, b -- contract:ignore X\n);"
                      "CREATE VIRTUAL TABLE f USING fts5(body);"
                      "CREATE TABLE n(i INTEGER PRIMARY KEY AUTOINCREMENT)"));
    }
    const auto script = script_of_file(file);
    ASSERT_TRUE(script) << script.error().message();
    EXPECT_EQ(script->statements.size(), 3);
    const auto less = script_of_text("new.sql", "CREATE TABLE t(a)");
    CheckOptions options;
    options.today = kToday;
    const auto report = check_contracts(*script, *less, {}, options);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_NE(find(*report, "COLUMN_NO_DELETE"), nullptr);
    EXPECT_NE(find(*report, "TABLE_NO_DELETE"), nullptr);
    EXPECT_FALSE(std::filesystem::exists(file + "-wal"));
    EXPECT_FALSE(std::filesystem::exists(file + "-shm"));
  }
}

}  // namespace
}  // namespace offprint::publication::testing
