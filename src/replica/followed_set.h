#pragma once

#include <set>
#include <string>

#include "base/result.h"
#include "database/store.h"
#include "ltx/types.h"

namespace offprint::replica {

// What of another node a follower of many keeps copies of. Thread: calls come from the follower's
// threads; they must be quick.
class FollowedSet {
 public:
  virtual ~FollowedSet() = default;
  // The body of POST /v1/stream; empty: nothing is followed before NodeFollowerImpl::follow_anew().
  // `repairing`: copies that are compared just now, whose transactions are of no use.
  virtual std::string request(database::Store& store, const std::set<std::string>& repairing) = 0;
  // The copy of what the stream calls so. kInvalid: nothing is called so.
  virtual Result<database::DatabaseName> name_of(const std::string& told) = 0;
  // Where the other node compares its pages: "/db/…/pages".
  virtual std::string path_of(const database::DatabaseName& name) = 0;

  // The copy has all that the other node had a moment ago.
  virtual void is_fresh(const database::DatabaseName&) {}
  // At that transaction an instance of a publication is of this state of its source. Told before
  // the copy has the transaction.
  virtual void has_source(const database::DatabaseName&, TxId, const Bookmark&) {}
  // It is followed no more: it is gone there, or why else (then it is tried again).
  virtual void has_ended(const database::DatabaseName&, bool /*is_gone*/, const std::string&) {}
};

}  // namespace offprint::replica
