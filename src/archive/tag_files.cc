#include "archive/tag_files.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "archive/chain.h"
#include "archive/node_layout.h"
#include "database/past_snapshot.h"
#include "database/tags.h"
#include "ltx/file_stream.h"
#include "sqlite/connection.h"

namespace offprint::archive {
namespace {

constexpr std::string_view kSuffix = ".ltx";

// A tag that is dropped and made again has a file of the same name, and another key.
std::string key_of(std::string_view file_name, std::int64_t timestamp_ms) {
  file_name.remove_suffix(kSuffix.size());
  return fmt::format("{}{}.{:016x}{}", kTagsPrefix, file_name,
                     static_cast<std::uint64_t>(timestamp_ms), kSuffix);
}

Result<ltx::Header> header_of(File& file) {
  Bytes head(ltx::kHeaderSize);
  OFFPRINT_TRY_ASSIGN(std::size_t size, file.read_at(0, head));
  head.resize(size);
  ltx::BytesSource source(head);
  return ltx::Decoder(source).begin();
}

struct NamedTag {
  std::string file_name;
  std::string tag;
  Bookmark bookmark;
};

Result<std::vector<NamedTag>> read_tags(const std::string& catalog_file) {
  std::vector<NamedTag> tags;
  OFFPRINT_TRY_ASSIGN(auto catalog, sqlite::Connection::open(catalog_file, {}));
  OFFPRINT_TRY_ASSIGN(auto has_tags,
                      catalog.query_int("SELECT count(*) FROM sqlite_schema WHERE name = 'tags'"));
  if (has_tags == 0) return tags;  // of an earlier version
  OFFPRINT_TRY_ASSIGN(auto select, catalog.prepare("SELECT database_id, tag, bookmark FROM tags"));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool found, select.step());
    if (!found) return tags;
    std::string tag(select.column_text(1));
    auto bookmark = Bookmark::parse(select.column_text(2));
    if (!bookmark) continue;
    const auto id = static_cast<std::uint64_t>(select.column_int(0));
    tags.push_back({database::Tags::file_name(id, tag), tag, *bookmark});
  }
}

// Proven: what comes is not what it should be, or is.
Result<> fetch(ObjectStore& objects, FileSystem& files, const std::string& key, const NamedTag& tag,
               const std::string& unfinished) {
  OFFPRINT_TRY(files.remove(unfinished));
  OFFPRINT_TRY_ASSIGN(std::shared_ptr<File> file,
                      files.open(unfinished, FileSystem::Mode::kCreateNew));
  OFFPRINT_TRY_ASSIGN(auto object, objects.get(key));
  ltx::FileSink sink(*file);
  Bytes piece(1 << 20);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(std::size_t size, object->read(piece));
    if (size == 0) break;
    OFFPRINT_TRY(sink.write(ByteView(piece).first(size)));
  }
  OFFPRINT_TRY(file->sync());
  ltx::FileSource source(file);
  auto state = database::make_stored_snapshot(source, tag.bookmark, files, unfinished + ".pages");
  if (!state) return fail(state.error().with_context(key));
  return {};
}

}  // namespace

// --- into the archive

Result<> TagFiles::list_objects() {
  if (known_) return {};
  OFFPRINT_TRY_ASSIGN(auto listed, objects_.list(kTagsPrefix));
  known_.emplace();
  for (const ObjectInfo& object : listed) (*known_)[object.key] = {object.timestamp_ms, false};
  return {};
}

Result<> TagFiles::list_local() {
  local_.clear();
  list_states();
  OFFPRINT_TRY_ASSIGN(bool there, files_.exists(folder_));
  if (!there) return {};
  OFFPRINT_TRY_ASSIGN(auto names, files_.list(folder_));
  for (const std::string& name : names) {
    if (!name.ends_with(kSuffix)) continue;  // it is being written
    auto file = files_.open(folder_ + "/" + name, FileSystem::Mode::kRead);
    if (!file && file.error().code() == Code::kNotFound) continue;  // dropped just now
    if (!file) return fail(file.error());
    auto header = header_of(**file);
    if (!header) return fail(header.error().with_context(folder_ + "/" + name));
    local_[key_of(name, header->timestamp_ms)] = {name};
  }
  return {};
}

void TagFiles::list_states() {
  for (const auto& info : store_.list(std::string(1, database::kStateNames), "",
                                      std::numeric_limits<std::size_t>::max())) {
    const std::string name = database::Tags::file_name_of_state(info.name);
    if (name.empty() || info.page_count == 0) continue;  // it is being filled
    local_[key_of(name, info.created_at_ms)] = {name, info.id, info.created_at_ms};
  }
}

// kNotFound: it was dropped just now.
Result<std::shared_ptr<File>> TagFiles::open(const Local& local) {
  if (!local.database) {
    OFFPRINT_TRY_ASSIGN(auto file,
                        files_.open(folder_ + "/" + local.file_name, FileSystem::Mode::kRead));
    return std::shared_ptr<File>(std::move(file));
  }
  OFFPRINT_TRY_ASSIGN(auto state, store_.snapshot(*local.database));
  OFFPRINT_TRY(files_.create_directories(folder_));
  const std::string unfinished = folder_ + "/archived.tmp";
  OFFPRINT_TRY(files_.remove(unfinished));
  OFFPRINT_TRY_ASSIGN(auto file, files_.open(unfinished, FileSystem::Mode::kCreateNew));
  OFFPRINT_TRY(files_.remove(unfinished));  // it lives as long as it is open
  ltx::FileSink sink(*file);
  OFFPRINT_TRY(database::Tags::write(*state, local.made_ms, sink));
  return std::shared_ptr<File>(std::move(file));
}

Result<std::optional<ObjectInfo>> TagFiles::put(const std::string& key, const Local& local) {
  auto file = open(local);
  if (!file && file.error().code() == Code::kNotFound) return std::nullopt;
  if (!file) return fail(file.error());
  ltx::FileSource source(*std::move(file));
  OFFPRINT_TRY_ASSIGN(ObjectInfo put, objects_.put(key, source));
  return put;
}

Result<> TagFiles::put_new() {
  OFFPRINT_TRY(list_local());
  if (local_.empty() && known_ && known_->empty()) return {};
  OFFPRINT_TRY(list_objects());
  for (const auto& [key, local] : local_) {
    if (auto known = known_->find(key); known != known_->end()) {
      known->second.is_local = true;
      continue;
    }
    OFFPRINT_TRY_ASSIGN(auto done, put(key, local));
    if (done) (*known_)[key] = {done->timestamp_ms, true};
  }
  return {};
}

Result<> TagFiles::remove_dropped(std::int64_t before_ms) {
  if (!known_) return {};
  std::vector<std::string> gone;
  for (const auto& [key, known] : *known_) {
    const bool is_over = known.is_local || (known.put_ms != 0 && known.put_ms < before_ms);
    if (!local_.contains(key) && is_over) gone.push_back(key);
  }
  if (gone.empty()) return {};
  OFFPRINT_TRY(objects_.remove(gone));
  for (const std::string& key : gone) known_->erase(key);
  return {};
}

// --- and back

Result<std::vector<std::string>> fetch_tag_files(ObjectStore& objects, FileSystem& files,
                                                 const std::string& catalog_file,
                                                 const std::string& folder,
                                                 const std::string& scratch) {
  std::vector<std::string> left_out;
  OFFPRINT_TRY_ASSIGN(auto tags, read_tags(catalog_file));
  if (tags.empty()) return left_out;
  OFFPRINT_TRY_ASSIGN(auto listed, objects.list(kTagsPrefix));
  OFFPRINT_TRY(files.create_directories(folder));
  const std::string unfinished = scratch + "/tag.ltx";
  for (const NamedTag& tag : tags) {
    const std::string stem = tag.file_name.substr(0, tag.file_name.size() - kSuffix.size());
    const std::size_t size = key_of(tag.file_name, 0).size();
    const std::string begin = fmt::format("{}{}.", kTagsPrefix, stem);
    const ObjectInfo* newest = nullptr;
    for (const ObjectInfo& object : listed) {
      if (object.key.size() == size && object.key.starts_with(begin)) newest = &object;
    }
    Result<> fetched = fail(Code::kNotFound, "the archive does not have it");
    if (newest != nullptr) fetched = fetch(objects, files, newest->key, tag, unfinished);
    if (!fetched) {
      const Code code = fetched.error().code();
      if (code != Code::kNotFound && code != Code::kCorrupt && code != Code::kInvalid)
        return fail(std::move(fetched).error());
      left_out.push_back(fmt::format("{}: {}", tag.tag, fetched.error().message()));
      continue;
    }
    OFFPRINT_TRY(files.rename(unfinished, folder + "/" + tag.file_name));
  }
  OFFPRINT_TRY(files.remove(unfinished));
  OFFPRINT_TRY(files.sync_directory(folder));
  return left_out;
}

}  // namespace offprint::archive
