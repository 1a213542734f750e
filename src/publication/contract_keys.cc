// Rules about keys, indexes and CHECKs of tables that both schemas have.
#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/contract_context.h"
#include "publication/schema_predicate.h"

namespace offprint::publication {
namespace {

struct UniqueKey {
  std::set<std::string> keys;
  std::string where;
  bool operator==(const UniqueKey&) const = default;
  std::string text() const {
    std::string list = fmt::format("({})", fmt::join(keys, ", "));
    return where.empty() ? list : list + " where " + where;
  }
};

// The direction of a key does not matter here.
UniqueKey unique_key(const Index& index) {
  UniqueKey key;
  for (std::string part : index.keys) {
    if (part.ends_with(" desc")) part.resize(part.size() - 5);
    key.keys.insert(std::move(part));
  }
  key.where = index.where;
  return key;
}

std::vector<UniqueKey> unique_keys(const Table& table, bool with_primary) {
  std::vector<UniqueKey> list;
  for (const Index& index : table.indexes) {
    if (index.unique && (with_primary || index.origin != "pk")) list.push_back(unique_key(index));
  }
  if (with_primary && !table.rowid_alias.empty())
    list.push_back({{table.rowid_alias + " collate binary"}, ""});
  return list;
}

class TableKeys {
 public:
  TableKeys(Context& context, const std::string& name, const Table& before, const Table& after)
      : context_(context), name_(name), before_(before), after_(after) {}

  void check() {
    if (context_.readers.reads(name_)) {
      check_identity();
      check_unique_gone();
    }
    check_strict();
    check_unique_added();
    check_foreign_keys();
    check_checks();
    check_indexes();
  }

 private:
  void add(std::string_view rule, const std::string& what, const std::string& column = {},
           std::optional<Severity> severity = std::nullopt) {
    context_.add(rule, name_, column, fmt::format("table {} {}", quoted(before_.name), what),
                 severity);
  }

  void check_identity() {
    if (before_.key() != after_.key())
      add("PK_SAME", fmt::format("has the primary key ({}), had ({})",
                                 fmt::join(after_.key(), ", "), fmt::join(before_.key(), ", ")));
    if (before_.without_rowid != after_.without_rowid)
      add("WITHOUT_ROWID_SAME",
          after_.without_rowid ? "has no rowid now" : "has a rowid that is not its key now");
    if (before_.without_rowid || after_.without_rowid) return;
    if (before_.rowid_alias != after_.rowid_alias) {
      add("ROWID_ALIAS_SAME",
          after_.rowid_alias.empty()
              ? "has no column that is its rowid now: VACUUM may change rowids"
              : fmt::format("has {} as its rowid now", quoted(after_.rowid_alias)));
    } else if (before_.autoincrement && !after_.autoincrement) {
      add("ROWID_ALIAS_SAME", "lost AUTOINCREMENT: ids of deleted rows may be used again");
    }
  }

  void check_strict() {
    if (before_.strict && !after_.strict && context_.readers.reads(name_))
      add("STRICT_REMOVED", "is no longer STRICT: values of any type may be in it");
    if (!before_.strict && after_.strict)
      add("STRICT_ADDED", "is STRICT now: values of other types are refused");
  }

  void check_unique_gone() {
    const auto now = unique_keys(after_, true);
    for (const UniqueKey& key : unique_keys(before_, false)) {
      if (std::ranges::find(now, key) == now.end())
        add("UNIQUE_NO_DELETE", fmt::format("is no longer unique by {}", key.text()));
    }
  }
  void check_unique_added() {
    const auto were = unique_keys(before_, true);
    for (const UniqueKey& key : unique_keys(after_, false)) {
      const bool implied = std::ranges::any_of(were, [&](const UniqueKey& was) {
        const bool same_rows = was.where.empty() || was.where == key.where;
        return same_rows && std::ranges::includes(key.keys, was.keys);
      });
      if (!implied) add("UNIQUE_ADDED", fmt::format("must be unique by {}", key.text()));
    }
  }

  void check_foreign_keys() {
    auto find = [](const Table& table, const ForeignKey& key) -> const ForeignKey* {
      auto found = std::ranges::find_if(
          table.foreign_keys, [&](const ForeignKey& item) { return item.text() == key.text(); });
      return found == table.foreign_keys.end() ? nullptr : &*found;
    };
    for (const ForeignKey& key : before_.foreign_keys) {
      const ForeignKey* now = find(after_, key);
      if (now == nullptr) {
        const bool joined = context_.readers.is_joined(name_, key);
        add("FK_NO_DELETE",
            fmt::format("lost the foreign key {}: rows may have no parent{}", key.text(),
                        joined ? ", and a contract joins along it" : ""),
            "", joined ? Severity::kError : Severity::kWarning);
      } else if (now->actions != key.actions) {
        add("FK_ACTION_SAME",
            fmt::format("foreign key {}: {}, was {}", key.text(), now->actions, key.actions));
      }
    }
    for (const ForeignKey& key : after_.foreign_keys) {
      if (find(before_, key) == nullptr)
        add("FK_ADDED", fmt::format("has a new foreign key {}", key.text()));
    }
  }

  // The columns that the CHECKs about `subject` name.
  std::set<std::string> columns_about(const std::string& subject) const {
    std::set<std::string> columns;
    for (const Table* table : {&before_, &after_}) {
      for (const Check& check : table->checks) {
        if (check.text.find(subject) != std::string::npos)
          columns.insert(check.columns.begin(), check.columns.end());
      }
    }
    return columns;
  }

  void check_checks() {
    std::vector<std::string> were, are;
    for (const Check& check : before_.checks) were.push_back(check.sql);
    for (const Check& check : after_.checks) are.push_back(check.sql);
    for (const PredicateChange& change : compare_predicates(were, are)) {
      const std::set<std::string> columns = columns_about(change.subject);
      const bool is_read = std::ranges::any_of(columns, [&](const std::string& column) {
        return context_.readers.reads(name_, column);
      });
      const bool is_closed = std::ranges::any_of(columns, [&](const std::string& column) {
        return context_.readers.is_closed_enum(name_, column);
      });
      const std::string column = columns.size() == 1 ? *columns.begin() : "";
      const std::string what = fmt::format("CHECK: {}", change.text);
      const bool is_type = change.subject.starts_with("typeof (");
      if (change.looser && is_read)
        add(is_type ? "TYPE_DOMAIN_WIDENED" : "CHECK_LOOSENED", what, column,
            is_closed ? Severity::kError : Severity::kWarning);
      if (change.tighter) add("CHECK_TIGHTENED", what, column);
    }
  }

  void check_indexes() {
    for (const Index& index : before_.indexes) {
      if (index.origin != "c") continue;
      const bool is_served = std::ranges::any_of(after_.indexes, [&](const Index& now) {
        return now.where == index.where && now.keys.size() >= index.keys.size() &&
               std::equal(index.keys.begin(), index.keys.end(), now.keys.begin());
      });
      if (!is_served)
        context_.add(
            "INDEX_NO_DELETE", name_, "",
            fmt::format("index {} on {} is gone, and none begins with ({})", quoted(index.name),
                        quoted(before_.name), fmt::join(index.keys, ", ")));
    }
  }

  Context& context_;
  const std::string& name_;
  const Table& before_;
  const Table& after_;
};

}  // namespace

void check_keys(Context& context) {
  for (const auto& [name, table] : context.before().tables) {
    const Table* after = context.after().table(name);
    if (after == nullptr || table.kind != Table::Kind::kTable || after->kind != Table::Kind::kTable)
      continue;
    TableKeys(context, name, table, *after).check();
  }
}

}  // namespace offprint::publication
