#include "bench/litestream.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <unistd.h>

namespace offprint::bench {
namespace {

constexpr const char* kInstalled = "build/tools/litestream/bin/litestream";

std::string first_line_of(const std::string& command) {
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "";
  std::array<char, 256> line{};
  std::string text = std::fgets(line.data(), line.size(), pipe) == nullptr ? "" : line.data();
  ::pclose(pipe);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

std::optional<Litestream> Litestream::find() {
  const char* named = std::getenv("LITESTREAM");
  Litestream found{.program = named == nullptr ? kInstalled : named, .version = ""};
  if (::access(found.program.c_str(), X_OK) == 0)
    found.version = first_line_of(fmt::format("'{}' version", found.program));
  if (!found.version.empty()) {
    fmt::print("beside it: stock Litestream {}\n", found.version);
    return found;
  }
  fmt::print(
      "SKIPPED: NOTHING IS MEASURED OF LITESTREAM, {} CANNOT BE RUN (LITESTREAM=PROGRAM, or make "
      "test-interop installs it)\n",
      found.program);
  return std::nullopt;
}

std::vector<std::string> Litestream::replicate(const std::vector<std::string>& files,
                                               const std::string& replicas,
                                               const std::string& interval) const {
  std::filesystem::create_directories(replicas);
  const std::string path = replicas + "/litestream.yml";
  std::ofstream settings(path);
  settings << "dbs:\n";
  for (const std::string& file : files) {
    settings << fmt::format("  - path: {}\n", file);
    if (!interval.empty()) settings << fmt::format("    monitor-interval: {}\n", interval);
    settings << fmt::format("    replica:\n      type: file\n      path: {}/{}\n", replicas,
                            std::filesystem::path(file).stem().string());
    if (!interval.empty()) settings << fmt::format("      sync-interval: {}\n", interval);
  }
  return {program, "replicate", "-config", path};
}

}  // namespace offprint::bench
