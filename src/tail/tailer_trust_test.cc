// What stands in a file's place, or is gone from beside it, is not believed.
#include <filesystem>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "base/fault_file_system.h"
#include "tail/file_tail.h"
#include "tail/tail_testing.h"

namespace offprint::tail::testing {
namespace {

using std::filesystem::file_time_type;
using ::testing::HasSubstr;

class TailerTrustTest : public TailTest {
 protected:
  static constexpr char kTable[] = "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT)";
  static constexpr char kTexts[] = "SELECT group_concat(text) FROM t";

  void SetUp() override {
    TailTest::SetUp();
    std::filesystem::create_directories(tail_options_.each.directory);
  }
  // A closed file of its own, without anything beside it.
  void make_file(std::string path, const std::string& text) {
    const std::string before = std::exchange(path_, std::move(path));
    auto writer = program();
    run(writer, fmt::format("{}; INSERT INTO t VALUES(1, '{}')", kTable, text));
    path_ = before;
  }
  // As `cp -p` does, from a file that has that time.
  void copy_over(const std::string& from, file_time_type time) {
    const FileStamp before = *FileStamp::of(path_);
    // Times of files have steps of some milliseconds.
    ASSERT_TRUE(wait_until([&] { return unix_time_ms() > before.written_ns / 1'000'000 + 50; }));
    std::filesystem::copy_file(from, path_, std::filesystem::copy_options::overwrite_existing);
    std::filesystem::last_write_time(path_, time);
    ASSERT_EQ(std::filesystem::file_size(path_), before.size);
  }

  // The steps of the test's own thread: nothing is looked at between them.
  void follow() {
    tail_ = std::make_unique<FileTail>(*store_, name("orders"), path_, tail_options_.each);
    EXPECT_TRUE(step_until([&] {
      return tail_->status().state == TailState::kFollowing && equal() &&
             std::filesystem::file_size(path_ + "-wal") == 0;
    })) << tail_->status().error;
  }
  bool step_until(const std::function<bool()>& holds) {
    return wait_until([&] {
      tail_->step(true);
      return holds();
    });
  }
  void expect_taken(const std::string& texts) {
    EXPECT_TRUE(step_until([&] { return query("orders", kTexts) == texts && equal(); }))
        << query("orders", kTexts) << ", " << tail_->status().error;
  }
  void TearDown() override {
    tail_.reset();
    TailTest::TearDown();
  }

  const std::string backup_ = folder_.path() + "/app/backup.db";
  std::unique_ptr<FileTail> tail_;
};

TEST_F(TailerTrustTest, ACopyOfTheSameSizeWithTheSameTimeIsSeen) {
  make_file(path_, "first.");
  make_file(backup_, "backup");
  follow();
  ASSERT_EQ(query("orders", kTexts), "first.");
  copy_over(backup_, std::filesystem::last_write_time(path_));
  expect_taken("backup");
  EXPECT_EQ(tail_->status().comparisons, 2u);
}

TEST_F(TailerTrustTest, ACopyOfTheSameSizeWithTheSameTimeIsSeenAfterAStart) {
  make_file(path_, "first.");
  make_file(backup_, "backup");
  follow();
  tail_.reset();
  copy_over(backup_, std::filesystem::last_write_time(path_));
  follow();
  EXPECT_EQ(query("orders", kTexts), "backup");
}

// A time of a machine whose clock is ahead says nothing about whether it is whole.
TEST_F(TailerTrustTest, ACopyWithATimeThatIsToComeIsTakenNow) {
  make_file(path_, "first.");
  make_file(backup_, "backup");
  follow();
  copy_over(backup_, file_time_type::clock::now() + std::chrono::hours(1));
  expect_taken("backup");
}

// Times that change without the content cost a comparison, and nothing else.
TEST_F(TailerTrustTest, OtherRightsAreNoOtherContent) {
  make_file(path_, "first.");
  follow();
  const Position before = *store_->position(name("orders"));
  std::filesystem::permissions(path_, std::filesystem::perms::group_write,
                               std::filesystem::perm_options::add);
  EXPECT_TRUE(step_until([&] { return tail_->status().comparisons == 2; }));
  EXPECT_EQ(*store_->position(name("orders")), before);
  auto writer = program();
  run(writer, "INSERT INTO t VALUES(2, 'second')");
  expect_taken("first.,second");
  EXPECT_EQ(tail_->status().comparisons, 2u);
}

// All connections of a process share the -shm that its first one opened: one that is gone since
// tells of none of the programs that come.
TEST_F(TailerTrustTest, AWalIndexThatIsNotThereIsNotBelieved) {
  {
    auto writer = program();
    run(writer, fmt::format("{}; INSERT INTO t VALUES(1, 'first')", kTable));
    std::filesystem::remove(path_ + "-shm");
    start_tail();
    EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFailed; }));
    EXPECT_THAT(status().error, HasSubstr("-shm is removed"));
    EXPECT_EQ(store_->position(name("orders"))->txid.value, 0u);
    run(writer, "INSERT INTO t VALUES(2, 'second')");  // it is not disturbed
  }
  expect_equal_soon();
  EXPECT_EQ(query("orders", kTexts), "first,second");
}

// Without it nobody is kept from writing over what is read.
TEST_F(TailerTrustTest, WhatWasReadWhenTheWalIndexWasRemovedIsNotBelieved) {
  FaultFileSystem files;
  tail_options_.each.files = &files;
  {
    auto writer = program();
    run(writer, fmt::format("{}; INSERT INTO t VALUES(1, 'first')", kTable));
    start_tail();
    expect_equal_soon();
    const Position before = *store_->position(name("orders"));
    // Of so much that it does not wait in memory.
    files.set_hook([&](const FaultFileSystem::Call& call) {
      if (call.path.ends_with(".spool")) std::filesystem::remove(path_ + "-shm");
      return 0;
    });
    run(writer, "UPDATE t SET text = hex(randomblob(5000000))");
    EXPECT_TRUE(wait_until([&] { return status().state == TailState::kFailed; }));
    EXPECT_THAT(status().error, HasSubstr("-shm is removed"));
    EXPECT_EQ(*store_->position(name("orders")), before);
    run(writer, "INSERT INTO t VALUES(2, 'second')");
    files.set_hook({});
  }
  expect_equal_soon();
  EXPECT_EQ(query("orders", "SELECT group_concat(length(text)) FROM t"), "10000000,6");
}

}  // namespace
}  // namespace offprint::tail::testing
