#include "consumer/spec.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <set>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "publication/sql_tokens.h"

namespace offprint::consumer {
namespace {

// One table of the file. Its errors name the line.
class Section {
 public:
  Section(const std::string& file, const toml::table& table) : file_(file), table_(table) {}

  Result<> allow(std::initializer_list<std::string_view> keys) const {
    for (const auto& [key, node] : table_) {
      if (std::find(keys.begin(), keys.end(), key.str()) == keys.end())
        return refuse(node, fmt::format("unknown key '{}'", key.str()));
    }
    return {};
  }
  // Empty when it is absent.
  Result<std::string> text(std::string_view key) const {
    const toml::node* node = table_.get(key);
    if (node == nullptr) return std::string();
    if (!node->is_string()) return refuse(*node, fmt::format("'{}' must be a text", key));
    return *node->value<std::string>();
  }
  Result<std::string> needed(std::string_view key) const {
    OFFPRINT_TRY_ASSIGN(std::string value, text(key));
    if (value.empty()) return refuse(table_, fmt::format("'{}' is missing", key));
    return value;
  }
  Result<std::vector<std::string>> texts(std::string_view key) const {
    std::vector<std::string> values;
    const toml::node* node = table_.get(key);
    if (node == nullptr) return values;
    const toml::array* list = node->as_array();
    if (list == nullptr) return refuse(*node, fmt::format("'{}' must be a list of texts", key));
    for (const toml::node& each : *list) {
      if (!each.is_string()) return refuse(each, fmt::format("'{}' must be a list of texts", key));
      values.push_back(*each.value<std::string>());
    }
    return values;
  }
  Result<TableUse> table_use(std::string_view key) const {
    OFFPRINT_TRY_ASSIGN(std::string value, needed(key));
    Result<TableUse> use = parse_table_use(value);
    if (!use) return refuse(*table_.get(key), use.error().message());
    return use;
  }
  bool has(std::string_view key) const { return table_.contains(key); }
  // Of [[key]].
  Result<std::vector<Section>> sections(std::string_view key) const {
    std::vector<Section> sections;
    const toml::node* node = table_.get(key);
    if (node == nullptr) return sections;
    const toml::array* list = node->as_array();
    if (list == nullptr) return refuse(*node, fmt::format("it is [[{}]]", key));
    for (const toml::node& each : *list) {
      if (!each.is_table()) return refuse(each, fmt::format("it is [[{}]]", key));
      sections.emplace_back(file_, *each.as_table());
    }
    return sections;
  }
  std::unexpected<Error> refuse(const toml::node& node, const std::string& why) const {
    return fail(Code::kInvalid, fmt::format("{}:{}: {}", file_, node.source().begin.line, why));
  }
  std::unexpected<Error> refuse(const std::string& why) const { return refuse(table_, why); }
  const toml::table& table() const { return table_; }

 private:
  const std::string& file_;
  const toml::table& table_;
};

bool is_plain_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

Result<ViewSpec> read_view(const Section& section) {
  OFFPRINT_TRY(section.allow({"name", "rows", "own", "with", "optional"}));
  ViewSpec view;
  OFFPRINT_TRY_ASSIGN(view.name, section.needed("name"));
  OFFPRINT_TRY_ASSIGN(view.rows, section.table_use("rows"));
  if (section.has("own")) {
    OFFPRINT_TRY_ASSIGN(view.own, section.table_use("own"));
  }
  OFFPRINT_TRY_ASSIGN(auto with, section.texts("with"));
  for (const std::string& text : with) {
    Result<TableUse> use = parse_table_use(text);
    if (!use) return section.refuse(use.error().message());
    view.with.push_back(*std::move(use));
  }
  OFFPRINT_TRY_ASSIGN(view.optional, section.texts("optional"));
  if (!view.own.table.empty() && view.own.schema != "main")
    return section.refuse("'own' is a table of the own database");
  if (view.own.table.empty() && view.rows.schema == "main") view.own = view.rows;
  return view;
}

Result<ForeignKeySpec> read_foreign_key(const Section& section) {
  OFFPRINT_TRY(section.allow({"from", "to"}));
  ForeignKeySpec key;
  OFFPRINT_TRY_ASSIGN(key.from, section.table_use("from"));
  OFFPRINT_TRY_ASSIGN(key.to, section.table_use("to"));
  if (key.from.columns.empty() || key.from.columns.size() != key.to.columns.size())
    return section.refuse("as many columns on both sides, such as address(country)");
  return key;
}

Result<ReactionSpec> read_reaction(const Section& section) {
  OFFPRINT_TRY(section.allow({"name", "table", "sql", "insert", "update", "delete", "start"}));
  ReactionSpec reaction;
  OFFPRINT_TRY_ASSIGN(reaction.name, section.needed("name"));
  if (!is_plain_name(reaction.name)) return section.refuse("a name is of a-z, 0-9 and _");
  OFFPRINT_TRY_ASSIGN(reaction.table, section.table_use("table"));
  if (reaction.table.schema == "main") return section.refuse("'table' is a replica's");
  OFFPRINT_TRY_ASSIGN(std::string any, section.text("sql"));
  for (auto [key, sql] :
       {std::pair{"insert", &reaction.on_insert}, std::pair{"update", &reaction.on_update},
        std::pair{"delete", &reaction.on_delete}}) {
    OFFPRINT_TRY_ASSIGN(*sql, section.text(key));
    if (sql->empty()) *sql = any;
  }
  OFFPRINT_TRY_ASSIGN(std::string start, section.text("start"));
  if (!start.empty() && start != "now") return section.refuse("'start' can be \"now\"");
  reaction.from_now = start == "now";
  return reaction;
}

template <class T>
Result<> read_each(const Section& root, std::string_view key, Result<T> (*read)(const Section&),
                   std::vector<T>& to) {
  OFFPRINT_TRY_ASSIGN(auto sections, root.sections(key));
  for (const Section& section : sections) {
    OFFPRINT_TRY_ASSIGN(T each, read(section));
    to.push_back(std::move(each));
  }
  return {};
}

Result<> read_replicas(const Section& root, const std::filesystem::path& folder,
                       ConsumerSpec& spec) {
  const toml::node* node = root.table().get("attach");
  if (node == nullptr) return {};
  if (!node->is_table()) return root.refuse(*node, "'attach' is a table: [attach]");
  for (const auto& [name, file] : *node->as_table()) {
    if (!file.is_string()) return root.refuse(file, "a replica is NAME = \"FILE\"");
    spec.replicas.emplace_back(name.str(), (folder / *file.value<std::string>()).string());
  }
  return {};
}

Result<> read_databases(const Section& root, ConsumerSpec& spec) {
  const toml::node* node = root.table().get("databases");
  if (node == nullptr) return {};
  if (!node->is_table()) return root.refuse(*node, "'databases' is a table: [databases]");
  for (const auto& [name, database] : *node->as_table()) {
    const bool is_known = std::any_of(spec.replicas.begin(), spec.replicas.end(),
                                      [&](const auto& each) { return each.first == name.str(); });
    if (!is_known) return root.refuse(database, "[attach] has no such replica");
    if (!database.is_string()) return root.refuse(database, "it is NAME = \"DATABASE\"");
    spec.databases.emplace(name.str(), *database.value<std::string>());
  }
  return {};
}

}  // namespace

Result<ConsumerSpec> read_consumer_spec(const std::string& file) {
  if (!std::filesystem::exists(file)) return fail(Code::kNotFound, file + ": no such file");
  toml::table table;
  try {
    table = toml::parse_file(file);
  } catch (const toml::parse_error& error) {
    return fail(Code::kInvalid,
                fmt::format("{}:{}: {}", file, error.source().begin.line, error.description()));
  }
  const std::filesystem::path folder = std::filesystem::absolute(file).parent_path();
  const Section root(file, table);
  OFFPRINT_TRY(root.allow({"database", "attach", "databases", "view", "foreign_key", "on_row"}));
  ConsumerSpec spec;
  OFFPRINT_TRY_ASSIGN(std::string database, root.needed("database"));
  spec.database = (folder / database).string();
  OFFPRINT_TRY(read_replicas(root, folder, spec));
  OFFPRINT_TRY(read_databases(root, spec));
  OFFPRINT_TRY(read_each(root, "view", read_view, spec.views));
  OFFPRINT_TRY(read_each(root, "foreign_key", read_foreign_key, spec.foreign_keys));
  OFFPRINT_TRY(read_each(root, "on_row", read_reaction, spec.reactions));
  std::set<std::string> names;
  for (const ReactionSpec& reaction : spec.reactions) {
    if (!names.insert(reaction.name).second)
      return root.refuse(fmt::format("two [[on_row]] are named {}", reaction.name));
  }
  return spec;
}

Result<std::pair<std::string, std::string>> parse_replica(const std::string& text) {
  const std::size_t at = text.find('=');
  if (at == std::string::npos || at == 0 || at + 1 == text.size())
    return fail(Code::kInvalid, fmt::format("'{}' is not NAME=FILE", text));
  return std::pair(text.substr(0, at), std::filesystem::absolute(text.substr(at + 1)).string());
}

}  // namespace offprint::consumer
