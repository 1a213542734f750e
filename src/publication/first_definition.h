#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "sqlite/connection.h"

namespace offprint::publication {

struct FirstDefinitionOptions {
  std::string name;                 // of the publication: see publication_name_of()
  std::vector<std::string> tables;  // these alone; empty: all
};

// A text "CREATE PUBLICATION …" that publishes the tables of a database as they are, every column
// by name, with their plain indexes: a beginning for whoever writes one. Comments say what to do
// with it, and what was left out and why. It can be published as it is. Thread: any. Blocks.
// Errors: kNotFound, there is no such table; kInvalid, nothing of the database can be published, or
// the name is none.
Result<std::string> first_definition(sqlite::Connection& source,
                                     const FirstDefinitionOptions& options);

// What a publication of a database or file of that name may be called: "Web Shop.db" is "web-shop".
std::string publication_name_of(std::string_view name);

}  // namespace offprint::publication
