#include "archive/adopt.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "archive/chain.h"
#include "archive/limited_store.h"
#include "archive/node_layout.h"
#include "base/log.h"

namespace offprint::archive {
namespace {

// How SQLite would have made the file: what stands in its header.
Result<database::CreateOptions> options_of(FileSystem& files, const std::string& path) {
  OFFPRINT_TRY_ASSIGN(auto file, files.open(path, FileSystem::Mode::kRead));
  std::array<std::uint8_t, 100> header{};
  OFFPRINT_TRY(file->read_at(0, header));
  constexpr std::size_t kLargestRoot = 52, kEncoding = 56, kIncremental = 64;
  database::CreateOptions options;
  auto number = [&](std::size_t at) { return load_be<std::uint32_t>(header.data() + at); };
  if (number(kLargestRoot) != 0) options.auto_vacuum = number(kIncremental) != 0 ? 2 : 1;
  if (number(kEncoding) == 2) options.encoding = "UTF-16le";
  if (number(kEncoding) == 3) options.encoding = "UTF-16be";
  return options;
}

// What another program's archive is from now on: its transactions in a lineage of ours, up to the
// one that was restored.
Result<History> give_history(ObjectStore& objects, const std::string& prefix,
                             const database::DatabaseName& name, const Restored& restored) {
  OFFPRINT_TRY_ASSIGN(auto files, list_files(objects, prefix));
  TxId newest;
  for (const ArchivedFile& file : files) newest = std::max(newest, file.max_txid);
  if (newest != restored.txid) {
    return fail(Code::kConflict,
                fmt::format("{}/{} went on to transaction {} while it was restored: stop the "
                            "program that writes it first",
                            objects.url(), prefix, newest.value));
  }
  History history;
  history.database = name.text();
  history.parts.push_back({{Epoch{}, TxId{1}, Lineage::random()}, 0});
  history.head = {history.parts[0].from.lineage, Epoch{}, restored.txid, restored.checksum};
  history.head_ms = restored.timestamp_ms;
  const std::string text = history.text();
  ltx::BytesSource source(as_bytes(text));
  PutOptions options;
  options.if_absent = true;
  OFFPRINT_TRY(objects.put(prefix + kHistoryKey, source, options));
  log::info("{}/{} is the archive of database '{}' from transaction {} on", objects.url(), prefix,
            name.text(), restored.txid.value + 1);
  return history;
}

}  // namespace

Result<Bookmark> adopt_restored(database::Store& store, const database::DatabaseName& name,
                                const std::string& file, const Restored& restored,
                                const History& history, FileSystem& files) {
  OFFPRINT_TRY_ASSIGN(auto create, options_of(files, file));
  create.page_size = restored.page_size;
  create.foreign_keys = history.foreign_keys;
  OFFPRINT_TRY_ASSIGN(const Bookmark archived, history.bookmark_of(restored.txid));
  database::AdoptedFile adopted;
  adopted.path = file;
  adopted.position = {archived.lineage, database::epoch_after_loss(history.parts.back().from.epoch),
                      restored.txid, restored.checksum};
  adopted.page_size = restored.page_size;
  adopted.page_count = restored.page_count;
  adopted.timestamp_ms = restored.timestamp_ms;
  OFFPRINT_TRY(store.adopt_file(name, adopted, create));
  return adopted.position.bookmark();
}

Result<Bookmark> create_from_archive(ObjectStore& objects, database::Store& store,
                                     const database::DatabaseName& name, const std::string& scratch,
                                     const std::atomic<bool>* cancelled) {
  if (store.info(name))
    return fail(Code::kConflict, fmt::format("database '{}' exists already", name.text()));
  FileSystem& files = FileSystem::real();
  OFFPRINT_TRY(files.create_directories(scratch));
  std::string file = fmt::format("{}/restored-{}.db", scratch, name.text());
  std::ranges::replace(file.begin() + static_cast<std::ptrdiff_t>(scratch.size()) + 1, file.end(),
                       '/', '@');
  const std::string prefix = archive_prefix(name);
  // Cancelled, it leaves the store to its others.
  constexpr std::uint64_t kUnlimited = std::uint64_t{1} << 50;
  LimitedStore source(objects, kUnlimited);
  RestoreOptions options;
  options.replace = true;
  options.cancelled = cancelled;
  OFFPRINT_TRY_ASSIGN(const Restored restored,
                      restore_file(source, prefix, Newest{}, file, options));
  auto created = [&]() -> Result<Bookmark> {
    auto text = read_object(objects, prefix + kHistoryKey, kHistoryBytesMax);
    if (!text && text.error().code() != Code::kNotFound) return fail(text.error());
    auto history =
        text ? History::parse(as_text(*text)) : give_history(objects, prefix, name, restored);
    if (!history) return fail(history.error());
    return adopt_restored(store, name, file, restored, *history, files);
  }();
  if (!created) (void)files.remove(file);
  return created;
}

}  // namespace offprint::archive
