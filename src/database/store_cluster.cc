// The store on a node of a cluster: it takes what the common log decided, and may be told to write.
#include <algorithm>
#include <future>

#include <fmt/format.h>

#include "base/log.h"
#include "database/adoption.h"
#include "database/store_impl.h"

namespace offprint::database {
namespace {

constexpr std::uint32_t kEpochsOfTerm = 1 << 16;

// Later than any that a cut of an earlier term began.
Epoch epoch_after_cut(Epoch known, Epoch term) {
  const Epoch after = epoch_after_loss(known);
  if (term.value >= kEpochsOfTerm) return after;
  return std::max(after, Epoch{term.value * kEpochsOfTerm});
}

TransactionRecorder::Decision decision_of(const journal::Record& record,
                                          const DatabaseState& state) {
  const Bytes* history = find_metadata(record, journal::MetadataType::kNewHistory);
  return {state, entry_of(record, state), history != nullptr,
          history != nullptr && history->size() == 1 && history->front() == 1};
}

}  // namespace

Result<> StoreImpl::begin(journal::Lsn number) {
  OFFPRINT_TRY(replay_->decide(number));
  OFFPRINT_TRY(load_catalog());
  catalog_database_->follow();
  if (catalog_database_->position().txid.value != 0) OFFPRINT_TRY(load_databases());
  replay_.reset();
  upkeep_.start();
  return {};
}

Result<> StoreImpl::lead(Epoch term, const std::optional<Lineage>& cut) {
  std::vector<std::shared_ptr<HostedDatabase>> unfilled = index_.all();
  std::erase_if(unfilled, [](const auto& each) { return !each->is_being_filled(); });
  // Until its turn has come it refuses.
  auto turn = std::make_shared<std::promise<void>>();
  catalog_database_->lead(term, [turn] { turn->set_value(); });
  turn->get_future().wait();
  OFFPRINT_TRY(catalog_->set_up());
  if (cut) OFFPRINT_TRY(end_epochs(*cut, term));
  std::lock_guard listing(listing_mutex_);
  {
    std::unique_lock lock(mutex_);
    leads_ = term;
  }
  for (const auto& database : all()) database->lead(term);
  if (!std::exchange(usage_is_kept_, true)) usage_keeper_.start(*catalog_);
  environment_->helpers.post([this, unfilled = std::move(unfilled)] {
    for (const auto& database : unfilled) remove_if_cut_short(database);
    list_own_tags();
  });
  return {};
}

// Once for each cut. The terms of two of them differ, also where neither node knew of the other's.
Result<> StoreImpl::end_epochs(const Lineage& cut, Epoch term) {
  OFFPRINT_TRY_ASSIGN(bool is_known, catalog_->knows_cut(cut));
  if (is_known) return {};
  std::vector<std::pair<std::uint64_t, EpochEnd>> ends;
  for (const auto& database : index_.all()) {
    const Position at = database->position();
    ends.emplace_back(database->identity().id, EpochEnd{epoch_after_cut(at.epoch, term), at.txid});
  }
  OFFPRINT_TRY(catalog_->set_cut(cut, ends));
  for (const auto& [id, end] : ends) {
    if (auto database = index_.find(id)) database->add_end(end);
  }
  return {};
}

void StoreImpl::follow() {
  std::lock_guard listing(listing_mutex_);
  {
    std::unique_lock lock(mutex_);
    leads_.reset();
  }
  catalog_database_->follow();
  for (const auto& database : all()) database->follow();
}

Result<> StoreImpl::take_decided(std::span<const journal::Location> records) {
  Decided decided;
  for (const journal::Location& location : records) {
    OFFPRINT_TRY_ASSIGN(journal::Record record, environment_->journal->read(location));
    if (record.kind != journal::Kind::kTransaction) continue;
    OFFPRINT_TRY_ASSIGN(DatabaseState state, state_in(record));
    // The list is what it was when a database was written, and not what it becomes later.
    if (record.database_id == kCatalogId) OFFPRINT_TRY(bring_in(decided));
    decided[record.database_id].push_back(decision_of(record, state));
    if (record.database_id != kCatalogId) continue;
    OFFPRINT_TRY(bring_in(decided));
    OFFPRINT_TRY(follow_catalog());
  }
  return bring_in(decided);
}

// Each database at its own turn; waits for all of them.
Result<> StoreImpl::bring_in(Decided& decided) {
  std::vector<std::future<Result<>>> done;
  for (auto& [id, records] : decided) {
    std::shared_ptr<HostedDatabase> database = catalog_database_;
    if (id != kCatalogId) {
      OFFPRINT_TRY_ASSIGN(database, find_listed(id));
    }
    if (!database) continue;  // it was dropped
    auto promise = std::make_shared<std::promise<Result<>>>();
    done.push_back(promise->get_future());
    database->take_decided(std::move(records),
                           [promise](const Result<>& result) { promise->set_value(result); });
  }
  decided.clear();
  Result<> all;
  for (auto& each : done) {
    if (Result<> result = each.get(); !result) all = std::move(result);
  }
  return all;
}

// The databases become those of the list.
Result<> StoreImpl::follow_catalog() {
  std::lock_guard listing(listing_mutex_);
  OFFPRINT_TRY_ASSIGN(auto rows, catalog_->rows());
  std::set<std::uint64_t> listed;
  for (const Catalog::Row& row : rows) listed.insert(row.id);
  // First: another may have the name of one of them now.
  for (const auto& database : index_.all()) {
    if (!listed.contains(database->identity().id)) drop_here(database);
  }
  for (const Catalog::Row& row : rows) {
    auto database = host_listed(row);
    database->set_limits(row.limits);
    database->set_ends(row.ends);
    database->set_begins_filled(row.begins_filled);
  }
  return {};
}

// With listing_mutex_ held.
std::shared_ptr<HostedDatabase> StoreImpl::host_listed(const Catalog::Row& row) {
  if (auto known = index_.find(row.id)) return known;
  Replayed fresh;
  fresh.state = DatabaseState::never_written(row.lineage, row.epoch, row.options.page_size);
  auto database = host(row, std::move(fresh));
  index_.add(database);
  return database;
}

// One that was created here may be in the list, and not known yet. Null: the list does not have it.
Result<std::shared_ptr<HostedDatabase>> StoreImpl::find_listed(std::uint64_t id) {
  if (auto known = index_.find(id)) return known;
  std::lock_guard listing(listing_mutex_);
  OFFPRINT_TRY_ASSIGN(auto rows, catalog_->rows(id));
  if (rows.empty()) return std::shared_ptr<HostedDatabase>();
  return host_listed(rows.front());
}

// All nodes know of it already, empty. What was decided of it stays, whatever is answered here.
Result<> StoreImpl::fill_listed(const std::shared_ptr<HostedDatabase>& database,
                                const std::function<Result<>(HostedDatabase&)>& fill) {
  const HostedDatabase::Identity& identity = database->identity();
  if (!claim_filling(identity.id))
    return fail(Code::kConflict, fmt::format("database '{}' was dropped meanwhile", identity.name));
  Result<> filled = fill(*database);
  if (filled && database->position().txid.value == 0) {
    filled = catalog_->set_unfilled(identity.id);
    if (filled) database->set_begins_filled(false);
  }
  end_filling(identity.id);
  if (!filled) remove_if_cut_short(database);
  return filled;
}

// False: another one has it.
bool StoreImpl::claim_filling(std::uint64_t id) {
  std::unique_lock lock(mutex_);
  return filling_.insert(id).second;
}

void StoreImpl::end_filling(std::uint64_t id) {
  std::unique_lock lock(mutex_);
  filling_.erase(id);
}

// A database that was to begin with content, and whose primary ended before it had any, or who
// filled it failed: as if it had not been begun. Whether it is so is asked when the list is
// changed: what earlier primaries decided is here then, or this node is not primary, and the list
// refuses.
void StoreImpl::remove_if_cut_short(const std::shared_ptr<HostedDatabase>& database) {
  const HostedDatabase::Identity& identity = database->identity();
  {
    std::unique_lock lock(mutex_);
    if (!leads_ || !filling_.insert(identity.id).second) return;
  }
  auto removed = drop_listed(database, [&] { return database->is_being_filled(); });
  if (removed) {
    log::info("database '{}' is not there: it was not filled", identity.name);
  } else if (database->is_being_filled()) {
    log::warn("database '{}', which was not filled, stays for now: {}", identity.name,
              removed.error().message());
  }
  end_filling(identity.id);
}

// What all nodes know of counts, and only then this one's part goes.
Result<> StoreImpl::drop_listed(const std::shared_ptr<HostedDatabase>& database,
                                const std::function<bool()>& only_if) {
  const HostedDatabase::Identity& identity = database->identity();
  OFFPRINT_TRY(catalog_->remove(identity.id, identity.name, database->position().epoch, only_if));
  std::lock_guard listing(listing_mutex_);
  for (const auto& state : states_of(identity.id)) drop_here(state);
  drop_here(database);
  return {};
}

// As adopt_into(), by the log: its pages are the database's first transaction.
Result<> StoreImpl::adopt_listed(HostedDatabase& database, const AdoptedFile& file) {
  OFFPRINT_TRY_ASSIGN(auto content, open_adopted(*environment_->options.files, file));
  OFFPRINT_TRY(check_is_unwritten(database));
  OFFPRINT_TRY(catalog_->set_restored(database.identity().id, file.position.bookmark()));
  OFFPRINT_TRY(fill_from(database, file.position, *content, file.timestamp_ms));
  database.add_end({file.position.epoch, file.position.txid});
  content.reset();
  return environment_->options.files->remove(file.path);
}

// It is not in the list any more: this node's part of it goes.
void StoreImpl::drop_here(const std::shared_ptr<HostedDatabase>& database) {
  const HostedDatabase::Identity& identity = database->identity();
  index_.remove(database);
  database->shut_down(
      Error(Code::kNotFound, fmt::format("database '{}' was dropped", identity.name)), true);
  environment_->insights.forget(identity.id);
  tags_->remove_all(identity.id);
  if (auto removed = remove_database_files(*environment_->options.files, identity.path); !removed) {
    log::warn("files of '{}' stay until the next start: {}", identity.name,
              removed.error().message());
  }
}

}  // namespace offprint::database
