#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "database/session.h"
#include "database/store.h"

namespace offprint::database {

// What databases publish, and for whom, as the catalog keeps it. Databases are meant by their
// numbers. Thread: any. Blocks: each call is one transaction of the catalog.
class PublicationList {
 public:
  using Work = std::function<Result<>(Session&)>;
  // Runs it as one transaction of the catalog, and waits until that is durable.
  using Run = std::function<Result<>(Work)>;
  PublicationList(Run run, Run read) : run_(std::move(run)), read_(std::move(read)) {}

  // By name and version.
  Result<std::vector<StoredPublication>> of(std::uint64_t id);
  Result<std::vector<std::pair<std::uint64_t, StoredPublication>>> all();
  // kConflict: there is such a version.
  Result<> add(std::uint64_t id, const StoredPublication& publication);
  Result<> update(std::uint64_t id, const StoredPublication& publication);
  Result<> remove(std::uint64_t id, const std::string& name, std::uint32_t version);

  // By publication, version and name.
  Result<std::vector<StoredConsumer>> consumers(std::uint64_t id);
  Result<std::vector<std::pair<std::uint64_t, StoredConsumer>>> all_consumers();
  Result<> put_consumer(std::uint64_t id, const StoredConsumer& consumer);
  // kNotFound.
  Result<> remove_consumer(std::uint64_t id, const std::string& publication, std::uint32_t version,
                           const std::string& consumer);

  // All of a database, in a transaction of the caller's.
  static Result<> remove_database(Session& session, std::uint64_t id);

 private:
  // `id` 0: of all databases.
  Result<std::vector<std::pair<std::uint64_t, StoredConsumer>>> read_consumers(std::uint64_t id);

  const Run run_, read_;
};

}  // namespace offprint::database
