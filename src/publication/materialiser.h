#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "database/store.h"
#include "publication/instance.h"
#include "publication/plan.h"
#include "publication/source_state.h"
#include "publication/tree_diff.h"

namespace offprint::publication {

// Which instance of which publication is meant.
struct InstanceRequest {
  database::StoredPublication publication;
  std::vector<Argument> arguments;  // of all parameters, in the definition's order
};

// Keeps the instances of one database's publications: all of them stand at one state of the source,
// and go on to its newest one together. Off the writer's path: what rows changed is told from the
// pages that the source's log has. Thread: any; calls wait for each other.
class Materialiser {
 public:
  Materialiser(database::Store& store, database::DatabaseName source, std::uint64_t source_id)
      : store_(store), source_(std::move(source)), source_id_(source_id) {}

  // The database of an instance, which is filled when it returns. Blocks. kInvalid: the definition
  // does not fit the database any more.
  Result<database::DatabaseName> open(const InstanceRequest& request);
  // Brings all instances to the source's newest state. Blocks. An error is one of the source; what
  // fails at an instance is tried again the next time.
  Result<> advance();
  // Instances of that version end, and their databases are dropped. Blocks.
  Result<> drop(const std::string& publication, std::uint32_t version);
  // Compares all instances with their definitions, and mends what differs. Blocks.
  Result<> rebuild();
  // For good: what runs fails soon.
  void cancel() { cancelled_ = true; }
  // Begins the read transaction of the state again, so that it does not keep the source's -wal from
  // starting again. False: something happened since the last call, it is for later.
  bool rest();

  struct Status {
    Bookmark source;  // the state of the instances
    std::size_t instances = 0, stale = 0;
    std::uint64_t transactions = 0, rows = 0, refreshes = 0;  // since the start
    std::string error;                                        // of the last try; empty: none
  };
  // Does not wait: while something long runs, what it said before.
  Status status();
  struct Kept {
    InstanceLabel label;
    database::DatabaseName name;
    bool is_stale = false;
  };
  std::vector<Kept> instances();

 private:
  struct Published {
    Plan plan;
    std::vector<std::unique_ptr<Instance>> instances;
    // Instances by what routes a row to them; used when the plan's tables have routes.
    std::multimap<std::string, Instance*> by_route;
    std::string error;  // the definition does not fit the source as it is now
  };
  using Key = std::pair<std::string, std::uint32_t>;  // name and version
  struct Work {
    std::vector<RowChange> changes;
    std::vector<const ItemPlan*> whole;
  };
  // A step of all instances from one state to the next.
  struct Step {
    SourceState& before;
    SourceState& after;
    PageSet pages;
    std::map<std::string, TouchedRows> touched;  // of tables that are watched, in lower case
    std::map<Instance*, Work> work;
  };

  Result<> advance_locked();
  Result<Published*> plan_for(const database::StoredPublication& publication);
  Result<std::unique_ptr<SourceState>> next_state();
  Result<> check_source();
  Result<PageSet> pages_between(const Bookmark& after, const Bookmark& upto);
  Result<bool> is_same_schema(SourceState& before, SourceState& after);
  Result<> watch_tables(SourceState& state);
  Result<> refill(SourceState& state);
  Result<> step(Step& step);
  Result<> find_rows(Step& step, Published& published, const ItemPlan& item);
  Result<> find_row(Step& step, Published& published, const ItemPlan& item, const Row& key);
  static Result<std::set<Row>> changed_ids(const Step& step, const RowLink& link);
  static Result<std::vector<Instance*>> instances_of(Step& step, Published& published,
                                                     const ItemPlan& item, const Row& key);
  static Result<std::optional<Row>> row_of(SourceState& state, const ItemPlan& item, const Row& key,
                                           const Instance& instance);
  bool is_touched(const Step& step, const ItemPlan& item) const;
  void give(Step& step);
  void fill_stale(SourceState& state);

  database::Store& store_;
  const database::DatabaseName source_;
  const std::uint64_t source_id_;
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  // All of it guarded by mutex_.
  std::map<Key, Published> published_;
  std::unique_ptr<SourceState> state_, spare_;  // that of the instances; one to be used next
  std::map<std::string, TreeMap> tables_;       // that instances are made of, in lower case
  Status status_;
  bool rested_ = false;
  std::mutex told_mutex_;
  Status told_;  // guarded by told_mutex_: what status() said last
};

// How an instance is told from others of its publication, in names and in its label:
// "tenant=7&zone=eu".
std::string canonical(const std::vector<Argument>& arguments);

}  // namespace offprint::publication
