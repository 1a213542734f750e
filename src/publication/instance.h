#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "database/name.h"
#include "database/session.h"
#include "database/store.h"
#include "publication/plan.h"
#include "publication/source_state.h"

namespace offprint::publication {

inline constexpr const char* kLabelTable =
    "CREATE TABLE _offprint(publication TEXT NOT NULL, version INTEGER NOT NULL, parameters TEXT "
    "NOT NULL, definition TEXT NOT NULL, source TEXT NOT NULL)";

// Where an instance of several sources says which states of them it is of, and the same of parts.
inline constexpr const char* kSourcesColumns =
    "(name TEXT NOT NULL PRIMARY KEY, database TEXT NOT NULL, source TEXT NOT NULL) WITHOUT ROWID";
inline constexpr const char* kPartsColumns =
    "(name TEXT NOT NULL PRIMARY KEY, database TEXT NOT NULL, source TEXT NOT NULL, definition "
    "TEXT NOT NULL, source_id INTEGER NOT NULL) WITHOUT ROWID";

// What the table _offprint of an instance says: one row. docs/format/publication.md.
struct InstanceLabel {
  std::string publication;
  std::uint32_t version = 0;
  std::string parameters;  // canonical
};

// What an instance is in its database, and what it says there of its source.
struct InstanceRole {
  enum class Kind : std::uint8_t {
    kWhole,     // all of it: _offprint has one row
    kPart,      // some of its tables, beside other parts: a row of _offprint_parts is its own
    kGathered,  // all of it, and its source has parts: _offprint_sources tells their states
  };
  Kind kind = Kind::kWhole;
  // Of a part:
  std::string schema = {}, database = {};
  std::uint64_t target_id = 0;  // of the database that it is in
  // Of its source: another one of that name, which came later, takes its place for good.
  std::uint64_t source_id = 0;
};

// A row of a published table as it was and is to be.
struct RowChange {
  const ItemPlan* item = nullptr;
  std::optional<Row> before, after;
};

// Adds a row of a published table: its columns as ?.
std::string insert_sql(const ItemPlan& item);

// "PUBLICATION_KEY: …": two rows of an item have one key.
std::string not_a_key(const ItemPlan& item);

// What one instance may use, 0: no limit.
struct Quota {
  std::uint64_t size_bytes_max = 0;       // of its file
  std::uint64_t rows_per_minute_max = 0;  // that change in it; what it begins with does not count
  bool operator==(const Quota&) const = default;
};

// A publication with its parameters given, kept in a database of its own. Its content is always
// what the definition says of one state of the source; which one stands in it. Thread: one at a
// time. Blocks.
class Instance {
 public:
  Instance(database::Store& store, database::DatabaseName name, InstanceLabel label,
           InstanceRole role, std::vector<Argument> arguments)
      : store_(store),
        name_(std::move(name)),
        label_(std::move(label)),
        role_(std::move(role)),
        arguments_(std::move(arguments)) {}

  const database::DatabaseName& name() const { return name_; }
  const InstanceLabel& label() const { return label_; }
  const InstanceRole& role() const { return role_; }
  bool is_part() const { return role_.kind == InstanceRole::Kind::kPart; }
  const std::vector<Argument>& arguments() const { return arguments_; }
  // It is not what it should be, and must be filled: a change did not reach it.
  bool is_stale() const { return is_stale_; }
  // Why the last try failed; empty: it did not.
  const std::string& error() const { return error_; }
  // "PUBLICATION_QUOTA: …": it would go beyond what it may use, and stays what it was until it is
  // filled again; empty: it goes on.
  const std::string& stopped() const { return stopped_; }
  // It may be filled again: it was not stopped, or not just now.
  bool may_be_filled() const;
  // From now on. What another quota stopped may be filled again.
  Result<> set_quota(const Quota& quota);

  // The state of the source that it says it is of, if it is one of this plan and of these
  // parameters; nothing: it has to be filled.
  Result<std::optional<Bookmark>> stands_at(const Plan& plan);
  // It is what it should be already, at that state.
  void stands() {
    is_stale_ = false;
    error_.clear();
  }
  // It has to be filled.
  void lose() { is_stale_ = true; }
  // Makes it what the definition says of that state, from whatever it is: what does not differ is
  // not written. One transaction.
  Result<> fill(const Plan& plan, SourceState& source);
  // The next state: these rows, and these tables as a whole. One transaction, or none when nothing
  // differs.
  Result<> apply(const std::vector<RowChange>& changes, const std::vector<const ItemPlan*>& whole,
                 SourceState& source);

 private:
  // `source`: the state that it is made of.
  Result<> run(const std::function<Result<>(database::Session&)>& work,
               std::optional<Bookmark> source);
  Result<bool> make_tables(database::Session& session, const Plan& plan);
  static Result<bool> is_elsewhere(database::Session& session, SourceState& source);
  Result<> make_part(database::Session& session, const Plan& plan);
  Result<> check_owner(database::Session& session, bool takes_over);
  Result<> write_rows(database::Session& session, const std::vector<RowChange>& changes,
                      SourceState& source);
  // Rows with NULL in their key: as they should be. True: something differed.
  Result<bool> refresh_loose(database::Session& session, const ItemPlan& item,
                             std::vector<Row> rows);
  Result<bool> refresh(database::Session& session, const ItemPlan& item, SourceState& source);
  Result<> note_source(database::Session& session, SourceState& source);
  Result<> check_rate();
  void stop(std::string why);

  database::Store& store_;
  const database::DatabaseName name_;
  const InstanceLabel label_;
  const InstanceRole role_;
  const std::vector<Argument> arguments_;
  bool is_stale_ = true;
  std::string error_, stopped_;
  Deadline stopped_at_{};
  Quota quota_;
  // Rows changed in a minute, and by the transaction that runs.
  Deadline minute_{};
  std::uint64_t rows_in_minute_ = 0, rows_now_ = 0;
  bool is_too_fast_ = false;
};

}  // namespace offprint::publication
