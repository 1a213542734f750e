#include "database/store.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <shared_mutex>

#include <fmt/format.h>

#include "base/log.h"
#include "database/adoption.h"
#include "database/catalog.h"
#include "database/copy_writer.h"
#include "database/database_index.h"
#include "database/environment.h"
#include "database/hosted_database.h"
#include "database/journal_upkeep.h"
#include "database/replay.h"
#include "database/store_folder.h"
#include "database/usage_keeper.h"
#include "ltx/checksum.h"

namespace offprint::database {
namespace {

constexpr std::uint64_t kCatalogId = 0;

DatabaseState never_written(Lineage lineage, Epoch epoch, std::uint32_t page_size) {
  DatabaseState state;
  state.position = {lineage, epoch, TxId{0}, ltx::kEmptyDatabase};
  state.page_size = page_size;
  return state;
}

Result<> check_is_primary(const StoreOptions& options) {
  if (!options.copies) return {};
  return fail(Code::kNotPrimary, "NOT_PRIMARY: this node has copies; only the primary can do this");
}

class StoreImpl final : public Store {
 public:
  explicit StoreImpl(StoreOptions options)
      : environment_(std::make_unique<Environment>(std::move(options))) {
    environment_->upkeep = [this] { upkeep_.run_if_due(); };
  }
  ~StoreImpl() override;

  Result<> start();

  Result<DatabaseInfo> create(const DatabaseName& name, const CreateOptions& options) override;
  Result<> drop(const DatabaseName& name) override;
  Result<DatabaseInfo> info(const DatabaseName& name) override;
  Result<DatabaseInfo> info(std::uint64_t id) override;
  std::vector<DatabaseInfo> list(const std::string& prefix, const std::string& after,
                                 std::size_t limit, const std::string& contains) override;
  Result<> set_limits(const DatabaseName& name, const DatabaseLimits& limits) override;
  Result<> checkpoint(const DatabaseName& name) override;

  void submit(const DatabaseName& name, std::unique_ptr<Request> request) override;
  void submit(const std::shared_ptr<HeldTransaction>& held,
              std::unique_ptr<Request> request) override;
  void release(const std::shared_ptr<HeldTransaction>& held) override;
  Result<Bookmark> import_file(const DatabaseName& name, const std::string& path,
                               const CreateOptions& options) override;

  Result<> adopt_file(const DatabaseName& name, const AdoptedFile& file,
                      const CreateOptions& options) override;
  Result<std::vector<DroppedName>> dropped_names() override { return catalog_->dropped(); }
  void apply(const DatabaseName& name, std::vector<IncomingTransaction> transactions,
             std::function<void(Result<>)> done) override;
  Result<std::unique_ptr<CopyWriter>> begin_copy(const DatabaseName& name,
                                                 const CopyTarget& target) override;

  Result<Position> position(const DatabaseName& name) override;
  Result<Checksum> checksum_at(const DatabaseName& name, const Bookmark& bookmark) override;
  Result<std::vector<LogEntry>> log_after(const DatabaseName& name, const Bookmark& after,
                                          std::size_t limit) override;
  Result<std::unique_ptr<ltx::ByteSource>> open_payload(const journal::Location& location) override;
  Result<std::unique_ptr<Subscription>> subscribe(const DatabaseName& name,
                                                  std::function<void()> changed) override;
  std::unique_ptr<Subscription> subscribe_commits(Committed committed) override {
    return environment_->committed.add(std::move(committed));
  }
  void hold_log(std::function<std::optional<journal::Lsn>()> needed_from) override {
    upkeep_.hold(std::move(needed_from));
  }
  void set_archive_wait(ArchiveWait wait) override { environment_->answers.set(std::move(wait)); }
  std::unique_ptr<Subscription> subscribe_stopped(Named stopped) override {
    return environment_->stopped.add(std::move(stopped));
  }
  std::unique_ptr<Subscription> subscribe_names(Named added) override {
    return index_.subscribe(std::move(added));
  }
  Result<std::unique_ptr<Snapshot>> snapshot(const DatabaseName& name) override;
  Result<std::shared_ptr<SqlSnapshot>> sql_snapshot(const DatabaseName& name) override;
  Result<> revoke(const Revocation& revocation) override { return catalog_->revoke(revocation); }
  Result<std::vector<Revocation>> revocations() override { return catalog_->revocations(); }
  Result<std::vector<StatementInsight>> insights(const DatabaseName& name, std::int64_t since_ms,
                                                 std::size_t limit) override;
  Result<std::vector<SlowStatement>> slow_statements(const DatabaseName& name,
                                                     std::size_t limit) override;
  Result<std::vector<UsageRecord>> usage(const UsageQuery& query) override;
  Result<std::vector<UsageRecord>> usage(const DatabaseName& name) override;
  void post_blocking(std::function<void()> work) override {
    environment_->helpers.post(std::move(work));
  }
  void post_piece(std::chrono::nanoseconds rest, std::function<void()> work) override {
    environment_->post_piece(rest, std::move(work));
  }
  StoreMetrics metrics() override;

 private:
  Result<std::shared_ptr<HostedDatabase>> get(const DatabaseName& name);
  Result<std::shared_ptr<HostedDatabase>> get_history(const DatabaseName& name);
  std::shared_ptr<HostedDatabase> host(const Catalog::Row& row, Replayed replayed);
  Result<> load_catalog(Replay& replay);
  std::string file_of(std::uint64_t id) const {
    return database_file(environment_->options.directory, id);
  }
  Result<> sweep_orphans();
  Result<std::shared_ptr<HostedDatabase>> add(const DatabaseName& name,
                                              const CreateOptions& options,
                                              const std::optional<Bookmark>& at,
                                              bool begins_filled);
  // A database that is found by its name once `fill` has filled it; else it is dropped again.
  Result<> add_filled(const DatabaseName& name, const CreateOptions& options,
                      const std::optional<Bookmark>& at,
                      const std::function<Result<>(HostedDatabase&)>& fill);
  Result<> finish_copy(const DatabaseName& name, const NewHistory& history);
  Result<> give_up(const std::shared_ptr<HostedDatabase>& database);
  void finish_drops();
  std::vector<std::shared_ptr<HostedDatabase>> all();
  JournalUpkeep::Holders holders_of_records(journal::Lsn at_least);
  std::optional<std::uint64_t> size_of(const std::string& name, std::uint64_t id);

  std::unique_ptr<Environment> environment_;
  JournalUpkeep upkeep_{*environment_,
                        [this](journal::Lsn at_least) { return holders_of_records(at_least); }};
  UsageKeeper usage_keeper_{*environment_, [this](const std::string& name, std::uint64_t id) {
                              return size_of(name, id);
                            }};
  std::shared_ptr<HostedDatabase> catalog_database_;
  std::unique_ptr<Catalog> catalog_;
  DatabaseIndex index_;
  std::shared_mutex mutex_;
  std::set<std::shared_ptr<HostedDatabase>> importing_;  // not found by name yet; by mutex_
  // Databases that nobody finds any more, but that the catalog still has. Without its DROP record
  // in the journal such a database would be there again after a restart, and empty.
  struct Dropping {
    HostedDatabase::Identity identity;
    Epoch epoch;
    std::shared_ptr<HostedDatabase> database;  // until the record is durable
    journal::Lsn recorded;                     // not before that
  };
  std::map<std::uint64_t, Dropping> dropping_;  // by id; guarded by mutex_
  std::mutex finish_drops_mutex_;
  journal::Lsn journal_begin_;  // of this process's part of the journal; constant after open
};

Result<> StoreImpl::start() {
  StoreOptions& options = environment_->options;
  sqlite::initialize();
  environment_->vfs =
      options.base_vfs == nullptr ? "offprint" : fmt::format("offprint-{}", options.base_vfs);
  sqlite::register_capture_vfs(environment_->vfs.c_str(), options.base_vfs);
  OFFPRINT_TRY(options.files->create_directories(options.directory + "/databases"));
  OFFPRINT_TRY(options.files->sync_directory(options.directory));
  std::string parent =
      std::filesystem::path(options.directory).lexically_normal().parent_path().string();
  OFFPRINT_TRY(options.files->sync_directory(parent.empty() ? "." : parent));
  OFFPRINT_TRY(check_journal_is_there(*options.files, options.directory));
  if (!options.restore_catalog) OFFPRINT_TRY(check_is_whole(*options.files, options.directory));
  Replay replay;
  OFFPRINT_TRY_ASSIGN(
      environment_->journal,
      journal::Journal::open(*options.files, options.directory + "/journal", options.journal,
                             [&](const journal::Record& record) { return replay.visit(record); }));
  journal_begin_ = environment_->journal->end_lsn();
  OFFPRINT_TRY(finish_adoptions(*options.files, options.directory,
                                [&](std::uint64_t id) { return replay.has(id); }));
  OFFPRINT_TRY(load_catalog(replay));
  upkeep_.start();
  usage_keeper_.start(*catalog_);
  return {};
}

Result<> StoreImpl::load_catalog(Replay& replay) {
  HostedDatabase::Identity identity;
  identity.id = kCatalogId;
  identity.name = "_catalog";
  identity.path = file_of(kCatalogId);
  catalog_database_ = std::make_shared<HostedDatabase>(
      *environment_, identity,
      replay.take(kCatalogId, never_written(Lineage::random(), Epoch{}, 4096)));
  catalog_ = std::make_unique<Catalog>(catalog_database_);
  OFFPRINT_TRY(restore_catalog(environment_->options, *catalog_database_));
  OFFPRINT_TRY(catalog_->set_up());
  OFFPRINT_TRY_ASSIGN(auto rows, catalog_->rows());
  for (const Catalog::Row& row : rows) {
    auto initial = never_written(row.lineage, row.epoch, row.options.page_size);
    bool dropped = replay.is_dropped(row.id);  // stopped in the middle of a drop
    auto database = host(row, replay.take(row.id, initial));
    if (dropped || was_cut_short(*environment_->options.files, row, *database)) {
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
  identity.is_copy = environment_->options.copies;
  auto database =
      std::make_shared<HostedDatabase>(*environment_, std::move(identity), std::move(replayed));
  database->set_limits(row.limits);
  for (const EpochEnd& end : row.ends) database->add_end(end);
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
  Error reason(Code::kUnavailable, "the server is stopping");
  for (const auto& database : all()) database->shut_down(reason, false);
  usage_keeper_.stop();
  if (catalog_database_) catalog_database_->shut_down(reason, false);
  // Work that is still under way uses this object; helpers give work to writers and the reverse.
  environment_->timers.stop();
  for (int i = 0; i < 2; ++i) {
    environment_->helpers.drain();
    environment_->writers.drain();
  }
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
Result<std::shared_ptr<HostedDatabase>> StoreImpl::add(const DatabaseName& name,
                                                       const CreateOptions& options,
                                                       const std::optional<Bookmark>& at,
                                                       bool begins_filled) {
  OFFPRINT_TRY(check_options(options));
  finish_drops();
  OFFPRINT_TRY_ASSIGN(Catalog::Row row, catalog_->add(name, options, at, begins_filled));
  Replayed fresh;
  fresh.state = never_written(row.lineage, row.epoch, options.page_size);
  return host(row, std::move(fresh));
}

Result<DatabaseInfo> StoreImpl::create(const DatabaseName& name, const CreateOptions& options) {
  OFFPRINT_TRY(check_is_primary(environment_->options));
  OFFPRINT_TRY_ASSIGN(auto database, add(name, options, {}, false));
  index_.add(database);
  return database->info();
}

Result<> StoreImpl::drop(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  if (auto busy = database->exclusive()) return fail(*std::move(busy));
  {
    std::unique_lock lock(mutex_);  // from one list into the other, never in none
    auto [place, is_new] = dropping_.try_emplace(database->identity().id);
    if (is_new) place->second = {database->identity(), {}, database, {}};
    if (!index_.remove(database)) {
      if (is_new) dropping_.erase(place);
      return fail(Code::kNotFound, fmt::format("no database '{}'", name.text()));
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

Result<> StoreImpl::checkpoint(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return database->checkpoint_now();
}

// --- requests

void StoreImpl::submit(const DatabaseName& name, std::unique_ptr<Request> request) {
  auto database = index_.find(name.text());
  if (database) return database->submit(std::move(request));
  Outcome outcome;
  outcome.state = Outcome::State::kRejected;
  outcome.error = Error(Code::kNotFound, fmt::format("no database '{}'", name.text()));
  request->done(std::move(outcome));
}

void StoreImpl::submit(const std::shared_ptr<HeldTransaction>& held,
                       std::unique_ptr<Request> request) {
  held->database->submit_held(held, std::move(request));
}

void StoreImpl::release(const std::shared_ptr<HeldTransaction>& held) {
  held->database->release(held);
}

Result<Bookmark> StoreImpl::import_file(const DatabaseName& name, const std::string& path,
                                        const CreateOptions& options) {
  OFFPRINT_TRY(check_is_primary(environment_->options));
  if (auto existing = index_.find(name.text())) return existing->import_file(path);
  Bookmark imported;
  OFFPRINT_TRY(add_filled(name, options, {}, [&](HostedDatabase& database) -> Result<> {
    OFFPRINT_TRY_ASSIGN(imported, database.import_file(path));
    return {};
  }));
  return imported;
}

Result<> StoreImpl::add_filled(const DatabaseName& name, const CreateOptions& options,
                               const std::optional<Bookmark>& at,
                               const std::function<Result<>(HostedDatabase&)>& fill) {
  OFFPRINT_TRY_ASSIGN(auto database, add(name, options, at, true));
  {
    std::unique_lock lock(mutex_);
    importing_.insert(database);
  }
  Result<> filled = fill(*database);
  if (filled && database->position().txid.value == 0)
    filled = catalog_->set_unfilled(database->identity().id);
  if (filled) index_.add(database);
  {
    std::unique_lock lock(mutex_);
    importing_.erase(database);
    if (!filled) dropping_[database->identity().id] = {database->identity(), {}, database, {}};
  }
  if (!filled) (void)give_up(database);
  return filled;
}

Result<> StoreImpl::adopt_file(const DatabaseName& name, const AdoptedFile& file,
                               const CreateOptions& options) {
  OFFPRINT_TRY(check_is_primary(environment_->options));
  auto adopt = [&](HostedDatabase& database) { return adopt_into(*catalog_, database, file); };
  if (auto existing = index_.find(name.text())) return adopt(*existing);
  return add_filled(name, options, file.position.bookmark(), adopt);
}

// --- copies

void StoreImpl::apply(const DatabaseName& name, std::vector<IncomingTransaction> transactions,
                      std::function<void(Result<>)> done) {
  auto database = get(name);
  if (!database) return done(fail(database.error()));
  (*database)->apply(std::move(transactions), std::move(done));
}

Result<std::unique_ptr<CopyWriter>> StoreImpl::begin_copy(const DatabaseName& name,
                                                          const CopyTarget& target) {
  return make_copy_writer(*environment_->journal, target, [this, name](const NewHistory& history) {
    return finish_copy(name, history);
  });
}

Result<> StoreImpl::finish_copy(const DatabaseName& name, const NewHistory& history) {
  bool unwritten = history.target.page_count == 0;
  auto existing = index_.find(name.text());
  if (existing && unwritten && existing->position().txid.value != 0) {
    OFFPRINT_TRY(drop(name));  // at the primary there is a new one of this name
    existing.reset();
  }
  auto fill = [&](HostedDatabase& database) -> Result<> {
    if (!unwritten) return database.begin_new_history(history);
    database.move_unwritten(history.target.position);
    return {};
  };
  if (existing) return fill(*existing);
  return add_filled(name, {}, history.target.position.bookmark(), fill);
}

// --- history

Result<Position> StoreImpl::position(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get_history(name));
  return database->position();
}

Result<Checksum> StoreImpl::checksum_at(const DatabaseName& name, const Bookmark& bookmark) {
  OFFPRINT_TRY_ASSIGN(auto database, get_history(name));
  return database->checksum_at(bookmark);
}

Result<std::vector<LogEntry>> StoreImpl::log_after(const DatabaseName& name, const Bookmark& after,
                                                   std::size_t limit) {
  OFFPRINT_TRY_ASSIGN(auto database, get_history(name));
  return database->log_after(after, limit);
}

Result<std::unique_ptr<ltx::ByteSource>> StoreImpl::open_payload(
    const journal::Location& location) {
  return environment_->journal->open_payload(location);
}

Result<std::unique_ptr<Subscription>> StoreImpl::subscribe(const DatabaseName& name,
                                                           std::function<void()> changed) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return database->subscribe(std::move(changed));
}

Result<std::unique_ptr<Snapshot>> StoreImpl::snapshot(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get_history(name));
  return database->snapshot();
}

Result<std::shared_ptr<SqlSnapshot>> StoreImpl::sql_snapshot(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return database->sql_snapshot();
}

Result<std::vector<StatementInsight>> StoreImpl::insights(const DatabaseName& name,
                                                          std::int64_t since_ms,
                                                          std::size_t limit) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  auto known = environment_->insights.find(database->identity().id);
  if (!known) return std::vector<StatementInsight>();
  return known->read(since_ms, limit);
}

Result<std::vector<SlowStatement>> StoreImpl::slow_statements(const DatabaseName& name,
                                                              std::size_t limit) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  auto known = environment_->insights.find(database->identity().id);
  if (!known) return std::vector<SlowStatement>();
  return known->slow(limit);
}

std::optional<std::uint64_t> StoreImpl::size_of(const std::string& name, std::uint64_t id) {
  auto database = index_.find(id);
  if (!database || database->identity().name != name) return std::nullopt;
  DatabaseInfo info = database->info();
  return std::uint64_t{info.page_size} * info.page_count;
}

Result<std::vector<UsageRecord>> StoreImpl::usage(const UsageQuery& query) {
  OFFPRINT_TRY(usage_keeper_.flush());
  OFFPRINT_TRY_ASSIGN(auto records, catalog_->usage(query));
  for (UsageRecord& each : records) each.dropped = !size_of(each.name, each.database_id);
  return records;
}

Result<std::vector<UsageRecord>> StoreImpl::usage(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  OFFPRINT_TRY(usage_keeper_.flush());
  return catalog_->usage_of(database->identity().id, name.text(), usage_keeper_.months_kept());
}

StoreMetrics StoreImpl::metrics() {
  StoreMetrics metrics = environment_->metrics();
  metrics.journal_bytes = environment_->journal->end_lsn().value - journal_begin_.value;
  metrics.databases = index_.size();
  return metrics;
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

}  // namespace

Result<std::unique_ptr<Store>> Store::open(StoreOptions options) {
  auto store = std::make_unique<StoreImpl>(std::move(options));
  OFFPRINT_TRY(store->start());
  return store;
}

}  // namespace offprint::database
