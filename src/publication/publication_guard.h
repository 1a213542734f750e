#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "database/store.h"

namespace offprint::publication {

// What a publication of several sources takes of one of them.
struct GuardedPart {
  std::uint64_t source_id = 0;
  std::string address;     // "shop/pub/movies@v1"
  std::string definition;  // Part::definition
  std::vector<std::string> consumers;
};

// Refuses changes of a schema after which a live publication would not be what it was. Thread: any.
class PublicationGuard final : public database::SchemaGuard {
 public:
  // What is published is not known any more: changes of a schema wait until it is, and are refused
  // when that takes long.
  void forget();
  // It was set anew.
  void knows();
  // What a database publishes now, and who is registered as reading it. Of what it publishes with
  // other sources the parts are all that is looked at.
  void set(std::uint64_t database_id, std::vector<database::StoredPublication> publications,
           std::vector<database::StoredConsumer> consumers, std::vector<GuardedPart> parts = {});

  bool guards(std::uint64_t database_id) const override;
  std::vector<std::string> broken(std::uint64_t database_id, sqlite::Connection& current) override;
  // kConflict "PUBLICATION_BROKEN: …", with the publication's name, the registered consumers that
  // read what is gone, and the way out.
  Result<> check(std::uint64_t database_id, sqlite::Connection& changed,
                 const std::vector<std::string>& broken) override;

 private:
  struct Live {
    std::vector<database::StoredPublication> publications;
    std::vector<database::StoredConsumer> consumers;
    std::map<std::uint64_t, std::vector<GuardedPart>> parts;  // by whose publications they are of
    bool is_empty() const { return publications.empty() && parts.empty(); }
  };
  Result<> check_parts(const Live& live, sqlite::Connection& changed,
                       const std::vector<std::string>& before) const;
  Live live_of(std::uint64_t database_id) const;

  mutable std::mutex mutex_;
  mutable std::condition_variable known_;
  // --- guarded by mutex_
  std::map<std::uint64_t, Live> live_;
  bool knows_ = true;
};

// What a live version is with this schema.
struct Fit {
  std::string broken;                        // why it is not what it was; empty: it is
  std::vector<std::string> read_whole = {};  // as of Plan
};
Fit fit_of(sqlite::Connection& source, const database::StoredPublication& publication);
// Fit::broken alone.
std::string why_broken(sqlite::Connection& source, const database::StoredPublication& publication);

}  // namespace offprint::publication
