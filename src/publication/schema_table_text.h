#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "publication/schema_model.h"

// What a CREATE statement says that no pragma tells. The statement has been accepted by SQLite, so
// that its tokens suffice.
namespace offprint::publication {

// Adds the CHECKs and the expressions of generated columns that table.sql holds.
void read_table_text(Table& table);

struct IndexText {
  std::vector<std::string> expressions;  // the keys in order, normalized
  std::string where;                     // normalized; empty: not partial
};
// Of a CREATE INDEX statement; nothing of an empty text (an index that a constraint makes).
IndexText read_index_text(std::string_view sql);

// The SELECT of a CREATE VIEW statement as written, and whether the view names its columns itself.
struct ViewText {
  std::string select;
  bool has_column_list = false;
  bool has_star = false;  // the result of a SELECT holds * or t.*, not counting those of EXISTS
};
ViewText read_view_text(std::string_view sql);

}  // namespace offprint::publication
