#include "main/settings.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>
#include <toml++/toml.h>

namespace offprint {
namespace {

constexpr const char* kDefaultFile = "offprint.toml";

Result<std::string> text_of(const toml::node& node) {
  if (auto text = node.value<std::string>(); node.is_string()) return *text;
  if (auto flag = node.value<bool>(); node.is_boolean())
    return std::string(*flag ? "true" : "false");
  if (auto number = node.value<std::int64_t>(); node.is_integer()) return std::to_string(*number);
  if (auto number = node.value<double>(); node.is_floating_point())
    return fmt::format("{}", *number);
  return fail(Code::kInvalid, "must be a string, a number, true or false, or an array of these");
}

Result<std::vector<std::string>> texts_of(const toml::node& node) {
  std::vector<std::string> texts;
  if (const toml::array* list = node.as_array()) {
    for (const toml::node& item : *list) {
      OFFPRINT_TRY_ASSIGN(std::string text, text_of(item));
      texts.push_back(std::move(text));
    }
    return texts;
  }
  OFFPRINT_TRY_ASSIGN(std::string text, text_of(node));
  texts.push_back(std::move(text));
  return texts;
}

}  // namespace

Settings::Settings(CLI::App& command, bool has_file) : command_(command) {
  if (!has_file) return;
  command_
      .add_option("--config", config_,
                  "file with these options as keys (offprint.toml where there is one)")
      ->envname("OFFPRINT_CONFIG");
}

std::string Settings::flag_of(const std::string& key) {
  std::string flag = key;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

CLI::Option* Settings::note(const std::string& key, CLI::Option* option) {
  std::string variable = "OFFPRINT_" + key;
  std::transform(variable.begin(), variable.end(), variable.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  option->envname(variable);
  options_.emplace_back(key, option);
  return option;
}

Result<> Settings::load_file() {
  std::string path = config_;
  if (path.empty()) {
    if (!std::filesystem::exists(kDefaultFile)) return {};
    path = kDefaultFile;
  }
  if (!std::filesystem::exists(path)) return fail(Code::kNotFound, path + ": no such file");
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return fail(Code::kInvalid,
                fmt::format("{}:{}: {}", path, error.source().begin.line, error.description()));
  }
  for (const auto& [name, node] : table) {
    std::string key(name.str());
    auto found = std::find_if(options_.begin(), options_.end(),
                              [&](const auto& item) { return item.first == key; });
    if (found == options_.end())
      return fail(Code::kInvalid, fmt::format("{}: unknown key '{}'", path, key));
    CLI::Option* option = found->second;
    if (option->count() > 0) continue;
    Result<std::vector<std::string>> texts = texts_of(node);
    if (!texts)
      return fail(Code::kInvalid, fmt::format("{}: '{}' {}", path, key, texts.error().message()));
    try {
      option->add_result(*texts);
      option->run_callback();
    } catch (const CLI::ParseError& error) {
      return fail(Code::kInvalid, fmt::format("{}: '{}': {}", path, key, error.what()));
    }
  }
  return {};
}

}  // namespace offprint
