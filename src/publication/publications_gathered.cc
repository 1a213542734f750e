// Of Publications: those of several sources, and the databases in which what they take is gathered.
#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "publication/publications.h"

namespace offprint::publication {

using database::DatabaseName;
using database::StoredPublication;

namespace {

Result<DatabaseName> source_name(const DatabaseName& home, const std::string& database) {
  return database.empty() ? home : DatabaseName::parse(database);
}

}  // namespace

ReadSource Publications::reader_of(const DatabaseName& home) {
  return [this, home](const std::string& database,
                      const std::function<Result<>(sqlite::Connection&)>& work) -> Result<> {
    if (database == home.text()) {
      return fail(Code::kInvalid,
                  fmt::format("PUBLICATION_SOURCE: FROM {0}: that is the database itself, whose "
                              "tables are named as they are, or main.TABLE",
                              database));
    }
    OFFPRINT_TRY_ASSIGN(DatabaseName name, source_name(home, database));
    OFFPRINT_TRY_ASSIGN(auto state, SourceState::newest(store_, name));
    return state->with(work);
  };
}

Result<> Publications::with_schema(const DatabaseName& source, const PublicationInfo& info,
                                   const SchemaWork& work) {
  if (!info.is_gathered()) {
    OFFPRINT_TRY_ASSIGN(auto state, SourceState::newest(store_, source));
    return state->with(
        [&](sqlite::Connection& connection) { return work(connection, info.definition); });
  }
  OFFPRINT_TRY_ASSIGN(Gathering gathering, gathering_of(info.stored.definition));
  OFFPRINT_TRY_ASSIGN(auto schema, gathered_schema(gathering, reader_of(source)));
  OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(gathering.definition));
  return work(schema, definition);
}

// Why a live version of several sources is not what it was; empty: it is.
std::string Publications::why_broken_now(const DatabaseName& source, const PublicationInfo& info) {
  std::string why;
  auto looked =
      with_schema(source, info, [&](auto& connection, const auto& definition) -> Result<> {
        OFFPRINT_TRY_ASSIGN(Plan plan, make_plan(connection, definition));
        if (plan.hash != info.stored.hash) why = "its columns would be others";
        return {};
      });
  return looked ? why : looked.error().message();
}

Result<DatabaseName> Publications::gathered_name(const DatabaseName& home,
                                                 const StoredPublication& publication) {
  OFFPRINT_TRY_ASSIGN(auto info, store_.info(home));
  return DatabaseName::instance(
      info.id, fmt::format("{}-{}-sources", publication.name, publication.version));
}

Result<std::shared_ptr<Materialiser>> Publications::keeper_of(const DatabaseName& source,
                                                              const PublicationInfo& info) {
  DatabaseName keeper = source;
  if (info.is_gathered()) {
    OFFPRINT_TRY_ASSIGN(keeper, gathered_name(source, info.stored));
  }
  return materialiser_of(keeper);
}

// What a version takes of one source is kept up from then on.
Result<> Publications::keep_part(const DatabaseName& home, const PublicationInfo& info,
                                 const Part& part, const DatabaseName& target) {
  OFFPRINT_TRY_ASSIGN(DatabaseName source, source_name(home, part.database));
  InstanceRequest request;
  request.publication.name = target.text();
  request.publication.version = info.stored.version;
  request.publication.definition = part.definition;
  OFFPRINT_TRY_ASSIGN(auto there, store_.info(target));
  request.role = {InstanceRole::Kind::kPart, part.schema, source.text(), there.id};
  request.target = target;
  request.check = [this, home, stored = info.stored] { return check_is_stored(home, stored); };
  OFFPRINT_TRY(open_at(source, request, ""));
  OFFPRINT_TRY_ASSIGN(auto materialiser, materialiser_of(source));
  if (materialiser->keeps(target)) return {};
  return fail(Code::kConflict, fmt::format("PUBLICATION_BROKEN: {} does not fit {} any more",
                                           info.address(), source.text()));
}

namespace {

// Whether something of a source was gathered before.
bool has_part(database::Store& store, const DatabaseName& gathered, const std::string& schema) {
  bool is_there = false;
  auto state = SourceState::newest(store, gathered);
  if (!state) return false;
  const std::vector<sqlite::Value> key = {schema};
  (void)(*state)->rows(fmt::format("SELECT 1 FROM {} WHERE name=@1 AND source<>''", kPartsTable),
                       key, {}, [&](const Row&) -> Result<> {
                         is_there = true;
                         return {};
                       });
  return is_there;
}

}  // namespace

// The database with the parts of all sources, each kept up; a source that is not there, or does not
// fit, leaves its part as it was.
Result<DatabaseName> Publications::gather(const DatabaseName& home, const PublicationInfo& info,
                                          InstanceRequest& request) {
  OFFPRINT_TRY_ASSIGN(Gathering gathering, gathering_of(info.stored.definition));
  OFFPRINT_TRY_ASSIGN(DatabaseName gathered, gathered_name(home, info.stored));
  if (!store_.info(gathered)) {
    database::CreateOptions options;
    options.foreign_keys = false;
    auto created = store_.create(gathered, options);
    if (!created && created.error().code() != Code::kConflict) return fail(created.error());
  }
  std::vector<DatabaseName> sources;
  std::vector<std::unique_ptr<Lease>> leases;
  for (const Part& part : gathering.parts) {
    OFFPRINT_TRY_ASSIGN(DatabaseName source, source_name(home, part.database));
    auto kept = keep_part(home, info, part, gathered);
    if (!kept && !has_part(store_, gathered, part.schema)) return fail(kept.error());
    if (!kept) {
      log::debug("{} stays where it is of '{}': {}", info.address(), source.text(),
                 kept.error().message());
    }
    leases.push_back(lease(source, gathered));
    sources.push_back(std::move(source));
  }
  request.publication.definition = gathering.definition;
  request.role.kind = InstanceRole::Kind::kGathered;
  OFFPRINT_TRY(materialiser_of(gathered));
  OFFPRINT_TRY(guard(home));  // of sources that were made anew
  std::lock_guard lock(mutex_);
  Source& keeper = sources_[gathered.text()];
  keeper.home = home.text();
  keeper.gathers = {info.stored.name, info.stored.version};
  keeper.sources = std::move(sources);
  keeper.leases = std::move(leases);
  return gathered;
}

Result<> Publications::end_gathered(const DatabaseName& home, const PublicationInfo& info) {
  OFFPRINT_TRY_ASSIGN(DatabaseName gathered, gathered_name(home, info.stored));
  if (!store_.info(gathered)) return {};
  OFFPRINT_TRY_ASSIGN(auto keeper, materialiser_of(gathered));
  OFFPRINT_TRY(keeper->drop(info.stored.name, info.stored.version));
  for (const SourceItem& each : info.definition.sources) {
    OFFPRINT_TRY_ASSIGN(DatabaseName source, source_name(home, each.database));
    if (!store_.info(source)) continue;
    OFFPRINT_TRY_ASSIGN(auto materialiser, materialiser_of(source));
    OFFPRINT_TRY(materialiser->drop(gathered.text(), info.stored.version));
    std::lock_guard lock(mutex_);
    auto found = sources_.find(source.text());
    if (found != sources_.end()) found->second.uses.erase(gathered.text());
  }
  {
    std::lock_guard lock(mutex_);
    sources_.erase(gathered.text());
  }
  return store_.drop(gathered);
}

Result<> Publications::rebuild_gathered(const DatabaseName& home) {
  std::vector<std::pair<DatabaseName, std::vector<DatabaseName>>> all;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, source] : sources_) {
      if (source.home != home.text()) continue;
      OFFPRINT_TRY_ASSIGN(DatabaseName gathered, DatabaseName::stored(name));
      all.emplace_back(std::move(gathered), source.sources);
    }
  }
  for (auto& [gathered, sources] : all) {
    sources.push_back(gathered);  // after what it is made of
    for (const DatabaseName& source : sources) {
      if (source == home || !store_.info(source)) continue;
      OFFPRINT_TRY_ASSIGN(auto materialiser, materialiser_of(source));
      OFFPRINT_TRY(materialiser->rebuild());
    }
  }
  return {};
}

// Sources that were dropped and made anew, and those that did not fit and do again.
void Publications::plan_mending() {
  std::lock_guard lock(mutex_);
  for (const auto& [name, source] : sources_) {
    if (source.home.empty() || source.uses.empty() || stopping_) continue;
    auto gathered = DatabaseName::stored(name);
    const bool is_whole = gathered && std::ranges::all_of(source.sources, [&](const auto& each) {
                            auto found = sources_.find(each.text());
                            auto info = store_.info(each);
                            return found != sources_.end() && info &&
                                   info->id == found->second.id && found->second.materialiser &&
                                   found->second.materialiser->keeps(*gathered);
                          });
    if (is_whole) continue;
    pool_.post(source.id, [this, home = source.home, publication = source.gathers] {
      mend(home, publication);
    });
  }
}

void Publications::mend(const std::string& home, const PublicationName& name) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
  }
  auto mended = [&]() -> Result<> {
    OFFPRINT_TRY_ASSIGN(DatabaseName source, DatabaseName::parse(home));
    OFFPRINT_TRY_ASSIGN(auto info, find(source, name));
    InstanceRequest request;
    if (info.stored.state != State::kRetired) OFFPRINT_TRY(gather(source, info, request));
    return {};
  }();
  if (!mended) log::debug("{} of '{}': {}", name.name, home, mended.error().message());
}

Result<std::vector<GuardedPart>> Publications::parts_of(
    const DatabaseName& home, const std::vector<StoredPublication>& publications,
    const std::vector<database::StoredConsumer>& consumers) {
  std::vector<GuardedPart> parts;
  for (const StoredPublication& each : publications) {
    if (!each.is_live()) continue;
    OFFPRINT_TRY_ASSIGN(Definition definition, parse_definition(each.definition));
    if (definition.sources.empty()) continue;
    std::vector<std::string> names;
    for (const database::StoredConsumer& consumer : consumers) {
      if (consumer.publication == each.name && consumer.version == each.version)
        names.push_back(consumer.name);
    }
    OFFPRINT_TRY_ASSIGN(Gathering gathering, gathering_of(each.definition));
    for (const Part& part : gathering.parts) {
      OFFPRINT_TRY_ASSIGN(DatabaseName source, source_name(home, part.database));
      auto info = store_.info(source);
      if (!info) continue;
      parts.push_back({info->id, fmt::format("{}/pub/{}@v{}", home.text(), each.name, each.version),
                       part.definition, names});
    }
  }
  return parts;
}

}  // namespace offprint::publication
