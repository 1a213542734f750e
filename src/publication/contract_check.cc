#include "publication/contract_check.h"

#include <algorithm>
#include <memory>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "publication/contract_context.h"
#include "publication/contract_ignore.h"
#include "publication/schema_scratch.h"

namespace offprint::publication {
namespace {

// A sample that is open; `script` and `scratch` only where it was a script.
struct Sample {
  SchemaScript script;
  std::unique_ptr<ScratchDatabase> scratch;
  std::optional<sqlite::Connection> file;

  sqlite::Connection* connection() {
    if (file) return &*file;
    return scratch ? &scratch->db() : nullptr;
  }
};

Result<> open_sample(const std::string& path, Sample& sample) {
  if (path.empty()) return {};
  if (is_database_file(path)) {
    OFFPRINT_TRY_ASSIGN(sample.file, open_database_file(path));
    return {};
  }
  OFFPRINT_TRY_ASSIGN(sample.script, script_of_file(path));
  OFFPRINT_TRY_ASSIGN(sample.scratch, ScratchDatabase::create(sample.script));
  return {};
}

// The oldest SQLite that somebody asks for.
Result<> find_min_sqlite(const CheckOptions& options, Context& context) {
  auto take = [&](const std::string& text, const std::string& who) -> Result<> {
    if (text.empty()) return {};
    const std::optional<int> number = sqlite_version_number(text);
    if (!number) return fail(Code::kInvalid, fmt::format("'{}' is no version of SQLite", text));
    if (context.min_sqlite != 0 && context.min_sqlite <= *number) return {};
    context.min_sqlite = *number;
    context.min_sqlite_who = who;
    return {};
  };
  OFFPRINT_TRY(take(options.min_sqlite, "--min-sqlite"));
  for (const Contract& contract : context.contracts) {
    if (contract.is_binding())
      OFFPRINT_TRY(take(contract.min_sqlite, "contract " + contract.label()));
  }
  return {};
}

auto order_of(const Finding& finding) {
  const Place place = finding.place.value_or(Place{});
  return std::tuple(std::string_view(finding.label), place.line, place.column,
                    std::string_view(finding.object), finding.rule,
                    std::string_view(finding.message));
}

CheckReport report_of(Findings& findings, int ignored) {
  CheckReport report;
  report.findings = std::move(findings.list());
  std::ranges::sort(report.findings, {}, order_of);
  const auto repeated = std::ranges::unique(report.findings, {}, order_of);
  report.findings.erase(repeated.begin(), repeated.end());
  report.ignored = ignored;
  for (const Finding& finding : report.findings)
    ++(finding.severity == Severity::kError ? report.errors : report.warnings);
  return report;
}

}  // namespace

void Context::add(std::string_view rule, const std::string& object, const std::string& column,
                  std::string message, std::optional<Severity> severity) {
  std::optional<Place> place;
  const bool is_there = after().table(object) != nullptr || after().triggers.contains(object) ||
                        old_database.schema().table(object) == nullptr;
  if (is_there) place = new_database.place_of(object, column);
  findings.add(rule, new_database.script().label, {object, column, "", place}, std::move(message),
               severity);
}

std::string quoted(std::string_view name) { return fmt::format("\"{}\"", name); }

namespace {

Result<CheckReport> check_once(const SchemaScript& before, const SchemaScript& after,
                               const std::vector<Contract>& contracts,
                               const CheckOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto old_database, ScratchDatabase::create(before));
  OFFPRINT_TRY_ASSIGN(auto new_database, ScratchDatabase::create(after));
  Sample sample;
  OFFPRINT_TRY(open_sample(options.sample, sample));
  Findings findings(options.severities);
  std::vector<Ignore> ignores = read_ignores(after, contracts, findings);
  Context context{*old_database,
                  *new_database,
                  contracts,
                  Readers(contracts, old_database->schema()),
                  findings,
                  0,
                  "",
                  sample.connection(),
                  options.large_pages,
                  {}};
  OFFPRINT_TRY(find_min_sqlite(options, context));
  OFFPRINT_TRY(check_queries(context));  // first: tells what else is read
  check_tables(context);
  check_columns(context);
  check_keys(context);
  check_views(context);
  check_cost(context);
  check_filters(context);
  OFFPRINT_TRY(check_file(context));
  OFFPRINT_TRY(check_data(context));
  const int ignored = apply_ignores(std::move(ignores), options.today, findings);
  return report_of(findings, ignored);
}

// What is an error to everybody, and to none of those who are known.
void add_unread(const CheckReport& of_everybody, CheckReport& report) {
  const std::size_t known = report.findings.size();
  for (Finding finding : of_everybody.findings) {
    if (finding.severity != Severity::kError || finding.rule->category != Category::kQuery)
      continue;
    const auto end = report.findings.begin() + static_cast<std::ptrdiff_t>(known);
    const bool is_told = std::any_of(report.findings.begin(), end, [&](const Finding& each) {
      return each.rule == finding.rule && each.object == finding.object;
    });
    if (is_told) continue;
    finding.severity = Severity::kWarning;
    finding.message += "; no registered consumer reads it";
    report.findings.push_back(std::move(finding));
    ++report.warnings;
  }
  std::ranges::sort(report.findings, {}, order_of);
}

}  // namespace

Result<CheckReport> check_contracts(const SchemaScript& before, const SchemaScript& after,
                                    const std::vector<Contract>& contracts,
                                    const CheckOptions& options) {
  if (!options.tells_unread) return check_once(before, after, contracts, options);
  std::vector<Contract> known = contracts;
  if (known.empty()) {
    known.emplace_back();
    known.back().name = "nobody";
  }
  OFFPRINT_TRY_ASSIGN(auto report, check_once(before, after, known, options));
  OFFPRINT_TRY_ASSIGN(auto of_everybody, check_once(before, after, {}, options));
  add_unread(of_everybody, report);
  return report;
}

}  // namespace offprint::publication
