// A replica's file stays locked as SQLite wants it: otherwise a stock reader that comes and goes
// takes itself for the last one, removes the -wal, and what is applied later goes to a file that
// nobody can see.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replica/replica_file.h"
#include "replica/replica_testing.h"

namespace offprint::replica {
namespace {

constexpr off_t kSharedLockBytes = 0x40000000 + 2;  // SQLite's SHARED range: os_unix.c

// Seen from another process, as a stock reader sees it.
bool is_locked_for_others(const std::string& path) {
  pid_t child = ::fork();
  if (child == 0) {
    int file = ::open(path.c_str(), O_RDWR);
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = kSharedLockBytes;
    lock.l_len = 510;
    bool asked = file >= 0 && ::fcntl(file, F_GETLK, &lock) == 0;
    ::_exit(asked && lock.l_type != F_UNLCK ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

TEST(ReplicaLocks, HeldAfterTheFirstBuildAndAfterAResume) {
  testing::TemporaryFolder folder;
  testing::LtxPrimary primary(folder / "primary.db", {});
  primary.primary().make_tables();
  primary.capture();
  ReplicaFile::Options options;
  options.source = "http://127.0.0.1:1/db/test";
  std::string path = folder / "replica.db";
  auto replica = ReplicaFile::open(path, options);
  ASSERT_TRUE(replica) << replica.error().message();
  ASSERT_TRUE(testing::send_snapshot(**replica, primary.state(), nullptr));
  EXPECT_TRUE(is_locked_for_others(path)) << "after the first build";
  replica->reset();
  replica = ReplicaFile::open(path, options);
  ASSERT_TRUE(replica) << replica.error().message();
  ASSERT_TRUE((*replica)->verify());
  EXPECT_TRUE(is_locked_for_others(path)) << "after a resume";
}

}  // namespace
}  // namespace offprint::replica
