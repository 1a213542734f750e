#include "main/archive_command.h"

#include <string_view>

#include "base/file_system.h"
#include "main/commands.h"
#include "main/stop_signals.h"

namespace offprint {
namespace {

std::atomic<bool> cancelled{false};

void on_signal(int) { cancelled = true; }

}  // namespace

Result<std::unique_ptr<archive::ObjectStore>> open_archive(const std::string& url) {
  constexpr std::string_view kFile = "file://";
  if (url.starts_with(kFile)) {
    OFFPRINT_TRY_ASSIGN(const bool there, FileSystem::real().exists(url.substr(kFile.size())));
    if (!there) return fail(Code::kNotFound, url + ": no such folder");
  }
  return archive::open_object_store(url);
}

const std::atomic<bool>& cancelled_by_signals() {
  handle_stop_signals(on_signal);
  return cancelled;
}

int archive_exit_code(const Error& error) {
  switch (error.code()) {
    case Code::kUnavailable:
      return cancelled ? kExitFailed : kExitUnreachable;
    case Code::kUnauthorized:
    case Code::kForbidden:
      return kExitRefused;
    default:
      return kExitFailed;
  }
}

}  // namespace offprint
