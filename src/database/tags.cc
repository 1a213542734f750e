#include "database/tags.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "database/past_snapshot.h"
#include "ltx/checksum.h"
#include "ltx/file_stream.h"

namespace offprint::database {
namespace {

constexpr std::size_t kTagSizeMax = 63;

bool is_tag(std::string_view text) {
  auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !text.empty() && text.size() <= kTagSizeMax && is_plain(text.front()) &&
         std::ranges::all_of(
             text, [&](char c) { return is_plain(c) || c == '-' || c == '_' || c == '.'; });
}

}  // namespace

Result<> Tags::write(Snapshot& state, std::int64_t made_ms, ltx::ByteSink& sink) {
  ltx::Encoder encoder(sink);
  ltx::Header header;
  header.page_size = state.page_size();
  header.page_count = state.page_count();
  header.min_txid = TxId{1};
  header.max_txid = state.position().txid;
  header.timestamp_ms = made_ms;
  OFFPRINT_TRY(encoder.begin(header));
  const PageNo lock = ltx::lock_page(header.page_size);
  for (PageNo page = 1; page <= header.page_count; ++page) {
    if (page == lock) continue;
    OFFPRINT_TRY_ASSIGN(ByteView image, state.page(page));
    OFFPRINT_TRY(encoder.page(page, image));
  }
  OFFPRINT_TRY(encoder.finish(state.position().checksum));
  return {};
}

std::string Tags::file_name(std::uint64_t database_id, const std::string& tag) {
  return fmt::format("{:016x}-{}.ltx", database_id, tag);
}

std::string Tags::state_prefix(std::uint64_t database_id) {
  return fmt::format("{}{:x}/", kStateNames, database_id);
}

std::string Tags::state_name(std::uint64_t database_id, const std::string& tag) {
  return state_prefix(database_id) + tag;
}

std::string Tags::file_name_of_state(std::string_view state_name) {
  const std::size_t slash = state_name.find('/');
  if (!is_state_name(state_name) || slash == std::string_view::npos) return {};
  std::uint64_t id = 0;
  const std::string_view number = state_name.substr(1, slash - 1);
  auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), id, 16);
  const std::string tag(state_name.substr(slash + 1));
  if (error != std::errc() || end != number.data() + number.size() || !is_tag(tag)) return {};
  return file_name(id, tag);
}

Result<> Tags::check(const std::string& tag, const Snapshot& state) {
  if (!is_tag(tag)) {
    return fail(Code::kInvalid,
                "a tag is 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit first");
  }
  if (state.page_count() == 0)
    return fail(Code::kInvalid, "an empty database has no state to name");
  return {};
}

std::string Tags::file_of(std::uint64_t database_id, const std::string& tag) const {
  return folder() + "/" + file_name(database_id, tag);
}

Result<> Tags::start(const std::set<std::string>& states) {
  OFFPRINT_TRY_ASSIGN(auto tags, catalog_.all_tags());
  std::vector<std::string> known;
  for (const auto& [id, tag] : tags) {
    known.push_back(file_of(id, tag));
    if (states.contains(state_name(id, tag))) continue;
    OFFPRINT_TRY_ASSIGN(bool kept, files_.exists(known.back()));
    if (kept) continue;
    log::warn("tag '{}' of database {} is gone: {} is not there", tag, id, known.back());
    OFFPRINT_TRY(catalog_.remove_tag(id, tag));
  }
  OFFPRINT_TRY_ASSIGN(bool there, files_.exists(folder()));
  if (!there) return {};
  std::ranges::sort(known);
  OFFPRINT_TRY_ASSIGN(auto names, files_.list(folder()));
  for (const std::string& name : names) {
    std::string path = folder() + "/" + name;
    if (!std::ranges::binary_search(known, path)) OFFPRINT_TRY(files_.remove(path));
  }
  return {};
}

Result<TagInfo> Tags::add(std::uint64_t database_id, const std::string& tag, Snapshot& state) {
  std::lock_guard lock(mutex_);
  return add_one(database_id, tag, state);
}

Result<TagInfo> Tags::add_one(std::uint64_t database_id, const std::string& tag, Snapshot& state) {
  OFFPRINT_TRY(check(tag, state));
  if (find(database_id, tag)) return fail(Code::kConflict, fmt::format("tag '{}' exists", tag));
  OFFPRINT_TRY(files_.create_directories(folder()));
  OFFPRINT_TRY(files_.sync_directory(directory_));
  const std::string path = file_of(database_id, tag);
  const std::string unfinished = path + ".tmp";
  OFFPRINT_TRY(files_.remove(unfinished));
  TagInfo info;
  info.tag = tag;
  info.bookmark = state.position().bookmark();
  info.created_at_ms = unix_time_ms();
  auto written = [&]() -> Result<> {
    OFFPRINT_TRY_ASSIGN(auto file, files_.open(unfinished, FileSystem::Mode::kCreateNew));
    ltx::FileSink sink(*file);
    OFFPRINT_TRY(write(state, info.created_at_ms, sink));
    OFFPRINT_TRY(file->sync());
    OFFPRINT_TRY_ASSIGN(info.size_bytes, file->size());
    OFFPRINT_TRY(files_.rename(unfinished, path));
    OFFPRINT_TRY(files_.sync_directory(folder()));
    return catalog_.add_tag(database_id, info);
  }();
  if (!written) {
    (void)files_.remove(unfinished);
    return fail(std::move(written).error());
  }
  return info;
}

Result<> Tags::remove(std::uint64_t database_id, const std::string& tag) {
  std::lock_guard lock(mutex_);
  OFFPRINT_TRY_ASSIGN(TagInfo found, find(database_id, tag));
  OFFPRINT_TRY(catalog_.remove_tag(database_id, found.tag));
  return files_.remove(file_of(database_id, tag));
}

void Tags::remove_all(std::uint64_t database_id) {
  auto names = files_.list(folder());
  if (!names) return;  // there are none
  const std::string prefix = fmt::format("{:016x}-", database_id);
  for (const std::string& name : *names) {
    if (!name.starts_with(prefix)) continue;
    if (auto removed = files_.remove(folder() + "/" + name); !removed)
      log::warn("{}/{} stays until the next start: {}", folder(), name, removed.error().message());
  }
}

Result<TagInfo> Tags::find(std::uint64_t database_id, const std::string& tag) {
  OFFPRINT_TRY_ASSIGN(auto tags, catalog_.tags(database_id));
  auto found = std::ranges::find(tags, tag, &TagInfo::tag);
  if (found == tags.end()) return fail(Code::kNotFound, fmt::format("no tag '{}'", tag));
  return *found;
}

Result<std::unique_ptr<Snapshot>> Tags::open(std::uint64_t database_id, const TagInfo& tag) {
  const std::string path = file_of(database_id, tag.tag);
  OFFPRINT_TRY_ASSIGN(bool is_here, files_.exists(path));
  if (!is_here) {
    return fail(Code::kNotFound,
                fmt::format("TAG_NOT_HERE: this node does not have the state that tag '{}' names",
                            tag.tag));
  }
  OFFPRINT_TRY_ASSIGN(auto file, files_.open(path, FileSystem::Mode::kRead));
  ltx::FileSource source(std::shared_ptr<File>(std::move(file)));
  std::array<std::uint8_t, 8> random;
  fill_random(random);
  auto state = make_stored_snapshot(source, tag.bookmark, files_,
                                    fmt::format("{}-{}.tmp", path, to_hex(random)));
  if (!state) return fail(state.error().with_context(path));
  return state;
}

}  // namespace offprint::database
