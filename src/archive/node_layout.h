#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "archive/object_store.h"
#include "base/result.h"
#include "database/name.h"
#include "ltx/types.h"

// Where what lies in the archive of a node. docs/format/archive.md, "Beside the databases".
namespace offprint::archive {

inline constexpr const char* kCatalogPrefix = "_offprint/catalog/";
inline constexpr const char* kTagsPrefix = "_offprint/tags/";
inline constexpr const char* kDroppedPrefix = "_offprint/dropped/";

// Below which a database's archive is; the list of databases is one too.
std::string archive_prefix(const database::DatabaseName& name);

// A name as the store tells it, of the list of databases too.
Result<database::DatabaseName> parse_archived_name(const std::string& text);

// Where a history goes that is not continued.
std::string dropped_prefix(const std::string& name, const Lineage& lineage, TxId reached);

// What an archive of a node has.
struct NodeContent {
  struct Place {
    std::uint64_t bytes = 0;   // of all objects
    bool has_history = false;  // else another program's, or damaged
  };
  bool has_catalog = false;
  std::map<std::string, Place> databases;  // by name
  // By name, '@' and lineage: where histories of it are that were not continued; by transaction.
  std::map<std::string, std::vector<std::string>> dropped;
};

// Lists all objects. Names that no database can have are left out.
Result<NodeContent> read_node_content(ObjectStore& objects);

}  // namespace offprint::archive
