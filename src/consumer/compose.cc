// Views of rows whose columns several services own, as SQL.
#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "consumer/session.h"
#include "publication/definition.h"
#include "publication/sql_tokens.h"

namespace offprint::consumer {
namespace {

using publication::folded;
using publication::quoted_name;
using publication::quoted_text;

std::string joined(const std::vector<std::string>& parts, std::string_view between) {
  return fmt::format("{}", fmt::join(parts, between));
}

// a.x = b.y AND …
std::string equal_keys(std::string_view left, const std::vector<std::string>& left_columns,
                       std::string_view right, const std::vector<std::string>& right_columns) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < left_columns.size(); ++i)
    parts.push_back(fmt::format("{}.{} = {}.{}", left, quoted_name(left_columns[i]), right,
                                quoted_name(right_columns[i])));
  return joined(parts, " AND ");
}

// A key's values as one: itself, or several as SQL writes them.
std::string key_text(std::string_view of, const std::vector<std::string>& columns) {
  if (columns.size() == 1) return fmt::format("{}.{}", of, quoted_name(columns[0]));
  std::vector<std::string> parts;
  for (const std::string& column : columns)
    parts.push_back(fmt::format("quote({}.{})", of, quoted_name(column)));
  return joined(parts, " || ', ' || ");
}

// Rows of `present` whose columns are not to be found in `missing`.
std::string missing_rows(const std::string& rule, const KnownTable& present,
                         const std::vector<std::string>& present_columns, const KnownTable& missing,
                         const std::vector<std::string>& missing_columns) {
  std::vector<std::string> not_null;
  for (const std::string& column : present_columns)
    not_null.push_back(fmt::format("a.{} IS NOT NULL", quoted_name(column)));
  return fmt::format(
      "SELECT {}, {}, {}, {} FROM {} a WHERE {} AND NOT EXISTS (SELECT 1 FROM {} b WHERE {})",
      quoted_text(rule), quoted_text(present.text()), quoted_text(missing.text()),
      key_text("a", present_columns), present.sql(), joined(not_null, " AND "), missing.sql(),
      equal_keys("b", missing_columns, "a", present_columns));
}

// One composed view.
class Composition {
 public:
  static Result<Composition> make(sqlite::Connection& connection, const ViewSpec& spec) {
    Composition made(spec);
    OFFPRINT_TRY(made.find_sides(connection));
    OFFPRINT_TRY(made.check_names());
    return made;
  }

  std::string sql() const {
    std::string text = view();
    if (own_ != kNone) text += insert_trigger() + update_trigger() + delete_trigger();
    return text;
  }
  // As an item of a publication.
  std::string item() const {
    std::vector<std::string> key;
    for (const std::string& column : rows().key) key.push_back(quoted_name(column));
    const auto [names, sql] = select();
    return fmt::format("VIEW {}({}) KEY({}) AS\n  {}", quoted_name(spec_.name), names,
                       joined(key, ", "), sql);
  }
  void add_schemas(std::set<std::string>& schemas) const {
    for (const KnownTable& side : sides_) schemas.insert(side.schema);
  }
  void add_checks(std::vector<std::string>& checks) const {
    for (std::size_t i = 1; i < sides_.size(); ++i) {
      const KnownTable& side = sides_[i];
      checks.push_back(missing_rows(spec_.name, side, side.key, rows(), rows().key));
      const bool is_optional =
          std::any_of(spec_.optional.begin(), spec_.optional.end(),
                      [&](const std::string& name) { return folded(name) == folded(side.text()); });
      if (!is_optional)
        checks.push_back(missing_rows(spec_.name, rows(), rows().key, side, side.key));
    }
  }

 private:
  static constexpr std::size_t kNone = SIZE_MAX;
  explicit Composition(const ViewSpec& spec) : spec_(spec) {}

  const KnownTable& rows() const { return sides_[0]; }
  const KnownTable& own() const { return sides_[own_]; }
  bool owns_rows() const { return own_ == 0; }

  Result<> find_sides(sqlite::Connection& connection) {
    std::vector<TableUse> uses{spec_.rows};
    if (!spec_.own.table.empty()) {
      own_ = spec_.own == spec_.rows ? 0 : 1;
      if (own_ == 1) uses.push_back(spec_.own);
    }
    uses.insert(uses.end(), spec_.with.begin(), spec_.with.end());
    for (const TableUse& use : uses) {
      OFFPRINT_TRY_ASSIGN(KnownTable side, find_table(connection, use));
      if (!side.unique_key) {
        return refuse(fmt::format("KEY({}) of {} is neither its primary key nor UNIQUE",
                                  joined(side.key, ", "), side.text()));
      }
      if (side.key.size() != (sides_.empty() ? side : rows()).key.size())
        return refuse(fmt::format("{} has another number of key columns", side.text()));
      sides_.push_back(std::move(side));
    }
    for (const std::string& name : spec_.optional) {
      if (std::none_of(sides_.begin(), sides_.end(),
                       [&](const auto& side) { return folded(side.text()) == folded(name); }))
        return refuse(fmt::format("optional: {} is not part of it", name));
    }
    return {};
  }
  Result<> check_names() const {
    std::set<std::string> names;
    for (const std::string& name : rows().key) names.insert(folded(name));
    for (const KnownTable& side : sides_) {
      // Names that are not qualified mean temporary tables and views first.
      if (folded(side.table) == folded(spec_.name) && side.schema == "main")
        return refuse("the own database has a table of that name");
      for (const KnownColumn& column : side.columns) {
        if (!names.insert(folded(column.name)).second) {
          return refuse(
              fmt::format("{}.{}: there is a column of that name already; say which "
                          "columns are meant, or AS what",
                          side.text(), column.column));
        }
      }
    }
    return {};
  }
  std::unexpected<Error> refuse(const std::string& why) const {
    return fail(Code::kInvalid, fmt::format("view {}: {}", spec_.name, why));
  }

  // Its columns, and the SELECT that they are.
  std::pair<std::string, std::string> select() const {
    std::vector<std::string> names, values;
    std::string from;
    for (const std::string& column : rows().key) {
      names.push_back(quoted_name(column));
      values.push_back("t0." + quoted_name(column));
    }
    for (std::size_t i = 0; i < sides_.size(); ++i) {
      const std::string alias = fmt::format("t{}", i);
      for (const KnownColumn& column : sides_[i].columns) {
        names.push_back(quoted_name(column.name));
        values.push_back(fmt::format("{}.{}", alias, quoted_name(column.column)));
      }
      from += i == 0 ? fmt::format("{} t0", sides_[i].sql())
                     : fmt::format("\n  LEFT JOIN {} {} ON {}", sides_[i].sql(), alias,
                                   equal_keys(alias, sides_[i].key, "t0", rows().key));
    }
    return {joined(names, ", "), fmt::format("SELECT {}\n  FROM {}", joined(values, ", "), from)};
  }
  std::string view() const {
    const auto [names, sql] = select();
    return fmt::format("CREATE TEMP VIEW {}({}) AS\n  {};\n", quoted_name(spec_.name), names, sql);
  }

  std::string trigger(std::string_view event, const std::string& body) const {
    return fmt::format("CREATE TEMP TRIGGER {} INSTEAD OF {} ON {} BEGIN\n{}END;\n",
                       quoted_name(fmt::format("offprint_{}_{}", spec_.name, event)), event,
                       quoted_name(spec_.name), body);
  }
  static std::string raise(const std::string& message, const std::string& when) {
    return fmt::format("  SELECT RAISE(ABORT, {}) WHERE {};\n", quoted_text(message), when);
  }
  static std::string differs(const std::string& name) {
    const std::string quoted = quoted_name(name);
    return fmt::format("NEW.{0} COLLATE BINARY IS NOT OLD.{0}", quoted);
  }
  // "NEW".key of the view, as conditions on a table's own key.
  std::string same_key(std::string_view row, const KnownTable& table) const {
    return equal_keys(quoted_name(table.table), table.key, row, rows().key);
  }

  // What others own cannot be set: `changed` says when it would be.
  std::string guards(
      const std::function<std::string(const KnownTable&, const KnownColumn&)>& changed) const {
    std::string text;
    for (std::size_t i = 0; i < sides_.size(); ++i) {
      for (const KnownColumn& column : sides_[i].columns) {
        if (i == own_ && !column.generated) continue;
        const std::string why =
            i == own_
                ? fmt::format("{}.{} is generated", spec_.name, column.name)
                : fmt::format("{}.{} belongs to {}", spec_.name, column.name, sides_[i].text());
        text += raise(why, changed(sides_[i], column));
      }
    }
    return text;
  }

  // Columns of the own table that are written, with their values of a new row.
  std::string insertion(std::string* updates, std::vector<std::string>* changed) const {
    std::vector<std::string> names, values, sets;
    for (std::size_t i = 0; i < own().key.size(); ++i) {
      names.push_back(quoted_name(own().key[i]));
      values.push_back("NEW." + quoted_name(rows().key[i]));
    }
    for (const KnownColumn& column : own().columns) {
      if (column.generated) continue;
      const std::string value = "NEW." + quoted_name(column.name);
      names.push_back(quoted_name(column.column));
      values.push_back(column.default_value.empty()
                           ? value
                           : fmt::format("coalesce({}, {})", value, column.default_value));
      sets.push_back(fmt::format("{} = {}", quoted_name(column.column), value));
      if (changed != nullptr)
        changed->push_back(fmt::format("{0} OR typeof(NEW.{1}) <> typeof(OLD.{1})",
                                       differs(column.name), quoted_name(column.name)));
    }
    if (updates != nullptr) *updates = joined(sets, ", ");
    return fmt::format("  INSERT INTO {}({})\n    SELECT {}", quoted_name(own().table),
                       joined(names, ", "), joined(values, ", "));
  }

  std::string insert_trigger() const {
    std::string body;
    if (!owns_rows()) {
      body += raise(fmt::format("{} has no such row", rows().text()),
                    fmt::format("NOT EXISTS (SELECT 1 FROM {} WHERE {})", rows().sql(),
                                same_key("NEW", rows())));
    }
    body += guards([&](const KnownTable& side, const KnownColumn& column) {
      const std::string given = fmt::format("NEW.{} IS NOT NULL", quoted_name(column.name));
      if (column.generated) return given;
      return fmt::format("{} AND NEW.{} COLLATE BINARY IS NOT (SELECT {} FROM {} WHERE {})", given,
                         quoted_name(column.name), quoted_name(column.column), side.sql(),
                         same_key("NEW", side));
    });
    return trigger("insert", body + insertion(nullptr, nullptr) + ";\n");
  }

  std::string update_trigger() const {
    std::string body;
    for (const std::string& column : rows().key)
      body += raise(fmt::format("the key of {} does not change", spec_.name), differs(column));
    body +=
        guards([&](const KnownTable&, const KnownColumn& column) { return differs(column.name); });
    std::vector<std::string> changed, conflict;
    std::string updates;
    const std::string insert = insertion(&updates, &changed);
    for (const std::string& column : own().key) conflict.push_back(quoted_name(column));
    if (!changed.empty()) {
      body += fmt::format("{}\n    WHERE {}\n    ON CONFLICT({}) DO UPDATE SET {};\n", insert,
                          joined(changed, " OR "), joined(conflict, ", "), updates);
    }
    return trigger("update", body.empty() ? "  SELECT 1;\n" : body);
  }

  std::string delete_trigger() const {
    const std::string body =
        owns_rows()
            ? fmt::format("  DELETE FROM {} WHERE {};\n", quoted_name(own().table),
                          same_key("OLD", own()))
            : raise(fmt::format("rows of {} belong to {}; DELETE FROM {} removes the own columns",
                                spec_.name, rows().text(), own().text()),
                    "true");
    return trigger("delete", body);
  }

  const ViewSpec& spec_;
  std::vector<KnownTable> sides_;  // the first: whose rows there are
  std::size_t own_ = kNone;
};

Result<std::string> foreign_key_check(sqlite::Connection& connection, const ForeignKeySpec& key) {
  auto columns_of = [](const TableUse& use) {
    std::vector<std::string> columns;
    for (const ColumnUse& each : use.columns) columns.push_back(each.column);
    return columns;
  };
  // The columns are its key here: that is all that is asked about them.
  TableUse from = key.from, to = key.to;
  from.key = columns_of(key.from);
  to.key = columns_of(key.to);
  OFFPRINT_TRY_ASSIGN(KnownTable child, find_table(connection, from));
  OFFPRINT_TRY_ASSIGN(KnownTable parent, find_table(connection, to));
  const std::string rule = fmt::format("{}({})", child.text(), joined(child.key, ", "));
  return missing_rows(rule, child, child.key, parent, parent.key);
}

}  // namespace

Result<std::string> compose_sql(sqlite::Connection& connection, const ConsumerSpec& spec) {
  std::string sql;
  std::vector<std::string> checks;
  for (const ViewSpec& view : spec.views) {
    OFFPRINT_TRY_ASSIGN(Composition made, Composition::make(connection, view));
    sql += made.sql();
    made.add_checks(checks);
  }
  for (const ForeignKeySpec& key : spec.foreign_keys) {
    OFFPRINT_TRY_ASSIGN(std::string check, foreign_key_check(connection, key));
    checks.push_back(std::move(check));
  }
  if (checks.empty()) checks.emplace_back("SELECT 1, 2, 3, 4 WHERE false");
  sql += fmt::format(
      "CREATE TEMP VIEW offprint_missing(rule, present_in, missing_in, \"key\") AS\n  {};\n",
      joined(checks, "\n  UNION ALL "));
  return sql;
}

Result<std::string> publication_text(sqlite::Connection& connection, const ConsumerSpec& spec,
                                     const std::string& name) {
  std::set<std::string> schemas;
  std::vector<std::string> items, sources;
  for (const ViewSpec& view : spec.views) {
    OFFPRINT_TRY_ASSIGN(Composition made, Composition::make(connection, view));
    items.push_back(made.item());
    made.add_schemas(schemas);
  }
  if (items.empty()) return fail(Code::kInvalid, "there is no [[view]] to publish");
  for (const std::string& schema : schemas) {
    auto database = spec.databases.find(schema);
    const std::string& there = database == spec.databases.end() ? schema : database->second;
    sources.push_back(publication::written_source(schema == "main" ? "" : there, schema));
  }
  std::string text = fmt::format("CREATE PUBLICATION {} FROM {} AS\n{}\n", name,
                                 joined(sources, ", "), joined(items, ",\n"));
  OFFPRINT_TRY(publication::parse_definition(text));
  return text;
}

}  // namespace offprint::consumer
