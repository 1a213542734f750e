#include "journal/directory_lock.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace offprint::journal {

Result<std::unique_ptr<DirectoryLock>> DirectoryLock::acquire(const std::string& directory) {
  std::string path = directory + "/LOCK";
  int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return fail(io_error("open " + path, errno));
  auto lock = std::unique_ptr<DirectoryLock>(new DirectoryLock(descriptor));
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return fail(Code::kBusy, "the journal in " + directory + " is in use by another process");
    return fail(io_error("lock " + path, errno));
  }
  return lock;
}

DirectoryLock::~DirectoryLock() { ::close(descriptor_); }

}  // namespace offprint::journal
