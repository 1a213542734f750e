#include "database/store.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "database/adoption.h"
#include "database/store_impl.h"

namespace offprint::database {
Result<> StoreImpl::start() {
  StoreOptions& options = environment_->options;
  sqlite::initialize();
  environment_->vfs =
      options.base_vfs == nullptr ? "offprint" : fmt::format("offprint-{}", options.base_vfs);
  sqlite::register_capture_vfs(environment_->vfs.c_str(), options.base_vfs);
  OFFPRINT_TRY(make_store_folder(*options.files, options.directory));
  OFFPRINT_TRY(check_journal_is_there(*options.files, options.directory));
  if (!options.restore_catalog) OFFPRINT_TRY(check_is_whole(*options.files, options.directory));
  replay_ = std::make_unique<Replay>();
  OFFPRINT_TRY_ASSIGN(environment_->journal,
                      journal::Journal::open(*options.files, options.directory + "/journal",
                                             options.journal, [&](const journal::Record& record) {
                                               if (options.common_log != nullptr)
                                                 options.common_log->visit(record);
                                               return replay_->visit(record);
                                             }));
  journal_begin_ = environment_->journal->end_lsn();
  if (is_clustered()) {
    OFFPRINT_TRY_ASSIGN(environment_->log, options.common_log->start(*environment_->journal));
    return {};  // begin() follows
  }
  environment_->own_log = std::make_unique<JournalLog>(*environment_->journal);
  environment_->log = environment_->own_log.get();
  OFFPRINT_TRY(load_catalog());
  OFFPRINT_TRY(restore_catalog(options, *catalog_database_));
  OFFPRINT_TRY(catalog_->set_up());
  if (options.restore_catalog) OFFPRINT_TRY(catalog_->forget_states());
  OFFPRINT_TRY(load_databases());
  upkeep_.start();
  usage_keeper_.start(*catalog_);
  return {};
}

Result<> StoreImpl::load_catalog() {
  OFFPRINT_TRY(finish_adoptions(*environment_->options.files, environment_->options.directory,
                                [&](std::uint64_t id) { return replay_->has(id); }));
  HostedDatabase::Identity identity;
  identity.id = kCatalogId;
  identity.name = "_catalog";
  identity.path = file_of(kCatalogId);
  catalog_database_ = std::make_shared<HostedDatabase>(
      *environment_, identity,
      replay_->take(kCatalogId, DatabaseState::never_written(Lineage::random(), Epoch{}, 4096)));
  catalog_ = std::make_unique<Catalog>(catalog_database_);
  tags_ = std::make_unique<Tags>(*environment_->options.files, environment_->options.directory,
                                 *catalog_);
  return {};
}

// Those that the catalog has.
Result<> StoreImpl::load_databases() {
  const std::unique_ptr<Replay> replay = std::move(replay_);
  OFFPRINT_TRY_ASSIGN(auto rows, catalog_->rows());
  std::set<std::string> states;
  for (const Catalog::Row& row : rows) {
    if (is_state_name(row.name)) states.insert(row.name);
  }
  if (!is_clustered()) OFFPRINT_TRY(tags_->start(states));
  for (const Catalog::Row& row : rows) {
    auto initial = DatabaseState::never_written(row.lineage, row.epoch, row.options.page_size);
    bool dropped = replay->is_dropped(row.id);  // stopped in the middle of a drop
    auto database = host(row, replay->take(row.id, initial));
    // What is being restored has no content yet.
    const bool is_cut_short = !environment_->options.restore_catalog && !is_clustered() &&
                              was_cut_short(*environment_->options.files, row, *database);
    if (dropped || is_cut_short) {
      dropping_[row.id] = {database->identity(), row.epoch, nullptr, journal::Lsn{0}};
    } else {
      index_.add(database);
    }
  }
  finish_drops();
  return sweep_orphans();
}

std::shared_ptr<HostedDatabase> StoreImpl::host(const Catalog::Row& row, Replayed replayed) {
  HostedDatabase::Identity identity;
  identity.id = row.id;
  identity.name = row.name;
  identity.options = row.options;
  identity.created_at_ms = row.created_at_ms;
  identity.path = file_of(row.id);
  identity.is_copy = environment_->options.copies || !row.options.tails.empty();
  identity.ancestors = row.ancestors;
  auto database =
      std::make_shared<HostedDatabase>(*environment_, std::move(identity), std::move(replayed));
  database->set_limits(row.limits);
  database->set_ends(row.ends);
  if (!is_clustered()) return database;
  database->set_begins_filled(row.begins_filled);
  std::shared_lock lock(mutex_);
  if (leads_) {
    database->lead(*leads_);
  } else {
    database->follow();
  }
  return database;
}

Result<> StoreImpl::sweep_orphans() {
  std::vector<std::string> known = {file_of(kCatalogId)};
  for (const auto& database : index_.all()) known.push_back(database->identity().path);
  for (const auto& [id, dropping] : dropping_) known.push_back(dropping.identity.path);
  return remove_orphans(*environment_->options.files, environment_->options.directory,
                        std::move(known));
}

StoreImpl::~StoreImpl() {
  upkeep_.stop();
  if (is_clustered()) environment_->options.common_log->stop();
  past_reads_.clear();
  Error reason(Code::kUnavailable, "the server is stopping");
  for (const auto& database : all()) database->shut_down(reason, false);
  usage_keeper_.stop();
  if (catalog_database_) catalog_database_->shut_down(reason, false);
  // Work that is still under way uses this object; helpers give work to writers and the reverse.
  environment_->timers.stop();
  for (int i = 0; i < 2; ++i) {
    environment_->helpers.drain();
    environment_->long_reads.drain();
    environment_->writers.drain();
  }
  past_reads_.clear();
}

std::vector<std::shared_ptr<HostedDatabase>> StoreImpl::all() {
  std::vector<std::shared_ptr<HostedDatabase>> result;
  {
    std::shared_lock lock(mutex_);
    result.assign(importing_.begin(), importing_.end());
  }
  // In this order: what is imported comes into the index before it leaves the other list.
  for (auto& database : index_.all()) result.push_back(std::move(database));
  return result;
}

Result<> StoreImpl::check_is_primary() const {
  if (!environment_->options.copies) return {};
  return fail(Code::kNotPrimary, "NOT_PRIMARY: this node has copies; only the primary can do this");
}

Result<std::shared_ptr<HostedDatabase>> StoreImpl::get(const DatabaseName& name) {
  auto database = index_.find(name.text());
  if (!database) return fail(Code::kNotFound, fmt::format("no database '{}'", name.text()));
  return database;
}

// The list of databases has a history too.
Result<std::shared_ptr<HostedDatabase>> StoreImpl::get_history(const DatabaseName& name) {
  if (name == DatabaseName::catalog()) return catalog_database_;
  return get(name);
}

// --- catalog

// Into the catalog; nobody finds it by its name yet.
Result<std::shared_ptr<HostedDatabase>> StoreImpl::add(const std::string& name,
                                                       const CreateOptions& options,
                                                       const Catalog::Beginning& beginning) {
  OFFPRINT_TRY(check_options(options));
  finish_drops();
  OFFPRINT_TRY_ASSIGN(Catalog::Row row, catalog_->add(name, options, beginning));
  if (is_clustered()) {  // what the list has become meanwhile counts
    OFFPRINT_TRY_ASSIGN(auto listed, find_listed(row.id));
    if (listed) return listed;
    return fail(Code::kConflict, fmt::format("database '{}' was dropped meanwhile", name));
  }
  Replayed fresh;
  fresh.state = DatabaseState::never_written(row.lineage, row.epoch, options.page_size);
  return host(row, std::move(fresh));
}

Result<DatabaseInfo> StoreImpl::create(const DatabaseName& name, const CreateOptions& options) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, add(name.text(), options, {}));
  if (!is_clustered()) index_.add(database);
  return database->info();
}

Result<> StoreImpl::drop(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  if (auto busy = database->exclusive()) return fail(*std::move(busy));
  return drop_database(database);
}

Result<> StoreImpl::drop_database(const std::shared_ptr<HostedDatabase>& database) {
  if (is_clustered()) return drop_listed(database);
  for (const auto& state : states_of(database->identity().id)) OFFPRINT_TRY(drop_database(state));
  {
    std::unique_lock lock(mutex_);  // from one list into the other, never in none
    auto [place, is_new] = dropping_.try_emplace(database->identity().id);
    if (is_new) place->second = {database->identity(), {}, database, {}};
    if (!index_.remove(database)) {
      if (is_new) dropping_.erase(place);
      return fail(Code::kNotFound, fmt::format("no database '{}'", database->identity().name));
    }
  }
  return give_up(database);
}

// Drops what is in dropping_ already.
Result<> StoreImpl::give_up(const std::shared_ptr<HostedDatabase>& database) {
  const std::uint64_t id = database->identity().id;
  const std::string& name = database->identity().name;
  journal::Draft draft;
  draft.kind = journal::Kind::kDrop;
  draft.database_id = id;
  auto recorded = environment_->journal->commit(std::move(draft));
  if (!recorded) {
    if (recorded.error().code() == Code::kIo) environment_->fatal(recorded.error());
    std::unique_lock lock(mutex_);
    index_.add(database);
    dropping_.erase(id);
    return fail(std::move(recorded).error());
  }
  database->shut_down(Error(Code::kNotFound, fmt::format("database '{}' was dropped", name)), true);
  {
    std::unique_lock lock(mutex_);
    dropping_[id].epoch = database->position().epoch;
    dropping_[id].recorded = recorded->lsn;
    dropping_[id].database = nullptr;
  }
  finish_drops();
  return {};
}

// Takes dropped databases out of the catalog and removes their files. What fails (a full disk) is
// tried again later: they are dropped.
void StoreImpl::finish_drops() {
  std::lock_guard one_at_a_time(finish_drops_mutex_);
  std::vector<Dropping> due;
  {
    std::shared_lock lock(mutex_);
    for (const auto& [id, dropping] : dropping_) {
      if (dropping.database == nullptr) due.push_back(dropping);
    }
  }
  for (const Dropping& dropping : due) {
    const HostedDatabase::Identity& identity = dropping.identity;
    if (auto removed = catalog_->remove(identity.id, identity.name, dropping.epoch); !removed) {
      log::warn("database '{}' was dropped, but is still in the catalog: {}", identity.name,
                removed.error().message());
      continue;
    }
    environment_->insights.forget(identity.id);
    tags_->remove_all(identity.id);
    if (auto removed = remove_database_files(*environment_->options.files, identity.path);
        !removed) {
      log::warn("files of '{}' stay until the next start: {}", identity.name,
                removed.error().message());
    }
    std::unique_lock lock(mutex_);
    dropping_.erase(identity.id);
  }
}

Result<DatabaseInfo> StoreImpl::info(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get_history(name));
  return database->info();
}

Result<DatabaseInfo> StoreImpl::info(std::uint64_t id) {
  auto found = index_.find(id);
  if (!found) return fail(Code::kNotFound, fmt::format("no database with number {}", id));
  return found->info();
}

std::vector<DatabaseInfo> StoreImpl::list(const std::string& prefix, const std::string& after,
                                          std::size_t limit, const std::string& contains) {
  std::vector<DatabaseInfo> infos;
  for (const auto& database : index_.list(prefix, after, limit, contains))
    infos.push_back(database->info());
  return infos;
}

Result<> StoreImpl::set_limits(const DatabaseName& name, const DatabaseLimits& limits) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  OFFPRINT_TRY(catalog_->set_limits(database->identity().id, limits));
  database->set_limits(limits);
  return {};
}

Result<> StoreImpl::set_tails(const DatabaseName& name, const std::string& path) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  OFFPRINT_TRY(database->set_tails(path));
  return catalog_->set_tails(database->identity().id, path);
}

Result<> StoreImpl::checkpoint(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return database->checkpoint_now();
}

// --- upkeep

JournalUpkeep::Holders StoreImpl::holders_of_records(journal::Lsn at_least) {
  finish_drops();
  JournalUpkeep::Holders holders{all(), at_least};
  holders.databases.push_back(catalog_database_);
  std::shared_lock lock(mutex_);
  for (const auto& [id, dropping] : dropping_) {
    if (dropping.database != nullptr) {
      holders.databases.push_back(dropping.database);
    } else {
      holders.at_least = std::min(holders.at_least, dropping.recorded);
    }
  }
  return holders;
}

Result<std::unique_ptr<Store>> Store::open(StoreOptions options) {
  auto store = std::make_unique<StoreImpl>(std::move(options));
  OFFPRINT_TRY(store->start());
  return store;
}

}  // namespace offprint::database
