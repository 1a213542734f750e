#pragma once

#include <string>
#include <vector>

#include "sqlite/connection.h"

namespace offprint::publication {

using Row = std::vector<sqlite::Value>;

// The same values, of the same types.
bool is_same(const Row& a, const Row& b);

// The value of a column of the row that a statement stands at, and all of them.
sqlite::Value value_of(const sqlite::Statement& statement, int column);
Row row_of(const sqlite::Statement& statement);

// The same text for the same value of the same type, another one for each other.
void append_exactly(std::string& to, const sqlite::Value& value);

}  // namespace offprint::publication
