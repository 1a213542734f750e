#include "publication/contract_set.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

std::string without_blanks(std::string_view text) {
  std::string result;
  std::ranges::copy_if(text, std::back_inserter(result), [](char c) { return c != ' '; });
  return folded(result);
}

// Takes a contract's file apart, key by key.
class ContractReader {
 public:
  ContractReader(const std::string& file, const toml::table& root) : root_(root) {
    contract_.file = file;
  }

  Result<Contract> read() {
    for (const auto& [key, node] : root_) {
      if (Result<> done = take(key.str(), node); !done) {
        return fail(Code::kInvalid,
                    fmt::format("{}:{}: '{}' {}", contract_.file, node.source().begin.line,
                                key.str(), done.error().message()));
      }
    }
    if (contract_.name.empty()) return fail(Code::kInvalid, contract_.file + ": 'name' is missing");
    return std::move(contract_);
  }

 private:
  Result<> take(std::string_view key, const toml::node& node) {
    if (key == "version") {
      if (!node.is_integer() || node.value_or<std::int64_t>(0) < 1)
        return fail(Code::kInvalid, "must be a whole number from 1");
      contract_.version = node.value_or<std::int64_t>(1);
      return {};
    }
    if (key == "reads") return take_reads(node);
    if (key == "where") return take_filters(node);
    if (key == "queries") return take_queries(node);
    if (key == "ignore") return take_ignores(node);
    if (key == "reserved") return take_names(node, contract_.reserved);
    if (key == "closed_enum") return take_names(node, contract_.closed_enums);
    if (key == "joins") return take_names(node, contract_.joins);
    if (key == "last_used") {
      OFFPRINT_TRY_ASSIGN(contract_.last_used, text_of(node));
      return {};
    }
    if (key == "name") {
      OFFPRINT_TRY_ASSIGN(contract_.name, text_of(node));
      return {};
    }
    if (key == "status") {
      OFFPRINT_TRY_ASSIGN(contract_.status, text_of(node));
      if (!contract_.is_binding() && contract_.status != "draft" && contract_.status != "retired")
        return fail(Code::kInvalid, "must be draft, published, deprecated or retired");
      return {};
    }
    if (key == "min_sqlite") {
      OFFPRINT_TRY_ASSIGN(contract_.min_sqlite, text_of(node));
      if (!sqlite_version_number(contract_.min_sqlite))
        return fail(Code::kInvalid, "must be a version such as \"3.40.1\"");
      return {};
    }
    return fail(Code::kInvalid, "is no key of a contract");
  }

  // A day may be written with and without quotes.
  static Result<std::string> text_of(const toml::node& node) {
    if (node.is_string()) return node.value_or<std::string>("");
    if (auto day = node.value<toml::date>(); day && node.is_date())
      return fmt::format("{:04}-{:02}-{:02}", day->year, day->month, day->day);
    return fail(Code::kInvalid, "must be a text");
  }
  static Result<std::vector<std::string>> texts_of(const toml::node& node) {
    std::vector<std::string> texts;
    const toml::array* list = node.as_array();
    if (list == nullptr) return fail(Code::kInvalid, "must be an array of texts");
    for (const toml::node& item : *list) {
      OFFPRINT_TRY_ASSIGN(std::string text, text_of(item));
      texts.push_back(std::move(text));
    }
    return texts;
  }
  static Result<> take_names(const toml::node& node, std::set<std::string>& to) {
    OFFPRINT_TRY_ASSIGN(auto texts, texts_of(node));
    for (const std::string& text : texts) {
      if (text.find('.') == std::string::npos)
        return fail(Code::kInvalid, fmt::format("names columns as table.column, not '{}'", text));
      to.insert(without_blanks(text));
    }
    return {};
  }

  Result<> take_reads(const toml::node& node) {
    const toml::table* tables = node.as_table();
    if (tables == nullptr) return fail(Code::kInvalid, "must be a table of tables");
    for (const auto& [name, columns] : *tables) {
      auto& to = contract_.reads[folded(name.str())];
      if (columns.value_or<std::string>("") == "*") continue;
      OFFPRINT_TRY_ASSIGN(auto texts, texts_of(columns));
      to.emplace();
      for (const std::string& text : texts) to->insert(folded(text));
    }
    return {};
  }
  Result<> take_filters(const toml::node& node) {
    const toml::table* tables = node.as_table();
    if (tables == nullptr) return fail(Code::kInvalid, "must be a table of conditions");
    for (const auto& [name, condition] : *tables) {
      OFFPRINT_TRY_ASSIGN(contract_.filters[folded(name.str())], text_of(condition));
    }
    return {};
  }
  Result<> take_queries(const toml::node& node) {
    const toml::array* list = node.as_array();
    if (list == nullptr) return fail(Code::kInvalid, "must be an array");
    for (const toml::node& item : *list) {
      ContractQuery query;
      query.name = fmt::format("query {}", contract_.queries.size() + 1);
      if (const toml::table* table = item.as_table()) {
        for (const auto& [key, value] : *table) {
          if (key.str() != "name" && key.str() != "sql")
            return fail(Code::kInvalid, fmt::format("has no key '{}'", key.str()));
          OFFPRINT_TRY_ASSIGN((key.str() == "name" ? query.name : query.sql), text_of(value));
        }
      } else {
        OFFPRINT_TRY_ASSIGN(query.sql, text_of(item));
      }
      if (tokenize(query.sql).empty()) return fail(Code::kInvalid, "has a query without SQL");
      contract_.queries.push_back(std::move(query));
    }
    return {};
  }
  Result<> take_ignores(const toml::node& node) {
    const toml::array* list = node.as_array();
    if (list == nullptr) return fail(Code::kInvalid, "must be an array of tables");
    for (const toml::node& item : *list) {
      const toml::table* table = item.as_table();
      if (table == nullptr) return fail(Code::kInvalid, "must be an array of tables");
      IgnoreText ignore;
      for (const auto& [key, value] : *table) {
        std::string* to = key.str() == "rule"     ? &ignore.rule
                          : key.str() == "until"  ? &ignore.until
                          : key.str() == "reason" ? &ignore.reason
                          : key.str() == "object" ? &ignore.object
                                                  : nullptr;
        if (to == nullptr) return fail(Code::kInvalid, fmt::format("has no key '{}'", key.str()));
        OFFPRINT_TRY_ASSIGN(*to, text_of(value));
      }
      contract_.ignores.push_back(std::move(ignore));
    }
    return {};
  }

  const toml::table& root_;
  Contract contract_;
};

}  // namespace

Result<Contract> parse_contract(const std::string& file, const std::string& text) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return fail(Code::kInvalid,
                fmt::format("{}:{}: {}", file, error.source().begin.line, error.description()));
  }
  return ContractReader(file, root).read();
}

Result<Contract> read_contract(const std::string& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error))
    return fail(Code::kNotFound, file + ": no such file");
  std::ifstream stream(file, std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  return parse_contract(file, text.str());
}

std::optional<int> sqlite_version_number(const std::string& text) {
  int parts[3] = {0, 0, 0};
  const char* at = text.data();
  const char* end = text.data() + text.size();
  for (int i = 0; i < 3; ++i) {
    auto [next, error] = std::from_chars(at, end, parts[i]);
    if (error != std::errc() || parts[i] < 0 || parts[i] > 999) return std::nullopt;
    at = next;
    if (at == end)
      return i == 0 ? std::nullopt
                    : std::optional(parts[0] * 1'000'000 + parts[1] * 1'000 + parts[2]);
    if (*at++ != '.') return std::nullopt;
  }
  return std::nullopt;
}

Readers::Readers(const std::vector<Contract>& contracts, const Schema& before) {
  for (const Contract& contract : contracts) {
    if (!contract.is_binding()) continue;
    contracts_.push_back(&contract);
    for (const auto& [table, columns] : contract.reads)
      entries_[table].push_back({&contract, !columns, columns.value_or(std::set<std::string>())});
  }
  if (!contracts.empty()) return;
  for (const auto& [name, table] : before.tables) {
    Entry entry{nullptr, false, {"*"}};
    for (const Column& column : table.columns) entry.columns.insert(folded(column.name));
    entries_[name].push_back(std::move(entry));
  }
}

void Readers::add(const Contract& contract, const std::string& table, const std::string& column) {
  std::vector<Entry>& entries = entries_[table];
  auto found = std::ranges::find(entries, &contract, &Entry::contract);
  if (found == entries.end()) found = entries.insert(entries.end(), {&contract, false, {}});
  if (!column.empty()) found->columns.insert(column);
}

std::vector<Readers::Reading> Readers::readings(const std::string& table,
                                                const std::string& column) const {
  std::vector<Reading> list;
  auto found = entries_.find(folded(table));
  if (found == entries_.end()) return list;
  for (const Entry& entry : found->second) {
    const bool is_named = entry.columns.contains(folded(column));
    if (column.empty() || entry.all || is_named) list.push_back({entry.contract, !is_named});
  }
  return list;
}

bool Readers::reads(const std::string& table) const { return !readings(table, "").empty(); }

bool Readers::reads(const std::string& table, const std::string& column) const {
  return !readings(table, column).empty();
}

bool Readers::reads_as_whole_only(const std::string& table, const std::string& column) const {
  const std::vector<Reading> list = readings(table, column);
  return !list.empty() && std::ranges::all_of(list, &Reading::as_whole);
}

std::string Readers::clause(const std::string& table, const std::string& column) const {
  std::string text;
  for (const Reading& reading : readings(table, column)) {
    if (reading.contract == nullptr) return "was there";
    text += text.empty() ? "is read by contract " : ", ";
    text += reading.contract->label();
    if (!reading.contract->last_used.empty())
      text += fmt::format(" (last used {})", reading.contract->last_used);
  }
  return text.empty() ? "was there" : text;
}

bool Readers::is_reserved(const std::string& table, const std::string& column) const {
  const std::string name = folded(table) + "." + folded(column);
  return std::ranges::any_of(
      contracts_, [&](const Contract* contract) { return contract->reserved.contains(name); });
}

bool Readers::is_closed_enum(const std::string& table, const std::string& column) const {
  const std::string name = folded(table) + "." + folded(column);
  return std::ranges::any_of(
      contracts_, [&](const Contract* contract) { return contract->closed_enums.contains(name); });
}

bool Readers::is_joined(const std::string& table, const ForeignKey& key) const {
  for (std::size_t i = 0; i < key.from.size(); ++i) {
    const std::string child = folded(table) + "." + key.from[i];
    const bool found = std::ranges::any_of(contracts_, [&](const Contract* contract) {
      return std::ranges::any_of(contract->joins, [&](const std::string& join) {
        if (i < key.to.size()) return join == child + "=" + key.parent + "." + key.to[i];
        return join.starts_with(child + "=" + key.parent + ".");
      });
    });
    if (!found) return false;
  }
  return !key.from.empty();
}

}  // namespace offprint::publication
