#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "database/name.h"
#include "database/rights.h"
#include "server/token.h"

namespace offprint::server {

class Revocations;
struct InstanceAddress;

// What the sender of a request may do, for as long as its token counts. Immutable; shared by the
// requests of one token. Thread: any.
class Access {
 public:
  // Everything: nobody is asked for tokens.
  static std::shared_ptr<const Access> unlimited();
  // Nothing at all.
  static std::shared_ptr<const Access> nothing();
  // `revocations` may be null; else it must outlive this.
  Access(TokenClaims claims, const Revocations* revocations);

  // All of `verbs`, on the whole database.
  bool allows(const database::DatabaseName& name, database::Verbs verbs) const;
  // All of `verbs` on an instance of a publication: by a grant for it, or for its whole source.
  bool allows_instance(const InstanceAddress& instance, database::Verbs verbs) const;
  // What this allows on an instance, as the rights on the database that it is: reading only. It
  // counts as long as this does.
  std::shared_ptr<const Access> for_instance(const InstanceAddress& instance,
                                             const database::DatabaseName& name) const;
  // Some SQL, if only on a table.
  bool allows_sql(const database::DatabaseName& name) const;
  // Anything at all.
  bool knows(const database::DatabaseName& name) const;
  // On all databases, also those that do not exist yet.
  bool allows_everywhere(database::Verbs verbs) const;
  // On some database.
  bool allows_somewhere(database::Verbs verbs) const;
  // For database::Request::rights: empty is everything.
  std::shared_ptr<const database::SqlRights> sql_rights(const database::DatabaseName& name) const;

  // It has neither expired nor been revoked.
  bool counts(std::int64_t now_s) const;
  std::int64_t expires_s() const { return claims_.expires_s; }
  const TokenClaims& claims() const { return claims_; }

 private:
  template <class Visit>
  void each_grant(std::string_view name, Visit visit) const;

  TokenClaims claims_;
  std::vector<std::shared_ptr<const database::SqlRights>> rights_;  // of each grant
  const Revocations* revocations_;
  std::string of_database_;  // whose revocations count; empty: those of the database in question
};

}  // namespace offprint::server
