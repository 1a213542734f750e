#include "database/request_keys.h"

#include <string>

namespace offprint::database {
namespace {

constexpr char kLook[] =
    "SELECT count(*) FROM main.sqlite_schema WHERE type='table' AND "
    "name='sqlite_offprint_requests'";
// Numbers grow with time: what is oldest comes first.
constexpr char kMake[] =
    "CREATE TABLE main.sqlite_offprint_requests(number INTEGER PRIMARY KEY, key TEXT NOT NULL "
    "UNIQUE, at_ms INTEGER NOT NULL, content BLOB NOT NULL, bookmark TEXT NOT NULL, answer BLOB)";
constexpr char kFind[] =
    "SELECT content, bookmark, answer FROM main.sqlite_offprint_requests WHERE key=?";
constexpr char kAdd[] =
    "INSERT INTO main.sqlite_offprint_requests(key, at_ms, content, bookmark, answer) "
    "VALUES(?, ?, ?, ?, ?)";
constexpr char kOldest[] =
    "SELECT number, at_ms FROM main.sqlite_offprint_requests ORDER BY number LIMIT ?";
constexpr char kRemove[] = "DELETE FROM main.sqlite_offprint_requests WHERE number <= ?";

constexpr std::int64_t kRemovedAtOnce = 64;
constexpr std::int64_t kLookEvery = 16;  // additions

// While it lives a table may have a name that SQLite keeps for its own.
class ReservedNames {
 public:
  explicit ReservedNames(sqlite3* db) : db_(db) { allow(true); }
  ~ReservedNames() { allow(false); }
  ReservedNames(const ReservedNames&) = delete;
  ReservedNames& operator=(const ReservedNames&) = delete;

 private:
  void allow(bool on) {
    sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, on ? 0 : 1, nullptr);
    sqlite3_db_config(db_, SQLITE_DBCONFIG_WRITABLE_SCHEMA, on ? 1 : 0, nullptr);
  }
  sqlite3* const db_;
};

// While it lives SQL of ours runs, also what SQLite compiles once more.
class Internally {
 public:
  explicit Internally(SqlPolicy& policy) : policy_(policy) { policy_.set_internal(true); }
  ~Internally() { policy_.set_internal(false); }
  Internally(const Internally&) = delete;
  Internally& operator=(const Internally&) = delete;

 private:
  SqlPolicy& policy_;
};

}  // namespace

Result<sqlite::Statement*> RequestKeys::statement(sqlite::Statement& kept, const char* sql) {
  if (!kept) {
    OFFPRINT_TRY_ASSIGN(kept, writer_.connection().prepare(sql, SQLITE_PREPARE_PERSISTENT));
  }
  kept.reset();
  return &kept;
}

Result<bool> RequestKeys::is_there() {
  OFFPRINT_TRY_ASSIGN(auto look, statement(look_, kLook));
  OFFPRINT_TRY(look->step());
  const bool found = look->column_int(0) != 0;
  look->reset();
  return found;
}

Result<> RequestKeys::make_table() {
  ReservedNames allowed(writer_.handle());
  return writer_.connection().execute(kMake);
}

Result<std::optional<KeptOutcome>> RequestKeys::find(const RequestKey& key) {
  Internally ours(writer_.policy());
  OFFPRINT_TRY_ASSIGN(bool has_any, is_there());
  if (!has_any) return std::nullopt;
  OFFPRINT_TRY_ASSIGN(auto find, statement(find_, kFind));
  find->bind_text(1, key.key);
  OFFPRINT_TRY_ASSIGN(bool found, find->step());
  if (!found) {
    find->reset();
    return std::nullopt;
  }
  const bool is_same = as_text(find->column_blob(0)) == key.content;
  const auto bookmark = Bookmark::parse(find->column_text(1));
  KeptOutcome outcome;
  if (find->column_type(2) != SQLITE_NULL) outcome.answer = as_text(find->column_blob(2));
  find->reset();
  if (!is_same) {
    return fail(Code::kInvalid,
                "IDEMPOTENCY_KEY_REUSED: another request came with this Idempotency-Key; each "
                "request needs a key of its own");
  }
  if (!bookmark) return fail(Code::kCorrupt, "the table of request keys is damaged");
  outcome.bookmark = *bookmark;
  return outcome;
}

Result<> RequestKeys::add(const RequestKey& key, const KeptOutcome& outcome, std::int64_t now_ms) {
  Internally ours(writer_.policy());
  OFFPRINT_TRY_ASSIGN(bool has_any, is_there());
  if (!has_any) OFFPRINT_TRY(make_table());
  OFFPRINT_TRY_ASSIGN(auto add, statement(add_, kAdd));
  add->bind_text(1, key.key);
  add->bind(2, now_ms);
  add->bind_blob_borrowed(3, as_bytes(key.content));
  add->bind_text(4, outcome.bookmark.text());
  const bool is_kept = outcome.answer && outcome.answer->size() <= limits_.answer_bytes_max;
  if (is_kept) {
    add->bind_blob_borrowed(5, as_bytes(*outcome.answer));
  } else {
    add->bind_null(5);
  }
  auto added = add->run();
  sqlite3_clear_bindings(add->handle());  // they are borrowed
  OFFPRINT_TRY(std::move(added));
  const std::int64_t number = sqlite3_last_insert_rowid(writer_.handle());
  return number % kLookEvery == 0 ? remove_old(number, now_ms) : Result<>();
}

// From the oldest on, so many at most; `newest` was added just now.
Result<> RequestKeys::remove_old(std::int64_t newest, std::int64_t now_ms) {
  OFFPRINT_TRY_ASSIGN(auto oldest, statement(oldest_, kOldest));
  oldest->bind(1, kRemovedAtOnce);
  std::optional<std::int64_t> last;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool found, oldest->step());
    if (!found) break;
    const std::int64_t number = oldest->column_int(0);
    const bool is_old = oldest->column_int(1) < now_ms - limits_.age_max_ms;
    if (!is_old && number > newest - limits_.count_max) break;
    last = number;
  }
  oldest->reset();
  if (!last) return {};
  OFFPRINT_TRY_ASSIGN(auto remove, statement(remove_, kRemove));
  remove->bind(1, *last);
  return remove->run();
}

}  // namespace offprint::database
