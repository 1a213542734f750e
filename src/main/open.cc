// offprint open: a service's own database with live replicas beside it.
#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>

#include "consumer/session.h"
#include "database/script_reader.h"
#include "main/commands.h"
#include "main/conversation.h"
#include "main/progress.h"
#include "main/remote.h"
#include "main/result_writer.h"
#include "publication/row.h"

namespace offprint {
namespace {

// Rows that are printed at once where the format has no beginning and no widths.
constexpr std::size_t kRowsMax = 1000;

struct OpenOptions {
  std::string file, sql;
  std::vector<std::string> replicas;
  bool csv = false, json = false;
};

// Runs one statement and prints what it gives.
Result<> run_statement(sqlite::Connection& connection, std::string_view sql, ResultFormat format) {
  OFFPRINT_TRY_ASSIGN(auto statement, connection.prepare(sql));
  if (!statement) return {};
  ResultSet result;
  const int count = statement.column_count();
  for (int i = 0; i < count; ++i)
    result.columns.emplace_back(sqlite3_column_name(statement.handle(), i));
  const bool in_pieces = format == ResultFormat::kPlain || format == ResultFormat::kJson;
  const std::int64_t before = sqlite3_total_changes64(connection.handle());
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, statement.step());
    if (!row) break;
    result.rows.push_back(publication::row_of(statement));
    if (!in_pieces || result.rows.size() < kRowsMax) continue;
    std::fputs(format_result(result, format).c_str(), stdout);
    result.rows.clear();
  }
  // changes() says nothing about views: what their triggers wrote counts.
  result.changes = sqlite3_total_changes64(connection.handle()) - before;
  std::fputs(format_result(result, format).c_str(), stdout);
  std::fflush(stdout);
  return {};
}

Result<> run_script(sqlite::Connection& connection, std::FILE* from, ResultFormat format) {
  database::ScriptReader reader(from);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto statement, reader.next());
    if (!statement) return {};
    OFFPRINT_TRY(run_statement(connection, statement->sql, format));
  }
}

Result<> run_text(sqlite::Connection& connection, const std::string& text, ResultFormat format) {
  if (text.empty()) return {};
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      ::fmemopen(const_cast<char*>(text.data()), text.size(), "rb"), std::fclose);
  return run_script(connection, file.get(), format);
}

Result<consumer::ConsumerSpec> spec_of(const OpenOptions& options) {
  consumer::ConsumerSpec spec;
  spec.database = options.file;
  if (options.file.ends_with(".toml")) {
    OFFPRINT_TRY_ASSIGN(spec, consumer::read_consumer_spec(options.file));
  }
  for (const std::string& text : options.replicas) {
    OFFPRINT_TRY_ASSIGN(auto replica, consumer::parse_replica(text));
    spec.replicas.push_back(std::move(replica));
  }
  return spec;
}

int run(const OpenOptions& options) {
  Result<consumer::ConsumerSpec> spec = spec_of(options);
  if (!spec)
    return spec.error().code() == Code::kInvalid ? report_usage(spec.error().message())
                                                 : report(spec.error());
  Result<sqlite::Connection> connection = consumer::open_session(*spec, {});
  if (!connection) return report(connection.error());
  const ResultFormat format = options.csv           ? ResultFormat::kCsv
                              : options.json        ? ResultFormat::kJson
                              : is_terminal(stdout) ? ResultFormat::kTable
                                                    : ResultFormat::kPlain;
  if (options.sql.empty() && is_terminal(stdin)) {
    return converse(options.file,
                    [&](const std::string& text) { return run_text(*connection, text, format); });
  }
  Result<> done = options.sql.empty() ? run_script(*connection, stdin, format)
                                      : run_text(*connection, options.sql, format);
  return done ? kExitDone : report(done.error());
}

}  // namespace

void add_open(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("open", "SQL on a database of one's own with live replicas beside it.");
  auto options = std::make_shared<OpenOptions>();
  command
      ->add_option("FILE", options->file,
                   "the own SQLite file, or a .toml that names it, its replicas and its views")
      ->required();
  command->add_option("SQL", options->sql, "statements; without: those of standard input");
  command->add_option("--attach", options->replicas, "NAME=FILE: a replica, read-only as NAME")
      ->allow_extra_args(false);
  CLI::Option* csv = command->add_flag("--csv", options->csv, "names and rows as CSV");
  command->add_flag("--json", options->json, "a JSON object for each row, one a line")
      ->excludes(csv);
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace offprint
