// offprint compose: views of rows whose columns several services own.
#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>

#include "consumer/session.h"
#include "main/commands.h"
#include "main/progress.h"
#include "main/remote.h"
#include "main/result_writer.h"

namespace offprint {
namespace {

struct ComposeOptions {
  std::string file, publication;
  bool check = false;
};

Result<int> compose(const ComposeOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto spec, consumer::read_consumer_spec(options.file));
  consumer::SessionOptions opening;
  opening.read_only = true;
  opening.composed = options.check;
  OFFPRINT_TRY_ASSIGN(auto connection, consumer::open_session(spec, opening));
  if (!options.publication.empty()) {
    OFFPRINT_TRY_ASSIGN(std::string text,
                        consumer::publication_text(connection, spec, options.publication));
    std::fputs(text.c_str(), stdout);
    return kExitDone;
  }
  if (!options.check) {
    OFFPRINT_TRY_ASSIGN(std::string sql, consumer::compose_sql(connection, spec));
    std::fputs((consumer::attach_sql(spec) + sql).c_str(), stdout);
    return kExitDone;
  }
  OFFPRINT_TRY_ASSIGN(auto select, connection.prepare("SELECT * FROM offprint_missing"));
  ResultSet table;
  table.columns = {"rule", "present_in", "missing_in", "key"};
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, select.step());
    if (!row) break;
    std::vector<sqlite::Value>& values = table.rows.emplace_back();
    for (int i = 0; i < select.column_count(); ++i)
      values.emplace_back(std::string(select.column_text(i)));
  }
  if (table.rows.empty()) return kExitDone;
  const auto format = is_terminal(stdout) ? ResultFormat::kTable : ResultFormat::kPlain;
  std::fputs(format_result(table, format).c_str(), stdout);
  return kExitFailed;
}

int run(const ComposeOptions& options) {
  Result<int> done = compose(options);
  if (done) return *done;
  return done.error().code() == Code::kInvalid ? report_usage(done.error().message())
                                               : report(done.error());
}

}  // namespace

void add_compose(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "compose", "Views that join a database of one's own with live replicas, as SQL.");
  auto options = std::make_shared<ComposeOptions>();
  command->add_option("SPEC", options->file, "a .toml: docs/guides/consumers.md")->required();
  CLI::Option* check = command->add_flag(
      "--check", options->check,
      "print rows that are missing on one side instead; exit 1 when there are some");
  command
      ->add_option("--publication", options->publication,
                   "print the views as a publication of that name instead, for publish create")
      ->excludes(check);
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace offprint
