#pragma once

#include <optional>
#include <string>
#include <vector>

namespace offprint::bench {

// Stock Litestream, where it does the same work. LITESTREAM names its program; else the one that
// `make test-interop` installed is taken.
struct Litestream {
  std::string program;
  std::string version;

  // Nothing where there is none, which is said loudly, once.
  static std::optional<Litestream> find();

  // Arguments that replicate each file into the folder `replicas`/NAME, NAME being the file's
  // without its folder and ending. `interval`: of looks at the file and of writing to the replica
  // ("1s" is what it does by default; "" leaves it at that). Writes a file of settings into
  // `replicas`.
  std::vector<std::string> replicate(const std::vector<std::string>& files,
                                     const std::string& replicas,
                                     const std::string& interval) const;
};

}  // namespace offprint::bench
