#pragma once

#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/result.h"

namespace offprint {

// The options of a command that can be given as a flag, as an OFFPRINT_… variable or in
// offprint.toml, in this order of precedence. Key `io_threads` is flag --io-threads and variable
// OFFPRINT_IO_THREADS.
class Settings {
 public:
  // `has_file`: the command takes them from a file, too (load_file()).
  explicit Settings(CLI::App& command, bool has_file = true);

  template <class T>
  CLI::Option* add(const std::string& key, T& value, const std::string& help) {
    return note(key, command_.add_option("--" + flag_of(key), value, help)->capture_default_str());
  }
  CLI::Option* add_switch(const std::string& key, bool& value, const std::string& help) {
    return note(key, command_.add_flag("--" + flag_of(key), value, help));
  }

  // After the flags were parsed: takes what was given neither as flag nor as variable from the file
  // (--config; without it offprint.toml where there is one). kInvalid: an unknown key, a value that
  // does not fit; kNotFound: no such file.
  Result<> load_file();

 private:
  static std::string flag_of(const std::string& key);
  CLI::Option* note(const std::string& key, CLI::Option* option);

  CLI::App& command_;
  std::string config_;
  std::vector<std::pair<std::string, CLI::Option*>> options_;
};

}  // namespace offprint
