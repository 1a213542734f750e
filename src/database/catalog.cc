#include "database/catalog.h"

#include <algorithm>
#include <future>
#include <iterator>
#include <limits>

#include <fmt/format.h>

#include "base/clock.h"
#include "database/session.h"
#include "database/store_folder.h"
#include "database/transaction_request.h"

namespace offprint::database {
namespace {

// One step for each format version, from the one before: never changed, only added to. PRAGMA
// user_version is how many were taken.
constexpr const char* kSteps[] = {
    // 1: names
    "CREATE TABLE IF NOT EXISTS databases(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL "
    "UNIQUE,"
    " lineage BLOB NOT NULL, epoch INTEGER NOT NULL, placement_group INTEGER NOT NULL DEFAULT 0,"
    " page_size INTEGER NOT NULL, auto_vacuum INTEGER NOT NULL, encoding TEXT NOT NULL,"
    " foreign_keys INTEGER NOT NULL, created_at_ms INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS dropped(name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) STRICT, "
    "WITHOUT ROWID",
    // 2: limits of databases (0: none)
    "ALTER TABLE databases ADD COLUMN size_bytes_max INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE databases ADD COLUMN statement_ms_max INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE databases ADD COLUMN rows_max INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE databases ADD COLUMN writes_blocked INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE databases ADD COLUMN reads_blocked INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE databases ADD COLUMN block_reason TEXT NOT NULL DEFAULT '';"
    // and revoked tokens
    "CREATE TABLE revoked_tokens(id TEXT PRIMARY KEY, until_s INTEGER NOT NULL) STRICT, "
    "WITHOUT ROWID;"
    "CREATE TABLE token_watermarks(database TEXT PRIMARY KEY, not_before_s INTEGER NOT NULL) "
    "STRICT, WITHOUT ROWID",
    // 3: what databases were used for, by month ("2026-11"); also dropped ones
    "CREATE TABLE usage(month TEXT NOT NULL, name TEXT NOT NULL, database_id INTEGER NOT NULL,"
    " queries INTEGER NOT NULL, rows_read INTEGER NOT NULL, rows_written INTEGER NOT NULL,"
    " size_bytes INTEGER NOT NULL, size_bytes_max INTEGER NOT NULL,"
    " PRIMARY KEY(month, name, database_id)) STRICT, WITHOUT ROWID",
    // 4: databases that begin with content: one without any was cut short
    "ALTER TABLE databases ADD COLUMN begins_filled INTEGER NOT NULL DEFAULT 0",
    // 5: what a fork shares with other lineages: the last state of each, as a bookmark
    "ALTER TABLE databases ADD COLUMN ancestors TEXT NOT NULL DEFAULT '';"
    // and states with names
    "CREATE TABLE tags(database_id INTEGER NOT NULL, tag TEXT NOT NULL, bookmark TEXT NOT NULL,"
    " created_at_ms INTEGER NOT NULL, size_bytes INTEGER NOT NULL,"
    " PRIMARY KEY(database_id, tag)) STRICT, WITHOUT ROWID",
    // 6: databases that follow a program's own file: its path
    "ALTER TABLE databases ADD COLUMN tails TEXT NOT NULL DEFAULT ''",
    // 7: the last transactions that count of the epochs before one; how databases are kept
    "CREATE TABLE epoch_ends(database_id INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    " txid INTEGER NOT NULL, PRIMARY KEY(database_id, epoch)) STRICT, WITHOUT ROWID;"
    "ALTER TABLE databases ADD COLUMN durability INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE databases ADD COLUMN retention_days INTEGER NOT NULL DEFAULT 0",
    // 8: what databases publish: the text of each version, what it means there, its state (0 draft,
    // 1 published, 2 deprecated, 3 retired)
    "CREATE TABLE publications(database_id INTEGER NOT NULL, name TEXT NOT NULL,"
    " version INTEGER NOT NULL, definition TEXT NOT NULL, created_at_ms INTEGER NOT NULL,"
    " hash TEXT NOT NULL, state INTEGER NOT NULL, sunset_ms INTEGER NOT NULL,"
    " PRIMARY KEY(database_id, name, version)) STRICT, WITHOUT ROWID",
    // 9: what instances of a publication may grow to (0: as the server says)
    "ALTER TABLE publications ADD COLUMN size_bytes_max INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE publications ADD COLUMN rows_per_minute_max INTEGER NOT NULL DEFAULT 0;"
    // and who reads them, by which queries, and what these read
    "CREATE TABLE consumers(database_id INTEGER NOT NULL, publication TEXT NOT NULL,"
    " version INTEGER NOT NULL, consumer TEXT NOT NULL, registered_at_ms INTEGER NOT NULL,"
    " PRIMARY KEY(database_id, publication, version, consumer)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE consumer_queries(database_id INTEGER NOT NULL, publication TEXT NOT NULL,"
    " version INTEGER NOT NULL, consumer TEXT NOT NULL, number INTEGER NOT NULL,"
    " name TEXT NOT NULL, sql TEXT NOT NULL,"
    " PRIMARY KEY(database_id, publication, version, consumer, number)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE consumer_reads(database_id INTEGER NOT NULL, publication TEXT NOT NULL,"
    " version INTEGER NOT NULL, consumer TEXT NOT NULL, table_name TEXT NOT NULL,"
    " column_name TEXT NOT NULL, PRIMARY KEY(database_id, publication, version, consumer,"
    " table_name, column_name)) STRICT, WITHOUT ROWID",
};
constexpr std::int64_t kFormatVersion = std::size(kSteps);

std::string ancestors_text(const std::vector<Bookmark>& ancestors) {
  std::string text;
  for (const Bookmark& each : ancestors) text += (text.empty() ? "" : " ") + each.text();
  return text;
}

std::vector<Bookmark> parse_ancestors(std::string_view text) {
  std::vector<Bookmark> ancestors;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (auto bookmark = Bookmark::parse(text.substr(0, end))) ancestors.push_back(*bookmark);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return ancestors;
}

Catalog::Row read_row(const sqlite::Statement& row) {
  Catalog::Row result;
  result.id = static_cast<std::uint64_t>(row.column_int(0));
  result.name = row.column_text(1);
  ByteView lineage = row.column_blob(2);
  std::copy_n(lineage.begin(), std::min<std::size_t>(lineage.size(), 16),
              result.lineage.bytes.begin());
  result.epoch = Epoch{static_cast<std::uint32_t>(row.column_int(3))};
  result.options.page_size = static_cast<std::uint32_t>(row.column_int(4));
  result.options.auto_vacuum = static_cast<int>(row.column_int(5));
  result.options.encoding = row.column_text(6);
  result.options.foreign_keys = row.column_int(7) != 0;
  result.created_at_ms = row.column_int(8);
  result.limits.size_bytes_max = static_cast<std::uint64_t>(row.column_int(9));
  result.limits.statement_ms_max = static_cast<std::uint32_t>(row.column_int(10));
  result.limits.rows_max = static_cast<std::uint64_t>(row.column_int(11));
  result.limits.writes_blocked = row.column_int(12) != 0;
  result.limits.reads_blocked = row.column_int(13) != 0;
  result.limits.block_reason = row.column_text(14);
  result.begins_filled = row.column_int(15) != 0;
  result.ancestors = parse_ancestors(row.column_text(16));
  result.options.tails = row.column_text(17);
  result.limits.durability = static_cast<DatabaseLimits::Durability>(row.column_int(18));
  result.limits.retention_days = static_cast<std::uint32_t>(row.column_int(19));
  return result;
}

Result<> insert_tag(Session& session, std::uint64_t id, const TagInfo& tag) {
  OFFPRINT_TRY(execute(session, "INSERT INTO tags VALUES(?, ?, ?, ?, ?)",
                       {static_cast<std::int64_t>(id), tag.tag, tag.bookmark.text(),
                        tag.created_at_ms, static_cast<std::int64_t>(tag.size_bytes)}));
  return {};
}

// What goes with it: of a state its tag, of others what their tags name. `unmade`: it was never
// filled; a tag that is older than it was a node's own before, and stays that.
Result<> remove_tags(Session& session, std::uint64_t id, const std::string& name, bool unmade) {
  const auto number = static_cast<std::int64_t>(id);
  if (is_state_name(name)) {
    OFFPRINT_TRY(execute(session,
                         "DELETE FROM tags WHERE printf('=%x/%s', database_id, tag) = ?1"
                         " AND (?2 = 0 OR created_at_ms >="
                         " (SELECT created_at_ms FROM databases WHERE id = ?3))",
                         {name, std::int64_t{unmade}, number}));
    return {};
  }
  OFFPRINT_TRY(
      execute(session, "DELETE FROM databases WHERE name GLOB printf('=%x/*', ?)", {number}));
  OFFPRINT_TRY(execute(session, "DELETE FROM tags WHERE database_id = ?", {number}));
  return {};
}

constexpr std::int64_t kNoDatabase = 0;  // an epoch of it is the mark of a cluster's lineage

std::int64_t mark_of(const Lineage& lineage) {
  return static_cast<std::int64_t>(load_be<std::uint64_t>(lineage.bytes.data()));
}

// To the row of its database; rows are by id.
void add_end(std::vector<Catalog::Row>& rows, const sqlite::Statement& row) {
  auto id = static_cast<std::uint64_t>(row.column_int(0));
  auto found = std::ranges::lower_bound(rows, id, {}, &Catalog::Row::id);
  if (found == rows.end() || found->id != id) return;
  found->ends.push_back({Epoch{static_cast<std::uint32_t>(row.column_int(1))},
                         TxId{static_cast<std::uint64_t>(row.column_int(2))}});
}

constexpr const char* kUsageColumns =
    "SELECT month, database_id, name, queries, rows_read, rows_written, size_bytes, "
    "size_bytes_max FROM usage ";

UsageRecord read_usage(const sqlite::Statement& row) {
  UsageRecord record;
  record.month = row.column_text(0);
  record.database_id = static_cast<std::uint64_t>(row.column_int(1));
  record.name = row.column_text(2);
  record.count.queries = static_cast<std::uint64_t>(row.column_int(3));
  record.count.rows_read = static_cast<std::uint64_t>(row.column_int(4));
  record.count.rows_written = static_cast<std::uint64_t>(row.column_int(5));
  record.size_bytes = static_cast<std::uint64_t>(row.column_int(6));
  record.size_bytes_max = static_cast<std::uint64_t>(row.column_int(7));
  return record;
}

}  // namespace

Result<> Catalog::run(Work work, bool only_reads) {
  std::promise<Result<Bookmark>> promise;
  auto future = promise.get_future();
  database_->submit(std::make_unique<TransactionRequest>(std::move(work), promise, only_reads));
  auto done = future.get();
  return done ? Result<>() : fail(std::move(done).error());
}

Result<> Catalog::set_up() {
  return run([](Session& session) -> Result<> {
    std::int64_t version = 0;
    OFFPRINT_TRY(execute(session, "PRAGMA user_version", {},
                         [&](const auto& row) { version = row.column_int(0); }));
    if (version > kFormatVersion) {
      return fail(
          Code::kInvalid,
          fmt::format("the catalog has format version {}, this program knows {}: use a newer one",
                      version, kFormatVersion));
    }
    for (; version < kFormatVersion; ++version) {
      OFFPRINT_TRY(session.execute_script(kSteps[version]));
      OFFPRINT_TRY(session.execute_script(fmt::format("PRAGMA user_version={}", version + 1)));
    }
    return {};
  });
}

Result<std::vector<Catalog::Row>> Catalog::rows(std::optional<std::uint64_t> only) {
  std::vector<Row> rows;
  const auto first = static_cast<std::int64_t>(only.value_or(0));
  const auto last = only ? first : std::numeric_limits<std::int64_t>::max();
  OFFPRINT_TRY(read([&](Session& session) -> Result<> {
    rows.clear();
    auto read = execute(session,
                        "SELECT id, name, lineage, epoch, page_size, auto_vacuum, encoding, "
                        "foreign_keys, created_at_ms, size_bytes_max, statement_ms_max, rows_max,"
                        " writes_blocked, reads_blocked, block_reason, begins_filled, ancestors,"
                        " tails, durability, retention_days"
                        " FROM databases WHERE id BETWEEN ? AND ? ORDER BY id",
                        {first, last}, [&](const auto& row) { rows.push_back(read_row(row)); });
    if (!read) return fail(std::move(read).error());
    OFFPRINT_TRY(execute(session,
                         "SELECT database_id, epoch, txid FROM epoch_ends"
                         " WHERE database_id BETWEEN ? AND ? ORDER BY 1, 2",
                         {first, last}, [&](const auto& row) { add_end(rows, row); }));
    return {};
  }));
  return rows;
}

Result<Catalog::Row> Catalog::add(const std::string& name, const CreateOptions& options,
                                  const Beginning& beginning) {
  Row added;
  added.name = name;
  added.lineage = beginning.at ? beginning.at->lineage : Lineage::random();
  added.begins_filled = beginning.filled;
  added.ancestors = beginning.ancestors;
  added.options = options;
  added.created_at_ms = beginning.tag ? beginning.tag->created_at_ms : unix_time_ms();
  auto result = run([&](Session& session) -> Result<> {
    std::int64_t epoch = 0;
    OFFPRINT_TRY(execute(session, "SELECT epoch + 1 FROM dropped WHERE name = ?", {name},
                         [&](const auto& row) { epoch = row.column_int(0); }));
    if (beginning.at) epoch = beginning.at->epoch.value;
    added.epoch = Epoch{static_cast<std::uint32_t>(epoch)};
    Bytes lineage(added.lineage.bytes.begin(), added.lineage.bytes.end());
    OFFPRINT_TRY_ASSIGN(StatementResult inserted,
                        execute(session,
                                "INSERT INTO databases(name, lineage, epoch, page_size, "
                                "auto_vacuum, encoding, foreign_keys,"
                                " created_at_ms, begins_filled, ancestors, tails) "
                                "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                {name, lineage, epoch, std::int64_t{options.page_size},
                                 std::int64_t{options.auto_vacuum}, options.encoding,
                                 std::int64_t{options.foreign_keys}, added.created_at_ms,
                                 std::int64_t{beginning.filled},
                                 ancestors_text(beginning.ancestors), options.tails}));
    added.id = static_cast<std::uint64_t>(inserted.last_insert_rowid);
    if (beginning.tag) OFFPRINT_TRY(insert_tag(session, beginning.tag_of, *beginning.tag));
    return {};
  });
  const int code = result ? SQLITE_OK : result.error().sqlite_code();
  if (beginning.tag && (code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY))
    return fail(Code::kConflict, fmt::format("tag '{}' exists", beginning.tag->tag));
  if (code == SQLITE_CONSTRAINT_UNIQUE) {
    return fail(Code::kConflict, fmt::format("database '{}' exists already", name));
  }
  if (!result) return fail(std::move(result).error());
  return added;
}

Result<> Catalog::set_limits(std::uint64_t id, const DatabaseLimits& limits) {
  return run([&](Session& session) -> Result<> {
    OFFPRINT_TRY(
        execute(session,
                "UPDATE databases SET size_bytes_max = ?, statement_ms_max = ?, rows_max = "
                "?, writes_blocked = ?, reads_blocked = ?, block_reason = ?, durability = ?,"
                " retention_days = ? WHERE id = ?",
                {static_cast<std::int64_t>(limits.size_bytes_max),
                 std::int64_t{limits.statement_ms_max}, static_cast<std::int64_t>(limits.rows_max),
                 std::int64_t{limits.writes_blocked}, std::int64_t{limits.reads_blocked},
                 limits.block_reason, static_cast<std::int64_t>(limits.durability),
                 std::int64_t{limits.retention_days}, static_cast<std::int64_t>(id)}));
    return {};
  });
}

Result<> Catalog::set_restored(std::uint64_t id, const Bookmark& at) {
  return run([&](Session& session) -> Result<> {
    auto database = static_cast<std::int64_t>(id);
    Bytes lineage(at.lineage.bytes.begin(), at.lineage.bytes.end());
    OFFPRINT_TRY(execute(session, "UPDATE databases SET lineage = ?, epoch = ? WHERE id = ?",
                         {lineage, std::int64_t{at.epoch.value}, database}));
    OFFPRINT_TRY(execute(
        session, "INSERT OR REPLACE INTO epoch_ends VALUES(?, ?, ?)",
        {database, std::int64_t{at.epoch.value}, static_cast<std::int64_t>(at.txid.value)}));
    return {};
  });
}

Result<> Catalog::set_cut(const Lineage& lineage,
                          const std::vector<std::pair<std::uint64_t, EpochEnd>>& ends) {
  return run([&](Session& session) -> Result<> {
    auto insert = [&](std::int64_t id, std::int64_t epoch, TxId txid) {
      return execute(session, "INSERT OR REPLACE INTO epoch_ends VALUES(?, ?, ?)",
                     {id, epoch, static_cast<std::int64_t>(txid.value)});
    };
    for (const auto& [id, end] : ends)
      OFFPRINT_TRY(insert(static_cast<std::int64_t>(id), end.epoch.value, end.txid));
    OFFPRINT_TRY(insert(kNoDatabase, mark_of(lineage), TxId{}));
    return {};
  });
}

Result<bool> Catalog::knows_cut(const Lineage& lineage) {
  bool known = false;
  OFFPRINT_TRY(read([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(session, "SELECT 1 FROM epoch_ends WHERE database_id = ? AND epoch = ?",
                         {kNoDatabase, mark_of(lineage)}, [&](const auto&) { known = true; }));
    return {};
  }));
  return known;
}

Result<> Catalog::set_tails(std::uint64_t id, const std::string& path) {
  return run([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(session, "UPDATE databases SET tails = ? WHERE id = ?",
                         {path, static_cast<std::int64_t>(id)}));
    return {};
  });
}

Result<> Catalog::set_unfilled(std::uint64_t id) {
  return run([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(session, "UPDATE databases SET begins_filled = 0 WHERE id = ?",
                         {static_cast<std::int64_t>(id)}));
    return {};
  });
}

Result<> Catalog::remove(std::uint64_t id, const std::string& name, Epoch epoch,
                         const std::function<bool()>& only_if) {
  return run([&](Session& session) -> Result<> {
    if (only_if && !only_if())
      return fail(Code::kConflict, fmt::format("database '{}' has content meanwhile", name));
    OFFPRINT_TRY(remove_tags(session, id, name, only_if != nullptr));
    OFFPRINT_TRY(
        execute(session, "DELETE FROM databases WHERE id = ?", {static_cast<std::int64_t>(id)}));
    OFFPRINT_TRY(execute(session, "DELETE FROM epoch_ends WHERE database_id = ?",
                         {static_cast<std::int64_t>(id)}));
    if (is_state_name(name)) return {};
    OFFPRINT_TRY(PublicationList::remove_database(session, id));
    OFFPRINT_TRY(execute(session, "INSERT OR REPLACE INTO dropped(name, epoch) VALUES(?, ?)",
                         {name, std::int64_t{epoch.value}}));
    return {};
  });
}

Result<> Catalog::forget_states() {
  return run([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(session, "DELETE FROM databases WHERE name GLOB '=*'"));
    return {};
  });
}

Result<std::vector<TagInfo>> Catalog::tags(std::uint64_t id) {
  std::vector<TagInfo> tags;
  OFFPRINT_TRY(read([&](Session& session) -> Result<> {
    tags.clear();
    auto read = execute(
        session,
        "SELECT tag, bookmark, created_at_ms, size_bytes FROM tags"
        " WHERE database_id = ? ORDER BY tag",
        {static_cast<std::int64_t>(id)}, [&](const auto& row) {
          tags.push_back({std::string(row.column_text(0)),
                          Bookmark::parse(row.column_text(1)).value_or(Bookmark()),
                          row.column_int(2), static_cast<std::uint64_t>(row.column_int(3))});
        });
    if (!read) return fail(std::move(read).error());
    return {};
  }));
  return tags;
}

Result<std::vector<std::pair<std::uint64_t, std::string>>> Catalog::all_tags() {
  std::vector<std::pair<std::uint64_t, std::string>> tags;
  OFFPRINT_TRY(read([&](Session& session) -> Result<> {
    tags.clear();
    auto read = execute(session, "SELECT database_id, tag FROM tags", {}, [&](const auto& row) {
      tags.emplace_back(static_cast<std::uint64_t>(row.column_int(0)), row.column_text(1));
    });
    if (!read) return fail(std::move(read).error());
    return {};
  }));
  return tags;
}

Result<> Catalog::add_tag(std::uint64_t id, const TagInfo& tag) {
  return run([&](Session& session) { return insert_tag(session, id, tag); });
}

Result<> Catalog::set_tag_size(std::uint64_t id, const std::string& tag, std::uint64_t bytes) {
  return run([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(session,
                         "UPDATE tags SET size_bytes = ? WHERE database_id = ? AND tag = ?",
                         {static_cast<std::int64_t>(bytes), static_cast<std::int64_t>(id), tag}));
    return {};
  });
}

Result<> Catalog::remove_tag(std::uint64_t id, const std::string& tag) {
  return run([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(session, "DELETE FROM tags WHERE database_id = ? AND tag = ?",
                         {static_cast<std::int64_t>(id), tag}));
    return {};
  });
}

Result<std::vector<DroppedName>> Catalog::dropped() {
  std::vector<DroppedName> names;
  OFFPRINT_TRY(read([&](Session& session) -> Result<> {
    names.clear();
    OFFPRINT_TRY(execute(session,
                         "SELECT name, epoch FROM dropped WHERE name NOT IN (SELECT name FROM "
                         "databases) ORDER BY name",
                         {}, [&](const auto& row) {
                           names.push_back({std::string(row.column_text(0)),
                                            Epoch{static_cast<std::uint32_t>(row.column_int(1))}});
                         }));
    return {};
  }));
  return names;
}

Result<> Catalog::revoke(const Revocation& revocation) {
  return run([revocation](Session& session) -> Result<> {
    if (revocation.token_id.empty()) {
      OFFPRINT_TRY(execute(session,
                           "INSERT INTO token_watermarks VALUES(?, ?) ON CONFLICT DO UPDATE SET "
                           "not_before_s = max(not_before_s, excluded.not_before_s)",
                           {revocation.database, revocation.not_before_s}));
      return {};
    }
    OFFPRINT_TRY(
        execute(session, "DELETE FROM revoked_tokens WHERE until_s <= ?", {unix_time_ms() / 1000}));
    OFFPRINT_TRY(execute(session,
                         "INSERT INTO revoked_tokens VALUES(?, ?) ON CONFLICT DO UPDATE SET "
                         "until_s = max(until_s, excluded.until_s)",
                         {revocation.token_id, revocation.until_s}));
    return {};
  });
}

Result<std::vector<Revocation>> Catalog::revocations() {
  std::vector<Revocation> all;
  OFFPRINT_TRY(read([&](Session& session) -> Result<> {
    all.clear();
    OFFPRINT_TRY(execute(
        session, "SELECT id, until_s FROM revoked_tokens ORDER BY id", {}, [&](const auto& row) {
          all.push_back({std::string(row.column_text(0)), row.column_int(1), {}, 0});
        }));
    OFFPRINT_TRY(
        execute(session, "SELECT database, not_before_s FROM token_watermarks ORDER BY database",
                {}, [&](const auto& row) {
                  all.push_back({{}, 0, std::string(row.column_text(0)), row.column_int(1)});
                }));
    return {};
  }));
  return all;
}

Result<> Catalog::add_usage(const std::vector<UsageRecord>& records) {
  return run([&](Session& session) -> Result<> {
    for (const UsageRecord& each : records) {
      auto number = [](std::uint64_t value) { return static_cast<std::int64_t>(value); };
      // A size of 0 is not known.
      OFFPRINT_TRY(execute(
          session,
          "INSERT INTO usage VALUES(?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
          "queries = queries + excluded.queries, rows_read = rows_read + excluded.rows_read, "
          "rows_written = rows_written + excluded.rows_written, "
          "size_bytes = iif(excluded.size_bytes = 0, size_bytes, excluded.size_bytes), "
          "size_bytes_max = max(size_bytes_max, excluded.size_bytes_max)",
          {each.month, each.name, number(each.database_id), number(each.count.queries),
           number(each.count.rows_read), number(each.count.rows_written), number(each.size_bytes),
           number(each.size_bytes_max)}));
    }
    return {};
  });
}

Result<> Catalog::forget_usage_before(const std::string& month) {
  return run([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(session, "DELETE FROM usage WHERE month < ?", {month}));
    return {};
  });
}

Result<std::vector<UsageRecord>> Catalog::usage(const UsageQuery& query) {
  std::vector<UsageRecord> records;
  // Behind every name that begins with the prefix: no byte of a name is 0x7f.
  std::string end = query.prefix + '\x7f';
  OFFPRINT_TRY(read([&](Session& session) -> Result<> {
    records.clear();
    OFFPRINT_TRY(
        execute(session,
                std::string(kUsageColumns) +
                    "WHERE month = ? AND name >= ? AND name < ? AND (name, database_id) > (?, ?) "
                    "ORDER BY name, database_id LIMIT ?",
                {query.month, query.prefix, end, query.after_name,
                 static_cast<std::int64_t>(std::min<std::uint64_t>(query.after_id, INT64_MAX)),
                 static_cast<std::int64_t>(query.limit)},
                [&](const auto& row) { records.push_back(read_usage(row)); }));
    return {};
  }));
  return records;
}

Result<std::vector<UsageRecord>> Catalog::usage_of(std::uint64_t id, const std::string& name,
                                                   std::vector<std::string> months) {
  std::vector<UsageRecord> records;
  OFFPRINT_TRY(read([&](Session& session) -> Result<> {
    records.clear();
    for (const std::string& month : months) {
      OFFPRINT_TRY(execute(
          session, std::string(kUsageColumns) + "WHERE month = ? AND name = ? AND database_id = ?",
          {month, name, static_cast<std::int64_t>(id)},
          [&](const auto& row) { records.push_back(read_usage(row)); }));
    }
    return {};
  }));
  return records;
}

Result<> check_options(const CreateOptions& options) {
  std::uint32_t size = options.page_size;
  if (size < 512 || size > 65536 || (size & (size - 1)) != 0) {
    return fail(Code::kInvalid, "page_size must be a power of two from 512 to 65536");
  }
  if (options.auto_vacuum < 0 || options.auto_vacuum > 2)
    return fail(Code::kInvalid, "auto_vacuum must be 0, 1 or 2");
  if (options.encoding != "UTF-8" && options.encoding != "UTF-16le" &&
      options.encoding != "UTF-16be") {
    return fail(Code::kInvalid, "encoding must be UTF-8, UTF-16le or UTF-16be");
  }
  return {};
}

bool was_cut_short(FileSystem& files, const Catalog::Row& row, HostedDatabase& database) {
  if (!row.begins_filled || database.position().txid.value != 0) return false;
  return has_no_content(files, database.identity().path);
}

}  // namespace offprint::database
