#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// What a publication is declared to be: docs/format/publication.md. This is its text taken apart;
// what it means in a database says publication/plan.h.
namespace offprint::publication {

// The table of an instance of several sources that says which states of them it is of.
inline constexpr const char* kSourcesTable = "_offprint_sources";

struct Parameter {
  enum class Type { kInteger, kReal, kText, kBlob };
  std::string name;  // without the colon
  Type type = Type::kText;
};

// A column of what is published: an expression over the table's columns, and its name there.
struct PublishedColumn {
  std::string expression;
  std::string name;
};

// A database that a publication of several takes something of.
struct SourceItem {
  struct Table {
    std::string name;
    std::vector<std::string> columns;
  };
  std::string database;  // empty: the one that the publication is of
  std::string schema;    // what stands before the names of its tables; "main" of that one
  // What is taken, written out when it is published.
  bool is_listed = false;
  std::vector<Table> tables;
  std::vector<Table> indexes;  // on the columns of such a table
};

struct TableItem {
  std::string schema;                    // of the table; empty: main
  std::string source;                    // the table
  std::string name;                      // of the published one
  bool all_columns = false;              // "*"
  std::size_t star = 0;                  // where that stands in the text
  std::size_t behind_columns = 0;        // where AS stands in the text, or would
  bool has_name = false;                 // it is there
  std::vector<PublishedColumn> columns;  // else these
  std::string filter;                    // the text behind WHERE; empty: every row
  bool refresh_full = false;
};

struct ViewItem {
  std::string name;
  std::vector<std::string> columns;
  std::vector<std::string> key;
  std::string select;
  bool refresh_full = false;
};

struct IndexItem {
  std::string table;                 // a published one
  std::vector<std::string> columns;  // expressions
};

struct Definition {
  std::string name;  // [a-z0-9][a-z0-9_-]{0,62}
  std::vector<Parameter> parameters;
  std::vector<SourceItem> sources;  // of one of several; else empty
  // Where in the text they stand, from FROM to before AS.
  std::size_t sources_begin = 0, sources_end = 0;
  std::vector<TableItem> tables;
  std::vector<ViewItem> views;
  std::vector<IndexItem> indexes;
};

// A name as it is where SQL and this grammar take it so; else between quotes.
std::string written_name(std::string_view name);

// "forum/ratings AS forum", as FROM has it. `database` empty: main.
std::string written_source(const std::string& database, const std::string& schema);

// The text with the columns that "*" stood for when it was published.
std::string with_columns(std::string_view text, const Definition& definition,
                         const std::vector<std::vector<std::string>>& columns_of_tables);

// What is asked of the parameters of a new publication; those of before may be otherwise.
Result<> check_parameters(const Definition& definition);

// kInvalid with the line and what was expected there.
Result<Definition> parse_definition(std::string_view text);

}  // namespace offprint::publication
