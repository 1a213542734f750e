#include "main/archiving.h"

#include <array>

#include <fmt/format.h>

#include "archive/adopt.h"
#include "archive/archived_changes.h"
#include "archive/node_layout.h"
#include "base/log.h"
#include "base/random.h"

namespace offprint {
namespace {

constexpr int kRetentionDaysMax = 36'500;
constexpr double kRetentionDaysMin = 0.0001;  // 9 s
constexpr int kTimesMaxMs = 2'000'000'000;    // 23 days
constexpr std::chrono::seconds kStopWaitMax{3};
constexpr int kLeaseLookMs = 2'000;  // of a node whose place another one may take
// Of the file of owners: a line for each start while the archive could not be reached.
constexpr std::uint64_t kOwnersBytesMax = 64 << 20;

// What the lease knows this process by, and by what it knew the node's processes before: the lines
// of a file. A copy of the data folder knows nothing of those that began after it was made.
struct Owner {
  std::string name;
  std::vector<std::string> former;
};

Result<Owner> make_owner(FileSystem& files, const std::string& path, const std::string& node) {
  Owner owner;
  OFFPRINT_TRY_ASSIGN(bool exists, files.exists(path));
  if (exists) {
    OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(files, path, kOwnersBytesMax));
    std::string_view text = as_text(bytes);
    for (std::size_t end; (end = text.find('\n')) != std::string_view::npos;
         text.remove_prefix(end + 1))
      owner.former.emplace_back(text.substr(0, end));
  }
  std::array<std::uint8_t, 8> random;
  fill_random(random);
  owner.name = node + " ";
  for (std::uint8_t byte : random) owner.name += fmt::format("{:02x}", byte);
  std::string lines = owner.name + "\n";
  // It may stop before the lease is its own.
  for (const std::string& each : owner.former) lines += each + "\n";
  OFFPRINT_TRY(write_file_atomically(files, path, as_bytes(lines)));
  return owner;
}

// The times of ageing moments.
Result<> set_schedule(const ArchiveOptions& options, archive::Schedule& schedule) {
  for (std::size_t i = 0; i < schedule.windows.size(); ++i) {
    schedule.windows[i] = std::chrono::milliseconds(options.windows_ms[i]);
    schedule.keep[i] = std::chrono::milliseconds(options.keep_ms[i]);
    if (i == 0) continue;
    const bool multiple = options.windows_ms[i] % options.windows_ms[i - 1] == 0;
    if (!multiple || schedule.windows[i] == schedule.windows[i - 1])
      return fail(Code::kInvalid,
                  "--archive-windows-ms: each must be a multiple of the one before");
    if (schedule.keep[i] < schedule.keep[i - 1])
      return fail(Code::kInvalid, "--archive-keep-ms: none may be shorter than the one before");
  }
  schedule.snapshots = std::chrono::milliseconds(options.snapshots_ms);
  const std::chrono::duration<double, std::ratio<86'400>> retention(options.retention_days);
  schedule.retention = std::chrono::duration_cast<std::chrono::milliseconds>(retention);
  return {};
}

}  // namespace

void add_archive_times(Settings& settings, ArchiveOptions& options) {
  settings
      .add("archive_sync_ms", options.sync_ms,
           "transactions of so long go to the archive together; 0: each at once")
      ->check(CLI::Range(0, 3'600'000));
  settings
      .add("archive_retention_days", options.retention_days,
           "any moment of so long can be restored")
      ->check(CLI::Range(kRetentionDaysMin, double{kRetentionDaysMax}));
  settings
      .add("archive_windows_ms", options.windows_ms,
           "moments get so far apart when they grow old: three steps, each a multiple of the one "
           "before")
      ->delimiter(',')
      ->expected(archive::kCompactedLevels)
      ->check(CLI::Range(1, kTimesMaxMs));
  settings
      .add("archive_keep_ms", options.keep_ms,
           "they are kept closer together for so long, before each step")
      ->delimiter(',')
      ->expected(archive::kCompactedLevels)
      ->check(CLI::Range(1, kTimesMaxMs));
  settings
      .add("archive_snapshots_ms", options.snapshots_ms,
           "of what changes, the whole goes to the archive so often")
      ->check(CLI::Range(1, kTimesMaxMs));
  settings
      .add("archive_verify_days", options.verify_days,
           "each database's archive is proven again after so long; 0: never")
      ->check(CLI::Range(0, kRetentionDaysMax));
  settings
      .add("archive_verify_kib_per_second", options.verify_kib_per_second,
           "that reads so much at most")
      ->check(CLI::Range(1, 1 << 30));
  settings.add_switch("archive_take_over", options.take_over,
                      "take the archive from another node, which is gone for good");
}

void add_archive_settings(Settings& settings, ArchiveOptions& options) {
  settings.add("archive", options.url,
               "URL of the archive of all databases: file:///FOLDER or s3://BUCKET/PREFIX");
  add_archive_times(settings, options);
  settings.add_switch("archive_wait", options.wait,
                      "a commit is acknowledged when the archive has it");
  settings
      .add("archive_wait_ms", options.wait_ms,
           "what the archive does not have within this answers UNKNOWN")
      ->check(CLI::Range(1, 600'000));
  settings.add(
      "objects", options.objects,
      "HA SNAPSHOT and HA RESTORE may name SQLite files below this URL (as of an archive)");
}

// What only the node does that writes the archive.
struct Archiving::Writer {
  std::unique_ptr<archive::ObjectStore> objects;  // its stop ends the requests of these
  std::unique_ptr<archive::Archiver> archiver;
  std::unique_ptr<archive::Prover> prover;

  ~Writer() {
    if (prover) prover->cancel();
    if (archiver) archiver->stop();
    if (prover) prover->stop();
  }
};

std::shared_ptr<Archiving::Writer> Archiving::writer() {
  std::lock_guard lock(mutex_);
  return writer_;
}

Result<> Archiving::start(const ArchiveOptions& options, const std::string& data,
                          database::Store& store, server::Service& service, bool cluster) {
  OFFPRINT_TRY_ASSIGN(
      named_, archive::NamedObjects::open(options.objects, service.options.spool_directory));
  service.objects = named_.get();
  if (options.url.empty() && options.wait)
    return fail(Code::kInvalid, "--archive-wait waits for an archive: add --archive URL");
  if (options.url.empty()) return {};
  if (!cluster && service.has_copies())
    return fail(Code::kInvalid, "copies of another node's databases are archived there");
  options_ = options;
  data_ = data;
  node_ = service.options.node_name;
  OFFPRINT_TRY_ASSIGN(objects_, archive::open_object_store(options.url));
  archive::ArchivedStates::Options states;
  states.folder = data + "/past";
  OFFPRINT_TRY_ASSIGN(states_, archive::ArchivedStates::open(*objects_, states));
  store_ = &store;
  if (!cluster) OFFPRINT_TRY(lead({}, options.take_over));
  database::ArchiveWait wait;
  wait.wait = [this](const std::string& name, const Bookmark& at, auto reached) {
    if (auto now = writer()) return now->archiver->when_there(name, at, std::move(reached));
    reached(fail(Code::kUnavailable, "this node does not write the archive at the moment"));
  };
  wait.by_default = options.wait;
  wait.at_most = std::chrono::milliseconds(options.wait_ms);
  store.set_archive_wait(std::move(wait));
  store.set_older_states(states_.get());
  serve_history(service);
  return {};
}

void Archiving::serve_history(server::Service& service) {
  service.archive_status = [this] {
    auto now = writer();
    return now ? now->archiver->status() : archive::Archiver::Status();
  };
  if (options_.verify_days != 0) {
    service.prover_status = [this] {
      auto now = writer();
      return now && now->prover ? now->prover->status() : archive::Prover::Status();
    };
  }
  service.archived_moments = [this](const auto& name, const auto& lineage, auto before,
                                    auto limit) {
    return archive::list_moments(*objects_, archive::archive_prefix(name), lineage, before, limit);
  };
  service.archived_details = [this](const auto& name, const auto& moments) {
    return archive::describe_moments(
        *objects_, moments, [&](const Bookmark& at) { return store_->snapshot_at(name, at); });
  };
  service.create_from_archive = [this,
                                 scratch = service.options.spool_directory](const auto& name) {
    auto made = archive::create_from_archive(*objects_, *store_, name, scratch);
    return made ? Result<>() : fail(made.error());
  };
}

Result<> Archiving::lead(const std::string& cluster, bool take_over) {
  if (options_.url.empty() || writer()) return {};
  OFFPRINT_TRY_ASSIGN(auto made, make_writer(cluster, take_over || options_.take_over));
  std::lock_guard lock(mutex_);
  writer_ = std::move(made);
  return {};
}

Result<std::shared_ptr<Archiving::Writer>> Archiving::make_writer(const std::string& cluster,
                                                                  bool take_over) {
  auto made = std::make_shared<Writer>();
  OFFPRINT_TRY_ASSIGN(made->objects, archive::open_object_store(options_.url));
  FileSystem& files = FileSystem::real();
  const std::string path = data_ + "/archive.owner";
  OFFPRINT_TRY_ASSIGN(Owner owner, make_owner(files, path, cluster + node_));
  archive::ArchiverOptions archiver;
  archiver.former_owners = owner.former;
  archiver.owners_group = cluster;
  // Not before: where the archive cannot be reached, it still is one of the former ones'.
  archiver.owner_taken = [&files, path, line = owner.name + "\n"] {
    if (Result<> written = write_file_atomically(files, path, as_bytes(line)); !written)
      log::warn("{}: {}", path, written.error().message());
  };
  archiver.take_over = take_over;
  archiver.schedule.sync = std::chrono::milliseconds(options_.sync_ms);
  archiver.urgent_kept = std::chrono::milliseconds(options_.wait_ms);
  archiver.tags_folder = data_ + "/tags";
  if (!cluster.empty()) archiver.lease_look_ms = kLeaseLookMs;
  OFFPRINT_TRY(set_schedule(options_, archiver.schedule));
  made->archiver =
      std::make_unique<archive::Archiver>(*made->objects, *store_, owner.name, archiver);
  OFFPRINT_TRY(made->archiver->start());
  if (options_.verify_days == 0) return made;
  archive::ProverOptions prover;
  prover.every = std::chrono::days(options_.verify_days);
  prover.bytes_per_second =
      std::uint64_t{1024} * static_cast<unsigned>(options_.verify_kib_per_second);
  prover.scratch = data_ + "/verify";
  prover.file = data_ + "/archive.proofs";
  auto repair = [archiver = made->archiver.get()](const std::string& name,
                                                  const std::vector<std::string>& damaged_keys) {
    return archiver->repair(name, damaged_keys);
  };
  made->prover =
      std::make_unique<archive::Prover>(*made->objects, *store_, std::move(repair), prover);
  OFFPRINT_TRY(made->prover->start());
  return made;
}

void Archiving::follow(bool flush) {
  std::shared_ptr<Writer> ended;
  {
    std::lock_guard lock(mutex_);
    ended = std::exchange(writer_, nullptr);
  }
  if (ended && !flush) ended->archiver->leave();
}

void Archiving::stop_waiting() {
  if (named_) named_->cancel();
  if (auto now = writer()) now->archiver->stop_waiting(kStopWaitMax);
}

void Archiving::stop() {
  if (store_ != nullptr) {
    store_->set_archive_wait({});
    store_->set_older_states(nullptr);
  }
  follow(true);
}

}  // namespace offprint
