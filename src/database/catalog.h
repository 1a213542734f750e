#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/hosted_database.h"
#include "database/name.h"
#include "database/publication_list.h"
#include "database/store.h"
#include "database/usage.h"

namespace offprint::database {

// The list of databases, itself a hosted database (number 0). Blocks: not for I/O threads.
class Catalog {
 public:
  struct Row {
    std::uint64_t id = 0;
    std::string name;
    Lineage lineage;
    Epoch epoch;
    CreateOptions options;
    std::int64_t created_at_ms = 0;
    DatabaseLimits limits;
    bool begins_filled = false;       // without a transaction it was cut short, and never there
    std::vector<Bookmark> ancestors;  // of a fork: see DatabaseInfo
    std::vector<EpochEnd> ends;
  };
  // How a database begins.
  struct Beginning {
    std::optional<Bookmark> at = {};  // of a copy: its lineage and epoch
    bool filled = false;              // see Row
    std::vector<Bookmark> ancestors = {};
    // It is the state that this tag of the database with that number names; listed with it.
    std::optional<TagInfo> tag = {};
    std::uint64_t tag_of = 0;
  };

  explicit Catalog(std::shared_ptr<HostedDatabase> database) : database_(std::move(database)) {}

  // Makes the tables of a new catalog; kInvalid when it was written by a newer program.
  Result<> set_up();
  // By id. `only`: of that one, if it is there.
  Result<std::vector<Row>> rows(std::optional<std::uint64_t> only = {});
  // Adds a database under a new id. kConflict: the name is taken.
  Result<Row> add(const std::string& name, const CreateOptions& options,
                  const Beginning& beginning);
  // What it began with was nothing.
  Result<> set_unfilled(std::uint64_t id);
  // The path of the file that it follows.
  Result<> set_tails(std::uint64_t id, const std::string& path);
  Result<> set_limits(std::uint64_t id, const DatabaseLimits& limits);
  // It stands there, whatever it was: what came later in earlier epochs is lost.
  Result<> set_restored(std::uint64_t id, const Bookmark& at);
  // History was cut for good: the log of a cluster has this lineage since, and databases (by
  // number) these ends.
  Result<> set_cut(const Lineage& lineage,
                   const std::vector<std::pair<std::uint64_t, EpochEnd>>& ends);
  Result<bool> knows_cut(const Lineage& lineage);
  // Removes it, remembering `epoch` so that a database of the same name starts above it. With it go
  // its tags and the databases that are their states; with such a database, its tag.
  // `only_if`: it goes since it was never filled; asked within that transaction, false: kConflict,
  // it stays.
  Result<> remove(std::uint64_t id, const std::string& name, Epoch epoch,
                  const std::function<bool()>& only_if = {});
  Result<std::vector<DroppedName>> dropped();
  // Of a list that an archive had: it keeps what tags name as files.
  Result<> forget_states();

  PublicationList& publications() { return publications_; }

  // By name.
  Result<std::vector<TagInfo>> tags(std::uint64_t id);
  // Of databases that are there: number and name.
  Result<std::vector<std::pair<std::uint64_t, std::string>>> all_tags();
  Result<> add_tag(std::uint64_t id, const TagInfo& tag);
  Result<> set_tag_size(std::uint64_t id, const std::string& tag, std::uint64_t bytes);
  Result<> remove_tag(std::uint64_t id, const std::string& tag);

  // Drops entries of tokens that have expired.
  Result<> revoke(const Revocation& revocation);
  Result<std::vector<Revocation>> revocations();

  // Adds the counts to what is there. A size of 0 is not known.
  Result<> add_usage(const std::vector<UsageRecord>& records);
  Result<> forget_usage_before(const std::string& month);
  Result<std::vector<UsageRecord>> usage(const UsageQuery& query);
  // Of these months those in which it was used, in their order.
  Result<std::vector<UsageRecord>> usage_of(std::uint64_t id, const std::string& name,
                                            std::vector<std::string> months);

 private:
  using Work = PublicationList::Work;
  // Runs `work` as one transaction of the catalog and waits until it is durable.
  Result<> run(Work work, bool only_reads = false);
  // On a copy too.
  Result<> read(Work work) { return run(std::move(work), true); }

  std::shared_ptr<HostedDatabase> database_;
  PublicationList publications_{[this](Work work) { return run(std::move(work)); },
                                [this](Work work) { return read(std::move(work)); }};
};

// kInvalid: SQLite makes no such database.
Result<> check_options(const CreateOptions& options);

// It was to be there with all of its content or not at all, and the process ended before anything
// of it was decided.
bool was_cut_short(FileSystem& files, const Catalog::Row& row, HostedDatabase& database);

}  // namespace offprint::database
