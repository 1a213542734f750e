#include "database/sql_policy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include <fmt/format.h>

namespace offprint::database {
namespace {

// With or without an argument: they read the schema or statistics, check, or write what belongs to
// the database.
constexpr std::array<std::string_view, 22> kAllowed = {"application_id",    "collation_list",
                                                       "compile_options",   "defer_foreign_keys",
                                                       "foreign_key_check", "foreign_key_list",
                                                       "function_list",     "incremental_vacuum",
                                                       "index_info",        "index_list",
                                                       "index_xinfo",       "integrity_check",
                                                       "module_list",       "optimize",
                                                       "pragma_list",       "quick_check",
                                                       "table_info",        "table_list",
                                                       "table_xinfo",       "user_version",
                                                       "database_list",     "stats"};
// Without an argument only.
constexpr std::array<std::string_view, 16> kReadable = {
    "auto_vacuum",  "busy_timeout",   "cache_size",     "data_version", "encoding",
    "foreign_keys", "freelist_count", "journal_mode",   "locking_mode", "max_page_count",
    "page_count",   "page_size",      "schema_version", "synchronous",  "query_only",
    "read_uncommitted"};
// Settings of a connection that programs send by habit; accepted and without effect.
constexpr std::array<std::string_view, 5> kIgnored = {"busy_timeout", "cache_size", "temp_store",
                                                      "analysis_limit", "mmap_size"};

// Functions whose one step may take long: no time slice ends it.
constexpr std::array<std::string_view, 13> kLong = {
    "count",  "format", "glob",       "group_concat", "hex",        "instr",   "like",
    "printf", "quote",  "randomblob", "replace",      "string_agg", "zeroblob"};

template <std::size_t N>
bool contains(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

// As SQLite reads a boolean (pragma.c, getBoolean): anything else is false.
bool boolean(std::string_view argument) {
  std::string word = lower(argument);
  bool is_number = !word.empty() && word[0] >= '0' && word[0] <= '9';
  if (is_number) return std::strtol(word.c_str(), nullptr, 10) != 0;
  return word == "on" || word == "yes" || word == "true";
}

}  // namespace

void SqlPolicy::attach(sqlite3* db) { sqlite3_set_authorizer(db, &SqlPolicy::authorize, this); }

int SqlPolicy::authorize(void* self, int action, const char* first, const char* second,
                         const char* schema, const char*) {
  auto* policy = static_cast<SqlPolicy*>(self);
  if (policy->internal_) return SQLITE_OK;
  return policy->check(action, first == nullptr ? "" : first, second,
                       schema == nullptr ? "" : schema);
}

int SqlPolicy::refuse(std::string reason) {
  if (observed_.refusal.empty()) observed_.refusal = std::move(reason);
  return SQLITE_DENY;
}

int SqlPolicy::check(int action, std::string_view first, const char* second,
                     std::string_view schema) {
  switch (action) {
    case SQLITE_TRANSACTION:
      observed_.kind = first == "BEGIN"    ? StatementKind::kBegin
                       : first == "COMMIT" ? StatementKind::kCommit
                                           : StatementKind::kRollback;
      return SQLITE_OK;
    case SQLITE_SAVEPOINT:
      observed_.kind = first == "BEGIN"     ? StatementKind::kSavepoint
                       : first == "RELEASE" ? StatementKind::kRelease
                                            : StatementKind::kRollbackTo;
      observed_.savepoint = second == nullptr ? "" : second;
      return SQLITE_OK;
    case SQLITE_PRAGMA:
      return check_pragma(first, second);
    case SQLITE_ATTACH:
      if (vacuuming_ && first.empty()) return SQLITE_OK;
      return refuse(
          "ATTACH and VACUUM INTO are not available on a hosted database; follow it and attach the "
          "replica's "
          "file instead");
    case SQLITE_DETACH:
      if (vacuuming_) return SQLITE_OK;
      return refuse("DETACH is not available on a hosted database");
    case SQLITE_INSERT:  // CREATE TABLE temp.t is no SQLITE_CREATE_TEMP_TABLE
      if (schema != "temp") return SQLITE_OK;
      [[fallthrough]];
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_TEMP_VIEW:
      return refuse("TEMP objects are not available: connections are shared between requests");
    case SQLITE_FUNCTION: {
      std::string name = lower(second == nullptr ? "" : second);
      if (name == "load_extension") return refuse("extensions cannot be loaded");
      if (name == "changes" || name == "total_changes" || name == "last_insert_rowid") {
        observed_.reads_change_counters = true;
      }
      if (contains(kLong, name)) observed_.may_take_long = true;
      return SQLITE_OK;
    }
    default:
      return SQLITE_OK;
  }
}

int SqlPolicy::check_pragma(std::string_view name_as_written, const char* argument) {
  std::string name = lower(name_as_written);
  if (argument != nullptr) {
    if (name == "defer_foreign_keys") observed_.sets_defer_foreign_keys = true;
    if (name == "user_version" || name == "application_id" || name == "defer_foreign_keys" ||
        name == "incremental_vacuum" || name == "optimize") {
      observed_.sets_pragma = true;
    }
  }
  if (contains(kAllowed, name)) return SQLITE_OK;
  if (argument == nullptr && contains(kReadable, name)) return SQLITE_OK;
  if (argument != nullptr && name == "foreign_keys") {
    observed_.sets_foreign_keys = boolean(argument);
    return SQLITE_IGNORE;
  }
  if (argument != nullptr && contains(kIgnored, name)) return SQLITE_IGNORE;
  if (name == "journal_mode" && lower(argument == nullptr ? "" : argument) == "wal")
    return SQLITE_IGNORE;
  if (argument != nullptr && (name == "page_size" || name == "auto_vacuum" || name == "encoding")) {
    return refuse(
        fmt::format("PRAGMA {} is given when a database is created and cannot be changed", name));
  }
  return refuse(fmt::format("PRAGMA {} is not available on a hosted database", name));
}

}  // namespace offprint::database
