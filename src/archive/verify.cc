#include "archive/verify.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "archive/chain.h"
#include "archive/history.h"
#include "ltx/codec.h"

namespace offprint::archive {
namespace {

// What the store did not give is no damage of the archive.
bool is_damage(const Error& error) {
  return error.code() == Code::kCorrupt || error.code() == Code::kNotFound ||
         error.code() == Code::kInvalid;
}

// Its header.
Result<ltx::Header> read_to_its_end(ObjectStore& store, const ArchivedFile& file,
                                    const std::atomic<bool>* cancelled) {
  OFFPRINT_TRY_ASSIGN(auto source, store.get(file.key));
  ltx::Decoder decoder(*source);
  OFFPRINT_TRY_ASSIGN(ltx::Header header, decoder.begin());
  if (header.min_txid != file.min_txid || header.max_txid != file.max_txid)
    return fail(Code::kCorrupt, "its header is of other transactions than its name");
  for (;;) {
    if (cancelled != nullptr && *cancelled) return fail(Code::kUnavailable, "cancelled");
    OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
    if (!page) break;
  }
  OFFPRINT_TRY(decoder.finish());
  return header;
}

// Who puts a database's checksum into files keeps a history beside them. `node_id`: of the newest
// file.
Result<> check_history(ObjectStore& store, const std::string& prefix, std::uint64_t node_id,
                       Verified& verified) {
  const std::string key = prefix + kHistoryKey;
  auto text = read_object(store, key, kHistoryBytesMax);
  if (!text && text.error().code() != Code::kNotFound) return fail(text.error());
  std::string what;
  if (!text && node_id != 0) {
    what = "it is missing: how far the archive must reach is not known";
  } else if (text) {
    auto parsed = History::parse(as_text(*text));
    if (!parsed) what = parsed.error().message();
  }
  if (what.empty()) return {};
  verified.damage.push_back(fmt::format("{}: {}", key, what));
  verified.damaged_keys.push_back(key);
  return {};
}

// Another file that can be restored has all of its transactions: it is on its way out, perhaps as
// one of several.
bool is_covered(const ArchivedFile& file, const std::vector<ArchivedFile>& files,
                const Chain& chain) {
  return std::ranges::any_of(files, [&](const ArchivedFile& other) {
    return other.level > file.level && other.min_txid <= file.min_txid &&
           other.max_txid >= file.max_txid &&
           std::ranges::binary_search(chain.restorable(), other.max_txid);
  });
}

// Moments that files hold, but that no files lead to.
Result<> find_gaps(ObjectStore& store, const std::string& prefix, Verified& verified) {
  OFFPRINT_TRY_ASSIGN(auto files, list_files(store, prefix));
  std::ranges::sort(files, {}, &ArchivedFile::max_txid);
  const Chain chain(files);
  std::string last;
  for (const ArchivedFile& file : files) {
    if (std::ranges::binary_search(chain.restorable(), file.max_txid)) continue;
    if (is_covered(file, files, chain)) continue;
    auto way = chain.files_to(file.max_txid);
    if (!way && way.error().message() != std::exchange(last, way.error().message()))
      verified.damage.push_back(fmt::format("{}: {}", file.key, last));
  }
  return {};
}

// A history that cannot be read fails each restore in the same way.
void note_once(Verified& verified, const std::string& what) {
  if (std::ranges::find(verified.damage, what) == verified.damage.end())
    verified.damage.push_back(what);
}

// It was over its time meanwhile.
Result<bool> snapshot_is_gone(ObjectStore& store, const std::string& prefix,
                              const RestoreTarget& target) {
  const auto* txid = std::get_if<TxId>(&target);
  if (txid == nullptr) return false;
  OFFPRINT_TRY_ASSIGN(auto files, list_files(store, prefix));
  return std::ranges::none_of(files, [&](const ArchivedFile& file) {
    return file.level == kSnapshotLevel && file.max_txid == *txid;
  });
}

}  // namespace

Result<Verified> verify_archive(ObjectStore& store, const std::string& prefix,
                                const VerifyOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto files, list_files(store, prefix));
  if (files.empty())
    return fail(Code::kNotFound,
                fmt::format("{}/{}: no archive of a database", store.url(), prefix));
  std::vector<RestoreTarget> targets;
  for (const ArchivedFile& file : files) {
    if (file.level == kSnapshotLevel) targets.emplace_back(file.max_txid);
  }
  targets.emplace_back(Newest{});

  Verified verified;
  std::uint64_t done = 0;
  const std::uint64_t total = files.size() + targets.size();
  auto step = [&] {
    if (options.progress) options.progress(++done, total);
  };
  std::uint64_t newest_node_id = 0;
  for (TxId newest; const ArchivedFile& file : files) {
    ++verified.files;
    verified.bytes += file.size;
    auto sound = read_to_its_end(store, file, options.cancelled);
    if (sound && file.max_txid >= std::exchange(newest, std::max(newest, file.max_txid)))
      newest_node_id = sound->node_id;
    if (!sound && sound.error().code() != Code::kNotFound) {
      if (!is_damage(sound.error())) return fail(sound.error());
      verified.damage.push_back(fmt::format("{}: {}", file.key, sound.error().message()));
      verified.damaged_keys.push_back(file.key);
    }
    step();
  }
  OFFPRINT_TRY(check_history(store, prefix, newest_node_id, verified));
  OFFPRINT_TRY(find_gaps(store, prefix, verified));
  const std::string scratch = fmt::format("{}/offprint-verify-{}.db", options.scratch, ::getpid());
  RestoreOptions restore;
  restore.replace = true;
  restore.cancelled = options.cancelled;
  restore.files = options.files;
  for (const RestoreTarget& target : targets) {
    auto restored = restore_file(store, prefix, target, scratch, restore);
    if (!restored && is_damage(restored.error())) {
      OFFPRINT_TRY_ASSIGN(bool is_gone, snapshot_is_gone(store, prefix, target));
      if (is_gone) {
        step();
        continue;
      }
    }
    OFFPRINT_TRY(options.files->remove(scratch));
    if (restored) {
      verified.moments.push_back(*std::move(restored));
    } else if (is_damage(restored.error())) {
      note_once(verified, restored.error().message());
    } else {
      return fail(restored.error());
    }
    step();
  }
  return verified;
}

}  // namespace offprint::archive
