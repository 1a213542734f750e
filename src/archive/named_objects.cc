#include "archive/named_objects.h"

#include <algorithm>
#include <array>
#include <ranges>

#include <fmt/format.h>

#include "base/random.h"
#include "database/file_snapshot.h"
#include "ltx/checksum.h"
#include "ltx/file_stream.h"
#include "sqlite/connection.h"

namespace offprint::archive {
namespace {

constexpr std::size_t kWriteVersion = 18;  // in page 1, and the read version behind it
constexpr std::array<std::uint8_t, 2> kWal{2, 2};

// A state as the file that it is.
class StateBytes final : public ltx::ByteSource {
 public:
  explicit StateBytes(database::Snapshot& state) : state_(state) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    std::size_t got = 0;
    while (got < to.size()) {
      if (rest_.empty()) {
        if (next_ > state_.page_count()) break;
        OFFPRINT_TRY_ASSIGN(rest_, state_.page(next_));
        ++next_;
      }
      const std::size_t size = std::min(rest_.size(), to.size() - got);
      std::copy_n(rest_.begin(), size, to.begin() + static_cast<std::ptrdiff_t>(got));
      rest_ = rest_.subspan(size);
      got += size;
    }
    return got;
  }

 private:
  database::Snapshot& state_;
  PageNo next_ = 1;
  ByteView rest_;  // of the page before `next_`
};

bool is_segment(std::string_view text) {
  auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._@~-").contains(c);
  };
  return !text.empty() && text != "." && text != ".." && std::ranges::all_of(text, is_allowed);
}

bool is_key(std::string_view key) {
  for (;;) {
    const std::size_t slash = key.find('/');
    if (!is_segment(key.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return !key.ends_with(".tmp");
    key.remove_prefix(slash + 1);
  }
}

Result<> check_sound(sqlite::Connection& connection) {
  auto verdict = connection.query_text("PRAGMA quick_check(1)");
  if (verdict && *verdict == "ok") return {};
  return fail(Code::kInvalid, fmt::format("the object is no sound SQLite database: {}",
                                          verdict ? *verdict : verdict.error().message()));
}

}  // namespace

FetchedDatabase::~FetchedDatabase() {
  // With what SQLite left beside it.
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) (void)files_.remove(path_ + suffix);
}

Result<std::unique_ptr<database::Snapshot>> FetchedDatabase::state(std::uint32_t page_size) {
  {
    OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(path_, {}));
    OFFPRINT_TRY(check_sound(connection));
    OFFPRINT_TRY(connection.execute("PRAGMA journal_mode=DELETE"));
    OFFPRINT_TRY_ASSIGN(auto size, connection.query_int("PRAGMA page_size"));
    if (size != page_size)
      OFFPRINT_TRY(
          connection.execute(fmt::format("PRAGMA page_size={}; VACUUM", page_size).c_str()));
  }
  OFFPRINT_TRY_ASSIGN(auto file, files_.open(path_, FileSystem::Mode::kReadWrite));
  OFFPRINT_TRY(file->write_at(kWriteVersion, kWal));
  OFFPRINT_TRY_ASSIGN(std::uint64_t bytes, file->size());
  const auto page_count = static_cast<std::uint32_t>(bytes / page_size);
  Position position;
  const PageNo lock = ltx::lock_page(page_size);
  Bytes image(page_size);
  for (PageNo page = 1; page <= page_count; ++page) {
    if (page == lock) continue;
    OFFPRINT_TRY_ASSIGN(std::size_t got, file->read_at(std::uint64_t{page - 1} * page_size, image));
    if (got != image.size()) return fail(Code::kIo, "a fetched file became shorter");
    position.checksum = ltx::toggle(position.checksum, ltx::page_checksum(page, image));
  }
  return std::make_unique<database::FileSnapshot>(std::move(file), position, page_size, page_count);
}

Result<std::unique_ptr<NamedObjects>> NamedObjects::open(const std::vector<std::string>& urls,
                                                         std::string scratch) {
  std::unique_ptr<NamedObjects> named(new NamedObjects(std::move(scratch)));
  for (const std::string& url : urls) {
    OFFPRINT_TRY_ASSIGN(auto store, open_object_store(url));
    // Without the options of an S3 service.
    std::string place = url.substr(0, url.find('?'));
    if (!place.ends_with('/')) place += '/';
    named->places_.push_back({std::move(place), std::move(store)});
  }
  return named;
}

Result<NamedObjects::Found> NamedObjects::find(const std::string& url) const {
  for (const Place& place : places_) {
    if (!url.starts_with(place.url)) continue;
    std::string key = url.substr(place.url.size());
    if (!is_key(key)) {
      return fail(Code::kInvalid,
                  fmt::format("'{}' names no object: segments of letters, digits and ._@~-, with / "
                              "between them",
                              url));
    }
    return Found{place.store.get(), std::move(key)};
  }
  auto known = places_ | std::views::transform(&Place::url);
  return fail(Code::kForbidden,
              places_.empty()
                  ? "OBJECTS_NOT_ALLOWED: this server was started without --objects URL"
                  : fmt::format("OBJECTS_NOT_ALLOWED: objects of this server are below {}",
                                fmt::join(known, ", ")));
}

Result<> NamedObjects::put(const std::string& url, database::Snapshot& state) {
  OFFPRINT_TRY_ASSIGN(Found found, find(url));
  if (state.page_count() == 0) return fail(Code::kInvalid, "an empty database has no file");
  StateBytes bytes(state);
  OFFPRINT_TRY(found.store->put(found.key, bytes));
  return {};
}

Result<std::unique_ptr<FetchedDatabase>> NamedObjects::get(const std::string& url) {
  OFFPRINT_TRY_ASSIGN(Found found, find(url));
  FileSystem& files = FileSystem::real();
  OFFPRINT_TRY(files.create_directories(scratch_));
  std::array<std::uint8_t, 8> random;
  fill_random(random);
  auto fetched = std::make_unique<FetchedDatabase>(
      files, fmt::format("{}/object-{}.db", scratch_, to_hex(random)));
  OFFPRINT_TRY_ASSIGN(auto source, found.store->get(found.key));
  OFFPRINT_TRY_ASSIGN(auto file, files.open(fetched->path(), FileSystem::Mode::kCreateNew));
  ltx::FileSink sink(*file);
  OFFPRINT_TRY(ltx::copy_bytes(*source, sink));
  return fetched;
}

void NamedObjects::cancel() {
  for (const Place& place : places_) place.store->cancel();
}

}  // namespace offprint::archive
