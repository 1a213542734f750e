#include "server/access.h"

#include <limits>

#include "server/instances.h"
#include "server/revocations.h"

namespace offprint::server {
namespace {

constexpr database::Verbs all_verbs() {
  using database::Verb;
  return database::kSqlVerbs | Verb::kSubscribe | Verb::kSnapshot | Verb::kAdmin | Verb::kMetrics |
         Verb::kPublish | Verb::kMigrate | Verb::kSplit | Verb::kSagaStart;
}

const std::shared_ptr<const database::SqlRights>& no_rights() {
  static const auto none = std::make_shared<const database::SqlRights>();
  return none;
}

}  // namespace

Access::Access(TokenClaims claims, const Revocations* revocations)
    : claims_(std::move(claims)), revocations_(revocations) {
  for (const Grant& grant : claims_.grants) {
    bool everything = grant.sql.is_everything();
    rights_.push_back(everything ? nullptr
                                 : std::make_shared<const database::SqlRights>(grant.sql));
  }
}

std::shared_ptr<const Access> Access::unlimited() {
  static const auto access = [] {
    TokenClaims claims;
    claims.expires_s = std::numeric_limits<std::int64_t>::max();
    Grant grant;
    grant.pattern = "*";
    grant.verbs = all_verbs();
    grant.sql.everywhere = database::kSqlVerbs;
    claims.grants.push_back(std::move(grant));
    return std::make_shared<const Access>(std::move(claims), nullptr);
  }();
  return access;
}

std::shared_ptr<const Access> Access::nothing() {
  static const auto access = std::make_shared<const Access>(TokenClaims(), nullptr);
  return access;
}

// The grants that count for a database. With "*" only those of all databases.
template <class Visit>
void Access::each_grant(std::string_view name, Visit visit) const {
  const std::string_view whose = of_database_.empty() ? name : of_database_;
  if (revocations_ != nullptr && !revocations_->none() &&
      claims_.issued_s < revocations_->not_before_s(whose)) {
    return;
  }
  for (std::size_t i = 0; i < claims_.grants.size(); ++i) {
    if (claims_.grants[i].matches(name)) visit(i);
  }
}

bool Access::allows(const database::DatabaseName& name, database::Verbs verbs) const {
  database::Verbs granted;
  each_grant(name.text(), [&](std::size_t i) { granted |= claims_.grants[i].verbs; });
  return granted.has(verbs);
}

bool Access::allows_instance(const InstanceAddress& instance, database::Verbs verbs) const {
  database::Verbs granted;
  each_grant(instance.source.text(), [&](std::size_t i) { granted |= claims_.grants[i].verbs; });
  const bool is_revoked = revocations_ != nullptr && !revocations_->none() &&
                          claims_.issued_s < revocations_->not_before_s(instance.source.text());
  for (const Grant& grant : claims_.grants) {
    if (!is_revoked && grant_matches(grant.pattern, instance)) granted |= grant.verbs;
  }
  return granted.has(verbs);
}

std::shared_ptr<const Access> Access::for_instance(const InstanceAddress& instance,
                                                   const database::DatabaseName& name) const {
  using database::Verb;
  TokenClaims claims = claims_;
  Grant grant;
  grant.pattern = name.text();
  for (Verb verb : {Verb::kDataRead, Verb::kSubscribe, Verb::kSnapshot}) {
    if (allows_instance(instance, verb)) grant.verbs |= verb;
  }
  grant.sql.everywhere = grant.verbs & database::kSqlVerbs;
  claims.grants = {std::move(grant)};
  auto access = std::make_shared<Access>(std::move(claims), revocations_);
  access->of_database_ = instance.source.text();
  return access;
}

bool Access::allows_sql(const database::DatabaseName& name) const {
  bool some = false;
  each_grant(name.text(), [&](std::size_t i) {
    const database::SqlRights& sql = claims_.grants[i].sql;
    some = some || !sql.everywhere.empty() || sql.has_table_rules();
  });
  return some;
}

bool Access::knows(const database::DatabaseName& name) const {
  bool some = false;
  each_grant(name.text(), [&](std::size_t) { some = true; });
  return some;
}

bool Access::allows_everywhere(database::Verbs verbs) const {
  database::Verbs granted;
  for (const Grant& grant : claims_.grants) {
    if (grant.pattern == "*") granted |= grant.verbs;
  }
  return granted.has(verbs);
}

bool Access::allows_somewhere(database::Verbs verbs) const {
  for (const Grant& grant : claims_.grants) {
    if (grant.verbs.has(verbs)) return true;
  }
  return false;
}

std::shared_ptr<const database::SqlRights> Access::sql_rights(
    const database::DatabaseName& name) const {
  std::shared_ptr<const database::SqlRights> found = no_rights();
  int count = 0;
  each_grant(name.text(), [&](std::size_t i) {
    found = rights_[i];
    ++count;
  });
  if (count < 2) return found;
  auto together = std::make_shared<database::SqlRights>();
  // A table that one grant names is not among the others of that grant.
  each_grant(name.text(), [&](std::size_t i) {
    const database::SqlRights& sql = claims_.grants[i].sql;
    for (const auto& [table, verbs] : sql.tables) together->tables[table] = {};
    together->everywhere |= sql.everywhere;
    together->other_tables |= sql.other_tables;
  });
  each_grant(name.text(), [&](std::size_t i) {
    for (auto& [table, verbs] : together->tables) verbs |= claims_.grants[i].sql.on_table(table);
  });
  if (together->is_everything()) return nullptr;
  return together;
}

bool Access::counts(std::int64_t now_s) const {
  if (now_s >= claims_.expires_s) return false;
  if (revocations_ == nullptr || revocations_->none()) return true;
  if (claims_.issued_s < revocations_->not_before_everywhere_s()) return false;
  return claims_.id.empty() || !revocations_->is_revoked(claims_.id);
}

}  // namespace offprint::server
