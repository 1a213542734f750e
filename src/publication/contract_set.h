#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "publication/schema_model.h"

// Contracts: what consumers said they read.
namespace offprint::publication {

struct ContractQuery {
  std::string name;  // "query 2" unless it has one
  std::string sql;
};

// An ignore as it was written, in a contract or in a comment.
struct IgnoreText {
  std::string rule, until, reason, object;
};

// One version of a contract. docs/contracts.md describes its file.
struct Contract {
  std::string file;  // as given
  std::string name;
  std::int64_t version = 1;
  std::string status = "published";  // "draft", "published", "deprecated", "retired"
  std::string last_used;             // a day; empty: not known
  std::string min_sqlite;            // "3.40.1"; empty: not said
  // By folded table name: folded column names; nothing: all columns.
  std::map<std::string, std::optional<std::set<std::string>>> reads;
  std::map<std::string, std::string> filters;  // by folded table name: an SQL condition
  std::vector<ContractQuery> queries;
  std::set<std::string> reserved, closed_enums;  // folded "table.column"
  std::set<std::string> joins;  // folded "table.column=parent.column", both columns named
  std::vector<IgnoreText> ignores;

  std::string label() const { return name + "@v" + std::to_string(version); }
  // Drafts and retired versions bind nobody.
  bool is_binding() const { return status == "published" || status == "deprecated"; }
};

// kInvalid "file:line: …": no TOML, an unknown key, a value of another kind.
Result<Contract> parse_contract(const std::string& file, const std::string& text);
// kNotFound besides.
Result<Contract> read_contract(const std::string& file);

// "3.40.1" as 3040001; nothing when it is no version.
std::optional<int> sqlite_version_number(const std::string& text);

// Who reads what. Without contracts everything of the old schema counts as read, by nobody in
// particular.
class Readers {
 public:
  // A contract reads what it lists and what its queries read, see add().
  Readers(const std::vector<Contract>& contracts, const Schema& before);

  // `contract` reads this column (of a view too), or the table as such ("").
  void add(const Contract& contract, const std::string& table, const std::string& column);

  bool reads(const std::string& table) const;
  // Column "*": whatever columns it has.
  bool reads(const std::string& table, const std::string& column) const;
  // Only by contracts that name no columns of the table.
  bool reads_as_whole_only(const std::string& table, const std::string& column) const;
  // "is read by contract orders@v2 (last used 2026-11-20)", "was there" without contracts.
  std::string clause(const std::string& table, const std::string& column = {}) const;

  bool is_reserved(const std::string& table, const std::string& column) const;
  bool is_closed_enum(const std::string& table, const std::string& column) const;
  // A contract joins along this foreign key's columns.
  bool is_joined(const std::string& table, const ForeignKey& key) const;

 private:
  struct Reading {
    const Contract* contract = nullptr;  // nullptr: everybody
    bool as_whole = false;
  };
  std::vector<Reading> readings(const std::string& table, const std::string& column) const;

  std::vector<const Contract*> contracts_;
  // By folded table: of each contract the columns, nothing: all.
  struct Entry {
    const Contract* contract;
    bool all;
    std::set<std::string> columns;
  };
  std::map<std::string, std::vector<Entry>> entries_;
};

}  // namespace offprint::publication
