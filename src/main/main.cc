// The `offprint` program: finds the subcommand and runs it.
#include <cstdio>

#include <fmt/format.h>
#include <sqlite3.h>
#include <CLI/CLI.hpp>

#include "main/commands.h"
#include "sqlite/connection.h"

int main(int argc, char** argv) {
  offprint::sqlite::initialize();
  CLI::App app("Offprint ships live SQLite databases instead of APIs.", "offprint");
  app.set_version_flag("--version",
                       fmt::format("offprint {} (SQLite {}, journal format 1, LTX 3, stream 1)",
                                   OFFPRINT_VERSION, sqlite3_libversion()));
  app.require_subcommand(1);
  int exit_code = offprint::kExitDone;
#define OFFPRINT_ADD(name) offprint::add_##name(app, exit_code);
  OFFPRINT_COMMANDS(OFFPRINT_ADD)
#undef OFFPRINT_ADD
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? offprint::kExitDone : offprint::kExitUsage;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "offprint: %s\n", error.what());
    return offprint::kExitFailed;
  }
  return exit_code;
}
