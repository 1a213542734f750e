// What a database's archive has when its writer begins, and whether the database goes on from it.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "archive/database_archive.h"
#include "archive/node_layout.h"
#include "base/log.h"
#include "ltx/checksum.h"

namespace offprint::archive {
namespace {

constexpr const char* kDamagedHistoryKey = "offprint/damaged/history";

// The epoch of a transaction of the database as it is or as its log has it, which left that
// checksum. Nothing: it is another one, or not known any more.
std::optional<Epoch> epoch_of(database::Store& store, const database::DatabaseName& name,
                              const Position& ours, TxId txid, Checksum checksum) {
  if (txid == ours.txid) {
    if (ours.checksum != checksum) return std::nullopt;
    return ours.epoch;
  }
  auto logged = store.log_after(name, {Epoch{}, TxId{txid.value - 1}, ours.lineage}, 1);
  if (!logged || logged->empty() || logged->front().txid != txid) return std::nullopt;
  if (logged->front().checksum != checksum) return std::nullopt;
  return logged->front().epoch;
}

bool leads_to(const std::map<int, std::vector<ArchivedFile>>& files, TxId txid) {
  std::vector<ArchivedFile> all;
  for (const auto& [level, each] : files) all.insert(all.end(), each.begin(), each.end());
  const Chain chain(std::move(all));
  return std::ranges::binary_search(chain.restorable(), txid);
}

// The time of the first transaction that any of the files ends with.
std::int64_t oldest_ms(const std::map<int, std::vector<ArchivedFile>>& files) {
  std::int64_t oldest = INT64_MAX;
  for (const auto& [level, each] : files) {
    if (!each.empty()) oldest = std::min(oldest, each.front().timestamp_ms);
  }
  return oldest;
}

}  // namespace

Result<std::unique_ptr<DatabaseArchive>> DatabaseArchive::load(ObjectStore& objects,
                                                               std::string prefix,
                                                               database::Store& store,
                                                               const database::DatabaseName& name,
                                                               const Schedule& schedule) {
  std::unique_ptr<DatabaseArchive> archive(
      new DatabaseArchive(objects, std::move(prefix), store, name, schedule));
  OFFPRINT_TRY(archive->read_what_is_there());
  OFFPRINT_TRY_ASSIGN(std::string why, archive->difference());
  if (!why.empty()) OFFPRINT_TRY(archive->move_away(why));
  archive->due_ms_ = archive->find_due();
  return archive;
}

Result<> DatabaseArchive::read_what_is_there() {
  auto text = read_object(objects_, prefix_ + kHistoryKey, kHistoryBytesMax);
  if (!text && text.error().code() != Code::kNotFound) return fail(text.error());
  if (text) {
    auto parsed = History::parse(as_text(*text));
    if (!parsed && parsed.error().code() != Code::kCorrupt) return fail(parsed.error());
    if (parsed) {
      history_ = *std::move(parsed);
      has_history_ = true;
    } else {
      log::error("archive of database '{}': {}{}: {}", name_.text(), prefix_, kHistoryKey,
                 parsed.error().message());
      ltx::BytesSource damaged(*text);
      OFFPRINT_TRY(objects_.put(prefix_ + kDamagedHistoryKey, damaged, {}));
    }
  }
  TxId singly;
  OFFPRINT_TRY_ASSIGN(auto files, list_files(objects_, prefix_));
  for (ArchivedFile& file : files) {
    if (file.timestamp_ms == 0) {
      OFFPRINT_TRY_ASSIGN(ltx::Header header, read_header(objects_, file.key));
      file.timestamp_ms = header.timestamp_ms;
    }
    reached_ = std::max(reached_, file.max_txid);
    if (file.level != kSnapshotLevel) singly = std::max(singly, file.max_txid);
    files_[file.level].push_back(std::move(file));
  }
  // A snapshot came before the transactions up to it: they still follow, if the log has them.
  if (singly.value != 0 && singly < reached_ && has_history_ && !history_.parts.empty()) {
    const Bookmark after{Epoch{}, singly, history_.parts.back().from.lineage};
    if (store_.log_after(name_, after, 1)) reached_ = singly;
  }
  head_noted_ = !has_history_ || history_.head.txid == reached_;
  return {};
}

bool DatabaseArchive::is_complete(ObjectStore& objects, const std::string& prefix,
                                  database::Store& store, const database::DatabaseName& name) {
  auto text = read_object(objects, prefix + kHistoryKey, kHistoryBytesMax);
  if (!text) return false;
  auto history = History::parse(as_text(*text));
  auto ours = store.position(name);
  // A restored node has another epoch and the same transactions.
  return history && ours && history->head.bookmark().lineage == ours->lineage &&
         history->head.txid == ours->txid && history->head.checksum == ours->checksum;
}

bool DatabaseArchive::is_of_the_database() const {
  auto ours = store_.position(name_);
  return ours && ours->lineage == lineage_;
}

Result<std::string> DatabaseArchive::difference() {
  OFFPRINT_TRY_ASSIGN(Position ours, store_.position(name_));
  lineage_ = ours.lineage;
  if (reached_.value == 0) return "";
  OFFPRINT_TRY_ASSIGN(ltx::Header header, read_header(objects_, newest().key));
  if (!has_history_ && header.node_id == 0) {
    return fail(Code::kConflict,
                fmt::format("{}/{} is not the archive of database '{}': another program writes it",
                            objects_.url(), prefix_, name_.text()));
  }
  if (!has_history_) {
    const auto epoch = epoch_of(store_, name_, ours, reached_, Checksum{header.node_id});
    if (!epoch || !leads_to(files_, reached_)) return "its history is gone";
    // Bookmarks of earlier epochs are not known there any more; times and numbers are.
    log::warn("archive of database '{}': its history is written anew", name_.text());
    history_.parts = {{{*epoch, TxId{1}, lineage_}, oldest_ms(files_)}};
    head_noted_ = false;
    OFFPRINT_TRY(note_head());
  }
  if (history_.parts.empty() || history_.parts.back().from.lineage != lineage_)
    return "another database had the name";
  if (reached_ > ours.txid && ours.epoch > history_.parts.back().from.epoch)
    return "the database was restored to an earlier state";
  if (reached_ > ours.txid) {
    return fail(
        Code::kConflict,
        fmt::format("{}/{} reaches transaction {} of database '{}', which has only {} here: "
                    "restore it from there, or move the archive away",
                    objects_.url(), prefix_, reached_.value, name_.text(), ours.txid.value));
  }
  OFFPRINT_TRY_ASSIGN(Bookmark bookmark, history_.bookmark_of(reached_));
  auto here = store_.checksum_at(name_, bookmark);
  if (!here) return fmt::format("what followed transaction {} has left the log", reached_.value);
  Checksum archived{header.node_id};
  if ((header.node_id & ltx::kChecksumFlag) ==
      0) {  // of another program, see create_from_archive()
    if (history_.head.txid != reached_) {
      return fail(Code::kConflict,
                  fmt::format("{}/{}: another program writes it beside this server", objects_.url(),
                              prefix_));
    }
    archived = history_.head.checksum;
  }
  if (archived != *here) return fmt::format("its transaction {} is another one", reached_.value);
  return "";
}

// The history goes last from its old place: as long as it is there, all is done again.
Result<> DatabaseArchive::move_away(const std::string& why) {
  const Lineage lineage = history_.parts.empty() ? Lineage{} : history_.parts.back().from.lineage;
  const std::string to = dropped_prefix(name_.text(), lineage, reached_);
  log::warn("archive of database '{}': {}; that history goes to {}/{} and a new one begins",
            name_.text(), why, objects_.url(), to);
  std::vector<std::string> keys;
  for (const auto& [level, files] : files_) {
    for (const ArchivedFile& file : files) {
      OFFPRINT_TRY_ASSIGN(auto source, objects_.get(file.key));
      PutOptions options;
      options.timestamp_ms = file.timestamp_ms;
      OFFPRINT_TRY(objects_.put(to + file.key.substr(prefix_.size()), *source, options));
      keys.push_back(file.key);
    }
  }
  if (has_history_) {
    std::string text = history_.text();
    ltx::BytesSource source(as_bytes(text));
    OFFPRINT_TRY(objects_.put(to + kHistoryKey, source, {}));
  }
  OFFPRINT_TRY(objects_.remove(keys));
  OFFPRINT_TRY(objects_.remove({prefix_ + kHistoryKey}));
  files_.clear();
  history_ = {};
  has_history_ = false;
  reached_ = {};
  head_noted_ = true;
  return {};
}

}  // namespace offprint::archive
