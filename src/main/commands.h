#pragma once

namespace CLI {
class App;
}

// Every subcommand, one line each: `offprint NAME` is added by add_NAME(), which lives in NAME.cc
// and sets `exit_code` when it runs (0 done, 1 failed, 2 usage, 3 unreachable, 4 refused, 5
// dropped).
#define OFFPRINT_COMMANDS(COMMAND) \
  COMMAND(serve)                   \
  COMMAND(follow)                  \
  COMMAND(tail)                    \
  COMMAND(restore)                 \
  COMMAND(restore_node)            \
  COMMAND(verify)                  \
  COMMAND(db)                      \
  COMMAND(sql)                     \
  COMMAND(publish)                 \
  COMMAND(open)                    \
  COMMAND(compose)                 \
  COMMAND(react)                   \
  COMMAND(contract)                \
  COMMAND(bench)                   \
  COMMAND(cluster)                 \
  COMMAND(doctor)                  \
  COMMAND(token)

namespace offprint {

#define OFFPRINT_DECLARE(name) void add_##name(CLI::App& app, int& exit_code);
OFFPRINT_COMMANDS(OFFPRINT_DECLARE)
#undef OFFPRINT_DECLARE

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnreachable = 3;
inline constexpr int kExitRefused = 4;
inline constexpr int kExitDropped = 5;
inline constexpr int kExitLagging = 6;

}  // namespace offprint
