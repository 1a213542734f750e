#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "base/result.h"
#include "database/store.h"

namespace offprint::replica {

struct CopyFetchOptions {
  std::string url;      // of the node
  std::string token;    // empty: none
  std::string ca_file;  // PEM; empty: the system's certificates
  int connect_timeout_ms = 5'000;
  int answer_timeout_ms = 60'000;
  bool whole = false;  // not only what differs
  // Where the node compares pages; empty: at /db/NAME/pages.
  std::function<std::string(const database::DatabaseName&)> path = {};
};

// Makes the copy of one database equal to its primary's by its pages: those that differ, when there
// is a copy, else all of them. Blocks; `stop` ends it soon. kNotFound: the primary has no such
// database. kCorrupt: what differs was not enough, a whole copy is needed.
Result<> fetch_copy(const CopyFetchOptions& options, database::Store& store,
                    const database::DatabaseName& name, const std::atomic<bool>& stop);

}  // namespace offprint::replica
