#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "main/remote.h"

// What the parts of `offprint db` share: db.cc, and db_history.cc for what goes back in time.
namespace offprint {

struct DbOptions {
  RemoteOptions remote;
  std::string name, file, prefix, month;
  std::string format, table, query, delimiter, on_conflict = "abort";
  bool no_header = false, create_table = false;
  bool json = false, force = false;
  std::uint32_t page_size = 4096;
  std::string auto_vacuum = "none", encoding = "UTF-8";
  bool no_foreign_keys = false, from_archive = false;
  std::vector<std::string> settings;
  std::string at, to, tag, drop_tag;
  std::uint64_t before = 0, limit = 20;
  bool details = false;
};

// Its address in the management interface; of all with an empty name.
Result<std::string> api_url(const DbOptions& options, const std::string& name);

Result<> show_history(const DbOptions& options);
Result<> restore_database(const DbOptions& options);
Result<> fork_database(const DbOptions& options);
Result<> snapshot_database(const DbOptions& options);
// The options of these, and --at of export.
void add_history_options(CLI::App& sub, std::string_view action, DbOptions& options);

}  // namespace offprint
