#include "publication/first_definition.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/plan.h"
#include "publication/source_table.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

constexpr std::size_t kNameSizeMax = 63;
constexpr std::size_t kLineSizeMax = 100;

// "TABLE orders(id, …)": its columns, on as many lines as they take.
std::string table_item(const SourceTable& table) {
  std::string text = fmt::format("  TABLE {}(", written_name(table.name));
  const std::string indent(text.size(), ' ');
  std::size_t line = text.size();
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    const std::string name = written_name(table.columns[i].name);
    if (i > 0) text += ',';
    if (i > 0 && line + name.size() + 2 > kLineSizeMax) {
      text += "\n" + indent;
      line = indent.size();
    } else if (i > 0) {
      text += ' ';
    }
    text += name;
    line += name.size() + 2;
  }
  return text + ")";
}

// Words of a comment must not end it.
std::string one_line(std::string text) {
  std::ranges::replace_if(text, [](char c) { return c == '\n' || c == '\r'; }, ' ');
  return text;
}

class Writer {
 public:
  Writer(sqlite::Connection& source, const FirstDefinitionOptions& options)
      : source_(source), options_(options) {}

  Result<std::string> run() {
    OFFPRINT_TRY(read_names());
    for (const std::string& name : tables_) OFFPRINT_TRY(take_table(name));
    for (const std::string& name : views_) note_view(name);
    OFFPRINT_TRY(drop_what_does_not_fit());
    if (items_.empty()) {
      return fail(Code::kInvalid, fmt::format("nothing here can be published as it is{}",
                                              left_out_.empty() ? ": there are no tables"
                                                                : ":\n  " + left_out_.front()));
    }
    return text();
  }

 private:
  // A table that is published, and its indexes.
  struct Item {
    std::string name, table;
    std::vector<std::string> indexes;
  };

  Result<> read_names() {
    OFFPRINT_TRY(each_row(
        source_,
        "SELECT name, type FROM pragma_table_list WHERE schema='main' AND type <> 'shadow' AND "
        "name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND lower(name) <> '_offprint' ORDER BY name",
        [&](const sqlite::Statement& row) {
          (row.column_text(1) == "view" ? views_ : tables_).emplace_back(row.column_text(0));
        }));
    if (options_.tables.empty()) return {};
    for (const std::string& asked : options_.tables) {
      auto is_it = [&](const std::string& name) { return folded(name) == folded(asked); };
      if (std::ranges::none_of(tables_, is_it) && std::ranges::none_of(views_, is_it))
        return fail(Code::kNotFound, fmt::format("there is no table '{}'", asked));
    }
    auto is_unasked = [&](const std::string& name) {
      return std::ranges::none_of(
          options_.tables, [&](const std::string& asked) { return folded(asked) == folded(name); });
    };
    std::erase_if(tables_, is_unasked);
    std::erase_if(views_, is_unasked);
    return {};
  }

  void leave_out(const std::string& name, const std::string& why) {
    left_out_.push_back(one_line(fmt::format("{}: {}", name, why)));
  }

  Result<> take_table(const std::string& name) {
    auto table = read_source_table(source_, name);
    if (!table) {  // a virtual one
      leave_out(name, table.error().message());
      return {};
    }
    if (table->key().empty()) {
      leave_out(name, "it has no PRIMARY KEY, so nothing tells its rows apart for good");
      return {};
    }
    Item item{name, table_item(*table), {}};
    OFFPRINT_TRY(take_indexes(*table, item));
    items_.push_back(std::move(item));
    return {};
  }

  // Of columns as they are, for every row. Collations other than the columns' own are left out.
  Result<> take_indexes(const SourceTable& table, Item& item) {
    std::vector<std::string> names;
    OFFPRINT_TRY(
        each_row(source_,
                 fmt::format("SELECT name FROM pragma_index_list({}) WHERE origin <> 'pk' "
                             "AND partial = 0 ORDER BY name",
                             quoted_text(table.name)),
                 [&](const sqlite::Statement& row) { names.emplace_back(row.column_text(0)); }));
    for (const std::string& index : names) {
      std::vector<std::string> columns;
      bool is_plain = true;
      OFFPRINT_TRY(each_row(
          source_,
          fmt::format("SELECT cid, name, \"desc\", coll FROM pragma_index_xinfo({}) WHERE key",
                      quoted_text(index)),
          [&](const sqlite::Statement& row) {
            const SourceColumn* column = table.find(row.column_text(1));
            is_plain = is_plain && row.column_int(0) >= 0 && column != nullptr &&
                       folded(column->collation) == folded(row.column_text(3));
            columns.push_back(written_name(row.column_text(1)) +
                              (row.column_int(2) != 0 ? " DESC" : ""));
          }));
      if (!is_plain || columns.empty()) continue;
      std::string text =
          fmt::format("  INDEX {}({})", written_name(table.name), fmt::join(columns, ", "));
      if (std::ranges::find(item.indexes, text) == item.indexes.end())
        item.indexes.push_back(std::move(text));
    }
    return {};
  }

  void note_view(const std::string& name) {
    std::vector<std::string> columns;
    (void)each_row(
        source_, fmt::format("SELECT name FROM pragma_table_xinfo({})", quoted_text(name)),
        [&](const sqlite::Statement& row) { columns.push_back(written_name(row.column_text(0))); });
    leave_out(name, fmt::format("it is a view: VIEW {}({}) KEY(…) AS SELECT …, with the columns "
                                "that tell its rows apart as KEY",
                                written_name(name), fmt::join(columns, ", ")));
  }

  // SQLite and the planner decide: all at once, and one by one when that is refused.
  Result<> drop_what_does_not_fit() {
    if (items_.empty() || fits(items_)) return {};
    std::vector<Item> kept;
    for (Item& item : items_) {
      auto fitting = fits({item});
      if (!fitting) {
        std::string why = fitting.error().message();
        for (const std::string& known :
             {std::string("PUBLICATION_REFUSED: "), fmt::format("TABLE {}: ", item.name)}) {
          if (why.starts_with(known)) why.erase(0, known.size());
        }
        leave_out(item.name, why);
        continue;
      }
      kept.push_back(std::move(item));
    }
    items_ = std::move(kept);
    return items_.empty() ? Result<>() : fits(items_);
  }

  Result<> fits(const std::vector<Item>& items) {
    OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(head() + body(items)));
    OFFPRINT_TRY(make_plan(source_, definition, Unkeyed::kRefuse));
    return {};
  }

  std::string head() const { return fmt::format("CREATE PUBLICATION {} AS\n", options_.name); }

  static std::string body(const std::vector<Item>& items) {
    std::vector<std::string> lines;
    for (const Item& item : items) lines.push_back(item.table);
    for (const Item& item : items)
      lines.insert(lines.end(), item.indexes.begin(), item.indexes.end());
    return fmt::format("{}\n", fmt::join(lines, ",\n"));
  }

  std::string text() const {
    std::string text = fmt::format(
        "-- What others get of this database: exactly what is listed here, nothing else.\n"
        "-- Whoever may follow it reads every column below: take out what is not for them, before\n"
        "-- it is published (a published version never changes; a further one may).\n"
        "--\n"
        "--   offprint publish check DB FILE      would it do, and what would it be\n"
        "--   offprint publish create DB FILE     publish it as {0}@v1\n"
        "--\n"
        "-- Some rows only:   TABLE orders(id, total) WHERE state = 'sent'\n"
        "-- A file for each:  CREATE PUBLICATION {0}(tenant INTEGER) AS\n"
        "--                     TABLE orders(id, total) WHERE tenant_id = :tenant\n"
        "-- Another column:   TABLE orders(id, total / 100.0 AS euros)\n"
        "-- A sum:            VIEW daily(day, n) KEY(day) AS SELECT day, count(*) FROM orders "
        "GROUP "
        "BY day\n",
        options_.name);
    if (!left_out_.empty()) {
      text += "--\n-- Left out:\n";
      for (const std::string& each : left_out_) text += "--   " + each + "\n";
    }
    return text + head() + body(items_);
  }

  sqlite::Connection& source_;
  const FirstDefinitionOptions& options_;
  std::vector<std::string> tables_, views_, left_out_;
  std::vector<Item> items_;
};

}  // namespace

std::string publication_name_of(std::string_view name) {
  name = name.substr(name.find_last_of('/') + 1);
  if (const std::size_t dot = name.find_last_of('.'); dot != std::string_view::npos && dot > 0)
    name = name.substr(0, dot);
  std::string result;
  for (const char c : folded(name)) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    if (is_plain)
      result += c;
    else if (!result.empty() && result.back() != '-')
      result += '-';
  }
  result.resize(std::min(result.size(), kNameSizeMax));
  while (!result.empty() && (result.back() == '-' || result.back() == '_')) result.pop_back();
  result.erase(0, result.find_first_not_of("_-"));
  return result.empty() || result == "as" ? "published" : result;
}

Result<std::string> first_definition(sqlite::Connection& source,
                                     const FirstDefinitionOptions& options) {
  return Writer(source, options).run();
}

}  // namespace offprint::publication
