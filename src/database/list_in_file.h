#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/replication.h"
#include "ltx/types.h"

namespace offprint::database {

// The list of databases as a store's folder has it that nobody has open.
struct ListInFile {
  struct Entry {
    std::string name;
    Lineage lineage;
    std::vector<EpochEnd> ends;
    // A transaction of it that does not count any more: history was cut before it.
    bool lost(const Bookmark& transaction) const;
  };
  std::map<std::uint64_t, Entry> databases;  // by number
  std::set<std::int64_t> cuts;               // marks of the common log's histories that were cut

  // kNotFound: there is none. What was not brought into the file yet is not in it.
  static Result<ListInFile> read(const std::string& directory);
};

}  // namespace offprint::database
