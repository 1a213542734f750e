#include "consumer/row_changes.h"

#include <fmt/format.h>

#include "publication/sql_tokens.h"

namespace offprint::consumer {
namespace {

using publication::quoted_name;

constexpr const char* kChanges = "temp.offprint_changes";

std::string collation_of(sqlite::Connection& connection, const KnownTable& table,
                         const std::string& column) {
  const char* collation = nullptr;
  sqlite3_table_column_metadata(connection.handle(), table.schema.c_str(), table.table.c_str(),
                                column.c_str(), nullptr, &collation, nullptr, nullptr, nullptr);
  return collation == nullptr ? "BINARY" : collation;
}

}  // namespace

Result<RowChanges> RowChanges::make(sqlite::Connection& connection, const ReactionSpec& spec) {
  OFFPRINT_TRY_ASSIGN(KnownTable table, find_table(connection, spec.table));
  if (!table.unique_key) {
    return fail(Code::kInvalid,
                fmt::format("on_row {}: the KEY of {} is neither its primary key nor UNIQUE",
                            spec.name, table.text()));
  }
  RowChanges made(connection);
  made.source_ = table.sql();
  made.image_ = "main." + quoted_name("_offprint_row_" + spec.name);
  made.key_count_ = table.key.size();
  made.definition_ = table.text() + " KEY";
  for (const std::string& column : table.key) {
    made.names_.push_back(column);
    made.source_columns_.push_back(quoted_name(column));
    made.collations_.push_back(collation_of(connection, table, column));
    made.definition_ += ' ' + quoted_name(column);
  }
  for (const KnownColumn& column : table.columns) {
    made.names_.push_back(column.name);
    made.source_columns_.push_back(quoted_name(column.column));
    made.collations_.emplace_back("BINARY");
    made.definition_ += ", " + quoted_name(column.column);
  }
  OFFPRINT_TRY(made.find_types(spec));
  return made;
}

// The image's columns have the affinities of the table's, so that its values are kept as they are
// and its keys are found by index.
Result<> RowChanges::find_types(const ReactionSpec& spec) {
  OFFPRINT_TRY(
      execute(fmt::format("DROP TABLE IF EXISTS temp.offprint_probe;"
                          "CREATE TEMP TABLE offprint_probe AS SELECT {} FROM {} LIMIT 0",
                          list("{source} AS c{i}"), source_)));
  OFFPRINT_TRY_ASSIGN(auto select,
                      connection_->prepare("SELECT type FROM pragma_table_info('offprint_probe', "
                                           "'temp') ORDER BY cid"));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, select.step());
    if (!row) break;
    types_.emplace_back(select.column_text(0));
  }
  if (types_.size() != names_.size())
    return fail(Code::kInternal, "columns of " + spec.table.text() + " are not all there");
  return {};
}

// `pattern` for each column, with commas between: {source} its name, {i} its number, {type} and
// {collation} of it.
std::string RowChanges::list(std::string_view pattern) const {
  std::string text;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (i > 0) text += ", ";
    const std::string type = i < types_.size() ? types_[i] : "";
    text +=
        fmt::format(fmt::runtime(pattern), fmt::arg("source", source_columns_[i]), fmt::arg("i", i),
                    fmt::arg("type", type), fmt::arg("collation", quoted_name(collations_[i])));
  }
  return text;
}

std::string RowChanges::keys(std::string_view pattern, std::string_view between) const {
  std::string text;
  for (std::size_t i = 0; i < key_count_; ++i) {
    if (i > 0) text += between;
    text += fmt::format(fmt::runtime(pattern), fmt::arg("source", source_columns_[i]),
                        fmt::arg("i", i));
  }
  return text;
}

Result<> RowChanges::execute(const std::string& sql) { return connection_->execute(sql.c_str()); }

Result<> RowChanges::make_image() {
  return execute(fmt::format("CREATE TABLE {}({}, PRIMARY KEY({})) WITHOUT ROWID", image_,
                             list("c{i} {type} COLLATE {collation}"), keys("c{i}", ", ")));
}

Result<> RowChanges::drop_image() { return execute("DROP TABLE IF EXISTS " + image_); }

// Selects what changes() gives.
std::string RowChanges::difference() const {
  const std::string same = keys("r.{source} = i.c{i}", " AND ");
  std::string differs;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (i > 0) differs += " OR ";
    // Equal numbers of two types differ, as do texts that only their collation takes for equal.
    differs += fmt::format("r.{0} COLLATE BINARY IS NOT i.c{1} OR typeof(r.{0}) <> typeof(i.c{1})",
                           source_columns_[i], i);
  }
  return fmt::format(
      "SELECT 'delete', {0}, {2} FROM {3} i WHERE NOT EXISTS (SELECT 1 FROM {4} r WHERE {5}) "
      "UNION ALL SELECT 'update', {0}, {1} FROM {3} i CROSS JOIN {4} r ON {5} WHERE {6} "
      "UNION ALL SELECT 'insert', {2}, {1} FROM {4} r WHERE NOT EXISTS (SELECT 1 FROM {3} i WHERE "
      "{5})",
      list("i.c{i}"), list("r.{source}"), list("NULL"), image_, source_, same, differs);
}

Result<bool> RowChanges::any() {
  OFFPRINT_TRY_ASSIGN(auto select,
                      connection_->prepare("SELECT 1 FROM (" + difference() + ") LIMIT 1"));
  return select.step();
}

Result<> RowChanges::gather() {
  OFFPRINT_TRY(
      execute(fmt::format("DROP TABLE IF EXISTS {0}; CREATE TEMP TABLE "
                          "offprint_changes(op, {1}, {2})",
                          kChanges, list("old{i}"), list("new{i}"))));
  return execute(fmt::format("INSERT INTO {} {}", kChanges, difference()));
}

Result<sqlite::Statement> RowChanges::changes() {
  return connection_->prepare(fmt::format("SELECT op, {}, {} FROM {} ORDER BY rowid",
                                          list("old{i}"), list("new{i}"), kChanges));
}

Result<> RowChanges::accept() {
  const std::string same = keys("c{i} = old{i}", " AND ");
  return execute(
      fmt::format("DELETE FROM {0} WHERE ({2}) IN (SELECT {3} FROM {1} WHERE op <> 'insert');"
                  "INSERT INTO {0} SELECT {4} FROM {1} WHERE op <> 'delete';"
                  "DROP TABLE {1}",
                  image_, kChanges, keys("c{i}", ", "), keys("old{i}", ", "), list("new{i}")));
}

}  // namespace offprint::consumer
