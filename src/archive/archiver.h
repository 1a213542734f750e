#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "archive/database_archive.h"
#include "archive/lease.h"
#include "archive/object_store.h"
#include "archive/schedule.h"
#include "archive/tag_files.h"
#include "base/clock.h"
#include "database/executor.h"
#include "database/store.h"

namespace offprint::archive {

struct ArchiverOptions {
  Schedule schedule;
  int threads = 4;  // databases that are worked for at once; as many that somebody waits for
  int retry_max_ms = 60'000;                      // pauses after failures grow up to this
  std::vector<std::string> former_owners;         // Lease
  std::string owners_group;                       // the same
  std::function<void()> owner_taken;              // the same; on any thread
  bool take_over = false;                         // the same
  int lease_look_ms = 30'000;                     // the same
  int start_wait_ms = 5'000;                      // start() waits so long for an archive's answer
  std::chrono::milliseconds urgent_kept{60'000};  // when_there() is for who waits less long
  std::chrono::milliseconds dropped_look = std::chrono::hours(24);  // for what is over its time
  std::string
      tags_folder;  // of the node's data folder: its files are kept, too; empty: they are not
  FileSystem* files = &FileSystem::real();  // of that
  int stop_flush_ms = 5'000;  // stop() tries so long to bring everything into the archive
  std::function<std::int64_t()> wall_clock_ms = unix_time_ms;
};

// Keeps the archive of a node: what its databases commit goes there soon, without the commits
// waiting for it. An idle database costs nothing: no object, no request, no memory. Each database
// has its archive below its name; who may write all of them says the lease. Thread: any; start and
// stop once each.
class Archiver {
 public:
  struct Status {
    std::size_t behind = 0;     // databases with transactions that are not there yet
    std::int64_t lag_ms = 0;    // how long the oldest of them waits
    std::size_t in_memory = 0;  // databases that something is to be done for
    std::uint64_t puts = 0, bytes = 0, failures = 0;
    std::string error;  // of what fails most often; empty once everything is there
  };

  // `objects` and `store` must outlive it. `owner` is what the lease knows this process by.
  Archiver(ObjectStore& objects, database::Store& store, std::string owner,
           ArchiverOptions options);
  ~Archiver();
  Archiver(const Archiver&) = delete;
  Archiver& operator=(const Archiver&) = delete;

  // kConflict: it is another node's archive. An archive that does not answer is tried again later.
  Result<> start();
  // The server is to stop: after this long nobody waits in when_there() any more.
  void stop_waiting(std::chrono::milliseconds after);
  void stop();
  // Another node writes the archive now: stop() brings nothing into it any more.
  void leave() { flush_ms_ = 0; }
  Status status() const;
  // Waits until the archive has all that was visible when it was called. kTimeout.
  Result<> wait(const database::DatabaseName& name, Deadline deadline);
  // Puts the database's transactions at once and calls `reached` when `at` is there; all who wait
  // share what is put. Calls it with kUnavailable when the archiver stops, kNotFound when the
  // database is gone. Quick.
  using Reached = std::function<void(const Result<>&)>;
  // See DatabaseArchive::repair. Blocks. One call at a time.
  Result<std::vector<std::string>> repair(const std::string& name,
                                          const std::vector<std::string>& damaged_keys);
  void when_there(const std::string& name, const Bookmark& at, Reached reached);

 private:
  // Transactions that are not there yet: for how long, and from where on in the journal.
  struct Waiting {
    SteadyClock::time_point since;
    journal::Lsn from;
  };
  // Somebody waits for a transaction.
  struct Urgent {
    Bookmark at;
    Deadline until;  // then nobody waits any more
    Reached reached;
  };
  struct Repair {
    std::vector<std::string> damaged_keys;
    Result<std::vector<std::string>> done;
  };
  struct Entry {
    std::unique_ptr<DatabaseArchive> archive;  // used by the thread that is at work
    std::optional<Waiting> waiting;
    std::optional<Waiting> at_work;  // those that are being put
    SteadyClock::time_point put_at;  // when that began last
    bool is_of_the_past = false;     // from before start(): they may be there already
    std::optional<Deadline> due;     // of its work
    bool busy = false;
    Repair* repair = nullptr;      // to be done first; of who is at work
    bool repairs_waiting = false;  // somebody has a reference to this
    int failures = 0;
    std::string error;  // the last one, while there are failures
    Bookmark reached;
    std::vector<Urgent> urgent;
  };

  Result<> take_lease();
  void note(const std::string& name, journal::Lsn from);
  std::optional<journal::Lsn> needed_from() const;
  void schedule(const std::string& name, Entry& entry, Deadline due);  // mutex_ held
  Deadline due_of(const Entry& entry) const;                           // mutex_ held
  void run();
  void work(const std::string& name);
  Result<> work_on(const database::DatabaseName& name, Entry& entry);
  void remove_dropped();
  void hurry(const std::string& name, Entry& entry);  // mutex_ held
  void put_urgent(Entry& entry);
  void note_reached(Entry& entry);
  void give_up(Entry& entry, const Error& why);
  void give_up_all();
  void count(const DatabaseArchive::Counters& before, const DatabaseArchive& archive);
  void note_what_waits();

  ObjectStore& objects_;
  database::Store& store_;
  const ArchiverOptions options_;
  std::atomic<int> flush_ms_;  // of stop()
  Lease lease_;
  std::unique_ptr<TagFiles> tags_;  // used by the thread that works for the list of databases
  std::unique_ptr<database::Subscription> commits_;
  std::thread lease_thread_;
  std::unique_ptr<database::ThreadPool> pool_, urgent_pool_;
  std::thread thread_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // State below is protected by mutex_, but for Entry::archive.
  std::map<std::string, Entry> entries_;
  std::multimap<Deadline, std::string> due_;
  bool flushing_ = false;  // stop() was called …
  bool stopping_ = false;  // … and has waited
  bool lease_given_up_ = false;
  std::optional<Deadline> urgent_until_;  // stop_waiting() was called
  bool urgent_over_ = false;              // and that time has passed
  Status status_;
};

}  // namespace offprint::archive
