// What is asked of one database: requests, copies, imports, history.
#include <algorithm>

#include <fmt/format.h>

#include "database/adoption.h"
#include "database/copy_writer.h"
#include "database/replay.h"
#include "database/store_impl.h"
#include "database/user_connection.h"

namespace offprint::database {

// --- requests

void StoreImpl::submit(const DatabaseName& name, std::unique_ptr<Request> request) {
  auto database = index_.find(name.text());
  if (request->as_of) {
    auto shared = std::make_shared<std::unique_ptr<Request>>(std::move(request));
    return environment_->long_reads.post(
        database ? database->identity().id : 0,
        [this, name, shared] { read_past(name, std::move(*shared)); });
  }
  if (database) return database->submit(std::move(request));
  Outcome outcome;
  outcome.state = Outcome::State::kRejected;
  outcome.error = Error(Code::kNotFound, fmt::format("no database '{}'", name.text()));
  request->done(std::move(outcome));
}

void StoreImpl::submit(const std::shared_ptr<HeldTransaction>& held,
                       std::unique_ptr<Request> request) {
  if (request->as_of) {
    Outcome outcome;
    outcome.state = Outcome::State::kRejected;
    outcome.error =
        Error(Code::kInvalid, "EARLIER_STATE: a transaction that is open sees its own state only");
    return request->done(std::move(outcome));
  }
  held->database->submit_held(held, std::move(request));
}

void StoreImpl::release(const std::shared_ptr<HeldTransaction>& held) {
  held->database->release(held);
}

// By somebody else, who began it.
static Result<> check_is_not_filled(HostedDatabase& database) {
  if (!database.is_being_filled()) return {};
  return fail(Code::kConflict,
              fmt::format("database '{}' is being filled already", database.identity().name));
}

Result<Bookmark> StoreImpl::import_file(const DatabaseName& name, const std::string& path,
                                        const CreateOptions& options) {
  OFFPRINT_TRY(check_is_primary());
  auto database = index_.find(name.text());
  if (database) {
    OFFPRINT_TRY(check_is_not_filled(*database));
    OFFPRINT_TRY_ASSIGN(Bookmark imported, database->import_file(path));
    OFFPRINT_TRY(database->wait_for_archive(imported));
    return imported;
  }
  Bookmark imported;
  OFFPRINT_TRY(
      add_filled(name.text(), options, {.filled = true}, [&](HostedDatabase& fresh) -> Result<> {
        OFFPRINT_TRY_ASSIGN(imported, fresh.import_file(path));
        return {};
      }));
  OFFPRINT_TRY_ASSIGN(database, get(name));
  OFFPRINT_TRY(database->wait_for_archive(imported));
  return imported;
}

Result<> StoreImpl::add_filled(const std::string& name, const CreateOptions& options,
                               const Catalog::Beginning& beginning,
                               const std::function<Result<>(HostedDatabase&)>& fill) {
  OFFPRINT_TRY_ASSIGN(auto database, add(name, options, beginning));
  if (is_clustered()) return fill_listed(database, fill);
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
  OFFPRINT_TRY(check_is_primary());
  auto adopt = [&](HostedDatabase& database) {
    return is_clustered() ? adopt_listed(database, file) : adopt_into(*catalog_, database, file);
  };
  if (auto existing = index_.find(name.text())) {
    OFFPRINT_TRY(check_is_not_filled(*existing));
    return adopt(*existing);
  }
  return add_filled(name.text(), options, {.at = file.position.bookmark(), .filled = true}, adopt);
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
  return add_filled(name.text(), {}, {.at = history.target.position.bookmark(), .filled = true},
                    fill);
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

Result<std::vector<LogEntry>> StoreImpl::log_before(const DatabaseName& name,
                                                    std::optional<TxId> before, std::size_t limit) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return database->log_before(before, limit);
}

Result<TransactionDetails> StoreImpl::details(const DatabaseName& name, const LogEntry& entry) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return database->details(entry);
}

Result<std::unique_ptr<ltx::ByteSource>> StoreImpl::open_payload(
    const journal::Location& location) {
  return environment_->journal->open_payload(location);
}

Result<std::optional<Bytes>> StoreImpl::undo(const journal::Location& location) {
  OFFPRINT_TRY_ASSIGN(journal::Record record, environment_->journal->read(location));
  const Bytes* bytes = find_metadata(record, journal::MetadataType::kUndo);
  return bytes == nullptr ? std::nullopt : std::optional(*bytes);
}

Result<std::optional<Bookmark>> StoreImpl::source_of(const journal::Location& location) {
  OFFPRINT_TRY_ASSIGN(journal::Record record, environment_->journal->read(location));
  return source_in(record);
}

Result<std::unique_ptr<Subscription>> StoreImpl::subscribe(const DatabaseName& name,
                                                           std::function<void()> changed) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return database->subscribe(std::move(changed));
}

// What the log does not lead back to, and nobody else knows.
static std::unexpected<Error> unavailable(const Error& why) {
  if (why.code() != Code::kBehind) return fail(why);
  return fail(Code::kNotFound, "HISTORY_UNAVAILABLE: " + why.message());
}

Result<Bookmark> StoreImpl::bookmark_of(const DatabaseName& name, const Moment& moment) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  if (const auto* bookmark = std::get_if<Bookmark>(&moment)) return *bookmark;
  if (const auto* tag = std::get_if<Tag>(&moment)) {
    OFFPRINT_TRY_ASSIGN(TagInfo found, find_tag(database->identity().id, tag->name));
    return found.bookmark;
  }
  const std::int64_t time_ms = std::get<AtTime>(moment).unix_ms;
  auto found = database->bookmark_at(time_ms);
  OlderStates* older = older_states_;
  if (found) return found;
  if (found.error().code() != Code::kBehind || older == nullptr) return unavailable(found.error());
  found = older->bookmark_at(name, time_ms);
  return found ? std::move(found) : unavailable(found.error());
}

Result<std::unique_ptr<Snapshot>> StoreImpl::snapshot_at(const DatabaseName& name,
                                                         const Moment& moment) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  OFFPRINT_TRY_ASSIGN(Bookmark at, bookmark_of(name, moment));
  auto state = database->snapshot_at(at);
  if (state) return state;
  if (state.error().code() != Code::kBehind) return fail(state.error());
  const auto* asked = std::get_if<Tag>(&moment);
  OFFPRINT_TRY_ASSIGN(auto tags, tags_of(database->identity().id));
  for (const TagInfo& tag : tags) {
    if (asked != nullptr ? tag.tag == asked->name : tag.bookmark == at)
      return open_tag(database->identity().id, tag);
  }
  OlderStates* older = older_states_;
  // Others' states are not this database's, whoever has them.
  if (older == nullptr || at.lineage != database->position().lineage)
    return unavailable(state.error());
  return older->snapshot_at(name, at);
}

Result<std::vector<StoredPublication>> StoreImpl::publications(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return catalog_->publications().of(database->identity().id);
}

Result<> StoreImpl::add_publication(const DatabaseName& name,
                                    const StoredPublication& publication) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return catalog_->publications().add(database->identity().id, publication);
}

Result<> StoreImpl::update_publication(const DatabaseName& name,
                                       const StoredPublication& publication) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return catalog_->publications().update(database->identity().id, publication);
}

void StoreImpl::set_schema_guard(std::shared_ptr<SchemaGuard> guard) {
  environment_->set_schema_guard(std::move(guard));
}

Result<> StoreImpl::remove_publication(const DatabaseName& name, const std::string& publication,
                                       std::uint32_t version) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return catalog_->publications().remove(database->identity().id, publication, version);
}

Result<std::vector<StoredConsumer>> StoreImpl::consumers(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return catalog_->publications().consumers(database->identity().id);
}

Result<> StoreImpl::put_consumer(const DatabaseName& name, const StoredConsumer& consumer) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return catalog_->publications().put_consumer(database->identity().id, consumer);
}

Result<> StoreImpl::remove_consumer(const DatabaseName& name, const std::string& publication,
                                    std::uint32_t version, const std::string& consumer) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  return catalog_->publications().remove_consumer(database->identity().id, publication, version,
                                                  consumer);
}

void StoreImpl::read_past(const DatabaseName& name, std::unique_ptr<Request> request) {
  auto found = [&]() -> Result<PastReads::Source> {
    OFFPRINT_TRY_ASSIGN(auto database, get(name));
    PastReads::Source source;
    source.database_id = database->identity().id;
    OFFPRINT_TRY_ASSIGN(source.at, bookmark_of(name, *request->as_of));
    source.options = database->identity().options;
    DatabaseInfo info = database->info();
    source.limits = info.limits;
    if (info.limits.reads_blocked)
      return fail(blocked_error(info.limits.block_reason, "neither read nor written"));
    source.make = [this, name, at = source.at] { return snapshot_at(name, at); };
    return source;
  }();
  if (found) return past_reads_.run(*found, std::move(request));
  Outcome outcome;
  outcome.state = Outcome::State::kRejected;
  outcome.error = found.error();
  request->done(std::move(outcome));
}

Result<Bookmark> StoreImpl::rewrite(const DatabaseName& name, Snapshot& to) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto database, get(name));
  OFFPRINT_TRY_ASSIGN(Bookmark rewritten, database->rewrite(to));
  OFFPRINT_TRY(database->wait_for_archive(rewritten));
  return rewritten;
}

// Its first state, at that position, becomes what `from` shows.
Result<> StoreImpl::fill_from(HostedDatabase& database, const Position& at, Snapshot& from,
                              std::optional<std::int64_t> timestamp_ms) {
  CopyTarget target;
  target.position = at;
  target.page_size = from.page_size();
  target.page_count = from.page_count();
  OFFPRINT_TRY_ASSIGN(
      auto writer, make_copy_writer(*environment_->journal, target, [&](const NewHistory& history) {
        return database.begin_new_history(history, timestamp_ms);
      }));
  for (PageNo page = 1; page <= from.page_count(); ++page) {
    OFFPRINT_TRY_ASSIGN(ByteView image, from.page(page));
    OFFPRINT_TRY(writer->page(page, image));
  }
  return writer->finish();
}

Result<DatabaseInfo> StoreImpl::fork(const DatabaseName& name, const DatabaseName& fork,
                                     Snapshot& from) {
  OFFPRINT_TRY(check_is_primary());
  OFFPRINT_TRY_ASSIGN(auto parent, get(name));
  if (index_.find(fork.text()))
    return fail(Code::kConflict, fmt::format("database '{}' exists already", fork.text()));
  CreateOptions options = parent->identity().options;
  options.page_size = from.page_size();
  options.tails.clear();  // it is written here
  Catalog::Beginning beginning;
  beginning.filled = true;
  beginning.ancestors = parent->identity().ancestors;
  std::erase_if(beginning.ancestors,
                [&](const Bookmark& each) { return each.txid > from.position().txid; });
  beginning.ancestors.push_back(from.position().bookmark());
  OFFPRINT_TRY(
      add_filled(fork.text(), options, beginning, [&](HostedDatabase& database) -> Result<> {
        Position begins = database.position();  // its own lineage, the parent's numbers
        begins.txid = from.position().txid;
        begins.checksum = from.position().checksum;
        return fill_from(database, begins, from);
      }));
  OFFPRINT_TRY_ASSIGN(auto forked, get(fork));
  OFFPRINT_TRY(forked->wait_for_archive(forked->bookmark()));
  return forked->info();
}

Result<std::unique_ptr<Snapshot>> StoreImpl::snapshot(const DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto database, get_history(name));
  return database->snapshot();
}

Result<std::unique_ptr<Snapshot>> StoreImpl::snapshot(std::uint64_t id) {
  auto database = id == kCatalogId ? catalog_database_ : index_.find(id);
  if (!database) return fail(Code::kNotFound, fmt::format("no database with number {}", id));
  return database->snapshot(true);
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

}  // namespace offprint::database
