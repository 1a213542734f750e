// Rules about registered queries: compiled, and run without rows, with both schemas.
#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "publication/contract_context.h"
#include "publication/schema_program.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

// A query that takes longer than this without rows is taken to run for ever, which is its business.
constexpr int kSteps = 20'000'000;

struct ResultColumn {
  std::string name;
  std::string declared_type;
  Affinity affinity = Affinity::kBlob;
};

std::vector<ResultColumn> result_columns(sqlite::Statement& statement) {
  std::vector<ResultColumn> columns;
  for (int i = 0; i < statement.column_count(); ++i) {
    const char* declared = sqlite3_column_decltype(statement.handle(), i);
    ResultColumn column{sqlite3_column_name(statement.handle(), i),
                        declared == nullptr ? "" : declared};
    column.affinity = affinity_of(column.declared_type, true);
    columns.push_back(std::move(column));
  }
  return columns;
}

bool reads_or_writes_rows(const Tokens& tokens) {
  static constexpr std::array<std::string_view, 7> kWords = {"SELECT", "WITH",   "VALUES", "INSERT",
                                                             "UPDATE", "DELETE", "REPLACE"};
  return !tokens.empty() &&
         std::ranges::any_of(kWords, [&](auto word) { return tokens.front().is_word(word); });
}

// Runs it with NULL for its parameters and undoes what it did.
Result<> try_out(ScratchDatabase& database, const std::string& sql) {
  OFFPRINT_TRY(database.db().execute("SAVEPOINT attempt"));
  sqlite3_progress_handler(database.db().handle(), kSteps, [](void*) { return 1; }, nullptr);
  Result<> done;
  {
    Result<sqlite::Statement> statement = database.prepare(sql, "");
    done = statement ? statement->run() : Result<>(fail(statement.error()));
  }
  sqlite3_progress_handler(database.db().handle(), 0, nullptr, nullptr);
  if (!done && (done.error().sqlite_code() & 0xff) == SQLITE_INTERRUPT) done = {};
  // OR ROLLBACK ends the savepoint by itself.
  if (!database.db().autocommit())
    OFFPRINT_TRY(database.db().execute("ROLLBACK TO attempt; RELEASE attempt"));
  return done;
}

class QueryCheck {
 public:
  QueryCheck(Context& context, const Contract& contract, const ContractQuery& query)
      : context_(context), contract_(contract), query_(query) {}

  Result<> check() {
    const Tokens tokens = tokenize(query_.sql);
    const auto semicolon =
        std::ranges::find_if(tokens, [](const Token& token) { return token.is_operator(";"); });
    if (!reads_or_writes_rows(tokens) ||
        (semicolon != tokens.end() && semicolon + 1 != tokens.end())) {
      add("QUERY_COMPILES", "is not one statement that reads or writes rows");
      return {};
    }
    if (Result<NamedColumns> names = names_in_statement(context_.old_database, query_.sql)) {
      names_ = *std::move(names);
      for (const auto& [table, column] : names_) context_.readers.add(contract_, table, column);
    }
    Result<sqlite::Statement> before = context_.old_database.prepare(query_.sql, "");
    Result<sqlite::Statement> after = context_.new_database.prepare(query_.sql, "");
    if (!after) {
      report_failure(before.has_value(), after.error());
      return {};
    }
    if (!before) return {};  // it is made for the new schema
    compare_columns(result_columns(*before), result_columns(*after));
    const bool is_natural =
        std::ranges::any_of(tokens, [](const Token& token) { return token.is_word("NATURAL"); });
    if (is_natural) OFFPRINT_TRY(compare_joins());
    OFFPRINT_TRY(compare_plans());
    return compare_runs();
  }

 private:
  void add(std::string_view rule, const std::string& what,
           std::optional<Severity> severity = std::nullopt) {
    context_.findings.add(rule, contract_.file, {"", "", contract_.label(), std::nullopt},
                          fmt::format("{} of contract {} {}", query_.name, contract_.label(), what),
                          severity);
  }

  void report_failure(bool compiled_before, const Error& error) {
    if (!compiled_before) {
      add("QUERY_COMPILES", fmt::format("compiles with neither schema: {}", error.message()));
    } else if (error.message().starts_with("ambiguous column name")) {
      add("NAME_AMBIGUOUS", error.message());
    } else {
      add("QUERY_COMPILES", fmt::format("does not compile: {}", error.message()));
    }
  }

  void compare_columns(const std::vector<ResultColumn>& before,
                       const std::vector<ResultColumn>& after) {
    std::vector<std::string> old_names, new_names, old_keys, new_keys;
    for (const ResultColumn& column : before) {
      old_names.push_back(column.name);
      old_keys.push_back(folded(column.name));
    }
    for (const ResultColumn& column : after) {
      new_names.push_back(column.name);
      new_keys.push_back(folded(column.name));
    }
    if (old_keys != new_keys) {
      add("QUERY_RESULT_COLUMNS",
          fmt::format("has the columns {}; it had {}", fmt::join(new_names, ", "),
                      fmt::join(old_names, ", ")));
      for (const auto& [table, column] : names_) context_.changed_by_position.insert(table);
      return;
    }
    if (old_names != new_names)
      add("NAME_CASE_SAME", fmt::format("spells its columns {}; they were {}",
                                        fmt::join(new_names, ", "), fmt::join(old_names, ", ")));
    for (std::size_t i = 0; i < before.size(); ++i) {
      if (before[i].affinity == after[i].affinity) continue;
      add("QUERY_RESULT_AFFINITY",
          fmt::format("column {} has affinity {}, had {}", quoted(after[i].name),
                      affinity_name(after[i].affinity), affinity_name(before[i].affinity)));
    }
  }

  // Names that at least two of the query's tables have.
  std::set<std::string> shared_names(const Schema& schema) const {
    std::set<std::string> tables, seen, shared;
    for (const auto& [table, column] : names_) tables.insert(table);
    for (const std::string& name : tables) {
      const Table* table = schema.table(name);
      if (table == nullptr) continue;
      for (const Column* column : table->visible()) {
        if (!seen.insert(folded(column->name)).second) shared.insert(folded(column->name));
      }
    }
    return shared;
  }

  // Which columns it joins by is told by what its program reads.
  Result<> compare_joins() {
    const auto were_shared = shared_names(context_.before());
    const auto are_shared = shared_names(context_.after());
    OFFPRINT_TRY_ASSIGN(const auto before, columns_of_program(context_.old_database, query_.sql));
    OFFPRINT_TRY_ASSIGN(const auto after, columns_of_program(context_.new_database, query_.sql));
    std::vector<std::string> changed;
    auto note = [&](const std::set<std::string>& read, const std::set<std::string>& other,
                    const std::set<std::string>& shared, const std::set<std::string>& not_shared) {
      for (const std::string& column : read) {
        const std::string name = column.substr(column.find('.') + 1);
        if (!other.contains(column) && shared.contains(name) && !not_shared.contains(name))
          changed.push_back(column);
      }
    };
    note(before, after, were_shared, are_shared);
    note(after, before, are_shared, were_shared);
    if (!changed.empty())
      add("NATURAL_JOIN_CHANGED",
          fmt::format("joins by other columns: {}", fmt::join(changed, ", ")));
    return {};
  }

  Result<> compare_plans() {
    OFFPRINT_TRY_ASSIGN(const auto before, plan_of(context_.old_database, query_.sql));
    OFFPRINT_TRY_ASSIGN(const auto after, plan_of(context_.new_database, query_.sql));
    for (const auto& [table, access] : after) {
      auto was = before.find(table);
      if (access == Access::kScan && was != before.end() && was->second == Access::kSearch)
        add("PLAN_CHANGED", fmt::format("scans {}, where it searched by an index", quoted(table)));
    }
    return {};
  }

  Result<> compare_runs() {
    const Result<> before = try_out(context_.old_database, query_.sql);
    const Result<> after = try_out(context_.new_database, query_.sql);
    if (before && !after)
      add("QUERY_COMPILES", fmt::format("fails when it runs: {}", after.error().message()));
    return {};
  }

  Context& context_;
  const Contract& contract_;
  const ContractQuery& query_;
  NamedColumns names_;
};

}  // namespace

Result<> check_queries(Context& context) {
  for (const Contract& contract : context.contracts) {
    if (!contract.is_binding()) continue;
    for (const ContractQuery& query : contract.queries)
      OFFPRINT_TRY(QueryCheck(context, contract, query).check());
  }
  return {};
}

}  // namespace offprint::publication
