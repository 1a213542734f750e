#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "publication/schema_model.h"
#include "publication/schema_script.h"
#include "sqlite/connection.h"

namespace offprint::publication {

// Something that a schema needs and that SQLite does not have by itself.
struct MissingExtension {
  std::string kind;     // "collation", "function", "module", "tokenizer"
  std::string name;     // as spelled
  std::string used_by;  // folded name of the table, view or trigger; empty: a query
};

// A schema in an SQLite database in memory, made by running its statements. What they need and is
// missing (a collation, a function, a module) is replaced by a stand-in, so that everything else
// can still be compiled.
// Thread: one. The statements cannot reach files.
class ScratchDatabase {
 public:
  // `script` must outlive it. kSql "label:line:column: message": a statement that SQLite refuses.
  static Result<std::unique_ptr<ScratchDatabase>> create(const SchemaScript& script);

  sqlite::Connection& db() { return db_; }
  const Schema& schema() const { return schema_; }
  const SchemaScript& script() const { return script_; }
  const std::vector<MissingExtension>& missing() const { return missing_; }

  // Compiles; what is missing gets a stand-in and is noted as used by `used_by`.
  Result<sqlite::Statement> prepare(std::string_view sql, const std::string& used_by);

  // Where a table, view, index or trigger (and one of its columns) is made; nothing where that is
  // not in the script.
  std::optional<Place> place_of(const std::string& object, const std::string& column = {}) const;

 private:
  ScratchDatabase(const SchemaScript& script, sqlite::Connection db)
      : script_(script), db_(std::move(db)) {}
  Result<> run_script();
  Result<> run_statement(std::size_t number);
  bool replace_missing(const Error& error, const std::string& used_by);
  const SchemaStatement* statement_of(const std::string& object) const;

  const SchemaScript& script_;
  sqlite::Connection db_;
  Schema schema_;
  std::vector<MissingExtension> missing_;
  std::map<std::string, std::vector<std::size_t>> made_by_;  // object: numbers of statements
};

}  // namespace offprint::publication
