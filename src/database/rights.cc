#include "database/rights.h"

#include <array>
#include <utility>

namespace offprint::database {
namespace {

constexpr std::array<std::pair<std::string_view, Verb>, 15> kNames = {{
    {"data_read", Verb::kDataRead},
    {"data_add", Verb::kDataAdd},
    {"data_update", Verb::kDataUpdate},
    {"data_delete", Verb::kDataDelete},
    {"schema_add", Verb::kSchemaAdd},
    {"schema_update", Verb::kSchemaUpdate},
    {"schema_delete", Verb::kSchemaDelete},
    {"subscribe", Verb::kSubscribe},
    {"snapshot", Verb::kSnapshot},
    {"admin", Verb::kAdmin},
    {"metrics", Verb::kMetrics},
    {"publish", Verb::kPublish},
    {"migrate", Verb::kMigrate},
    {"split", Verb::kSplit},
    {"saga_start", Verb::kSagaStart},
}};

}  // namespace

std::optional<Verbs> Verbs::parse(std::string_view name) {
  for (const auto& [text, verb] : kNames) {
    if (text == name) return verb;
  }
  return std::nullopt;
}

std::vector<std::string_view> Verbs::names() const {
  std::vector<std::string_view> found;
  for (const auto& [text, verb] : kNames) {
    if (has(verb)) found.push_back(text);
  }
  return found;
}

Verbs SqlRights::on_table(std::string_view name_lower) const {
  auto found = tables.find(name_lower);
  return everywhere | (found == tables.end() ? other_tables : found->second);
}

}  // namespace offprint::database
