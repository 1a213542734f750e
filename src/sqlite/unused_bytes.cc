#include "sqlite/unused_bytes.h"

#include <algorithm>
#include <vector>

#include "sqlite/btree_page.h"
#include "sqlite/capture_state.h"

namespace offprint::sqlite {
namespace {

constexpr std::size_t kPageCountOffset = 28, kFreeTrunkOffset = 32, kFreeCountOffset = 36,
                      kAutoVacuumOffset = 52;  // in page 1
// Below, no page that is not of a b-tree begins as one does: with the number of a page.
constexpr std::uint32_t kPagesMax = 0x0200'0000;

}  // namespace

Result<UnusedBytes> UnusedBytes::open(Connection& connection) {
  OFFPRINT_TRY_ASSIGN(auto select,
                      connection.prepare("SELECT data FROM sqlite_dbpage WHERE pgno=?1",
                                         SQLITE_PREPARE_PERSISTENT));
  OFFPRINT_TRY_ASSIGN(auto update,
                      connection.prepare("UPDATE sqlite_dbpage SET data=?2 WHERE pgno=?1",
                                         SQLITE_PREPARE_PERSISTENT));
  return UnusedBytes(connection, std::move(select), std::move(update));
}

// False: there is no such page.
Result<bool> UnusedBytes::read(std::uint32_t page) {
  select_.bind(1, std::int64_t{page});
  auto found = select_.step();
  if (found && *found) {
    ByteView image = select_.column_blob(0);
    image_.assign(image.begin(), image.end());
  }
  select_.reset();
  return found;
}

Result<> UnusedBytes::write(std::uint32_t page) {
  update_.bind(1, std::int64_t{page});
  update_.bind_blob_borrowed(2, image_);
  return update_.run();
}

Result<> UnusedBytes::clear() {
  // Pages that were changed are written to the -wal, where the capture sees which they are. The
  // first one is in use and stays.
  if (int code = sqlite3_db_cacheflush(connection_->handle()); code != SQLITE_OK)
    return fail(sqlite_error(code, connection_->handle()));
  int is_defensive = 0;
  sqlite3_db_config(connection_->handle(), SQLITE_DBCONFIG_DEFENSIVE, -1, &is_defensive);
  sqlite3_db_config(connection_->handle(), SQLITE_DBCONFIG_DEFENSIVE, 0, nullptr);
  auto cleared = clear_pages();
  sqlite3_db_config(connection_->handle(), SQLITE_DBCONFIG_DEFENSIVE, is_defensive, nullptr);
  return cleared;
}

// Free pages are zeros, unless they were in use until a rollback to a savepoint. image_: the first
// page. True: one was written.
Result<bool> UnusedBytes::clear_free(std::span<const std::uint32_t> written) {
  std::uint32_t trunk = load_be<std::uint32_t>(image_.data() + kFreeTrunkOffset);
  // Each is there once; what has more, or another number of leaves, is damaged.
  std::uint32_t left = load_be<std::uint32_t>(image_.data() + kFreeCountOffset);
  bool is_dirty = false;
  Bytes leaves;
  for (; trunk != 0 && left > 0; --left) {
    OFFPRINT_TRY_ASSIGN(bool is_there, read(trunk));
    if (!is_there) return fail(Code::kCorrupt, "the list of free pages ends nowhere");
    leaves = image_;
    trunk = load_be<std::uint32_t>(leaves.data());
    const std::uint32_t count = load_be<std::uint32_t>(leaves.data() + 4);
    if (count > leaves.size() / 4 - 2)
      return fail(Code::kCorrupt, "a page of the list of free pages has too many");
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto page = load_be<std::uint32_t>(leaves.data() + 8 + 4 * std::size_t{i});
      if (!std::ranges::binary_search(written, page)) continue;
      OFFPRINT_TRY_ASSIGN(is_there, read(page));
      const bool is_clear = std::ranges::none_of(image_, [](auto byte) { return byte != 0; });
      if (!is_there || is_clear) continue;
      std::ranges::fill(image_, std::uint8_t{0});
      OFFPRINT_TRY(write(page));
      is_dirty = true;
    }
  }
  return is_dirty;
}

Result<> UnusedBytes::clear_pages() {
  OFFPRINT_TRY_ASSIGN(bool is_there, read(1));
  if (!is_there) return {};
  const std::uint32_t usable = usable_size(image_);
  const bool is_told_apart = load_be<std::uint32_t>(image_.data() + kAutoVacuumOffset) == 0 &&
                             load_be<std::uint32_t>(image_.data() + kPageCountOffset) < kPagesMax;
  if (!is_told_apart) return {};
  OFFPRINT_TRY_ASSIGN(bool first_had, clear_unused(image_, 1, usable));
  if (first_had) OFFPRINT_TRY(write(1));
  const CaptureState* state = capture_state(*connection_);
  const auto pages = state == nullptr ? std::vector<std::uint32_t>() : state->written_pages();
  bool is_dirty = first_had;
  if (!pages.empty()) {
    OFFPRINT_TRY_ASSIGN(is_dirty, clear_free(pages));
    is_dirty = is_dirty || first_had;
  }
  std::uint32_t last = 0;
  for (const std::uint32_t page : pages) {
    if (page == 1) continue;
    OFFPRINT_TRY_ASSIGN(is_there, read(page));
    if (!is_there) continue;
    last = page;
    if (!BtreePage::is_one(image_, page)) continue;
    OFFPRINT_TRY_ASSIGN(bool had, clear_unused(image_, page, usable));
    if (had) OFFPRINT_TRY(write(page));
    is_dirty = is_dirty || had;
  }
  // A commit in which nothing is left to write would write the first page.
  if (is_dirty || last == 0) return {};
  OFFPRINT_TRY_ASSIGN(is_there, read(last));
  return is_there ? write(last) : Result<>();
}

}  // namespace offprint::sqlite
