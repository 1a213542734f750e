#include "archive/file_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "database/testing.h"

namespace offprint::archive {
namespace {

// A process that was killed while it wrote leaves a file under another name.
TEST(FileStoreTest, LeftoversGoAndNothingElse) {
  database::testing::TemporaryFolder folder;
  auto young = open_file_store(folder.path(), FileSystem::real()).value();
  Bytes content{1, 2, 3};
  ltx::BytesSource source(content);
  ASSERT_TRUE(young->put("orders/ltx/0/x.ltx", source, {}));
  const std::string leftover = folder.path() + "/orders/ltx/0/.1-2.tmp";
  {
    std::ofstream(leftover) << "half";
  }
  EXPECT_EQ(young->list("orders/").value().size(), 1u);
  EXPECT_TRUE(std::filesystem::exists(leftover)) << "somebody may be writing it";
  auto old =
      open_file_store(folder.path(), FileSystem::real(), std::chrono::milliseconds(0)).value();
  EXPECT_EQ(old->list("orders/").value().size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(leftover));
}

}  // namespace
}  // namespace offprint::archive
