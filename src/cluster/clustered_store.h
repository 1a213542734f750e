#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "cluster/replicated_log.h"
#include "database/store.h"

namespace offprint::cluster {

// Lets the log of a placement group decide what the databases of a store are: on the primary their
// transactions go through it, on the others they come out of it.
//
// Life: give it to the store as StoreOptions::common_log, open that, then run() it. The transport
// gives what it receives to log(); it has to be quiet before the store ends, which ends the log,
// and this lives longer than the store.
// Thread: any, once run() was called.
class ClusteredStore final : public database::CommonLog,
                             private database::CommitLog,
                             private LogListener {
 public:
  struct Options {
    ReplicatedLog::Options log;
    std::unique_ptr<Coordinator> coordinator;
    PeerTransport* transport = nullptr;  // outlives it
    // Of a payload that goes in parts; less than half a segment of the nodes' journals.
    std::size_t part_bytes = 1 << 20;
    // This node cannot go on: what was decided does not fit what it has, or its disk fails. The
    // store takes nothing any more. (For a full disk it waits.)
    std::function<void(const Error&)> on_fatal;
  };
  explicit ClusteredStore(Options options);
  ~ClusteredStore() override;

  // From here on the store follows, or leads. Returns at once; until begun() nothing else may be
  // asked of the store.
  void run(database::Store& store);
  // It is known what the records found at start became, and the databases are there.
  bool begun();
  // Waits until it is, or the deadline has passed.
  bool wait_begun(Deadline deadline);
  // The epoch in which this node writes, once it may.
  std::optional<Epoch> leads();
  // The store does.
  bool store_leads() const { return store_leads_; }
  // Up to which record of the log the store has all.
  Lsn taken();
  // Writes wait (true) before they take a place in the log, so that it comes to rest, until they go
  // on (false) or this node stops being primary.
  void set_held(bool held);
  // See ReplicatedLog::hold(). Each database of the store, at its turn, has all of what is not
  // held.
  Result<ReplicatedLog::Held> hold();

  // Of the open store.
  ReplicatedLog& log() { return *log_; }

  // --- database::CommonLog
  void visit(const journal::Record& record) override;
  Result<database::CommitLog*> start(journal::Journal& journal) override;
  void stop() override;
  std::optional<journal::Lsn> needed_from() override;
  void forget_before(journal::Lsn lsn) override;

 private:
  // --- database::CommitLog
  Result<Appended> append(journal::Draft draft, Epoch term) override;
  Result<> wait(const Appended& appended) override;
  bool knows_newest(Epoch term) override;
  // --- LogListener
  void committed(std::uint32_t group, Lsn lsn) override;
  void changed(std::uint32_t group) override;

  Result<> begin_log(journal::Journal& journal);
  Result<Appended> append_one(journal::Draft draft, Epoch term);
  // The payload goes first, part by part; what is added to `draft` says so.
  Result<> append_parts(journal::Draft& draft, Epoch term);
  Result<> wait_for_part(const Appended& part);
  void work();
  void wake();
  // Each answers whether there may be more to do at once.
  bool begin(const ReplicatedLog::Status& status);
  bool step(const GroupMember::Status& status);
  bool take(Lsn up_to);
  void lead();
  void follow();
  void fail_with(const Error& error);

  Options options_;
  std::unique_ptr<GroupIndex> index_ = std::make_unique<GroupIndex>();  // until start()
  bool has_own_ = false;  // records of databases, none of which came by the log
  std::unique_ptr<ReplicatedLog> log_;
  journal::Journal* journal_ = nullptr;
  database::Store* store_ = nullptr;
  std::atomic<bool> store_leads_ = false;
  // --- of the worker
  bool cannot_go_on_ = false;
  Deadline rest_until_;

  std::mutex mutex_;  // taken last
  std::condition_variable wake_work_, has_begun_, goes_on_;
  // --- guarded by mutex_
  bool has_news_ = true;
  bool stopping_ = false;
  bool begun_ = false;
  bool held_ = false;

  std::mutex own_mutex_;  // taken before the log's
  // --- guarded by own_mutex_
  std::optional<Epoch> leads_;
  Lsn taken_;               // the store has all records up to it …
  std::set<Lsn> appended_;  // … and those written here that are not among these
  Lsn newest_;              // written here
  // Of a record of this epoch it is not known whether it is there: what its database is now, nobody
  // can say before another epoch, and nothing is written upon it.
  std::optional<Epoch> lost_term_;

  std::thread worker_;
};

}  // namespace offprint::cluster
