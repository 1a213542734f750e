#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "consumer/table_use.h"

namespace offprint::consumer {

// A view of rows that several services own column by column.
struct ViewSpec {
  std::string name;
  TableUse rows;  // the rows that there are
  TableUse own;   // whose columns may be written; its table is empty: none; may be `rows`
  std::vector<TableUse> with;
  std::vector<std::string> optional;  // tables that need not have all rows, and it is no fault
};

// Values of `from`'s columns must stand in those of `to`.
struct ForeignKeySpec {
  TableUse from, to;
};

// What is to be run for each row of `table` that changed.
struct ReactionSpec {
  std::string name;  // [a-z0-9_], its cursor's
  TableUse table;
  std::string on_insert, on_update, on_delete;  // SQL; empty: nothing
  bool from_now = false;                        // rows that are there at the first time are no news
};

// A file in TOML that says what a service has beside its own database (docs/guides/consumers.md).
struct ConsumerSpec {
  std::string database;                                       // path
  std::vector<std::pair<std::string, std::string>> replicas;  // name, path
  // What replicas are copies of, by name: databases of a server. Those that are not here are named
  // like it.
  std::map<std::string, std::string> databases;
  std::vector<ViewSpec> views;
  std::vector<ForeignKeySpec> foreign_keys;
  std::vector<ReactionSpec> reactions;
};
// Paths in it are from its own folder. kNotFound: no such file. kInvalid: says where and why.
Result<ConsumerSpec> read_consumer_spec(const std::string& file);

// "NAME=FILE" of a command line. kInvalid.
Result<std::pair<std::string, std::string>> parse_replica(const std::string& text);

}  // namespace offprint::consumer
