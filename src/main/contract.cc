// offprint contract: what a change of a schema breaks for those who read by contracts.
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "main/commands.h"
#include "main/contract_consumers.h"
#include "main/remote.h"
#include "main/schema_source.h"
#include "publication/contract_check.h"
#include "publication/contract_rule.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

using publication::CheckReport;
using publication::Finding;
using publication::Severity;

struct ContractArguments {
  RemoteOptions remote;
  std::string before, after;
  std::vector<std::string> contracts, as_error, as_warning, off;
  publication::CheckOptions check;
  bool json = false, rules = false, consumers = false;
};

Result<> take_severities(ContractArguments& arguments) {
  const std::pair<const std::vector<std::string>&, Severity> lists[] = {
      {arguments.as_error, Severity::kError},
      {arguments.as_warning, Severity::kWarning},
      {arguments.off, Severity::kOff}};
  for (const auto& [names, severity] : lists) {
    for (const std::string& name : names) {
      if (publication::find_rule(name) == nullptr && !publication::find_category(name))
        return fail(Code::kInvalid, fmt::format("'{}' is no rule and no category; --rules lists "
                                                "them",
                                                name));
      arguments.check.severities.by_name[name] = severity;
    }
  }
  return {};
}

std::string place_text(const Finding& finding) {
  if (!finding.place || finding.place->line == 0) return finding.label;
  return fmt::format("{}:{}:{}", finding.label, finding.place->line, finding.place->column);
}

void print_text(const CheckReport& report) {
  for (const Finding& finding : report.findings) {
    std::printf("%s %s %s%s\n", place_text(finding).c_str(), std::string(finding.rule->id).c_str(),
                finding.severity == Severity::kWarning ? "(warning) " : "",
                finding.message.c_str());
  }
  std::printf("%d errors, %d warnings, %d ignored\n", report.errors, report.warnings,
              report.ignored);
}

void add_field(std::string& line, const char* name, std::string_view value) {
  if (value.empty()) return;
  line += fmt::format(R"(,"{}":)", name);
  server::append_json_string(line, value);
}

void print_json(const CheckReport& report) {
  for (const Finding& finding : report.findings) {
    std::string line =
        fmt::format(R"({{"rule":"{}","category":"{}","severity":"{}")", finding.rule->id,
                    publication::category_name(finding.rule->category),
                    publication::severity_name(finding.severity));
    add_field(line, "file", finding.label);
    if (finding.place && finding.place->line != 0)
      line += fmt::format(R"(,"line":{},"column":{})", finding.place->line, finding.place->column);
    add_field(line, "object", finding.object);
    add_field(line, "contract", finding.contract);
    add_field(line, "message", finding.message);
    std::printf("%s}\n", line.c_str());
  }
  std::printf(R"({"summary":{"errors":%d,"warnings":%d,"ignored":%d}})"
              "\n",
              report.errors, report.warnings, report.ignored);
}

int print_rules() {
  for (const publication::Rule& rule : publication::all_rules()) {
    std::printf("%-33s %-9s %-8s %s\n", std::string(rule.id).c_str(),
                std::string(publication::category_name(rule.category)).c_str(),
                std::string(publication::severity_name(rule.severity)).c_str(),
                std::string(rule.summary).c_str());
  }
  return kExitDone;
}

int fail_with(const Error& error) {
  return error.code() == Code::kInvalid ? report_usage(error.message()) : report(error);
}

int run(ContractArguments& arguments) {
  if (arguments.rules) return print_rules();
  if (arguments.before.empty() || arguments.after.empty())
    return report_usage("OLD and NEW are missing: files, addresses or names of databases");
  if (Result<> taken = take_severities(arguments); !taken)
    return report_usage(taken.error().message());
  std::vector<publication::Contract> contracts;
  for (const std::string& file : arguments.contracts) {
    auto contract = publication::read_contract(file);
    if (!contract) return report_usage(contract.error().message());
    contracts.push_back(*std::move(contract));
  }
  if (arguments.consumers) {
    auto registered = registered_contracts(arguments.remote, arguments.before);
    if (!registered) return fail_with(registered.error());
    for (publication::Contract& each : *registered) contracts.push_back(std::move(each));
    arguments.check.tells_unread = true;
  }
  const auto before = read_schema_at(arguments.remote, arguments.before);
  if (!before) return fail_with(before.error());
  const auto after = read_schema_at(arguments.remote, arguments.after);
  if (!after) return fail_with(after.error());
  arguments.check.today = format_rfc3339(unix_time_ms()).substr(0, 10);
  const auto report = publication::check_contracts(*before, *after, contracts, arguments.check);
  if (!report) return fail_with(report.error());
  if (arguments.json) {
    print_json(*report);
  } else {
    print_text(*report);
  }
  return report->errors == 0 ? kExitDone : kExitFailed;
}

void add_check_options(CLI::App& check, ContractArguments& arguments) {
  constexpr const char* kWhat =
      "a script (.sql), an SQLite file, a database's URL, or its name on the server";
  check.add_option("OLD", arguments.before, kWhat);
  check.add_option("NEW", arguments.after, kWhat);
  check.add_option("--contract", arguments.contracts,
                   "a contract's file; again for more; without any, all of OLD counts as read");
  check.add_flag("--consumers", arguments.consumers,
                 "OLD is a live database: what the registered consumers of its publications read "
                 "counts as read, and what nobody reads is told as such");
  check.add_option("--data", arguments.check.sample,
                   "an SQLite file or script with rows to try the change on");
  check.add_flag("--writers", arguments.check.severities.writers,
                 "programs that write go on with statements made for OLD: WRITE findings are "
                 "errors");
  check.add_option("--min-sqlite", arguments.check.min_sqlite,
                   "the oldest SQLite that opens the file, such as 3.40.1");
  check.add_option("--error", arguments.as_error, "rules or categories whose findings are errors");
  check.add_option("--warn", arguments.as_warning,
                   "rules or categories whose findings are warnings");
  check.add_option("--off", arguments.off, "rules or categories that are not looked at");
  check
      .add_option("--large-pages", arguments.check.large_pages,
                  "pages of a table in --data from which on rewriting it is large")
      ->capture_default_str();
  check.add_flag("--json", arguments.json, "a JSON object for each finding, and a summary");
  check.add_flag("--rules", arguments.rules, "lists the rules instead");
}

}  // namespace

void add_contract(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("contract", "Contracts: what those who read a database rely on.");
  command->require_subcommand(1);
  CLI::App* check = command->add_subcommand(
      "check", "Tells what a change from schema OLD to schema NEW breaks, and for whom.");
  check->footer(
      "Exit codes: 0 no errors, 1 errors (or a schema that SQLite refuses), 2 usage, 3 "
      "unreachable, 4 refused.");
  auto arguments = std::make_shared<ContractArguments>();
  add_check_options(*check, *arguments);
  add_server_option(*check, arguments->remote);
  add_token_option(*check, arguments->remote);
  check->callback([arguments, &exit_code] { exit_code = run(*arguments); });
  add_contract_consumers(*command, exit_code);
}

}  // namespace offprint
