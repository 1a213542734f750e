#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "archive/archived_states.h"
#include "archive/archiver.h"
#include "archive/prover.h"
#include "main/settings.h"
#include "server/service.h"

namespace offprint {

struct ArchiveOptions {
  std::string url;  // empty: nothing is archived
  int sync_ms = 1'000;
  double retention_days = 30;
  std::vector<int> windows_ms = {30'000, 300'000, 3'600'000};
  std::vector<int> keep_ms = {300'000, 86'400'000, 604'800'000};
  int snapshots_ms = 86'400'000;
  int verify_days = 7;
  int verify_kib_per_second = 4'096;
  bool wait = false;
  int wait_ms = 10'000;
  bool take_over = false;
  std::vector<std::string> objects;  // URLs below which statements may name objects
};

// All of a server's.
void add_archive_settings(Settings& settings, ArchiveOptions& options);
// Those of them that say what goes there when and for how long, and whose it is.
void add_archive_times(Settings& settings, ArchiveOptions& options);

// The archive that a node writes; nothing without a URL. Must not outlive the store.
class Archiving {
 public:
  // kConflict: another node writes it. kInvalid: no such URL. `cluster`: the node is one of
  // several, and writes it only between lead() and follow().
  Result<> start(const ArchiveOptions& options, const std::string& data, database::Store& store,
                 server::Service& service, bool cluster);
  // This node is primary: it takes the archive from any owner whose name begins with `cluster`, or
  // from any one at all. kConflict: it is another's.
  Result<> lead(const std::string& cluster, bool take_over);
  // Another node writes it now. `flush`: what waits goes there first.
  void follow(bool flush);
  // The server is to stop: those who wait for the archive have a moment left.
  void stop_waiting();
  void stop();

 private:
  struct Writer;
  Result<std::shared_ptr<Writer>> make_writer(const std::string& cluster, bool take_over);
  void serve_history(server::Service& service);
  std::shared_ptr<Writer> writer();

  ArchiveOptions options_;
  std::string data_, node_;
  database::Store* store_ = nullptr;
  std::unique_ptr<archive::ObjectStore> objects_;
  std::unique_ptr<archive::ArchivedStates> states_;
  std::unique_ptr<archive::NamedObjects> named_;
  std::mutex mutex_;
  std::shared_ptr<Writer> writer_;  // guarded by mutex_
};

}  // namespace offprint
