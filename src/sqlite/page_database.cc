#include "sqlite/page_database.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include <fmt/format.h>
#include <sqlite3.h>

#include "base/assert.h"
#include "base/log.h"

namespace offprint::sqlite {

// What the files of one database share.
struct PageDatabase::State {
  Content content;
  std::uint32_t counter = 0;  // of changes
};

// Registered as long as it lives; files that are not the database (sorters') are the default VFS's.
struct PageDatabase::Vfs {
  sqlite3_vfs base{};
  State state;
  std::string name;
};

namespace {

constexpr std::size_t kFormatOffset = 18;   // of page 1: write and read version, 1 without a -wal
constexpr std::size_t kCounterOffset = 24;  // of page 1: SQLite's cache is of the state with it

using State = PageDatabase::State;
using Content = PageDatabase::Content;

struct PageFile {
  sqlite3_file base;
  const State* state;
};

const State& state_of(sqlite3_file* file) { return *reinterpret_cast<PageFile*>(file)->state; }
const Content& content_of(sqlite3_file* file) { return state_of(file).content; }

// What SQLite is to see in page 1 instead of what is there.
void patch_header(const State& state, std::uint8_t* to, std::size_t begin, std::size_t size) {
  auto patch = [&](std::size_t at, std::uint8_t value) {
    if (at >= begin && at < begin + size) to[at - begin] = value;
  };
  patch(kFormatOffset, 1);
  patch(kFormatOffset + 1, 1);
  if (!state.content.changes) return;
  std::uint8_t counter[4];
  store_be<std::uint32_t>(counter, state.counter);
  for (std::size_t i = 0; i < sizeof counter; ++i) patch(kCounterOffset + i, counter[i]);
}

int close_pages(sqlite3_file*) noexcept { return SQLITE_OK; }

// SQLite reads whole pages, and some bytes of the first one.
int read_pages(sqlite3_file* file, void* to, int size, sqlite3_int64 offset) noexcept {
  const Content& content = content_of(file);
  const auto wanted = static_cast<std::size_t>(size);
  const auto page = static_cast<std::uint64_t>(offset) / content.page_size + 1;
  const auto begin = static_cast<std::uint64_t>(offset) % content.page_size;
  if (page > content.page_count || begin + wanted > content.page_size) {
    std::memset(to, 0, wanted);
    return SQLITE_IOERR_SHORT_READ;
  }
  auto image = content.read(static_cast<std::uint32_t>(page));
  if (!image || image->size() != content.page_size) {
    log::warn("page {} of an earlier state: {}", page,
              image ? "it has another size" : image.error().message());
    return SQLITE_IOERR_READ;
  }
  std::memcpy(to, image->data() + begin, wanted);
  if (page == 1) patch_header(state_of(file), static_cast<std::uint8_t*>(to), begin, wanted);
  return SQLITE_OK;
}

int size_of_pages(sqlite3_file* file, sqlite3_int64* size) noexcept {
  const Content& content = content_of(file);
  *size = std::int64_t{content.page_size} * content.page_count;
  return SQLITE_OK;
}

int refuse_write(sqlite3_file*, const void*, int, sqlite3_int64) noexcept {
  return SQLITE_READONLY;
}
int refuse_truncate(sqlite3_file*, sqlite3_int64) noexcept { return SQLITE_READONLY; }
int sync_nothing(sqlite3_file*, int) noexcept { return SQLITE_OK; }
int lock_nothing(sqlite3_file*, int) noexcept { return SQLITE_OK; }
int nobody_writes(sqlite3_file*, int* reserved) noexcept {
  *reserved = 0;
  return SQLITE_OK;
}
int no_control(sqlite3_file*, int, void*) noexcept { return SQLITE_NOTFOUND; }
int sector_size(sqlite3_file*) noexcept { return 0; }
int characteristics(sqlite3_file* file) noexcept {
  return content_of(file).changes ? 0 : SQLITE_IOCAP_IMMUTABLE;
}

const sqlite3_io_methods kMethods = {1,
                                     close_pages,
                                     read_pages,
                                     refuse_write,
                                     refuse_truncate,
                                     sync_nothing,
                                     size_of_pages,
                                     lock_nothing,
                                     lock_nothing,
                                     nobody_writes,
                                     no_control,
                                     sector_size,
                                     characteristics,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr};

sqlite3_vfs* default_vfs() {
  static sqlite3_vfs* const found = sqlite3_vfs_find(nullptr);
  return found;
}

int open_pages(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
               int* out_flags) noexcept {
  if ((flags & SQLITE_OPEN_MAIN_DB) == 0)
    return default_vfs()->xOpen(default_vfs(), name, file, flags, out_flags);
  auto* pages = reinterpret_cast<PageFile*>(file);
  pages->base.pMethods = &kMethods;
  pages->state = static_cast<const State*>(vfs->pAppData);
  if (out_flags != nullptr) *out_flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB;
  return SQLITE_OK;
}

int never_there(sqlite3_vfs*, const char*, int, int* there) noexcept {
  *there = 0;
  return SQLITE_OK;
}

int same_path(sqlite3_vfs*, const char* name, int size, char* to) noexcept {
  sqlite3_snprintf(size, to, "%s", name);
  return SQLITE_OK;
}

}  // namespace

PageDatabase::PageDatabase(Content content) : vfs_(std::make_unique<Vfs>()) {
  static std::atomic<std::uint64_t> count = 0;
  vfs_->state.content = std::move(content);
  vfs_->name = fmt::format("offprint-pages-{}", ++count);
  vfs_->base = *default_vfs();
  vfs_->base.pNext = nullptr;
  vfs_->base.szOsFile = std::max(default_vfs()->szOsFile, static_cast<int>(sizeof(PageFile)));
  vfs_->base.zName = vfs_->name.c_str();
  vfs_->base.pAppData = &vfs_->state;
  vfs_->base.xOpen = open_pages;
  vfs_->base.xAccess = never_there;
  vfs_->base.xFullPathname = same_path;
  OFFPRINT_ASSERT(sqlite3_vfs_register(&vfs_->base, 0) == SQLITE_OK);
}

PageDatabase::~PageDatabase() { sqlite3_vfs_unregister(&vfs_->base); }

void PageDatabase::changed(std::uint32_t page_count) {
  OFFPRINT_ASSERT(vfs_->state.content.changes);
  vfs_->state.content.page_count = page_count;
  ++vfs_->state.counter;
}

const char* PageDatabase::vfs() const { return vfs_->name.c_str(); }

}  // namespace offprint::sqlite
