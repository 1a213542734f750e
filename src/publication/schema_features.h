#pragma once

#include <string>
#include <string_view>
#include <vector>

// Which SQLite a schema's statements need.
namespace offprint::publication {

struct Feature {
  std::string what;        // "STRICT"
  int version = 0;         // as SQLITE_VERSION_NUMBER: the first that has it
  std::size_t offset = 0;  // in the statement
};

// What a CREATE statement uses that came after SQLite 3.8.0, each once.
std::vector<Feature> features_of(std::string_view sql);

// 3037000 as "3.37.0".
std::string version_text(int version);

}  // namespace offprint::publication
