#include "database/sql_policy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include <fmt/format.h>

#include "database/request_keys.h"

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
    "auto_vacuum",    "busy_timeout",   "cache_size",     "data_version",
    "encoding",       "foreign_keys",   "freelist_count", "journal_mode",
    "locking_mode",   "max_page_count", "page_count",     "page_size",
    "schema_version", "synchronous",    "query_only",     "read_uncommitted"};
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

// They tell and change nothing that belongs to a database.
constexpr std::array<std::string_view, 11> kHarmless = {
    "busy_timeout",  "cache_size",   "collation_list", "compile_options",
    "data_version",  "encoding",     "foreign_keys",   "defer_foreign_keys",
    "function_list", "journal_mode", "query_only"};
// They tell about the table that is their argument.
constexpr std::array<std::string_view, 4> kOfTable = {"table_info", "table_xinfo", "index_list",
                                                      "foreign_key_list"};
// They work on the whole database, with or without an argument, or tell where the server keeps it.
constexpr std::array<std::string_view, 3> kOfOwner = {"optimize", "incremental_vacuum",
                                                      "database_list"};

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
  policy->note_access(action, first == nullptr ? "" : first, second == nullptr ? "" : second);
  return policy->check(action, first == nullptr ? "" : first, second,
                       schema == nullptr ? "" : schema);
}

Verbs SqlPolicy::Observation::needs() const {
  if (!is_schema_change()) return data | internal_data;
  return creates_table && selects ? schema | (data & Verb::kDataRead) : schema;
}

void SqlPolicy::note(Verb verb, std::string_view table) {
  bool is_schema = kSchemaWrites.has(verb);
  bool is_internal = table.size() >= 7 && sqlite3_strnicmp(table.data(), "sqlite_", 7) == 0;
  Verbs& mask = is_schema     ? observed_.schema
                : is_internal ? observed_.internal_data
                              : observed_.data;
  if (is_schema && is_internal) return;  // ANALYZE makes its tables
  mask |= verb;
  if (!notes_tables_) return;
  std::string name = lower(table);
  for (const Observation::Use& use : observed_.uses) {
    if (use.verb == Verbs(verb) && use.table == name) return;
  }
  observed_.uses.push_back({verb, std::move(name)});
}

void SqlPolicy::note_access(int action, std::string_view first, std::string_view second) {
  switch (action) {
    case SQLITE_READ:
      return note(Verb::kDataRead, first);
    case SQLITE_INSERT:
      return note(Verb::kDataAdd, first);
    case SQLITE_UPDATE:
      return note(Verb::kDataUpdate, first);
    case SQLITE_DELETE:
      if (dropped_.empty() || first != dropped_) note(Verb::kDataDelete, first);
      return;
    case SQLITE_SELECT:
      observed_.selects = true;
      return;
    case SQLITE_CREATE_TABLE:
      observed_.creates_table = true;
      [[fallthrough]];
    case SQLITE_CREATE_VIEW:
      return note(Verb::kSchemaAdd, first);
    case SQLITE_CREATE_INDEX:
      return note(Verb::kSchemaAdd, second);
    case SQLITE_CREATE_TRIGGER:  // they act for whoever changes the table later
    case SQLITE_CREATE_VTABLE:   // they may show everything
      return note(Verb::kSchemaAdd, "");
    case SQLITE_DROP_TABLE:
    case SQLITE_DROP_VIEW:
    case SQLITE_DROP_VTABLE:
      dropped_ = first;
      return note(Verb::kSchemaDelete, first);
    case SQLITE_DROP_INDEX:
      return note(Verb::kSchemaDelete, second);
    case SQLITE_DROP_TRIGGER:
      return note(Verb::kSchemaDelete, "");
    case SQLITE_ALTER_TABLE:
      return note(Verb::kSchemaUpdate, second);
    case SQLITE_REINDEX:  // also the filling of a new index
      if (observed_.schema.has(Verb::kSchemaAdd)) return;
      [[fallthrough]];
    case SQLITE_ANALYZE:
      return note(Verb::kSchemaUpdate, "");
    default:
      return;
  }
}

void SqlPolicy::note_pragma(std::string_view name, const char* argument) {
  bool sets = argument != nullptr && (name == "user_version" || name == "application_id");
  bool disables = argument != nullptr && name == "foreign_keys" && !boolean(argument);
  if (sets || disables || contains(kOfOwner, name)) return note(Verb::kSchemaUpdate, "");
  if (contains(kHarmless, name) || (argument != nullptr && contains(kIgnored, name))) return;
  note(Verb::kDataRead, argument != nullptr && contains(kOfTable, name) ? argument : "");
}

int SqlPolicy::refuse(std::string reason) {
  if (observed_.refusal.empty()) observed_.refusal = std::move(reason);
  return SQLITE_DENY;
}

int SqlPolicy::check_table(std::string_view name) {
  if (name != kRequestKeysTable || vacuuming_) return SQLITE_OK;
  return refuse(fmt::format("{} is the server's own", kRequestKeysTable));
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
    case SQLITE_READ:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
      return check_table(first);
    case SQLITE_INSERT:  // CREATE TABLE temp.t is no SQLITE_CREATE_TEMP_TABLE
      if (schema != "temp") return check_table(first);
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
      if (name == "rtreecheck") note(Verb::kDataRead, "");  // of any table whose name it is given
      return SQLITE_OK;
    }
    default:
      return SQLITE_OK;
  }
}

int SqlPolicy::check_pragma(std::string_view name_as_written, const char* argument) {
  std::string name = lower(name_as_written);
  note_pragma(name, argument);
  // Also when a function of the same name (pragma_optimize) runs it, whatever that was read for.
  if (contains(kOfOwner, name) && !may_work_) {
    return refuse(fmt::format("PRAGMA {} needs schema_update on the whole database", name));
  }
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
