#include "database/recovery.h"

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

Result<bool> recover_file(const std::string& path, const char* vfs, const DatabaseState& state,
                          std::span<const journal::Location> records, journal::Journal& journal) {
  std::unordered_map<PageNo, std::size_t>
      newest;  // page → index of the record with its newest image
  for (std::size_t i = 0; i < records.size(); ++i) {
    OFFPRINT_TRY(for_each_page(journal, records[i], [&](PageNo page, ByteView) -> Result<> {
      newest[page] = i;
      return {};
    }));
  }
  sqlite::PageApplier::Options options;
  options.sync_full = true;
  options.vfs = vfs;
  OFFPRINT_TRY_ASSIGN(auto applier, sqlite::PageApplier::open(path, state.page_size, options));
  OFFPRINT_TRY(applier->begin());
  for (std::size_t i = 0; i < records.size(); ++i) {
    auto written = for_each_page(journal, records[i], [&](PageNo page, ByteView image) -> Result<> {
      if (newest[page] != i || page > state.page_count) return {};
      return applier->write(page, image);
    });
    if (!written) {
      applier->rollback();
      return fail(std::move(written).error());
    }
  }
  OFFPRINT_TRY(applier->commit(state.page_count));
  OFFPRINT_TRY_ASSIGN(auto checkpoint, applier->checkpoint(SQLITE_CHECKPOINT_PASSIVE));
  return !checkpoint.busy && checkpoint.done_frames == checkpoint.wal_frames;
}

}  // namespace offprint::database
