#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "database/store.h"

namespace offprint::publication {

// Refuses changes of a schema after which a live publication would not be what it was. Thread: any.
class PublicationGuard final : public database::SchemaGuard {
 public:
  // What a database publishes now.
  void set(std::uint64_t database_id, std::vector<database::StoredPublication> publications);

  bool guards(std::uint64_t database_id) const override;
  // kConflict "PUBLICATION_BROKEN: …", with the publication's name and the way out.
  Result<> check(std::uint64_t database_id, sqlite::Connection& changed) override;

 private:
  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::vector<database::StoredPublication>> live_;  // guarded by mutex_
};

}  // namespace offprint::publication
