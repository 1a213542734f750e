#include "archive/restore.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "archive/chain.h"
#include "archive/database_output.h"
#include "archive/history.h"
#include "archive/merged_checksums.h"
#include "archive/read_ahead.h"
#include "ltx/checksum.h"
#include "ltx/merge.h"

namespace offprint::archive {
namespace {

// Objects that vanish between the list and their turn were compacted: a new list has others.
constexpr int kAttempts = 3;

class FileEnd final : public ltx::ByteSink, public ltx::ByteSource {
 public:
  explicit FileEnd(std::unique_ptr<File> file) : file_(std::move(file)) {}
  Result<> write(ByteView bytes) override {
    OFFPRINT_TRY(file_->write_at(std::exchange(offset_, offset_ + bytes.size()), bytes));
    return {};
  }
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    OFFPRINT_TRY_ASSIGN(const std::size_t got, file_->read_at(offset_, to));
    offset_ += got;
    return got;
  }

 private:
  std::unique_ptr<File> file_;
  std::uint64_t offset_ = 0;
};

// A file to be merged: an object, or what several of them were merged into.
struct Part {
  std::string name;
  TxId min_txid, max_txid;
  std::string local;  // empty: the object `name`
  Checksum expected;  // of the database after it; of objects it stands in the file
};

struct OpenParts {
  std::vector<std::unique_ptr<ltx::ByteSource>> sources;
  MergedChecksums checksums;
  ltx::Merge merge{checksums};
};

class Restore {
 public:
  Restore(ObjectStore& store, const std::string& prefix, const RestoreTarget& target,
          const std::string& output_file, const RestoreOptions& options)
      : store_(store),
        prefix_(prefix),
        target_(target),
        options_(options),
        files_(*options.files),
        path_(output_file) {}
  ~Restore() { remove_temporaries(); }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

  Result<Restored> run();
  Result<Bookmark> find();

 private:
  Result<Restored> attempt();
  Result<> read_history();
  Result<TxId> choose(const Chain& chain);
  Result<TxId> choose_time(const Chain& chain, std::int64_t unix_ms);
  Result<> check_reach(TxId reached, TxId wanted) const;
  Result<std::int64_t> time_of(const ArchivedFile& file);

  Result<std::vector<Part>> merge_some(std::vector<Part> parts);
  Result<Part> merge_into_file(std::span<const Part> parts);
  Result<std::unique_ptr<OpenParts>> open(std::span<const Part> parts);
  Result<Restored> write(const std::vector<Part>& parts);
  Result<> write_pages(ltx::Merge& merge, DatabaseOutput& output);
  Result<> prove(const OpenParts& opened, const std::vector<Part>& parts, Restored& restored) const;
  Result<> check_cancelled() const;
  void remove_temporaries();

  ObjectStore& store_;
  const std::string& prefix_;
  const RestoreTarget& target_;
  const RestoreOptions& options_;
  FileSystem& files_;
  const std::string& path_;
  std::optional<History> history_;
  std::atomic<bool> vanished_{false};
  std::vector<std::string> temporaries_;
};

// What merging says of inputs that fit badly is damage here.
Error as_damage(Error error) {
  return error.code() == Code::kInvalid ? Error(Code::kCorrupt, error.message()) : error;
}

// The checksum of the database after an input, if the file or we know it; after the merge's end.
Checksum expected_after(const ltx::Merge& merge, std::size_t input, const Part& part) {
  const ltx::Header& header = merge.header(input);
  if (!part.local.empty()) return part.expected;
  if (header.tracks_checksum()) return merge.trailer(input).post_apply;
  // docs/format/archive.md: what Offprint writes has it here, others leave zeros.
  if ((header.node_id & ltx::kChecksumFlag) != 0) return Checksum{header.node_id};
  return {};
}

Result<> Restore::check_cancelled() const {
  if (options_.cancelled == nullptr || !*options_.cancelled) return {};
  store_.cancel();
  return fail(Code::kUnavailable, "cancelled");
}

void Restore::remove_temporaries() {
  for (const std::string& path : std::exchange(temporaries_, {})) (void)files_.remove(path);
}

Result<> Restore::read_history() {
  history_.reset();
  const std::string key = prefix_ + kHistoryKey;
  auto text = read_object(store_, key, kHistoryBytesMax);
  if (!text) {
    if (text.error().code() == Code::kNotFound) return {};
    return fail(std::move(text).error());
  }
  auto parsed = History::parse(as_text(*text));
  if (!parsed) return fail(parsed.error().with_context(fmt::format("{}/{}", store_.url(), key)));
  history_ = *std::move(parsed);
  return {};
}

Result<std::int64_t> Restore::time_of(const ArchivedFile& file) {
  OFFPRINT_TRY(check_cancelled());
  auto header = read_header(store_, file.key);
  if (!header) {
    vanished_ = header.error().code() == Code::kNotFound;
    return fail(std::move(header).error());
  }
  return header->timestamp_ms;
}

// The archive has promised the transaction `wanted`.
Result<> Restore::check_reach(TxId reached, TxId wanted) const {
  if (!history_ || wanted > history_->head.txid || reached >= wanted) return {};
  return fail(Code::kCorrupt,
              fmt::format("the archive must reach transaction {}, but objects after "
                          "transaction {} are missing",
                          history_->head.txid.value, reached.value));
}

Result<TxId> Restore::choose_time(const Chain& chain, std::int64_t unix_ms) {
  OFFPRINT_TRY_ASSIGN(const TxId found, chain.at_time(unix_ms, [&](const ArchivedFile& file) {
    return time_of(file);
  }));
  if (history_ && history_->head_ms <= unix_ms)
    OFFPRINT_TRY(check_reach(found, history_->head.txid));
  return found;
}

Result<TxId> Restore::choose(const Chain& chain) {
  if (const auto* at = std::get_if<AtTime>(&target_)) return choose_time(chain, at->unix_ms);
  TxId wanted = chain.newest();
  if (const auto* txid = std::get_if<TxId>(&target_)) wanted = *txid;
  if (std::holds_alternative<Newest>(target_) && history_)
    wanted = std::max(wanted, history_->head.txid);
  if (const auto* bookmark = std::get_if<Bookmark>(&target_)) {
    wanted = bookmark->txid;
    if (!history_) {
      return fail(
          Code::kNotFound,
          "the archive has no history, so bookmarks mean nothing there; give a transaction's "
          "number or a time");
    }
    if (!history_->holds(*bookmark))
      return fail(Code::kNotFound,
                  fmt::format("{} is no bookmark of this archive's history", bookmark->text()));
  }
  OFFPRINT_TRY(check_reach(chain.newest(), wanted));
  return wanted;
}

Result<std::unique_ptr<OpenParts>> Restore::open(std::span<const Part> parts) {
  auto opened = std::make_unique<OpenParts>();
  std::vector<ltx::MergeInput> inputs;
  for (const Part& part : parts) {
    if (part.local.empty()) {
      opened->sources.push_back(
          std::make_unique<ReadAhead>(store_, part.name, options_.cancelled, vanished_));
    } else {
      OFFPRINT_TRY_ASSIGN(auto file, files_.open(part.local, FileSystem::Mode::kRead));
      opened->sources.push_back(std::make_unique<FileEnd>(std::move(file)));
    }
    inputs.push_back({opened->sources.back().get(), part.name});
  }
  auto begun = opened->merge.open(inputs);
  // Files that do not follow each other are not what their names say: that is the better message.
  for (std::size_t i = 0; i < opened->merge.size(); ++i) {
    const ltx::Header& header = opened->merge.header(i);
    if (header.page_size == 0) break;  // not read
    if (header.min_txid != parts[i].min_txid || header.max_txid != parts[i].max_txid) {
      return fail(Code::kCorrupt,
                  fmt::format("{}: holds transactions {} to {}, not what its name says",
                              parts[i].name, header.min_txid.value, header.max_txid.value));
    }
  }
  if (!begun) return fail(as_damage(begun.error()));
  opened->checksums.begin(opened->merge);
  return opened;
}

Result<Part> Restore::merge_into_file(std::span<const Part> parts) {
  OFFPRINT_TRY_ASSIGN(auto opened, open(parts));
  Part merged{.name = fmt::format("{} to {}", parts.front().name, parts.back().name),
              .min_txid = parts.front().min_txid,
              .max_txid = parts.back().max_txid,
              .local = fmt::format("{}-restore-{}-{}", path_, parts.front().min_txid.value,
                                   parts.back().max_txid.value),
              .expected = {}};
  OFFPRINT_TRY(files_.remove(merged.local));
  OFFPRINT_TRY_ASSIGN(auto file, files_.open(merged.local, FileSystem::Mode::kCreateNew));
  temporaries_.push_back(merged.local);
  FileEnd sink(std::move(file));
  auto trailer = ltx::compact(opened->merge, {.flags = ltx::kNoChecksumFlag}, sink);
  if (!trailer) return fail(as_damage(trailer.error()));
  merged.expected = expected_after(opened->merge, parts.size() - 1, parts.back());
  return merged;
}

// Fewer parts: all but the first, which is a snapshot, in groups.
Result<std::vector<Part>> Restore::merge_some(std::vector<Part> parts) {
  std::vector<Part> fewer = {parts.front()};
  for (std::size_t begin = 1; begin < parts.size(); begin += kMergeFilesMax) {
    const auto group =
        std::span(parts).subspan(begin, std::min(kMergeFilesMax, parts.size() - begin));
    if (group.size() == 1) {
      fewer.push_back(group.front());
      continue;
    }
    OFFPRINT_TRY_ASSIGN(Part merged, merge_into_file(group));
    fewer.push_back(std::move(merged));
    for (const Part& part : group) {
      if (!part.local.empty()) OFFPRINT_TRY(files_.remove(part.local));
    }
  }
  return fewer;
}

Result<> Restore::write_pages(ltx::Merge& merge, DatabaseOutput& output) {
  const std::uint32_t total = merge.last().page_count;
  std::uint32_t done = 0;
  Bytes first_page;
  for (;;) {
    OFFPRINT_TRY(check_cancelled());
    OFFPRINT_TRY_ASSIGN(const auto page, merge.next());
    if (!page) return {};
    ByteView image = page->content;
    if (page->number == 1 && options_.journal_mode != RestoreOptions::JournalMode::kAsArchived) {
      first_page.assign(image.begin(), image.end());
      first_page[18] = first_page[19] =
          options_.journal_mode == RestoreOptions::JournalMode::kWal ? 2 : 1;
      image = first_page;
    }
    OFFPRINT_TRY(output.put(page->number, image));
    ++done;
    if (options_.progress && (done % 64 == 0 || done == total)) options_.progress(done, total);
  }
}

Result<> Restore::prove(const OpenParts& opened, const std::vector<Part>& parts,
                        Restored& restored) const {
  const std::vector<Checksum> sums = opened.checksums.finish();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Checksum expected = expected_after(opened.merge, i, parts[i]);
    if (expected.value == 0) continue;
    if (sums[i] != expected) {
      return fail(Code::kCorrupt, fmt::format("{}: the database after it adds up to checksum "
                                              "{:016x}, not {:016x}",
                                              parts[i].name, sums[i].value, expected.value));
    }
    restored.proven = i + 1 == parts.size();
  }
  restored.checksum = sums.back();
  if (history_ && history_->head.txid == restored.txid && history_->head.checksum.value != 0) {
    if (history_->head.checksum != restored.checksum) {
      return fail(Code::kCorrupt, fmt::format("{}: the database after it adds up to checksum "
                                              "{:016x}, the archive's history says {:016x}",
                                              parts.back().name, restored.checksum.value,
                                              history_->head.checksum.value));
    }
    restored.proven = true;
  }
  return {};
}

Result<Restored> Restore::write(const std::vector<Part>& parts) {
  OFFPRINT_TRY_ASSIGN(auto opened, open(parts));
  const ltx::Header& last = opened->merge.last();
  if (last.page_count == 0) {
    return fail(Code::kNotFound,
                fmt::format("the database was deleted by transaction {}", last.max_txid.value));
  }
  Restored restored;
  restored.txid = last.max_txid;
  restored.timestamp_ms = last.timestamp_ms;
  restored.page_size = last.page_size;
  restored.page_count = last.page_count;
  DatabaseOutput output(files_, path_);
  OFFPRINT_TRY(output.open(last.page_size));
  OFFPRINT_TRY(write_pages(opened->merge, output));
  OFFPRINT_TRY(opened->merge.finish());
  OFFPRINT_TRY(prove(*opened, parts, restored));
  OFFPRINT_TRY(check_cancelled());
  OFFPRINT_TRY(output.publish(last.page_count, options_.replace));
  return restored;
}

Result<Restored> Restore::attempt() {
  OFFPRINT_TRY(check_cancelled());
  // Before the list: what the history promises was there by then.
  OFFPRINT_TRY(read_history());
  OFFPRINT_TRY_ASSIGN(auto listed, list_files(store_, prefix_));
  const Chain chain(std::move(listed));
  if (chain.newest().value == 0 && !history_) {
    return fail(Code::kNotFound,
                fmt::format("{}: no archive of a database is there",
                            prefix_.empty() ? store_.url() : store_.url() + "/" + prefix_));
  }
  OFFPRINT_TRY_ASSIGN(const TxId wanted, choose(chain));
  OFFPRINT_TRY_ASSIGN(const std::vector<ArchivedFile> files, chain.files_to(wanted));
  std::vector<Part> parts;
  std::uint64_t bytes = 0;
  for (const ArchivedFile& file : files) {
    parts.push_back({file.key, file.min_txid, file.max_txid, "", {}});
    bytes += file.size;
  }
  while (parts.size() > kMergeFilesMax) {
    OFFPRINT_TRY_ASSIGN(parts, merge_some(std::move(parts)));
  }
  OFFPRINT_TRY_ASSIGN(Restored restored, write(parts));
  restored.files = files.size();
  restored.bytes = bytes;
  if (history_) {
    if (auto bookmark = history_->bookmark_of(restored.txid)) restored.bookmark = *bookmark;
  }
  return restored;
}

Result<Restored> Restore::run() {
  OFFPRINT_TRY(DatabaseOutput::check(files_, path_, options_.replace));
  for (int i = 1;; ++i) {
    vanished_ = false;
    auto restored = attempt();
    remove_temporaries();
    if (restored || !vanished_ || i == kAttempts) return restored;
  }
}

Result<Bookmark> Restore::find() {
  OFFPRINT_TRY(read_history());
  if (!history_) return fail(Code::kNotFound, "the archive has no history");
  OFFPRINT_TRY_ASSIGN(auto listed, list_files(store_, prefix_));
  OFFPRINT_TRY_ASSIGN(const TxId wanted, choose(Chain(std::move(listed))));
  return history_->bookmark_of(wanted);
}

}  // namespace

Result<Bookmark> find_moment(ObjectStore& store, const std::string& prefix, std::int64_t unix_ms) {
  const RestoreTarget target = AtTime{unix_ms};
  const std::string no_file;
  const RestoreOptions options;
  return Restore(store, prefix, target, no_file, options).find();
}

Result<Restored> restore_file(ObjectStore& store, const std::string& prefix,
                              const RestoreTarget& target, const std::string& output_file,
                              const RestoreOptions& options) {
  return Restore(store, prefix, target, output_file, options).run();
}

}  // namespace offprint::archive
