#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <string>
#include <vector>

#include "database/catalog.h"
#include "database/database_index.h"
#include "database/environment.h"
#include "database/hosted_database.h"
#include "database/journal_upkeep.h"
#include "database/past_reads.h"
#include "database/replay.h"
#include "database/store_folder.h"
#include "database/tags.h"
#include "database/usage_keeper.h"

namespace offprint::database {

// The store in four parts: store.cc (start and stop, the list of databases), store_work.cc (what
// is asked of one of them), store_tags.cc, store_cluster.cc (on a node of a cluster).
class StoreImpl final : public Store {
  static constexpr std::uint64_t kCatalogId = 0;

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
  Result<> set_tails(const DatabaseName& name, const std::string& path) override;
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
  Result<std::vector<LogEntry>> log_before(const DatabaseName& name, std::optional<TxId> before,
                                           std::size_t limit) override;
  Result<TransactionDetails> details(const DatabaseName& name, const LogEntry& entry) override;
  Result<std::unique_ptr<ltx::ByteSource>> open_payload(const journal::Location& location) override;
  Result<std::optional<Bytes>> undo(const journal::Location& location) override;
  Result<std::optional<Bookmark>> source_of(const journal::Location& location) override;
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
  Result<Bookmark> bookmark_of(const DatabaseName& name, const Moment& moment) override;
  Result<std::unique_ptr<Snapshot>> snapshot(const DatabaseName& name) override;
  Result<std::unique_ptr<Snapshot>> snapshot(std::uint64_t id) override;
  Result<std::unique_ptr<Snapshot>> snapshot_at(const DatabaseName& name,
                                                const Moment& moment) override;
  void set_older_states(OlderStates* older) override { older_states_ = older; }
  Result<TagInfo> add_tag(const DatabaseName& name, const std::string& tag,
                          Snapshot& state) override;
  Result<> remove_tag(const DatabaseName& name, const std::string& tag) override;
  Result<std::vector<TagInfo>> tags(const DatabaseName& name) override;
  Result<std::vector<StoredPublication>> publications(const DatabaseName& name) override;
  Result<> add_publication(const DatabaseName& name, const StoredPublication& publication) override;
  Result<> update_publication(const DatabaseName& name,
                              const StoredPublication& publication) override;
  Result<std::vector<std::pair<std::uint64_t, StoredPublication>>> all_publications() override {
    return catalog_->publications().all();
  }
  void set_schema_guard(std::shared_ptr<SchemaGuard> guard) override;
  Result<std::vector<StoredConsumer>> consumers(const DatabaseName& name) override;
  Result<> put_consumer(const DatabaseName& name, const StoredConsumer& consumer) override;
  Result<> remove_consumer(const DatabaseName& name, const std::string& publication,
                           std::uint32_t version, const std::string& consumer) override;
  Result<std::vector<std::pair<std::uint64_t, StoredConsumer>>> all_consumers() override {
    return catalog_->publications().all_consumers();
  }
  Result<> remove_publication(const DatabaseName& name, const std::string& publication,
                              std::uint32_t version) override;
  Result<Bookmark> rewrite(const DatabaseName& name, Snapshot& to) override;
  Result<DatabaseInfo> fork(const DatabaseName& name, const DatabaseName& fork,
                            Snapshot& from) override;
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
  int set_leaving(bool leaving) override {
    environment_->leaving = leaving;
    return environment_->held_for_writing;
  }
  StoreMetrics metrics() override;

  Result<> begin(journal::Lsn number) override;
  Result<> take_decided(std::span<const journal::Location> records) override;
  Result<> lead(Epoch term, const std::optional<Lineage>& cut) override;
  void follow() override;

 private:
  Result<std::shared_ptr<HostedDatabase>> get(const DatabaseName& name);
  Result<std::shared_ptr<HostedDatabase>> get_history(const DatabaseName& name);
  Result<> check_is_primary() const;
  std::shared_ptr<HostedDatabase> host(const Catalog::Row& row, Replayed replayed);
  Result<> load_catalog();
  Result<> load_databases();
  using Decided = std::map<std::uint64_t, std::vector<TransactionRecorder::Decision>>;
  Result<> end_epochs(const Lineage& cut, Epoch term);
  Result<> bring_in(Decided& decided);
  Result<> follow_catalog();
  Result<> fill_listed(const std::shared_ptr<HostedDatabase>& database,
                       const std::function<Result<>(HostedDatabase&)>& fill);
  // `only_if`: asked when the list is changed; see Catalog::remove().
  Result<> drop_listed(const std::shared_ptr<HostedDatabase>& database,
                       const std::function<bool()>& only_if = {});
  Result<> adopt_listed(HostedDatabase& database, const AdoptedFile& file);
  void remove_if_cut_short(const std::shared_ptr<HostedDatabase>& database);
  bool claim_filling(std::uint64_t id);
  void end_filling(std::uint64_t id);
  std::shared_ptr<HostedDatabase> host_listed(const Catalog::Row& row);
  Result<std::shared_ptr<HostedDatabase>> find_listed(std::uint64_t id);
  void drop_here(const std::shared_ptr<HostedDatabase>& database);
  bool is_clustered() const { return environment_->options.common_log != nullptr; }
  std::string file_of(std::uint64_t id) const {
    return database_file(environment_->options.directory, id);
  }
  Result<> sweep_orphans();
  Result<std::shared_ptr<HostedDatabase>> add(const std::string& name, const CreateOptions& options,
                                              const Catalog::Beginning& beginning);
  // A database that is found by its name once `fill` has filled it; else it is dropped again.
  Result<> add_filled(const std::string& name, const CreateOptions& options,
                      const Catalog::Beginning& beginning,
                      const std::function<Result<>(HostedDatabase&)>& fill);
  Result<> fill_from(HostedDatabase& database, const Position& at, Snapshot& from,
                     std::optional<std::int64_t> timestamp_ms = {});
  Result<> finish_copy(const DatabaseName& name, const NewHistory& history);
  // --- tags
  Result<std::uint64_t> add_state(const HostedDatabase& of, const std::string& tag,
                                  Catalog::Beginning beginning, Snapshot& state);
  Result<std::vector<TagInfo>> tags_of(std::uint64_t id);
  Result<TagInfo> find_tag(std::uint64_t id, const std::string& tag);
  bool is_unmade(std::uint64_t id, const std::string& tag);
  Result<std::unique_ptr<Snapshot>> open_tag(std::uint64_t id, const TagInfo& tag);
  // As databases of their own. Null: it is none.
  std::shared_ptr<HostedDatabase> state_of(std::uint64_t id, const std::string& tag);
  std::vector<std::shared_ptr<HostedDatabase>> states_of(std::uint64_t id);
  void list_own_tags();
  void read_past(const DatabaseName& name, std::unique_ptr<Request> request);
  Result<> drop_database(const std::shared_ptr<HostedDatabase>& database);
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
  std::unique_ptr<Tags> tags_;
  std::atomic<OlderStates*> older_states_ = nullptr;
  PastReads past_reads_{*environment_};
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
  journal::Lsn journal_begin_;      // of this process's part of the journal; constant after open
  std::unique_ptr<Replay> replay_;  // until the databases are made of it
  // Of a node of a cluster.
  std::optional<Epoch> leads_;  // guarded by mutex_
  // Listed databases that somebody here fills, or removes since nobody will: by mutex_.
  std::set<std::uint64_t> filling_;
  // Whoever makes or drops databases as the list says, or gives them their role: none is there
  // twice, or misses one. Taken before mutex_.
  std::mutex listing_mutex_;
  bool usage_is_kept_ = false;  // by whoever calls lead()
};

}  // namespace offprint::database
