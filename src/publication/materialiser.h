#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
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
  database::StoredPublication publication;  // as the source has it; of a part without a hash
  std::vector<Argument> arguments;          // of all parameters, in the definition's order
  InstanceRole role = {};
  // Of a part: the database that it is in, which is there.
  std::optional<database::DatabaseName> target = {};
  // Whether it is still to be kept, asked when its turn comes.
  std::function<Result<>()> check = {};
};

// Keeps the instances of one database's publications: all of them stand at one state of the source,
// and go on to its newest one together. Off the writer's path: what rows changed is told from the
// pages that the source's log has. Thread: any; calls wait for each other.
class Materialiser {
 public:
  struct Options {
    Quota quota;  // of instances whose version has none of its own
    // Told of an instance that goes beyond its quota and has stopped. Any thread; quick.
    std::function<void(const database::DatabaseName&)> stopped = [](const auto&) {};
  };
  Materialiser(database::Store& store, database::DatabaseName source, std::uint64_t source_id,
               Options options)
      : store_(store),
        source_(std::move(source)),
        source_id_(source_id),
        options_(std::move(options)) {}

  // The database of an instance, which is filled when it returns. Blocks. kInvalid: the definition
  // does not fit the database any more.
  Result<database::DatabaseName> open(const InstanceRequest& request);
  // Whether changes of the source come into it. Of a version that is broken open() answers an
  // instance as it was, which is not. Does not wait.
  bool keeps(const database::DatabaseName& instance);
  // Brings all instances to the source's newest state. Blocks. An error is one of the source; what
  // fails at an instance is tried again the next time.
  Result<> advance();
  // Instances of that version end, and their databases are dropped. Blocks.
  Result<> drop(const std::string& publication, std::uint32_t version);
  // Instances that nobody uses are kept up no longer; `dropped` ones are dropped, too, if they are
  // not kept up. Blocks.
  Result<> let_go(const std::set<std::string>& instances);
  Result<> drop_idle(const std::set<std::string>& dropped);
  bool keeps_any();
  // What versions may use is said anew. Blocks.
  Result<> set_quota(const database::StoredPublication& publication);
  // Compares all instances with their definitions, and mends what differs. Blocks.
  Result<> rebuild();
  // For good: what runs fails soon.
  void cancel() { cancelled_ = true; }
  // Begins the read transaction of the state again, so that it does not keep the source's -wal from
  // starting again. False: something happened since the last call, it is for later.
  bool rest();

  struct Status {
    Bookmark source;  // the state of the instances
    std::size_t instances = 0, stale = 0, stopped = 0;
    std::uint64_t transactions = 0, rows = 0, refreshes = 0;  // since the start
    std::uint64_t resumed = 0;  // instances of before that went on from where they stood
    std::string error;          // of the last try; empty: none
  };
  // Does not wait: while something long runs, what it said before.
  Status status();
  // The state of the source that an instance of that name is at; nothing: it is not, or something
  // runs. Does not wait.
  std::optional<Bookmark> reached(const std::string& instance);
  struct Kept {
    InstanceLabel label;
    database::DatabaseName name;
    bool is_stale = false;
    std::string stopped = {};  // Instance::stopped()
    bool is_part = false;
  };
  // Does not wait.
  std::vector<Kept> instances();

 private:
  // Instances that a step is for.
  struct Routes {
    std::vector<Instance*> all;
    // By what routes a row to them; used when the plan's tables have routes.
    std::multimap<std::string, Instance*> by_route;
    void add(Instance& instance);
    void remove(Instance& instance);
  };
  using Instances = std::map<std::string, std::unique_ptr<Instance>>;  // by their parameters
  struct Published {
    Plan plan;
    Instances instances;
    Routes routes;
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
  database::DatabaseName instance_name(const InstanceRequest& request,
                                       const std::string& parameters) const;
  Result<Published*> plan_for(const database::StoredPublication& publication);
  Result<std::unique_ptr<SourceState>> next_state();
  Result<> check_source();
  Result<PageSet> pages_between(const Bookmark& after, const Bookmark& upto);
  Result<std::string> schema_of(SourceState& state);
  Result<bool> is_same_schema(SourceState& before, SourceState& after);
  Result<> watch_tables(SourceState& state);
  Result<> refill(SourceState& state);
  Result<> step(Step& step);
  Result<> find_rows(Step& step, const Routes& routes, const ItemPlan& item);
  Result<> find_row(Step& step, const Routes& routes, const ItemPlan& item, const Row& key);
  static Result<std::set<Row>> changed_ids(const Step& step, const RowLink& link);
  static Result<std::vector<Instance*>> instances_of(Step& step, const Routes& routes,
                                                     const ItemPlan& item, const Row& key);
  static Result<std::optional<Row>> row_of(SourceState& state, const ItemPlan& item, const Row& key,
                                           const Instance& instance);
  static bool is_touched(const Step& step, const ItemPlan& item);
  using Trees = std::map<std::string, TreeMap>;  // by table, in lower case
  static Result<> touch(Step& step, Trees& trees, TreeMap::Toward toward = TreeMap::Toward::kLater);
  Result<> find_work(Step& step, const Plan& plan, const Routes& routes);
  void give(Step& step);
  Result<> resume(Instance& instance, const Published& published);
  Result<> bring_up(Instance& instance, const Published& published);
  Result<> make(Instance& instance, const Published& published,
                const database::StoredPublication& publication);
  bool is_spoiled(const Instance& instance);
  Result<> drop_spoiled(const Instance& instance);
  Result<> make_spoiled_anew();
  Quota quota_of(const database::StoredPublication& publication) const;
  // After each try to change it.
  void note_outcome(Instance& instance);
  void tell(const Instance& instance);  // of what it has become
  void forget(Instance& instance);      // it goes
  Instances::iterator end_instance(Published& published, Instances::iterator instance);
  void fill_stale(SourceState& state);

  database::Store& store_;
  const database::DatabaseName source_;
  const std::uint64_t source_id_;
  const Options options_;
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  // All of it guarded by mutex_.
  std::map<Key, Published> published_;
  std::unique_ptr<SourceState> state_, spare_;  // that of the instances; one to be used next
  Trees tables_;                                // that instances are made of
  Status status_;
  std::set<Instance*> stale_;  // to be filled before long
  std::unordered_map<std::string, std::pair<const Published*, const Instance*>> by_name_;
  bool rested_ = false;
  std::mutex told_mutex_;
  // Guarded by told_mutex_:
  Status told_;                       // what status() said last
  std::map<std::string, Kept> kept_;  // by name
};

// Percent-encoded but for letters, digits and -._~ (RFC 3986): no value looks like two.
std::string encoded(std::string_view text);
// How an instance is told from others of its publication, in names and in its label:
// "tenant=7&zone=eu".
std::string canonical(const std::vector<Argument>& arguments);

}  // namespace offprint::publication
