#include "database/recovery.h"

#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

#include "ltx/checksum.h"
#include "sqlite/page_apply.h"

namespace offprint::database {
namespace {

// Calls visit(page, image) for every page of one record's transaction, then verifies the whole of
// it.
template <class Visit>
Result<> for_each_page(journal::Journal& journal, const journal::Location& location, Visit visit) {
  OFFPRINT_TRY_ASSIGN(auto source, journal.open_payload(location));
  ltx::Decoder decoder(*source);
  OFFPRINT_TRY(decoder.begin());
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
    if (!page) break;
    OFFPRINT_TRY(visit(page->number, page->content));
  }
  OFFPRINT_TRY(decoder.finish());
  return {};
}

}  // namespace

Result<> write_newest_images(sqlite::PageApplier& applier, std::uint32_t page_size,
                             std::uint32_t page_count, std::span<const journal::Location> records,
                             bool new_history, journal::Journal& journal) {
  std::unordered_map<PageNo, std::size_t>
      newest;  // page → index of the record with its newest image
  for (std::size_t i = 0; i < records.size(); ++i) {
    OFFPRINT_TRY(for_each_page(journal, records[i], [&](PageNo page, ByteView) -> Result<> {
      newest[page] = i;
      return {};
    }));
  }
  Bytes page_one;  // as it is, then as it becomes
  bool was_there = false;
  if (new_history) {
    page_one.resize(page_size);
    OFFPRINT_TRY_ASSIGN(was_there, applier.read(1, page_one));
  }
  std::uint32_t shown =
      was_there ? load_be<std::uint32_t>(page_one.data() + sqlite::kSchemaCookieOffset) : 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    OFFPRINT_TRY(for_each_page(journal, records[i], [&](PageNo page, ByteView image) -> Result<> {
      if (newest[page] != i || page > page_count) return {};
      if (page != 1 || !was_there) return applier.write(page, image);
      page_one.assign(image.begin(), image.end());
      return {};
    }));
  }
  if (!was_there) return {};
  std::uint32_t carried = load_be<std::uint32_t>(page_one.data() + sqlite::kSchemaCookieOffset);
  store_be<std::uint32_t>(page_one.data() + sqlite::kSchemaCookieOffset,
                          std::max(carried, shown + 1));
  return applier.write(1, page_one);
}

Result<bool> recover_file(const std::string& path, const char* vfs, const DatabaseState& state,
                          std::span<const journal::Location> records, bool new_history,
                          journal::Journal& journal) {
  sqlite::PageApplier::Options options;
  options.sync_full = true;
  options.vfs = vfs;
  OFFPRINT_TRY_ASSIGN(auto applier, sqlite::PageApplier::open(path, state.page_size, options));
  OFFPRINT_TRY(applier->begin());
  if (auto written = write_newest_images(*applier, state.page_size, state.page_count, records,
                                         new_history, journal);
      !written) {
    applier->rollback();
    return fail(std::move(written).error());
  }
  OFFPRINT_TRY(applier->commit(state.page_count));
  OFFPRINT_TRY_ASSIGN(auto checkpoint, applier->checkpoint(SQLITE_CHECKPOINT_PASSIVE));
  return !checkpoint.busy && checkpoint.done_frames == checkpoint.wal_frames;
}

}  // namespace offprint::database
