#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "database/executor.h"
#include "database/store.h"
#include "publication/consumer_reads.h"
#include "publication/estimate.h"
#include "publication/gathering.h"
#include "publication/materialiser.h"
#include "publication/publication_guard.h"

namespace offprint::publication {

// "shop@v2", or "shop": the newest version.
struct PublicationName {
  std::string name;
  std::optional<std::uint32_t> version;

  static Result<PublicationName> parse(std::string_view text);
};

struct PublicationInfo {
  database::StoredPublication stored;
  Definition definition;
  // Of list() and describe():
  std::vector<database::StoredConsumer> consumers = {};
  // Why the source does not fit a live version any more, which then stays what it was; empty: it
  // does.
  std::string broken = {};
  // What was kept row by row when it was published, and is read as a whole now, since the source
  // has no index for it any more: "TABLE items: …".
  std::vector<std::string> read_whole = {};
  // Of check(): the newest version says just that.
  bool is_there = false;

  std::string address() const;  // "shop@v2"
  // Of several sources: it says so, with FROM.
  bool is_gathered() const { return !definition.sources.empty(); }
};

// All that the databases of a node publish: makes, keeps and ends it. Instances are made when they
// are asked for first, and follow their source from then on. Thread: any. Calls block.
class Publications {
 public:
  struct Options {
    // Of each of them one source takes half at most: what takes long keeps no other's waiting.
    int threads = 4;                               // follow sources
    int request_threads = 8;                       // of post()
    std::chrono::milliseconds rest_after{1'000};   // see Materialiser::rest
    std::chrono::milliseconds sweep_every{5'000};  // instances of dropped databases go
    // An instance that nobody asked for or followed for so long is kept up no longer; it gets what
    // it missed when somebody asks again. After `drop_after` more its files go, too: whoever comes
    // then gets a new one, and of that what differs from his copy.
    std::chrono::milliseconds rest_instance_after = std::chrono::hours(1);
    std::chrono::milliseconds drop_instance_after = std::chrono::hours(24);
    Quota quota;        // of each instance whose version has none of its own
    bool leads = true;  // from the start
  };
  Publications(database::Store& store, const Options& options);
  ~Publications() { stop(); }
  Publications(const Publications&) = delete;
  Publications& operator=(const Publications&) = delete;

  // Before the store goes. Nothing follows its source any more.
  void stop();

  // This node writes the databases from now on, or another one does, which keeps what they publish:
  // what would change something here waits for a moment, then it is kNotPrimary. One at a time.
  void lead();
  void follow();

  using State = database::StoredPublication::State;
  // Adds a publication, or the next version of one: what a version says never changes, unless it is
  // a draft, which the next one takes the place of. kInvalid: why it cannot be; kConflict: the
  // newest version says the same.
  Result<PublicationInfo> create(const database::DatabaseName& source, const std::string& text,
                                 State state = State::kPublished);
  // Drafts are published, published ones deprecated or retired; a retired one has no instances, and
  // remains so. `sunset_ms`: until when a deprecated one is kept, 0: not said. kConflict.
  Result<PublicationInfo> set_state(const database::DatabaseName& source,
                                    const PublicationName& name, State state,
                                    std::int64_t sunset_ms = 0);
  // What create() would say, without doing it.
  Result<PublicationInfo> check(const database::DatabaseName& source, const std::string& text);
  // What instances of a publication would be: with these values of its parameters, or without any
  // with some that the source has.
  Result<std::vector<InstanceEstimate>> estimate(
      const database::DatabaseName& source, const PublicationInfo& info,
      const std::vector<std::pair<std::string, std::string>>& parameters);
  const Quota& quota() const { return options_.quota; }
  // By name and version. find() without a version: the newest that is published. describe(): the
  // same with consumers, and whether it is broken.
  Result<std::vector<PublicationInfo>> list(const database::DatabaseName& source);
  Result<PublicationInfo> describe(const database::DatabaseName& source,
                                   const PublicationName& name);
  Result<PublicationInfo> find(const database::DatabaseName& source, const PublicationName& name);
  // Without a version: all of them. Their instances are dropped.
  Result<> drop(const database::DatabaseName& source, const PublicationName& name);

  // Who reads a version, and by which queries: told where somebody would change or end what they
  // read. Registered again it takes the other's place. kInvalid: the version is a draft or retired,
  // or a query has no SELECT; kSql: SQLite's reason why it cannot be run on an instance.
  Result<database::StoredConsumer> register_consumer(
      const database::DatabaseName& source, const PublicationName& name,
      const std::string& consumer, std::vector<database::StoredConsumer::Query> queries);
  Result<std::vector<database::StoredConsumer>> consumers(const database::DatabaseName& source,
                                                          const PublicationName& name);
  // kNotFound.
  Result<> unregister_consumer(const database::DatabaseName& source, const PublicationName& name,
                               const std::string& consumer);
  // The columns of the source that it depends on: consumer_reads.h.
  Result<std::vector<ReadColumns>> source_reads(const database::DatabaseName& source,
                                                const PublicationInfo& info);

  // Runs `work`, which calls what may take as long as the definitions of that source do, as open()
  // does. `size_bytes`: what it keeps in memory until then. kUnavailable: much waits for that
  // source already; it is not run.
  Result<> post(const database::DatabaseName& source, std::size_t size_bytes,
                std::function<void()> work);

  // Instances are compared with their definitions, and what differs is mended as one transaction.
  Result<> rebuild(const database::DatabaseName& source);

  // The database that is the instance, filled when it returns. `parameters`: their texts by name.
  // kNotFound: no such publication; kInvalid: a parameter is missing or is not of its type.
  Result<database::DatabaseName> open(
      const database::DatabaseName& source, const PublicationName& name,
      const std::vector<std::pair<std::string, std::string>>& parameters);
  // "orders/pub/shop@v2?tenant=7": where that instance is, the same for all who write its values
  // otherwise. Errors as of open(), which need not have been called.
  Result<std::string> address_of(
      const database::DatabaseName& source, const PublicationName& name,
      const std::vector<std::pair<std::string, std::string>>& parameters);
  // open() from memory: one that was opened by just these texts before. Quick.
  std::optional<database::DatabaseName> find_open(
      const database::DatabaseName& source, const PublicationName& name,
      const std::vector<std::pair<std::string, std::string>>& parameters);
  // Somebody uses an instance for longer than a request, as a stream does, for as long as this
  // lives. It may outlive the publications.
  class Lease {
   public:
    virtual ~Lease() = default;
    // False: the instance has stopped; open() says why.
    virtual bool goes_on() const = 0;
  };
  std::unique_ptr<Lease> lease(const database::DatabaseName& source,
                               const database::DatabaseName& instance);
  // What each instance of a version may use; 0: as the server says. kNotFound.
  Result<PublicationInfo> set_quota(const database::DatabaseName& source,
                                    const PublicationName& name, const Quota& quota);
  // The newest state of its source whose effects an instance has; nothing: not known just now. Does
  // not wait.
  std::optional<Bookmark> reached(const database::DatabaseName& instance);
  struct Totals {
    std::size_t instances = 0, stale = 0, stopped = 0;
    std::uint64_t let_go = 0, dropped = 0;  // since the start
  };
  Totals totals();

  // What is kept up now, by source. Does not wait.
  std::vector<std::pair<std::string, std::vector<Materialiser::Kept>>> instances();
  std::vector<Materialiser::Kept> instances_of(const database::DatabaseName& source);
  // Of a database with instances that are kept now. Of instances of several sources that are all
  // it has the state is that of what is gathered.
  std::optional<Materialiser::Status> status(const database::DatabaseName& source);

 private:
  // Who uses an instance. Its members are guarded by its mutex.
  struct Use {
    std::mutex mutex;
    Deadline last{};
    int leases = 0;
    bool has_stopped = false;
    void note() {
      std::lock_guard lock(mutex);
      last = SteadyClock::now();
    }
    bool is_over() {
      std::lock_guard lock(mutex);
      return has_stopped;
    }
  };
  class InstanceLease;
  struct Source {
    std::shared_ptr<Materialiser> materialiser;
    std::uint64_t id = 0;
    bool busy = false, again = false;  // its turn in the pool …
    Deadline next_at{};                // … which does not come before this
    bool rest_planned = false;
    // Instances by how they were asked for; forgotten when a publication comes or goes.
    std::map<std::string, database::DatabaseName> open = {};
    std::map<std::string, std::shared_ptr<Use>> uses = {};  // of instances that are kept, by name
    // Of a gathered database: what it gathers for, and the use that it makes of its sources for as
    // long as somebody uses it.
    std::string home = {};
    PublicationName gathers = {};
    std::vector<database::DatabaseName> sources = {};
    std::vector<std::unique_ptr<Lease>> leases = {};
  };
  Result<std::shared_ptr<Materialiser>> materialiser_of(const database::DatabaseName& source);
  // The one that keeps a version's instances: of one source the source's.
  Result<std::shared_ptr<Materialiser>> keeper_of(const database::DatabaseName& source,
                                                  const PublicationInfo& info);
  // That, and those of what is gathered for it.
  std::vector<std::shared_ptr<Materialiser>> keepers_of(const database::DatabaseName& source);
  Result<> check_is_stored(const database::DatabaseName& source,
                           const database::StoredPublication& publication);
  Result<database::DatabaseName> open_at(const database::DatabaseName& keeper,
                                         const InstanceRequest& request, const std::string& asked);

  // publications_gathered.cc: publications of several sources
  ReadSource reader_of(const database::DatabaseName& home);
  // A connection with the schema that a definition is about, and what it says of that.
  using SchemaWork = std::function<Result<>(sqlite::Connection&, const Definition&)>;
  Result<> with_schema(const database::DatabaseName& source, const PublicationInfo& info,
                       const SchemaWork& work);
  Result<database::DatabaseName> gathered_name(const database::DatabaseName& home,
                                               const database::StoredPublication& publication);
  std::string why_broken_now(const database::DatabaseName& source, const PublicationInfo& info);
  Result<database::DatabaseName> gather(const database::DatabaseName& home,
                                        const PublicationInfo& info, InstanceRequest& request);
  Result<> keep_part(const database::DatabaseName& home, const PublicationInfo& info,
                     const Part& part, const database::DatabaseName& target);
  Result<> end_gathered(const database::DatabaseName& home, const PublicationInfo& info);
  Result<> rebuild_gathered(const database::DatabaseName& home);
  void plan_mending();
  void mend(const std::string& home, const PublicationName& name);
  Result<std::vector<GuardedPart>> parts_of(
      const database::DatabaseName& home,
      const std::vector<database::StoredPublication>& publications,
      const std::vector<database::StoredConsumer>& consumers);

  void load_guard();
  void note(const std::string& name);
  void work(const std::string& name);
  void post_work(const std::string& name, const Source& source);
  void plan_rest(const std::string& name);
  void rest(const std::string& name);
  void forget_open(const database::DatabaseName& source);
  // Calls `visit` for what is known of a source, and of what is gathered for it; true ends it.
  // mutex_ is held.
  template <class Visit>
  void each_keeper(const database::DatabaseName& source, Visit visit);
  Result<> guard(const database::DatabaseName& source);
  Result<> complete(const database::DatabaseName& source, std::vector<PublicationInfo>& infos);
  Result<> end_instances(const database::DatabaseName& source, const PublicationInfo& info);
  struct Idle {
    std::uint64_t id = 0;
    std::string source;
    std::shared_ptr<Materialiser> materialiser;
    std::set<std::string> instances;
  };
  void plan_sweep();
  void remove_orphans();
  void let_go_of_unused();
  void let_go(const Idle& idle);
  void drop_unused();
  void drop_unused_of(std::uint64_t source, const std::set<std::string>& instances);
  void note_stop(const std::string& source, const database::DatabaseName& instance);

  database::Store& store_;
  const std::shared_ptr<PublicationGuard> guard_ = std::make_shared<PublicationGuard>();
  const Options options_;
  std::mutex mutex_;
  std::condition_variable begins_to_lead_;
  std::map<std::string, Source> sources_;  // guarded by mutex_
  bool stopping_ = false;                  // guarded by mutex_
  bool leads_ = false;                     // guarded by mutex_
  // Instances that are not kept up, since when; guarded by mutex_.
  std::map<std::string, Deadline> unused_;
  std::set<std::uint64_t> dropping_;  // sources whose unused instances go just now; the same
  struct Waiting {
    std::size_t count = 0, size_bytes = 0;
  };
  std::map<std::uint64_t, Waiting> waiting_;  // of post(), by source; guarded by mutex_
  std::atomic<std::uint64_t> let_go_{0}, dropped_{0};
  database::Timers timers_;
  database::FairPool pool_, requests_;
  std::unique_ptr<database::Subscription> commits_;
};

template <class Visit>
void Publications::each_keeper(const database::DatabaseName& source, Visit visit) {
  auto info = store_.info(source);
  if (!info) return;
  auto own = sources_.find(source.text());
  if (own != sources_.end() && own->second.id == info->id && visit(own->second)) return;
  const std::string prefix = database::DatabaseName::instance_prefix(info->id);
  for (auto each = sources_.lower_bound(prefix);
       each != sources_.end() && each->first.starts_with(prefix); ++each) {
    if (visit(each->second)) return;
  }
}

}  // namespace offprint::publication
