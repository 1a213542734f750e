#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "database/sql_dump.h"

namespace offprint::database {

// "CREATE VIRTUAL TABLE … USING module(arguments)", taken apart.
struct VirtualTable {
  std::string module;  // lower case
  std::vector<std::string> arguments;
  // The value of an argument "name = value", unquoted; nothing when there is none.
  std::optional<std::string> option(std::string_view name) const;
};
VirtualTable parse_virtual_table(std::string_view sql);

// `text` between quotes, those within doubled.
std::string quoted(std::string_view text, char quote);

// What a dump consists of, in order.
class SqlDumpPlan {
 public:
  SqlDumpPlan(sqlite::Connection& db, const SqlDumpOptions& options) : db_(db), options_(options) {}
  Result<std::vector<SqlDump::Step>> make();

 private:
  struct Entry {
    std::string type, name, table, sql;
    std::string kind;  // of a table: "table", "virtual", "shadow"
    bool without_rowid = false;
  };
  // How the content of a virtual table comes back.
  enum class Content { kNone, kRows, kRebuild, kShadow };

  Result<> read_schema();
  Result<> check_names() const;
  bool chosen(const Entry& entry) const;
  Content content_of(const Entry& entry) const;
  const Entry* owner_of_shadow(const Entry& entry) const;

  Result<> add_head();
  Result<> add_tables();
  Result<> add_rows(const Entry& entry);
  void add_statistics_and_sequences();
  void add_programs(std::string_view type);
  Result<> add_virtual_tables();
  Result<> add_fts_settings(const Entry& entry);
  Result<> add_tail();
  void add_sql(std::string_view sql);
  void add(std::string text) { steps_.push_back({std::move(text), {}}); }
  Result<std::string> rowid_name(const Entry& entry);
  std::string name_list() const;

  sqlite::Connection& db_;
  const SqlDumpOptions& options_;
  std::vector<Entry> entries_;
  std::vector<SqlDump::Step> steps_;
};

}  // namespace offprint::database
