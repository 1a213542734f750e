#pragma once

#include <memory>
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

void add_archive_settings(Settings& settings, ArchiveOptions& options);

// The archive that a node writes; nothing without a URL. Must not outlive the store.
class Archiving {
 public:
  // kConflict: another node writes it. kInvalid: no such URL.
  Result<> start(const ArchiveOptions& options, const std::string& data, database::Store& store,
                 server::Service& service);
  // The server is to stop: those who wait for the archive have a moment left.
  void stop_waiting();
  void stop();

 private:
  Result<> start_prover(const ArchiveOptions& options, const std::string& data,
                        database::Store& store, server::Service& service);

  database::Store* store_ = nullptr;
  std::unique_ptr<archive::ObjectStore> objects_;
  std::unique_ptr<archive::ArchivedStates> states_;
  std::unique_ptr<archive::Archiver> archiver_;
  std::unique_ptr<archive::Prover> prover_;
  std::unique_ptr<archive::NamedObjects> named_;
};

}  // namespace offprint
