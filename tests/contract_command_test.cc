// `offprint contract check` as its users meet it: docs/contracts.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

enum Exit { kDone = 0, kFailed = 1, kUsage = 2, kUnreachable = 3 };

constexpr const char* kOld =
    "CREATE TABLE client (id INTEGER PRIMARY KEY, name TEXT NOT NULL, tier TEXT);\n"
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, client INT REFERENCES client(id), state TEXT);\n"
    "CREATE INDEX by_client ON orders(client);\n";
constexpr const char* kNew =
    "-- the second version\n"
    "CREATE TABLE client (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\n"
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, client INT REFERENCES client(id), state TEXT,\n"
    "  note TEXT);\n"
    "CREATE INDEX by_client ON orders(client);\n";
constexpr const char* kContract =
    "name = \"orders\"\n"
    "version = 2\n"
    "last_used = 2026-11-20\n"
    "queries = [{ name = \"gold\", sql = \"SELECT name FROM client WHERE tier = 'gold'\" }]\n";

class ContractCommandTest : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  Finished check(std::vector<std::string> arguments) {
    std::vector<std::string> all = {program(), "contract", "check"};
    std::ranges::move(arguments, std::back_inserter(all));
    return run_program(all);
  }

  TemporaryFolder folder_;
  const std::string old_ = write("old.sql", kOld);
  const std::string new_ = write("new.sql", kNew);
  const std::string contract_ = write("orders.toml", kContract);
};

TEST_F(ContractCommandTest, ExitCodesAndFormats) {
  EXPECT_EQ(check({old_, old_}).exit_code, kDone);
  EXPECT_EQ(check({old_, old_}).out, "0 errors, 0 warnings, 0 ignored\n");
  Finished done = check({old_, new_, "--contract", contract_});
  EXPECT_EQ(done.exit_code, kFailed) << done.err;
  EXPECT_THAT(
      done.out,
      AllOf(HasSubstr(new_ + ":2:1 COLUMN_NO_DELETE table \"client\" column \"tier\" is read "
                             "by contract orders@v2 (last used 2026-11-20)\n"),
            HasSubstr(contract_ + " QUERY_COMPILES gold of contract orders@v2 does not "
                                  "compile: no such column: tier\n"),
            Not(HasSubstr("COLUMN_ADDED")),  // nobody reads orders
            HasSubstr("\n2 errors, ")));
  done = check({old_, new_, "--contract", contract_, "--json"});
  EXPECT_EQ(done.exit_code, kFailed);
  EXPECT_THAT(done.out, AllOf(HasSubstr(R"({"rule":"COLUMN_NO_DELETE","category":"QUERY",)"
                                        R"("severity":"error","file":)"),
                              HasSubstr(R"("line":2,"column":1,"object":"client.tier","message":)"),
                              HasSubstr(R"({"summary":{"errors":2,"warnings":)")));
  EXPECT_EQ(std::ranges::count(done.out, '\n'), std::ranges::count(done.out, '{') - 1);
}

TEST_F(ContractCommandTest, SeveritiesAreAMatterOfFlags) {
  const std::string more =
      write("more.sql", std::string(kOld) + "ALTER TABLE orders ADD COLUMN n;");
  EXPECT_EQ(check({old_, more}).exit_code, kDone);
  EXPECT_EQ(check({old_, more, "--error", "POSITION"}).exit_code, kFailed);
  EXPECT_EQ(check({old_, more, "--error", "POSITION", "--warn", "COLUMN_ADDED"}).exit_code, kDone);
  EXPECT_EQ(check({old_, more, "--off", "COLUMN_ADDED"}).out, "0 errors, 0 warnings, 0 ignored\n");
  const std::string unique = write("unique.sql", std::string(kOld) +
                                                     "CREATE UNIQUE INDEX u ON "
                                                     "client(name);");
  EXPECT_EQ(check({old_, unique}).exit_code, kDone);
  EXPECT_EQ(check({old_, unique, "--writers"}).exit_code, kFailed);
  EXPECT_THAT(check({"--rules"}).out, AllOf(HasSubstr("COLUMN_NO_DELETE "), HasSubstr("FILE")));
}

TEST_F(ContractCommandTest, WrongUseIsNoFinding) {
  const std::string broken = write("broken.toml", "name = \"k\"\ncolour = 1\n");
  EXPECT_EQ(check({}).exit_code, kUsage);
  EXPECT_EQ(check({old_}).exit_code, kUsage);
  EXPECT_EQ(check({old_, new_, "--error", "NO_RULE"}).exit_code, kUsage);
  EXPECT_EQ(check({old_, new_, "--min-sqlite", "new"}).exit_code, kUsage);
  EXPECT_EQ(check({old_, folder_ / "Not There.sql"}).exit_code, kUsage);
  Finished done = check({old_, new_, "--contract", broken});
  EXPECT_EQ(done.exit_code, kUsage);
  EXPECT_THAT(done.err, HasSubstr("broken.toml:2: 'colour' is no key of a contract"));
  done = check({old_, write("bad.sql", "CREATE TABLE t(a);\nCREATE TABEL u(a);")});
  EXPECT_EQ(done.exit_code, kFailed);
  EXPECT_THAT(done.err, HasSubstr("bad.sql:2:1: near \"TABEL\": syntax error"));
  EXPECT_EQ(check({old_, "http://127.0.0.1:1/db/x"}).exit_code, kUnreachable);
}

TEST_F(ContractCommandTest, LiveDatabasesAndFilesAreSchemasToo) {
  ServerProcess server(folder_);
  ASSERT_TRUE(server.start());
  ASSERT_EQ(server.run({"db", "import", "shop", old_}).exit_code, kDone);
  ASSERT_EQ(server.run({"db", "export", "shop", folder_ / "shop.db"}).exit_code, kDone);
  for (const std::string& before :
       {std::string("shop"), server.database_url("shop"), folder_ / "shop.db"}) {
    Finished done = server.run({"contract", "check", before, old_});
    EXPECT_EQ(done.exit_code, kDone) << before << done.err;
    EXPECT_EQ(done.out, "0 errors, 0 warnings, 0 ignored\n") << before;
    done = server.run({"contract", "check", before, new_});
    EXPECT_EQ(done.exit_code, kFailed) << before << done.err;
    EXPECT_THAT(done.out, HasSubstr("COLUMN_NO_DELETE")) << before;
  }
  Finished done = server.run({"contract", "check", new_, "shop"});
  EXPECT_THAT(done.out, HasSubstr("\nshop COLUMN_NO_DELETE table \"orders\" column \"note\""))
      << done.err;
  EXPECT_EQ(server.run({"contract", "check", old_, "nothing"}).exit_code, kFailed);
  for (const char* side : {"-wal", "-shm"})
    EXPECT_FALSE(std::filesystem::exists(folder_ / (std::string("shop.db") + side)));
}

TEST_F(ContractCommandTest, ASampleAndIgnoresDecide) {
  const std::string rows = write("rows.sql", std::string(kOld) +
                                                 "INSERT INTO client VALUES (1, 'A', 'gold'), (2, "
                                                 "'A', NULL);");
  const std::string unique =
      write("unique.sql", std::string(kOld) +
                              "-- contract:ignore UNIQUE_ADDED until=2999-12-31 reason=\"names are "
                              "cleaned first\"\nCREATE UNIQUE INDEX u ON client(name);");
  const std::string plain =
      write("plain.sql", std::string(kOld) + "CREATE UNIQUE INDEX u ON client(name);");
  Finished done = check({old_, plain, "--data", rows, "--writers"});
  EXPECT_EQ(done.exit_code, kFailed) << done.err;
  EXPECT_THAT(done.out, HasSubstr("table \"client\" refuses 1 rows of the sample: UNIQUE"));
  done = check({old_, unique, "--data", rows, "--writers"});
  EXPECT_EQ(done.exit_code, kDone) << done.out;
  EXPECT_THAT(done.out, EndsWith(", 2 ignored\n"));
}

}  // namespace
}  // namespace offprint::testing
