#pragma once

#include <optional>
#include <string>
#include <vector>

#include "database/name.h"
#include "database/session.h"
#include "database/store.h"
#include "publication/plan.h"
#include "publication/source_state.h"

namespace offprint::publication {

// What the table _offprint of an instance says: one row. docs/format/publication.md.
struct InstanceLabel {
  std::string publication;
  std::uint32_t version = 0;
  std::string parameters;  // canonical
};

// A row of a published table as it was and is to be.
struct RowChange {
  const ItemPlan* item = nullptr;
  std::optional<Row> before, after;
};

// "PUBLICATION_KEY: …": two rows of an item have one key.
std::string not_a_key(const ItemPlan& item);

// A publication with its parameters given, kept in a database of its own. Its content is always
// what the definition says of one state of the source; which one stands in it. Thread: one at a
// time. Blocks.
class Instance {
 public:
  Instance(database::Store& store, database::DatabaseName name, InstanceLabel label,
           std::vector<Argument> arguments)
      : store_(store),
        name_(std::move(name)),
        label_(std::move(label)),
        arguments_(std::move(arguments)) {}

  const database::DatabaseName& name() const { return name_; }
  const InstanceLabel& label() const { return label_; }
  const std::vector<Argument>& arguments() const { return arguments_; }
  // It is not what it should be, and must be filled: a change did not reach it.
  bool is_stale() const { return is_stale_; }
  // Why the last try failed; empty: it did not.
  const std::string& error() const { return error_; }

  // Makes it what the definition says of that state, from whatever it is: what does not differ is
  // not written. One transaction.
  Result<> fill(const Plan& plan, SourceState& source);
  // The next state: these rows, and these tables as a whole. One transaction, or none when nothing
  // differs.
  Result<> apply(const std::vector<RowChange>& changes, const std::vector<const ItemPlan*>& whole,
                 SourceState& source);

 private:
  Result<> run(const std::function<Result<>(database::Session&)>& work);
  Result<> make_tables(database::Session& session, const Plan& plan);
  Result<> write_rows(database::Session& session, const std::vector<RowChange>& changes,
                      SourceState& source);
  // Rows with NULL in their key: as they should be. True: something differed.
  Result<bool> refresh_loose(database::Session& session, const ItemPlan& item,
                             std::vector<Row> rows);
  Result<bool> refresh(database::Session& session, const ItemPlan& item, SourceState& source);
  Result<> note_source(database::Session& session, const Bookmark& source);

  database::Store& store_;
  const database::DatabaseName name_;
  const InstanceLabel label_;
  const std::vector<Argument> arguments_;
  bool is_stale_ = true;
  std::string error_;
};

}  // namespace offprint::publication
