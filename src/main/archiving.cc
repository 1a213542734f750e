#include "main/archiving.h"

#include <array>

#include <fmt/format.h>

#include "base/log.h"
#include "base/random.h"

namespace offprint {
namespace {

constexpr int kRetentionDaysMax = 36'500;

// What the lease knows this node by, the same after a restart.
Result<std::string> owner_of(FileSystem& files, const std::string& data,
                             const std::string& node_name) {
  const std::string path = data + "/archive.owner";
  OFFPRINT_TRY_ASSIGN(bool exists, files.exists(path));
  if (!exists) {
    std::array<std::uint8_t, 16> random;
    fill_random(random);
    std::string text;
    for (std::uint8_t byte : random) text += fmt::format("{:02x}", byte);
    OFFPRINT_TRY(write_file_atomically(files, path, as_bytes(text)));
  }
  OFFPRINT_TRY_ASSIGN(Bytes id, read_file(files, path, 1024));
  return fmt::format("{} ({})", node_name, as_text(id));
}

}  // namespace

void add_archive_settings(Settings& settings, ArchiveOptions& options) {
  settings.add("archive", options.url,
               "URL of the archive of all databases: file:///FOLDER or s3://BUCKET/PREFIX");
  settings
      .add("archive_sync_ms", options.sync_ms,
           "transactions of so long go to the archive together; 0: each at once")
      ->check(CLI::Range(0, 3'600'000));
  settings
      .add("archive_retention_days", options.retention_days,
           "any moment of so long can be restored")
      ->check(CLI::Range(1, kRetentionDaysMax));
}

Result<> Archiving::start(const ArchiveOptions& options, const std::string& data,
                          database::Store& store, server::Service& service) {
  if (options.url.empty()) return {};
  if (service.has_copies())
    return fail(Code::kInvalid, "copies of another node's databases are archived there");
  OFFPRINT_TRY_ASSIGN(objects_, archive::open_object_store(options.url));
  OFFPRINT_TRY_ASSIGN(std::string owner,
                      owner_of(FileSystem::real(), data, service.options.node_name));
  archive::ArchiverOptions archiver;
  archiver.schedule.sync = std::chrono::milliseconds(options.sync_ms);
  archiver.schedule.retention = std::chrono::hours(24 * options.retention_days);
  archiver_ = std::make_unique<archive::Archiver>(*objects_, store, owner, archiver);
  OFFPRINT_TRY(archiver_->start());
  service.archive_status = [this] { return archiver_->status(); };
  return {};
}

void Archiving::stop() {
  if (archiver_) archiver_->stop();
}

}  // namespace offprint
