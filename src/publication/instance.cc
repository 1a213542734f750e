#include "publication/instance.h"

#include <algorithm>
#include <future>
#include <map>
#include <set>
#include <unordered_set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "database/transaction_request.h"
#include "publication/digest.h"
#include "publication/gathering.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
std::string insert_sql(const ItemPlan& item) {
  const std::vector<const char*> values(item.columns.size(), "?");
  return fmt::format("INSERT INTO {}({}) VALUES({})", quoted_name(item.name),
                     fmt::join(item.columns, ","), fmt::join(values, ","));
}

namespace {

using database::execute;
using database::Session;

constexpr std::chrono::minutes kRestAfterStop{1};

std::vector<std::string> key_names(const ItemPlan& item) {
  std::vector<std::string> names;
  for (std::size_t each : item.key) names.push_back(item.columns[each]);
  return names;
}

Row key_of(const ItemPlan& item, const Row& row) {
  Row key;
  for (std::size_t each : item.key) key.push_back(row[each]);
  return key;
}

bool has_null(const Row& key) {
  return std::ranges::any_of(
      key, [](const auto& each) { return std::holds_alternative<std::monostate>(each); });
}

std::string where_key(const ItemPlan& item) {
  std::vector<std::string> conditions;
  for (const std::string& name : key_names(item))
    conditions.push_back(fmt::format("{} IS ?", name));
  return fmt::format(" WHERE {}", fmt::join(conditions, " AND "));
}

// A row whose key, in that spelling, may be there.
std::string replace_sql(const ItemPlan& item) {
  std::vector<std::string> sets;
  for (std::size_t i = 0; i < item.columns.size(); ++i) {
    if (std::ranges::find(item.key, i) == item.key.end())
      sets.push_back(fmt::format("{0}=excluded.{0}", item.columns[i]));
  }
  return fmt::format("{} ON CONFLICT({}) DO {}", insert_sql(item), fmt::join(key_names(item), ","),
                     sets.empty() ? "NOTHING" : fmt::format("UPDATE SET {}", fmt::join(sets, ",")));
}

std::string delete_sql(const ItemPlan& item) {
  return fmt::format("DELETE FROM {}{}", quoted_name(item.name), where_key(item));
}

// Of an item, written once for all rows of a change.
struct RowStatements {
  std::string insert, replace, remove;
};

const RowStatements& statements_of(std::map<const ItemPlan*, RowStatements>& known,
                                   const ItemPlan& item) {
  auto [place, is_new] = known.try_emplace(&item);
  if (is_new) place->second = {insert_sql(item), replace_sql(item), delete_sql(item)};
  return place->second;
}

// No other key has it.
std::string key_digest(const Row& key) {
  std::string text;
  for (const sqlite::Value& value : key) append_exactly(text, value);
  return digest(text).substr(0, 32);
}

}  // namespace

std::string not_a_key(const ItemPlan& item) {
  return fmt::format("PUBLICATION_KEY: two rows of {} have the same KEY({})", item.name,
                     fmt::join(key_names(item), ","));
}

Result<> Instance::run(const std::function<Result<>(Session&)>& work,
                       std::optional<Bookmark> source) {
  std::promise<Result<Bookmark>> promise;
  auto future = promise.get_future();
  is_too_fast_ = false;
  auto request = std::make_unique<database::TransactionRequest>(work, promise);
  request->source = source;
  store_.submit(name_, std::move(request));
  auto done = future.get();
  is_stale_ = !done;
  error_ = done ? "" : done.error().message();
  if (done) {
    stopped_.clear();
    return {};
  }
  if (done.error().code() == Code::kFull && quota_.size_bytes_max != 0)
    stop(fmt::format("it would be larger than {} bytes", quota_.size_bytes_max));
  else if (is_too_fast_)
    stop(error_);
  else
    return fail(std::move(done).error());
  return fail(Code::kUnavailable, error_);
}

void Instance::stop(std::string why) {
  stopped_ = error_ =
      fmt::format("PUBLICATION_QUOTA: {}@v{}{}{} has stopped: {}", label_.publication,
                  label_.version, label_.parameters.empty() ? "" : "?", label_.parameters, why);
  stopped_at_ = SteadyClock::now();
}

bool Instance::may_be_filled() const {
  return stopped_.empty() || SteadyClock::now() > stopped_at_ + kRestAfterStop;
}

Result<> Instance::set_quota(const Quota& quota) {
  OFFPRINT_TRY_ASSIGN(auto info, store_.info(name_));
  if (info.limits.size_bytes_max != quota.size_bytes_max) {
    info.limits.size_bytes_max = quota.size_bytes_max;
    OFFPRINT_TRY(store_.set_limits(name_, info.limits));
  }
  if (quota_ == quota) return {};
  quota_ = quota;
  stopped_at_ = {};
  return {};
}

// Of what the transaction that runs has changed so far.
Result<> Instance::check_rate() {
  const Deadline now = SteadyClock::now();
  if (now - minute_ >= std::chrono::minutes(1)) {
    minute_ = now;
    rows_in_minute_ = 0;
  }
  if (quota_.rows_per_minute_max == 0 || rows_in_minute_ + rows_now_ <= quota_.rows_per_minute_max)
    return {};
  is_too_fast_ = true;
  return fail(Code::kUnavailable, fmt::format("more than {} of its rows changed within a minute",
                                              quota_.rows_per_minute_max));
}

Result<std::optional<Bookmark>> Instance::stands_at(const Plan& plan) {
  std::optional<Bookmark> found;
  OFFPRINT_TRY_ASSIGN(auto state, SourceState::newest(store_, name_));
  const std::vector<sqlite::Value> table = {is_part() ? kPartsTable : "_offprint"};
  bool is_made = false;
  OFFPRINT_TRY(state->rows("SELECT 1 FROM sqlite_schema WHERE type='table' AND name=@1", table, {},
                           [&](const Row&) -> Result<> {
                             is_made = true;
                             return {};
                           }));
  if (!is_made) return found;
  const std::vector<sqlite::Value> key =
      is_part() ? std::vector<sqlite::Value>{role_.schema, role_.database, plan.hash}
                : std::vector<sqlite::Value>{label_.publication, std::int64_t{label_.version},
                                             label_.parameters, plan.hash};
  OFFPRINT_TRY(state->rows(
      is_part() ? "SELECT source FROM _offprint_parts WHERE name=@1 AND database=@2 AND "
                  "definition=@3"
                : "SELECT source FROM _offprint WHERE publication=@1 AND version=@2 AND "
                  "parameters=@3 AND definition=@4",
      key, {}, [&](Row row) -> Result<> {
        if (const auto* text = std::get_if<std::string>(&row[0])) found = Bookmark::parse(*text);
        return {};
      }));
  return found;
}

// A source that was dropped may still be on its way here when the next one of its name has come:
// what it has is nothing any more.
Result<> Instance::check_owner(Session& session, bool takes_over) {
  if (!is_part()) return {};
  const auto own = static_cast<std::int64_t>(role_.source_id);
  std::optional<std::int64_t> there;
  OFFPRINT_TRY(execute(session, "SELECT source_id FROM _offprint_parts WHERE name=?",
                       {role_.schema}, [&](const auto& row) { there = row.column_int(0); }));
  // A number that no database has is of a list of databases that was restored since.
  const bool is_newer = there.value_or(0) > own && store_.info(static_cast<std::uint64_t>(*there));
  if (takes_over ? !is_newer : there == own) return {};
  return fail(Code::kConflict,
              fmt::format("another database named {} is in its place", role_.database));
}

// Beside other parts, whose tables have other names.
Result<> Instance::make_part(Session& session, const Plan& plan) {
  OFFPRINT_TRY(
      execute(session, fmt::format("CREATE TABLE IF NOT EXISTS {}{}", kPartsTable, kPartsColumns)));
  OFFPRINT_TRY(check_owner(session, true));
  bool is_made = false;
  OFFPRINT_TRY(execute(session, "SELECT 1 FROM _offprint_parts WHERE name=? AND definition=?",
                       {role_.schema, plan.hash}, [&](const auto&) { is_made = true; }));
  if (!is_made) {
    for (const ItemPlan& item : plan.items) {
      OFFPRINT_TRY(execute(session, "DROP TABLE IF EXISTS " + quoted_name(item.name)));
      OFFPRINT_TRY(execute(session, item.create));
    }
    for (const std::string& index : plan.indexes) OFFPRINT_TRY(execute(session, index));
  }
  OFFPRINT_TRY(execute(
      session, "INSERT OR REPLACE INTO _offprint_parts VALUES(?, ?, '', ?, ?)",
      {role_.schema, role_.database, plan.hash, static_cast<std::int64_t>(role_.source_id)}));
  return {};
}

// True: it was not made, or of another definition.
Result<bool> Instance::make_tables(Session& session, const Plan& plan) {
  if (is_part()) {
    OFFPRINT_TRY(make_part(session, plan));
    return true;
  }
  std::vector<std::string> tables;
  OFFPRINT_TRY(execute(session, "SELECT name FROM sqlite_schema WHERE type='table'", {},
                       [&](const auto& row) { tables.emplace_back(row.column_text(0)); }));
  bool is_made = false;
  if (std::ranges::find(tables, "_offprint") != tables.end()) {
    OFFPRINT_TRY(execute(session, "SELECT 1 FROM _offprint WHERE definition=?", {plan.hash},
                         [&](const auto&) { is_made = true; }));
  }
  if (is_made) return false;
  for (const std::string& table : tables)
    OFFPRINT_TRY(execute(session, "DROP TABLE " + quoted_name(table)));
  OFFPRINT_TRY(execute(session, kLabelTable));
  if (role_.kind == InstanceRole::Kind::kGathered) {
    OFFPRINT_TRY(
        execute(session, fmt::format("CREATE TABLE {}{}", kSourcesTable, kSourcesColumns)));
  }
  for (const ItemPlan& item : plan.items) OFFPRINT_TRY(execute(session, item.create));
  for (const std::string& index : plan.indexes) OFFPRINT_TRY(execute(session, index));
  OFFPRINT_TRY(
      execute(session, "INSERT INTO _offprint VALUES(?, ?, ?, ?, '')",
              {label_.publication, std::int64_t{label_.version}, label_.parameters, plan.hash}));
  return true;
}

Result<> Instance::note_source(Session& session, SourceState& source) {
  const std::string position = source.bookmark().text();
  if (is_part()) {
    OFFPRINT_TRY(execute(session, "UPDATE _offprint_parts SET source=? WHERE name=?",
                         {position, role_.schema}));
    return {};
  }
  OFFPRINT_TRY(execute(session, "UPDATE _offprint SET source=?", {position}));
  if (role_.kind != InstanceRole::Kind::kGathered) return {};
  return source.rows(
      "SELECT name, database, source FROM main._offprint_parts", {}, {}, [&](Row row) -> Result<> {
        OFFPRINT_TRY(
            execute(session,
                    "INSERT INTO _offprint_sources VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "source=excluded.source WHERE source IS NOT excluded.source",
                    std::move(row)));
        return {};
      });
}

// Of another history of the source than that state. A state of the same one that has the same in
// it need not be told.
Result<bool> Instance::is_elsewhere(Session& session, SourceState& source) {
  std::optional<Bookmark> there;
  OFFPRINT_TRY(execute(session, "SELECT source FROM _offprint", {},
                       [&](const auto& row) { there = Bookmark::parse(row.column_text(0)); }));
  const Bookmark now = source.bookmark();
  return !there || there->lineage != now.lineage || there->epoch != now.epoch;
}

Result<> Instance::fill(const Plan& plan, SourceState& source) {
  return run(
      [&](Session& session) -> Result<> {
        OFFPRINT_TRY_ASSIGN(bool differed, make_tables(session, plan));
        for (const ItemPlan& item : plan.items) {
          OFFPRINT_TRY_ASSIGN(bool table_differed, refresh(session, item, source));
          differed = differed || table_differed;
        }
        if (!differed) {
          OFFPRINT_TRY_ASSIGN(differed, is_elsewhere(session, source));
        }
        return differed ? note_source(session, source) : Result<>();
      },
      source.bookmark());
}

// Makes a table what it should be; true: something differed. Memory: about 64 bytes a row.
Result<bool> Instance::refresh(Session& session, const ItemPlan& item, SourceState& source) {
  std::unordered_set<std::string> kept;
  bool differed = false;
  const std::string select = fmt::format("SELECT {} FROM {}{}", fmt::join(item.columns, ","),
                                         quoted_name(item.name), where_key(item));
  const std::string insert = insert_sql(item), replace = replace_sql(item);
  std::vector<Row> loose;
  std::int64_t there = 0;
  OFFPRINT_TRY(execute(session, fmt::format("SELECT count(*) FROM {}", quoted_name(item.name)), {},
                       [&](const auto& row) { there = row.column_int(0); }));
  OFFPRINT_TRY(source.rows(item.select_all, {}, arguments_, [&](Row row) -> Result<> {
    const Row key = key_of(item, row);
    if (has_null(key)) {
      loose.push_back(std::move(row));
      return {};
    }
    if (!kept.insert(key_digest(key)).second) return fail(Code::kInvalid, not_a_key(item));
    std::optional<Row> old;
    if (there > 0)
      OFFPRINT_TRY(execute(session, select, key, [&](const auto& each) { old = row_of(each); }));
    if (old && is_same(*old, row)) return {};
    differed = true;
    ++rows_now_;
    // What its collation finds equal may be spelled otherwise.
    const bool is_respelled = old && !is_same(key_of(item, *old), key);
    if (is_respelled) OFFPRINT_TRY(execute(session, delete_sql(item), key));
    OFFPRINT_TRY(execute(session, old && !is_respelled ? replace : insert, std::move(row)));
    return {};
  }));
  OFFPRINT_TRY_ASSIGN(bool loose_differed, refresh_loose(session, item, std::move(loose)));
  differed = differed || loose_differed;
  if (there == 0) return differed;
  std::vector<Row> gone;
  OFFPRINT_TRY(execute(
      session,
      fmt::format("SELECT {} FROM {}", fmt::join(key_names(item), ","), quoted_name(item.name)), {},
      [&](const auto& each) {
        Row key = row_of(each);
        if (!has_null(key) && !kept.contains(key_digest(key))) gone.push_back(std::move(key));
      }));
  rows_now_ += gone.size();
  for (Row& key : gone) OFFPRINT_TRY(execute(session, delete_sql(item), std::move(key)));
  return differed || !gone.empty();
}

Result<bool> Instance::refresh_loose(Session& session, const ItemPlan& item,
                                     std::vector<Row> rows) {
  std::vector<std::string> nulls;
  for (const std::string& name : key_names(item)) nulls.push_back(name + " IS NULL");
  const std::string where =
      fmt::format(" FROM {} WHERE {}", quoted_name(item.name), fmt::join(nulls, " OR "));
  std::vector<Row> there;
  OFFPRINT_TRY(execute(session, fmt::format("SELECT {}{}", fmt::join(item.columns, ","), where), {},
                       [&](const auto& each) { there.push_back(row_of(each)); }));
  std::ranges::sort(rows);
  std::ranges::sort(there);
  const bool is_equal = std::ranges::equal(
      rows, there, [](const Row& one, const Row& other) { return is_same(one, other); });
  if (is_equal) return false;
  OFFPRINT_TRY(execute(session, "DELETE" + where));
  for (Row& row : rows) OFFPRINT_TRY(execute(session, insert_sql(item), std::move(row)));
  return true;
}

// Keys with NULL do not tell rows apart: all that have one go and come together.
Result<> Instance::write_rows(Session& session, const std::vector<RowChange>& changes,
                              SourceState& source) {
  std::set<std::pair<const ItemPlan*, Row>> loose;
  for (const RowChange& change : changes) {
    for (const auto* row : {&change.before, &change.after}) {
      if (!*row) continue;
      Row key = key_of(*change.item, **row);
      if (has_null(key)) loose.emplace(change.item, std::move(key));
    }
  }
  std::map<const ItemPlan*, RowStatements> statements;
  // All that goes first: a key that one row leaves another may take.
  for (const auto& [item, key] : loose) OFFPRINT_TRY(execute(session, delete_sql(*item), key));
  for (const RowChange& change : changes) {
    if (!change.before) continue;
    Row key = key_of(*change.item, *change.before);
    if (has_null(key) || (change.after && is_same(key, key_of(*change.item, *change.after))))
      continue;
    OFFPRINT_TRY(execute(session, statements_of(statements, *change.item).remove, std::move(key)));
  }
  for (const RowChange& change : changes) {
    if (!change.after || has_null(key_of(*change.item, *change.after))) continue;
    const RowStatements& known = statements_of(statements, *change.item);
    OFFPRINT_TRY(execute(session, change.before ? known.replace : known.insert, *change.after));
  }
  for (const auto& [item, key] : loose) {
    // Two spellings of a key that its collation finds equal are the same rows.
    OFFPRINT_TRY(execute(session, delete_sql(*item), key));
    OFFPRINT_TRY(source.rows(item->select_key, key, arguments_, [&](Row row) -> Result<> {
      OFFPRINT_TRY(execute(session, insert_sql(*item), std::move(row)));
      return {};
    }));
  }
  return {};
}

Result<> Instance::apply(const std::vector<RowChange>& changes,
                         const std::vector<const ItemPlan*>& whole, SourceState& source) {
  if (changes.empty() && whole.empty()) return {};
  auto done = run(
      [&](Session& session) -> Result<> {
        rows_now_ = changes.size();
        OFFPRINT_TRY(check_rate());
        OFFPRINT_TRY(check_owner(session, false));
        OFFPRINT_TRY(write_rows(session, changes, source));
        bool differed = !changes.empty();
        for (const ItemPlan* item : whole) {
          OFFPRINT_TRY_ASSIGN(bool table_differed, refresh(session, *item, source));
          differed = differed || table_differed;
        }
        OFFPRINT_TRY(check_rate());
        return differed ? note_source(session, source) : Result<>();
      },
      source.bookmark());
  if (done) rows_in_minute_ += rows_now_;
  return done;
}

}  // namespace offprint::publication
