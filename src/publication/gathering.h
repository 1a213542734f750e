#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "publication/definition.h"
#include "publication/plan.h"
#include "sqlite/connection.h"

// A publication of several sources. What it takes of each of them, its *part*, is kept in one
// database beside them, the *gathered* one, each part at a state of its own source; what is
// published is a publication of that one. docs/format/publication.md, "Several sources".
namespace offprint::publication {

struct Part {
  std::string schema;      // what stands before the names of its tables
  std::string database;    // empty: the one that the publication is of
  std::string definition;  // the text of a publication of that source
};

struct Gathering {
  std::vector<Part> parts;
  std::string definition;  // the text of a publication of the gathered database
};

// In the gathered database: which states of the sources its tables are of. One row for each part.
inline constexpr const char* kPartsTable = "_offprint_parts";

// Of a text that says what is taken of each source (with_parts()). kInvalid.
Result<Gathering> gathering_of(const std::string& text);

// Gives a connection to a state of a source to `work`: of a database by name, empty: the one that
// the publication is of. An error: there is no such source.
using ReadSource = std::function<Result<>(
    const std::string& database, const std::function<Result<>(sqlite::Connection&)>& work)>;

// The text with what is taken of each source: the columns that it reads, keys, and indexes for
// what rows are looked up by. What is listed already stays. kInvalid "PUBLICATION_…: why not".
Result<std::string> with_parts(const std::string& text, const ReadSource& read);

// A database in memory with the gathered one's schema. kInvalid: a part does not fit its source.
Result<sqlite::Connection> gathered_schema(const Gathering& gathering, const ReadSource& read);

}  // namespace offprint::publication
