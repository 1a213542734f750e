#include "consumer/reactions.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "consumer/session.h"
#include "publication/sql_tokens.h"
#include "replica/replica_position.h"

namespace offprint::consumer {
namespace {

constexpr const char* kCursors =
    "CREATE TABLE IF NOT EXISTS main._offprint_on_row(name TEXT PRIMARY KEY, watched TEXT NOT "
    "NULL, "
    "bookmark TEXT NOT NULL) WITHOUT ROWID";

// A replica's pages are seen on their way into its -wal, just before readers can see the commit:
// after a notice it is looked at again with growing pauses.
constexpr int kPauseMsMax = 1000;

// Looks at a bookmark and at the rows, one after the other, that may not fit each other.
constexpr int kTriesMax = 10;

// What a row's SQL must not do: it runs inside of our transaction.
int authorize(void*, int action, const char*, const char*, const char*, const char*) {
  switch (action) {
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
    case SQLITE_PRAGMA:
      return SQLITE_DENY;
    default:
      return SQLITE_OK;
  }
}

std::string row_text(const RowChanges& rows, const sqlite::Statement& row) {
  const int count = static_cast<int>(rows.columns().size());
  const int at = row.column_text(0) == "insert" ? 1 + count : 1;
  return fmt::format("{} of the row with {} = {}", row.column_text(0), rows.columns()[0],
                     row.column_text(at));
}

}  // namespace

Result<std::unique_ptr<Reactions>> Reactions::open(const ConsumerSpec& spec) {
  std::unique_ptr<Reactions> made(new Reactions(spec));
  if (spec.reactions.empty()) return fail(Code::kInvalid, "there is no [[on_row]] in it");
  made->stop_event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made->stop_event_ < 0) return fail(io_error("eventfd", errno));
  OFFPRINT_TRY_ASSIGN(auto watch, tail::FolderWatch::create());
  made->watch_ = std::make_unique<tail::FolderWatch>(std::move(watch));
  for (const auto& [name, path] : made->spec_.replicas) OFFPRINT_TRY(made->watch_->add(path));
  OFFPRINT_TRY(made->open_session());
  return made;
}

Reactions::~Reactions() {
  if (stop_event_ >= 0) ::close(stop_event_);
}

Result<> Reactions::open_session() {
  reactions_.clear();  // its statements are of the connection
  replicas_.clear();
  for (const auto& [name, path] : spec_.replicas) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0 && errno != ENOENT)
      return fail(io_error("look at " + path, errno));
    replicas_.push_back({name, path, status.st_dev, status.st_ino});
  }
  SessionOptions options;
  OFFPRINT_TRY_ASSIGN(auto connection, consumer::open_session(spec_, options));
  connection_ = std::make_unique<sqlite::Connection>(std::move(connection));
  for (const ReactionSpec& each : spec_.reactions) {
    OFFPRINT_TRY_ASSIGN(auto rows, RowChanges::make(*connection_, each));
    Reaction reaction{&each, std::move(rows), {}, {}, {}};
    OFFPRINT_TRY_ASSIGN(reaction.on_insert, prepare(reaction, each.on_insert));
    OFFPRINT_TRY_ASSIGN(reaction.on_update, prepare(reaction, each.on_update));
    OFFPRINT_TRY_ASSIGN(reaction.on_delete, prepare(reaction, each.on_delete));
    reactions_.push_back(std::move(reaction));
  }
  return {};
}

// Compiles all statements of a text, and finds the columns that their parameters name.
Result<Reactions::Script> Reactions::prepare(const Reaction& reaction, const std::string& sql) {
  Script script;
  const std::vector<std::string>& names = reaction.rows.columns();
  auto column_of = [&](std::string_view parameter) {
    if (parameter == "op") return 0;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (parameter == "old_" + names[i]) return static_cast<int>(1 + i);
      if (parameter == "new_" + names[i]) return static_cast<int>(1 + names.size() + i);
    }
    return -1;
  };
  for (const char* rest = sql.c_str(); *rest != '\0';) {
    sqlite3_stmt* handle = nullptr;
    sqlite3_set_authorizer(connection_->handle(), authorize, nullptr);
    int code = sqlite3_prepare_v2(connection_->handle(), rest, -1, &handle, &rest);
    sqlite3_set_authorizer(connection_->handle(), nullptr, nullptr);
    sqlite::Statement statement(handle);
    if (code != SQLITE_OK) {
      return fail(sqlite::sqlite_error(code, connection_->handle())
                      .with_context("on_row " + reaction.spec->name));
    }
    if (!statement) continue;  // blanks, a comment
    std::vector<int> columns;
    for (int i = 1; i <= sqlite3_bind_parameter_count(handle); ++i) {
      const char* name = sqlite3_bind_parameter_name(handle, i);
      const int column = name == nullptr ? -1 : column_of(name + 1);
      if (column < 0) {
        return fail(Code::kInvalid,
                    fmt::format("on_row {}: parameter {} is none of :op, :old_COLUMN and "
                                ":new_COLUMN with a COLUMN of {}",
                                reaction.spec->name, name == nullptr ? "?" : name,
                                reaction.rows.definition()));
      }
      columns.push_back(column);
    }
    script.statements.push_back(std::move(statement));
    script.columns.push_back(std::move(columns));
  }
  return script;
}

// Whether a replica has another state than the last time that was asked. Opens the session again
// when a file was replaced.
Result<bool> Reactions::moved() {
  for (const Replica& replica : replicas_) {
    struct stat status{};
    const bool there = ::stat(replica.path.c_str(), &status) == 0;
    if (!there || (status.st_dev == replica.device && status.st_ino == replica.inode)) continue;
    OFFPRINT_TRY(open_session());
    break;
  }
  bool moved = false;
  for (Replica& replica : replicas_) {
    const std::string pragma =
        fmt::format("PRAGMA {}.data_version", publication::quoted_name(replica.name));
    OFFPRINT_TRY_ASSIGN(std::int64_t version, connection_->query_int(pragma.c_str()));
    moved = moved || version != replica.version;
    replica.version = version;
  }
  return moved;
}

// Begins a transaction and pins the replicas' states.
Result<> Reactions::begin(const char* statement) {
  OFFPRINT_TRY(connection_->execute(statement));
  for (const Replica& replica : replicas_) {
    const std::string pin = fmt::format("SELECT count(*) FROM {}.sqlite_schema",
                                        publication::quoted_name(replica.name));
    OFFPRINT_TRY(connection_->query_int(pin.c_str()));
  }
  return {};
}

// Empty: no follower keeps it, or it is just being changed.
Result<std::string> Reactions::bookmark_of(const std::string& schema) const {
  for (const Replica& replica : replicas_) {
    if (publication::folded(replica.name) != publication::folded(schema)) continue;
    auto standing = replica::read_replica_position(replica.path);
    if (standing) return standing->position.bookmark().text();
    const Code code = standing.error().code();
    if (code == Code::kNotFound || code == Code::kBehind) return std::string();
    return fail(standing.error());
  }
  return std::string();
}

// What the own database says of it.
Result<> Reactions::find_cursor(Reaction& reaction) {
  OFFPRINT_TRY_ASSIGN(auto there, connection_->query_int("SELECT count(*) FROM main.sqlite_schema "
                                                         "WHERE name = '_offprint_on_row'"));
  reaction.is_new = true;
  if (there == 0) return {};
  OFFPRINT_TRY_ASSIGN(
      auto select,
      connection_->prepare("SELECT watched FROM main._offprint_on_row WHERE name = ?1"));
  select.bind_text(1, reaction.spec->name);
  OFFPRINT_TRY_ASSIGN(bool row, select.step());
  if (!row) return {};
  reaction.is_new = false;
  if (select.column_text(0) == reaction.rows.definition()) return {};
  return fail(Code::kConflict,
              fmt::format("on_row {} has watched {} until now, and is to watch {}: give it another "
                          "name, or forget what it has seen (--forget {})",
                          reaction.spec->name, select.column_text(0), reaction.rows.definition(),
                          reaction.spec->name));
}

Result<> Reactions::keep_cursor(const Reaction& reaction, const std::string& bookmark) {
  OFFPRINT_TRY_ASSIGN(auto replace,
                      connection_->prepare("INSERT OR REPLACE INTO "
                                           "main._offprint_on_row VALUES (?1, ?2, ?3)"));
  replace.bind_text(1, reaction.spec->name);
  replace.bind_text(2, reaction.rows.definition());
  replace.bind_text(3, bookmark);
  return replace.run();
}

Result<bool> Reactions::any_change() {
  OFFPRINT_TRY(begin("BEGIN"));
  for (Reaction& reaction : reactions_) {
    OFFPRINT_TRY(find_cursor(reaction));
    bool any = reaction.is_new;
    if (!any) {
      OFFPRINT_TRY_ASSIGN(any, reaction.rows.any());
    }
    if (!any) continue;
    OFFPRINT_TRY(connection_->execute("COMMIT"));
    return true;
  }
  OFFPRINT_TRY(connection_->execute("COMMIT"));
  return false;
}

Result<> Reactions::run_row(Reaction& reaction, Script& script, const sqlite::Statement& row) {
  for (std::size_t i = 0; i < script.statements.size(); ++i) {
    sqlite::Statement& statement = script.statements[i];
    const std::vector<int>& columns = script.columns[i];
    for (std::size_t k = 0; k < columns.size(); ++k) {
      sqlite3_bind_value(statement.handle(), static_cast<int>(k + 1),
                         sqlite3_column_value(row.handle(), columns[k]));
    }
    if (auto done = statement.run(); !done) {
      return fail(done.error().with_context(
          fmt::format("on_row {}, {}", reaction.spec->name, row_text(reaction.rows, row))));
    }
  }
  return {};
}

Result<ReactionCounts> Reactions::run_one(Reaction& reaction) {
  ReactionCounts counts;
  counts.name = reaction.spec->name;
  OFFPRINT_TRY(find_cursor(reaction));
  if (reaction.is_new) {
    OFFPRINT_TRY(reaction.rows.drop_image());
    OFFPRINT_TRY(reaction.rows.make_image());
  }
  const bool fires = !reaction.is_new || !reaction.spec->from_now;
  OFFPRINT_TRY(reaction.rows.gather());
  OFFPRINT_TRY_ASSIGN(auto changes, reaction.rows.changes());
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool row, changes.step());
    if (!row) break;
    const std::string_view op = changes.column_text(0);
    const bool inserts = op == "insert", deletes = op == "delete";
    ++(inserts ? counts.inserted : deletes ? counts.deleted : counts.updated);
    if (!fires) continue;
    OFFPRINT_TRY(run_row(reaction,
                         inserts   ? reaction.on_insert
                         : deletes ? reaction.on_delete
                                   : reaction.on_update,
                         changes));
  }
  changes = sqlite::Statement();
  OFFPRINT_TRY(reaction.rows.accept());
  return counts;
}

Result<std::vector<ReactionCounts>> Reactions::run_in_transaction() {
  std::vector<std::string> bookmarks;
  // A bookmark that stood before the rows were pinned is one that they have.
  for (int tries = 1;; ++tries) {
    bookmarks.clear();
    bool exact = true;
    for (const Reaction& reaction : reactions_) {
      OFFPRINT_TRY_ASSIGN(std::string bookmark, bookmark_of(reaction.spec->table.schema));
      bookmarks.push_back(std::move(bookmark));
    }
    OFFPRINT_TRY(begin("BEGIN IMMEDIATE"));
    for (std::size_t i = 0; i < reactions_.size(); ++i) {
      OFFPRINT_TRY_ASSIGN(std::string after, bookmark_of(reactions_[i].spec->table.schema));
      exact = exact && after == bookmarks[i];
    }
    if (exact || tries == kTriesMax) break;
    OFFPRINT_TRY(connection_->execute("ROLLBACK"));
  }
  OFFPRINT_TRY(connection_->execute(kCursors));
  std::vector<ReactionCounts> all;
  for (std::size_t i = 0; i < reactions_.size(); ++i) {
    OFFPRINT_TRY_ASSIGN(ReactionCounts counts, run_one(reactions_[i]));
    const bool any = counts.inserted + counts.updated + counts.deleted > 0;
    if (!any && !reactions_[i].is_new) continue;
    OFFPRINT_TRY(keep_cursor(reactions_[i], bookmarks[i]));
    counts.bookmark = bookmarks[i];
    if (any) all.push_back(std::move(counts));
  }
  OFFPRINT_TRY(connection_->execute("COMMIT"));
  return all;
}

Result<std::vector<ReactionCounts>> Reactions::run_all() {
  OFFPRINT_TRY(moved());
  // A look without changes takes no lock that the service's own writers would wait for.
  OFFPRINT_TRY_ASSIGN(bool any, any_change());
  if (!any) return std::vector<ReactionCounts>();
  return run_in_transaction();
}

Result<std::vector<ReactionCounts>> Reactions::run() {
  Result<std::vector<ReactionCounts>> done = run_all();
  if (!done && !connection_->autocommit()) {
    if (auto undone = connection_->execute("ROLLBACK"); !undone) return fail(undone.error());
  }
  if (!done)
    for (Replica& replica : replicas_) replica.version = -1;
  return done;
}

Result<bool> Reactions::wait(int pause_ms) {
  pollfd stopped{stop_event_, POLLIN, 0};
  if (pause_ms > 0 && ::poll(&stopped, 1, pause_ms) > 0) return false;
  noticed_ = SteadyClock::now();
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool has_moved, moved());
    if (has_moved) return true;
    const auto since =
        std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - noticed_);
    const int look_ms = static_cast<int>(std::clamp<std::int64_t>(since.count(), 1, kPauseMsMax));
    pollfd waits[2] = {{watch_->descriptor(), POLLIN, 0}, {stop_event_, POLLIN, 0}};
    if (::poll(waits, 2, look_ms) < 0 && errno != EINTR) return fail(io_error("poll", errno));
    if ((waits[1].revents & POLLIN) != 0) return false;
    if ((waits[0].revents & POLLIN) == 0) continue;
    for (const auto& notice : watch_->read()) {
      const bool ours = std::any_of(replicas_.begin(), replicas_.end(), [&](const auto& replica) {
        return notice.name.starts_with(tail::FolderWatch::split(replica.path).second);
      });
      if (ours || notice.name.empty()) noticed_ = SteadyClock::now();
    }
  }
}

void Reactions::stop() {
  const std::uint64_t one = 1;
  // A full counter has been told already.
  [[maybe_unused]] auto written = ::write(stop_event_, &one, sizeof one);
}

Result<bool> Reactions::forget(const std::string& name) {
  auto found = std::find_if(reactions_.begin(), reactions_.end(),
                            [&](const Reaction& each) { return each.spec->name == name; });
  if (found == reactions_.end()) return false;
  OFFPRINT_TRY(connection_->execute(kCursors));
  OFFPRINT_TRY(connection_->execute("BEGIN IMMEDIATE"));
  OFFPRINT_TRY(found->rows.drop_image());
  OFFPRINT_TRY_ASSIGN(auto remove,
                      connection_->prepare("DELETE FROM main._offprint_on_row WHERE name = ?1"));
  remove.bind_text(1, name);
  OFFPRINT_TRY(remove.run());
  OFFPRINT_TRY(connection_->execute("COMMIT"));
  return true;
}

}  // namespace offprint::consumer
