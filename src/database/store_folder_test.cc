#include "database/store_folder.h"

#include "database/testing.h"
#include "sqlite/connection.h"

namespace offprint::database::testing {
namespace {

TEST(StoreFolderTest, AFileThatWasOnlyMadeHasNoContent) {
  TemporaryFolder folder;
  for (int page_size = 512; page_size <= 65536; page_size *= 2) {
    for (int auto_vacuum : {0, 1, 2}) {
      std::string path = fmt::format("{}/{}-{}.db", folder.path(), page_size, auto_vacuum);
      EXPECT_TRUE(has_no_content(FileSystem::real(), path));
      sqlite::Connection::Options options;
      options.create = true;
      auto made = sqlite::Connection::open(path, options).value();
      EXPECT_TRUE(has_no_content(FileSystem::real(), path));
      ASSERT_TRUE(made.execute(fmt::format("PRAGMA page_size={}; PRAGMA auto_vacuum={}; "
                                           "PRAGMA journal_mode=WAL",
                                           page_size, auto_vacuum)
                                   .c_str()));
      EXPECT_TRUE(has_no_content(FileSystem::real(), path)) << page_size << ' ' << auto_vacuum;
      ASSERT_TRUE(made.execute("CREATE TABLE t(a); CREATE TABLE u(a); PRAGMA wal_checkpoint"));
      EXPECT_FALSE(has_no_content(FileSystem::real(), path)) << page_size << ' ' << auto_vacuum;
    }
  }
}

}  // namespace
}  // namespace offprint::database::testing
