#pragma once

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

  std::string address() const;  // "shop@v2"
};

// All that the databases of a node publish: makes, keeps and ends it. Instances are made when they
// are asked for first, and follow their source from then on. Thread: any. Calls block.
class Publications {
 public:
  struct Options {
    int threads = 2;
    std::chrono::milliseconds rest_after{1'000};   // see Materialiser::rest
    std::chrono::milliseconds sweep_every{5'000};  // instances of dropped databases go
  };
  Publications(database::Store& store, const Options& options);
  ~Publications() { stop(); }
  Publications(const Publications&) = delete;
  Publications& operator=(const Publications&) = delete;

  // Before the store goes. Nothing follows its source any more.
  void stop();

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
  // By name and version. find() without a version: the newest that is published.
  Result<std::vector<PublicationInfo>> list(const database::DatabaseName& source);
  Result<PublicationInfo> find(const database::DatabaseName& source, const PublicationName& name);
  // Without a version: all of them. Their instances are dropped.
  Result<> drop(const database::DatabaseName& source, const PublicationName& name);
  // Instances are compared with their definitions, and what differs is mended as one transaction.
  Result<> rebuild(const database::DatabaseName& source);

  // The database that is the instance, filled when it returns. `parameters`: their texts by name.
  // kNotFound: no such publication; kInvalid: a parameter is missing or is not of its type.
  Result<database::DatabaseName> open(
      const database::DatabaseName& source, const PublicationName& name,
      const std::vector<std::pair<std::string, std::string>>& parameters);
  // The same from memory: one that was opened by just these texts before. Quick.
  std::optional<database::DatabaseName> find_open(
      const database::DatabaseName& source, const PublicationName& name,
      const std::vector<std::pair<std::string, std::string>>& parameters);
  // What is kept up now, by source.
  std::vector<std::pair<std::string, std::vector<Materialiser::Kept>>> instances();
  // Of a database with instances that are kept now.
  std::optional<Materialiser::Status> status(const database::DatabaseName& source);

 private:
  struct Source {
    std::shared_ptr<Materialiser> materialiser;
    std::uint64_t id = 0;
    bool busy = false, again = false;  // its turn in the pool
    bool rest_planned = false;
    // Instances by how they were asked for; forgotten when a publication comes or goes.
    std::map<std::string, database::DatabaseName> open = {};
  };
  Result<std::shared_ptr<Materialiser>> materialiser_of(const database::DatabaseName& source);
  void note(const std::string& name);
  void work(const std::string& name);
  void plan_rest(const std::string& name);
  void rest(const std::string& name);
  void forget_open(const database::DatabaseName& source);
  Result<> guard(const database::DatabaseName& source);
  Result<> end_instances(const database::DatabaseName& source, const std::string& name,
                         std::uint32_t version);
  void plan_sweep();
  void remove_orphans();

  database::Store& store_;
  const std::shared_ptr<PublicationGuard> guard_ = std::make_shared<PublicationGuard>();
  const Options options_;
  std::mutex mutex_;
  std::map<std::string, Source> sources_;  // guarded by mutex_
  bool stopping_ = false;                  // guarded by mutex_
  database::Timers timers_;
  database::ThreadPool pool_;
  std::unique_ptr<database::Subscription> commits_;
};

}  // namespace offprint::publication
