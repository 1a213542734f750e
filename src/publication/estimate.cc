#include "publication/estimate.h"

#include <algorithm>
#include <chrono>
#include <set>

#include <fmt/format.h>

#include "publication/instance.h"
#include "publication/materialiser.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

constexpr std::uint64_t kRowsTriedMax = 10'000;  // of an item; what is beyond is reckoned
constexpr std::size_t kSamplesMax = 20;
constexpr std::int64_t kPlacesMax = 64;  // of a table that rows are taken from
constexpr std::chrono::seconds kTimeMax{20};

Result<std::uint64_t> bytes_of(sqlite::Connection& file) {
  OFFPRINT_TRY_ASSIGN(auto pages, file.query_int("PRAGMA page_count"));
  OFFPRINT_TRY_ASSIGN(auto size, file.query_int("PRAGMA page_size"));
  return static_cast<std::uint64_t>(pages * size);
}

// A key that two rows have would be an error of the instance.
Result<> as_row(Result<> written, const ItemPlan& item) {
  const bool is_twice = !written && (written.error().sqlite_code() & 0xff) == SQLITE_CONSTRAINT;
  return is_twice ? fail(Code::kInvalid, not_a_key(item)) : written;
}

// An item's first rows, written as an instance has them. Bytes are what all of it would be.
Result<> add_item(SourceState& source, sqlite::Connection& file, const ItemPlan& item,
                  std::span<const Argument> arguments, InstanceEstimate& estimate) {
  std::uint64_t rows = 0, tried = 0;
  OFFPRINT_TRY(source.rows(fmt::format("SELECT count(*) FROM ({})", item.select_all), {}, arguments,
                           [&](Row row) -> Result<> {
                             rows = static_cast<std::uint64_t>(std::get<std::int64_t>(row[0]));
                             return {};
                           }));
  OFFPRINT_TRY_ASSIGN(std::uint64_t before, bytes_of(file));
  OFFPRINT_TRY_ASSIGN(auto insert, file.prepare(insert_sql(item)));
  OFFPRINT_TRY(
      source.rows(fmt::format("SELECT * FROM ({}) LIMIT {}", item.select_all, kRowsTriedMax), {},
                  arguments, [&](Row row) -> Result<> {
                    for (std::size_t i = 0; i < row.size(); ++i)
                      OFFPRINT_TRY(insert.bind_value(static_cast<int>(i + 1), row[i]));
                    ++tried;
                    return as_row(insert.run(), item);
                  }));
  OFFPRINT_TRY_ASSIGN(std::uint64_t after, bytes_of(file));
  estimate.rows += rows;
  estimate.bytes += tried < rows ? (after - before) / tried * rows : after - before;
  return {};
}

Result<InstanceEstimate> estimate_one(SourceState& source, const Plan& plan,
                                      const std::vector<Argument>& arguments) {
  OFFPRINT_TRY_ASSIGN(auto file, sqlite::Connection::open(":memory:", {.create = true}));
  OFFPRINT_TRY(file.execute(kLabelTable));
  for (const ItemPlan& item : plan.items) OFFPRINT_TRY(file.execute(item.create.c_str()));
  for (const std::string& index : plan.indexes) OFFPRINT_TRY(file.execute(index.c_str()));
  InstanceEstimate estimate;
  estimate.parameters = canonical(arguments);
  OFFPRINT_TRY_ASSIGN(estimate.bytes, bytes_of(file));
  OFFPRINT_TRY(file.execute("BEGIN"));
  for (const ItemPlan& item : plan.items)
    OFFPRINT_TRY(add_item(source, file, item, arguments, estimate));
  return estimate;
}

// Values that rows of a table route by, from all over it.
Result<> sample_item(SourceState& source, const Plan& plan, const ItemPlan& item,
                     std::set<std::string>& known, std::vector<std::vector<Argument>>& found) {
  if (item.select_routes.empty() || item.links.empty() || !item.links[0].has_rowid ||
      !item.links[0].select.empty())
    return {};
  const std::string table = quoted_name(item.links[0].table);
  std::vector<Row> keys;
  OFFPRINT_TRY(source.rows(
      fmt::format(
          "WITH RECURSIVE e(low, high) AS (SELECT min(rowid), max(rowid) FROM main.{0}), "
          "p(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM p WHERE i < {1}) SELECT (SELECT "
          "rowid FROM main.{0} WHERE rowid >= low + (high - low) / {1} * i LIMIT 1) FROM e, "
          "p WHERE low IS NOT NULL",
          table, kPlacesMax),
      {}, {}, [&](Row row) -> Result<> {
        keys.push_back(std::move(row));
        return {};
      }));
  for (const Row& key : keys) {
    OFFPRINT_TRY(source.rows(item.select_routes, key, {}, [&](Row values) -> Result<> {
      std::vector<Argument> arguments;
      for (std::size_t i = 0; i < values.size(); ++i)
        arguments.push_back({plan.definition.parameters[i].name, std::move(values[i])});
      if (found.size() < kSamplesMax && known.insert(canonical(arguments)).second)
        found.push_back(std::move(arguments));
      return {};
    }));
  }
  return {};
}

}  // namespace

Result<std::vector<InstanceEstimate>> estimate_instances(
    SourceState& source, const Plan& plan, const std::vector<std::vector<Argument>>& arguments) {
  std::vector<std::vector<Argument>> samples = arguments;
  if (samples.empty() && plan.definition.parameters.empty()) samples.emplace_back();
  if (samples.empty()) {
    std::set<std::string> known;
    for (const ItemPlan& item : plan.items)
      OFFPRINT_TRY(sample_item(source, plan, item, known, samples));
  }
  std::vector<InstanceEstimate> estimates;
  const Deadline until = SteadyClock::now() + kTimeMax;
  for (const auto& each : samples) {
    if (SteadyClock::now() > until) break;
    OFFPRINT_TRY_ASSIGN(auto estimate, estimate_one(source, plan, each));
    estimates.push_back(std::move(estimate));
  }
  return estimates;
}

}  // namespace offprint::publication
