#pragma once

#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "database/hosted_database.h"
#include "database/subscribers.h"

namespace offprint::database {

// The databases that can be found, by name and by number. Thread: any.
class DatabaseIndex {
 public:
  using Database = std::shared_ptr<HostedDatabase>;

  // Null: none.
  Database find(const std::string& name) const;
  Database find(std::uint64_t id) const;
  std::vector<Database> all() const;
  // By name: those that begin with `prefix`, come after `after` and contain `contains`. States that
  // tags name (tags.h) are left out, unless `prefix` asks for them.
  std::vector<Database> list(const std::string& prefix, const std::string& after, std::size_t limit,
                             const std::string& contains) const;
  std::size_t size() const;  // without those

  // In place of the one of its name, if there is one; then tells the subscribers (of tags: not).
  void add(const Database& database);
  // False: it is not, or not any more, the one of its name.
  bool remove(const Database& database);
  // `added` is called with the name of each database that is added, on any thread; must be quick.
  std::unique_ptr<Subscription> subscribe(std::function<void(const std::string& name)> added) {
    return subscribers_.add(std::move(added));
  }

 private:
  mutable std::shared_mutex mutex_;
  std::map<std::string, Database> by_name_;            // guarded by mutex_
  std::unordered_map<std::uint64_t, Database> by_id_;  // guarded by mutex_
  std::size_t states_ = 0;                             // of tags; guarded by mutex_
  Subscribers<std::string> subscribers_;
};

}  // namespace offprint::database
