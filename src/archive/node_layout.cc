#include "archive/node_layout.h"

#include <string_view>

#include <fmt/format.h>

#include "archive/chain.h"
#include "archive/history.h"
#include "ltx/codec.h"

namespace offprint::archive {
namespace {

// The key without what stands behind a database's prefix: "shop/orders/"; empty: it is no object
// of an archive. `is_history` tells which kind.
std::string_view prefix_of(const ObjectStore& store, std::string_view key, bool& is_history) {
  is_history = key.ends_with(std::string("/") + kHistoryKey);
  if (is_history) return key.substr(0, key.size() - std::string_view(kHistoryKey).size());
  const std::size_t file = key.rfind('/') + 1;
  if (!ltx::parse_file_name(key.substr(file))) return {};
  const std::string_view folder = key.substr(0, file);
  for (int level = 0; level < kLevels; ++level) {
    const std::string end = store.level_prefix(level);
    if (folder.ends_with("/" + end)) return folder.substr(0, folder.size() - end.size());
  }
  return {};
}

}  // namespace

std::string archive_prefix(const database::DatabaseName& name) {
  return name == database::DatabaseName::catalog() ? kCatalogPrefix : name.text() + "/";
}

Result<database::DatabaseName> parse_archived_name(const std::string& text) {
  const auto catalog = database::DatabaseName::catalog();
  return text == catalog.text() ? catalog : database::DatabaseName::stored(text);
}

std::string dropped_prefix(const std::string& name, const Lineage& lineage, TxId reached) {
  return fmt::format("{}{}@{}-{:016x}/", kDroppedPrefix, name, lineage.text(), reached.value);
}

Result<NodeContent> read_node_content(ObjectStore& objects) {
  NodeContent content;
  OFFPRINT_TRY_ASSIGN(auto listed, objects.list(""));
  for (const ObjectInfo& object : listed) {
    bool is_history = false;
    std::string_view prefix = prefix_of(objects, object.key, is_history);
    if (prefix.size() < 2) continue;
    if (prefix == kCatalogPrefix) {
      content.has_catalog = true;
    } else if (prefix.starts_with(kDroppedPrefix)) {
      constexpr std::size_t kTxIdSize = sizeof("-0123456789abcdef/") - 1;
      std::string_view name = prefix.substr(std::string_view(kDroppedPrefix).size());
      if (name.size() <= kTxIdSize) continue;
      auto& places = content.dropped[std::string(name.substr(0, name.size() - kTxIdSize))];
      if (places.empty() || places.back() != prefix) places.emplace_back(prefix);
    } else {
      std::string_view name = prefix.substr(0, prefix.size() - 1);
      if (!database::DatabaseName::stored(name)) continue;
      NodeContent::Place& place = content.databases[std::string(name)];
      place.bytes += object.size;
      place.has_history |= is_history;
    }
  }
  return content;
}

}  // namespace offprint::archive
