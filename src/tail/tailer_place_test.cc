// Where a program's file can be, and what can be in the way of following it.
#include <filesystem>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tail/tail_testing.h"

namespace offprint::tail::testing {
namespace {

using ::testing::HasSubstr;

class TailerPlaceTest : public TailTest {
 protected:
  static constexpr char kTable[] = "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT)";
  // Sooner than files are looked at without a notice.
  static constexpr double kBeforeSlowLook = 5;

  void expect_soon(const std::string& sql, const std::string& value) {
    EXPECT_TRUE(wait_until([&] { return query("orders", sql) == value; }, kBeforeSlowLook))
        << status().error;
  }
  // Commits come by notices.
  void expect_followed(sqlite::Connection& writer) {
    EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFollowing; }));
    for (int i = 0; i < 3; ++i) {
      run(writer, "INSERT INTO t(text) VALUES('x')");
      expect_soon("SELECT count(*) FROM t", *writer.query_text("SELECT count(*) FROM t"));
    }
    expect_equal_soon();
  }
};

TEST_F(TailerPlaceTest, ANameWithSpaces) {
  path_ = folder_.path() + "/app/my program's \"first\" file%20?x=1#é.db";
  tail_options_.files[0].path = path_;
  auto writer = program();
  run(writer, kTable);
  start_tail();
  expect_followed(writer);
}

TEST_F(TailerPlaceTest, ALinkToAFile) {
  const std::string link = folder_.path() + "/link.db";
  std::filesystem::create_symlink(path_, link);
  tail_options_.files[0].path = link;
  start_tail();
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kWaiting; }));
  auto writer = program();
  run(writer, kTable);
  expect_followed(writer);
  // To another file, in another folder.
  std::filesystem::create_directories(folder_.path() + "/other");
  path_ = folder_.path() + "/other/program.db";
  auto other = program();
  run(other, fmt::format("{}; INSERT INTO t VALUES(7, 'x')", kTable));
  std::filesystem::create_symlink(path_, folder_.path() + "/link2.db");
  std::filesystem::rename(folder_.path() + "/link2.db", link);
  expect_soon("SELECT min(id) FROM t", "7");
  expect_followed(other);
}

TEST_F(TailerPlaceTest, AFolderThatIsMadeAgain) {
  for (int round = 0; round < 3; ++round) {
    std::filesystem::create_directories(folder_.path() + "/app");
    {
      auto writer = program();
      run(writer, fmt::format("{}; INSERT INTO t VALUES({}, 'x')", kTable, 100 * round));
      if (round == 0) start_tail();
      expect_soon("SELECT min(id) FROM t", std::to_string(100 * round));
      expect_followed(writer);
    }
    std::filesystem::remove_all(folder_.path() + "/app");
    EXPECT_TRUE(wait_until([&] { return status().state == TailState::kWaiting; }));
    EXPECT_EQ(query("orders", "SELECT count(*) FROM t"), "4");
  }
}

// Each of them is noticed, not looked for: many rounds take no time.
TEST_F(TailerPlaceTest, FoldersThatComeLater) {
  path_ = folder_.path() + "/one/two/three/program.db";
  const std::string link = folder_.path() + "/app/link.db";
  std::filesystem::create_symlink("../one/two/three/program.db", link);
  tail_options_.files[0].path = link;
  start_tail();
  for (int round = 0; round < 4; ++round) {
    ASSERT_TRUE(wait_until([&] { return status().state == TailState::kWaiting; }));
    const Deadline begun = SteadyClock::now();
    std::filesystem::create_directories(folder_.path() + "/one");
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::filesystem::create_directories(folder_.path() + "/one/two/three");
    {
      auto writer = program();
      run(writer, fmt::format("{}; INSERT INTO t VALUES({}, 'x')", kTable, 100 * round + 1));
      expect_soon("SELECT min(id) FROM t", std::to_string(100 * round + 1));
      const auto took = SteadyClock::now() - begun;
      EXPECT_LT(took, std::chrono::milliseconds(1500)) << "it was looked for";
      expect_followed(writer);
    }
    std::filesystem::remove_all(folder_.path() + "/one");
  }
}

TEST_F(TailerPlaceTest, AProgramThatHoldsItsFileAlone) {
  auto writer = program();
  run(writer,
      fmt::format("{}; PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(1, 'x')", kTable));
  start_tail();
  EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFailed; }));
  EXPECT_THAT(status().error, HasSubstr("locking_mode=EXCLUSIVE"));
  run(writer, "INSERT INTO t VALUES(2, 'x')");  // it is not disturbed
  run(writer, "PRAGMA locking_mode=NORMAL; SELECT count(*) FROM t");
  expect_followed(writer);
}

}  // namespace
}  // namespace offprint::tail::testing
