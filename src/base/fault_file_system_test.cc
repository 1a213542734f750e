#include "base/fault_file_system.h"

#include <cerrno>
#include <set>

#include <gtest/gtest.h>

namespace offprint {
namespace {

using Operation = FaultFileSystem::Operation;
using Mode = FileSystem::Mode;

Bytes filled(std::size_t size, std::uint8_t with) { return Bytes(size, with); }

std::unique_ptr<File> make(FaultFileSystem& files, const std::string& path,
                           Mode mode = Mode::kCreate) {
  auto file = files.open(path, mode);
  EXPECT_TRUE(file) << file.error().message();
  return *std::move(file);
}

TEST(FaultFileSystem, BehavesAsFilesDo) {
  FaultFileSystem files;
  ASSERT_TRUE(files.create_directories("a/b"));
  EXPECT_FALSE(files.open("a/c/none", Mode::kCreate));
  EXPECT_EQ(files.open("a/none", Mode::kReadWrite).error().code(), Code::kNotFound);
  auto file = make(files, "a/b/one");
  EXPECT_FALSE(files.open("a/b/one", Mode::kCreateNew));
  ASSERT_TRUE(file->write_at(10, filled(5, 7)));
  EXPECT_EQ(*file->size(), 15u);
  Bytes back(100);
  EXPECT_EQ(*file->read_at(8, back), 7u);
  EXPECT_EQ(back[1], 0);
  EXPECT_EQ(back[2], 7);
  EXPECT_EQ(*file->read_at(15, back), 0u);
  ASSERT_TRUE(file->truncate(12));
  EXPECT_EQ(*file->size(), 12u);
  ASSERT_TRUE(file->allocate(20));
  EXPECT_EQ(*file->size(), 20u);
  ASSERT_TRUE(file->allocate(5));
  EXPECT_EQ(*file->size(), 20u);
  make(files, "./a//b/two");
  EXPECT_EQ(*files.list("a/b"), (std::vector<std::string>{"one", "two"}));
  ASSERT_TRUE(files.rename("a/b/one", "a/b/two"));
  EXPECT_EQ(files.content("a/b/two").size(), 20u);
  EXPECT_FALSE(*files.exists("a/b/one"));
  ASSERT_TRUE(files.remove("a/b/two"));
  ASSERT_TRUE(files.remove("a/b/two"));
  EXPECT_EQ(*file->read_at(10, back), 10u);  // still open
  make(files, "x");
  EXPECT_FALSE((*files.open("x", Mode::kRead))->write_at(0, Bytes(1)));
}

TEST(FaultFileSystem, PowerLossKeepsWhatWasSyncedAndAnyPartOfTheRest) {
  bool kept = false;
  bool lost = false;
  bool mixed = false;
  bool torn = false;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    FaultFileSystem files;
    auto file = make(files, "f");
    ASSERT_TRUE(file->write_at(0, filled(4096, 1)));
    ASSERT_TRUE(file->sync());
    ASSERT_TRUE(files.sync_directory("."));
    ASSERT_TRUE(file->write_at(100, filled(3000, 2)));
    files.power_loss(seed);
    EXPECT_FALSE(file->sync());
    Bytes content = files.content("f");
    ASSERT_EQ(content.size(), 4096u);
    std::size_t new_bytes = 0;
    for (std::size_t at = 0; at < content.size(); ++at) {
      bool written = at >= 100 && at < 3100;
      ASSERT_TRUE(content[at] == 1 || (written && content[at] == 2));
      new_bytes += content[at] == 2 ? 1 : 0;
      // Within a sector only a prefix of the new bytes.
      if (at > 100 && at < 3100 && at % 512 != 0 && content[at] == 2) {
        ASSERT_EQ(content[at - 1], 2);
      }
      if (at > 100 && at < 3100 && at % 512 != 0 && content[at] == 1 && content[at - 1] == 2)
        torn = true;
    }
    kept |= new_bytes == 3000;
    lost |= new_bytes == 0;
    mixed |= new_bytes > 0 && new_bytes < 3000;
  }
  EXPECT_TRUE(kept && lost && mixed && torn);
}

TEST(FaultFileSystem, PowerLossForgetsNamesThatWereNotSynced) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    FaultFileSystem files;
    ASSERT_TRUE(files.create_directories("d"));
    make(files, "d/old");
    ASSERT_TRUE(files.sync_directory("."));
    ASSERT_TRUE(files.sync_directory("d"));
    ASSERT_TRUE(files.rename("d/old", "d/new"));
    make(files, "d/more");
    files.power_loss(seed);
    std::string names;
    auto listed = files.list("d");
    ASSERT_TRUE(listed);
    for (const std::string& name : *listed) names += name + " ";
    seen.insert(names);
  }
  // A rename is whole: never both names, never neither.
  EXPECT_EQ(seen, (std::set<std::string>{"old ", "new ", "more old ", "more new "}));
}

TEST(FaultFileSystem, AFileGoesWithItsFolder) {
  int folders_lost = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    FaultFileSystem files;
    ASSERT_TRUE(files.create_directories("d"));
    make(files, "d/f");
    ASSERT_TRUE(files.sync_directory("d"));  // but not the folder's own name
    files.power_loss(seed);
    EXPECT_EQ(*files.exists("d"), *files.exists("d/f"));
    folders_lost += *files.exists("d") ? 0 : 1;
  }
  EXPECT_GT(folders_lost, 0);
  EXPECT_LT(folders_lost, 40);
}

TEST(FaultFileSystem, AFailedSyncNeverWritesWhatItHad) {
  FaultFileSystem files;
  auto file = make(files, "f");
  ASSERT_TRUE(files.sync_directory("."));
  ASSERT_TRUE(file->write_at(0, filled(10, 1)));
  files.fail(Operation::kSync, 0, EIO);
  EXPECT_EQ(file->sync().error().code(), Code::kIo);
  EXPECT_EQ(files.content("f"), filled(10, 1));  // the page cache still has it
  ASSERT_TRUE(file->sync());                     // and this proves nothing
  files.power_loss(1);
  EXPECT_TRUE(files.content("f").empty());
}

TEST(FaultFileSystem, FailsTheCallThatWasAskedFor) {
  FaultFileSystem files;
  auto file = make(files, "f");
  files.fail(Operation::kWrite, 1, ENOSPC);
  files.fail_mutation(3, EIO);
  EXPECT_TRUE(file->write_at(0, filled(8, 1)));
  EXPECT_EQ(file->write_at(8, filled(8, 2)).error().code(), Code::kFull);
  EXPECT_EQ(*file->size(), 12u);  // half of it
  EXPECT_TRUE(file->sync());
  EXPECT_EQ(files.rename("f", "g").error().code(), Code::kIo);
  EXPECT_TRUE(files.rename("f", "g"));
  std::vector<std::string> seen;
  files.set_hook([&](const FaultFileSystem::Call& call) {
    seen.push_back(FaultFileSystem::operation_name(call.operation) + (" " + call.path));
    return call.operation == Operation::kList ? EIO : 0;
  });
  EXPECT_FALSE(files.list("."));
  EXPECT_TRUE(files.exists("g"));
  EXPECT_EQ(seen, (std::vector<std::string>{"list ", "exists g"}));
}

TEST(FaultFileSystem, IsFullAtItsCapacity) {
  FaultFileSystem files;
  files.set_capacity(1000);
  auto one = make(files, "one");
  auto two = make(files, "two");
  EXPECT_TRUE(one->allocate(600));
  EXPECT_EQ(two->allocate(600).error().code(), Code::kFull);
  EXPECT_TRUE(one->write_at(0, filled(600, 1)));
  EXPECT_EQ(two->write_at(0, filled(401, 1)).error().code(), Code::kFull);
  ASSERT_TRUE(files.remove("one"));
  EXPECT_EQ(files.used_bytes(), 800u);  // held by the open file, and half of the failed write
  one.reset();
  EXPECT_EQ(files.used_bytes(), 200u);
  EXPECT_TRUE(two->write_at(0, filled(1000, 1)));
}

TEST(FaultFileSystem, ACrashedMachineAnswersNothingUntilItRunsAgain) {
  FaultFileSystem files;
  auto file = make(files, "f");
  ASSERT_TRUE(files.sync_directory("."));
  ASSERT_TRUE(file->write_at(0, filled(4, 1)));
  files.crash_at(files.call_count() + 1, std::nullopt);
  ASSERT_TRUE(file->write_at(4, filled(4, 1)));
  EXPECT_FALSE(file->write_at(8, filled(4, 1)));
  EXPECT_FALSE(files.remove("f"));
  files.restart();
  EXPECT_FALSE(file->sync());  // its process is gone
  EXPECT_EQ(files.content("f"), filled(8, 1));
  EXPECT_TRUE(files.open("f", Mode::kReadWrite));
}

TEST(FaultFileSystem, ACopyIsIndependent) {
  FaultFileSystem files;
  files.put("a/f", filled(4, 1));
  auto copy = files.clone();
  files.corrupt("a/f", 0, 0xff);
  EXPECT_EQ(copy->content("a/f"), filled(4, 1));
  EXPECT_EQ(files.content("a/f")[0], 0xfe);
  copy->power_loss(1);
  EXPECT_EQ(copy->content("a/f"), filled(4, 1));
}

}  // namespace
}  // namespace offprint
