#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "archive/object_store.h"
#include "base/result.h"

// What the commands on archives share.
namespace offprint {

// A folder that is not there is an error here, not one to make.
Result<std::unique_ptr<archive::ObjectStore>> open_archive(const std::string& url);

// Becomes true at SIGINT or SIGTERM; a second signal ends the process at once.
const std::atomic<bool>& cancelled_by_signals();

int archive_exit_code(const Error& error);

}  // namespace offprint
