#include "archive/node_restore.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "archive/adopt.h"
#include "archive/history.h"
#include "archive/node_layout.h"
#include "archive/tag_files.h"
#include "base/clock.h"
#include "database/store.h"
#include "database/store_folder.h"

namespace offprint::archive {
namespace {

using database::AdoptedFile;
using database::DatabaseName;
using State = NodeDatabase::State;

constexpr std::size_t kListedAtOnce = 1'000;
constexpr std::uint64_t kMarkerBytesMax = 64 << 10;

// What the archive, not the way to it, is to blame for.
bool is_damage(const Error& error) {
  return error.code() == Code::kCorrupt || error.code() == Code::kInvalid;
}

class NodeRestore {
 public:
  NodeRestore(ObjectStore& objects, const NodeRestoreOptions& options)
      : objects_(objects),
        options_(options),
        files_(*options.files),
        scratch_(options.directory + "/uploads") {}

  Result<NodeRestored> run();

 private:
  // A database to restore.
  struct Wanted {
    NodeDatabase about;
    Lineage lineage;  // all zero: as the archive says
    Epoch epoch;      // of the list of databases
    bool is_to_do = true;
    std::uint64_t weight = 0;
  };

  Result<> begin_folder();
  Result<> open_store();
  Result<std::optional<AdoptedFile>> catalog();
  Result<> plan();
  Result<> plan_unlisted(const std::map<std::string, Epoch>& dropped);
  void work();
  Result<> restore(Wanted& wanted, std::size_t number);
  // False: there is nothing of it at that moment.
  Result<bool> restore_from(const std::string& place, Wanted& wanted, std::size_t number);
  Result<std::vector<std::string>> places_of(const Wanted& wanted);
  Result<std::optional<History>> read_history(const std::string& place);
  Result<Restored> restore_file_of(const std::string& place, const std::string& file,
                                   std::function<void(std::uint64_t, std::uint64_t)> progress);
  RestoreTarget target() const;
  Result<> finish_folder(NodeRestored& result);
  void tell_progress(std::uint64_t more);

  ObjectStore& objects_;
  const NodeRestoreOptions& options_;
  FileSystem& files_;
  const std::string scratch_;  // a server empties this folder when it starts
  NodeContent content_;
  std::unique_ptr<database::Store> store_;
  std::vector<Wanted> wanted_;
  std::vector<std::string> dropped_, lost_tags_;

  std::mutex mutex_;
  // Guarded by mutex_.
  std::size_t next_ = 0;
  std::uint64_t done_ = 0, total_ = 0;
  std::optional<Error> failure_;
};

RestoreTarget NodeRestore::target() const {
  if (options_.at_ms) return AtTime{*options_.at_ms};
  return Newest{};
}

// --- the folder

// It says what it is being made from, so that nobody serves half of it or goes on with another
// archive.
Result<> NodeRestore::begin_folder() {
  const std::string marker = options_.directory + "/" + database::kRestoringFile;
  const std::string text = fmt::format("offprint restoring 1\n{}\n{}\n", objects_.url(),
                                       options_.at_ms ? format_rfc3339(*options_.at_ms) : "newest");
  OFFPRINT_TRY_ASSIGN(bool begun, files_.exists(marker));
  if (begun) {
    OFFPRINT_TRY_ASSIGN(Bytes there, read_file(files_, marker, kMarkerBytesMax));
    if (as_text(there) != text) {
      return fail(Code::kConflict,
                  fmt::format("{} was begun from another archive or for another moment ({}): go on "
                              "with these, or give another folder",
                              options_.directory, marker));
    }
  } else {
    OFFPRINT_TRY_ASSIGN(bool exists, files_.exists(options_.directory));
    if (exists) {
      OFFPRINT_TRY_ASSIGN(auto names, files_.list(options_.directory));
      if (!names.empty())
        return fail(Code::kConflict, options_.directory + " is not empty: give another folder");
    }
    OFFPRINT_TRY(files_.create_directories(options_.directory));
    OFFPRINT_TRY(write_file_atomically(files_, marker, as_bytes(text)));
  }
  OFFPRINT_TRY(files_.create_directories(scratch_));
  OFFPRINT_TRY_ASSIGN(auto leftovers, files_.list(scratch_));
  for (const std::string& name : leftovers) OFFPRINT_TRY(files_.remove(scratch_ + "/" + name));
  return {};
}

Result<> NodeRestore::open_store() {
  database::StoreOptions options;
  options.directory = options_.directory;
  options.files = &files_;
  options.restore_catalog = [this] { return catalog(); };
  OFFPRINT_TRY_ASSIGN(store_, database::Store::open(std::move(options)));
  return {};
}

Result<> NodeRestore::finish_folder(NodeRestored& result) {
  for (NodeDatabase& each : result.databases) {
    if (each.state != State::kDamaged || !options_.without_damaged) continue;
    OFFPRINT_TRY_ASSIGN(auto name, DatabaseName::stored(each.name));
    if (store_->info(name)) OFFPRINT_TRY(store_->drop(name));
    each.state = State::kLeftOut;
  }
  store_.reset();
  if (!result.is_complete()) return {};
  OFFPRINT_TRY(files_.remove(options_.directory + "/" + database::kRestoringFile));
  return files_.sync_directory(options_.directory);
}

// --- what there is to do

Result<std::optional<AdoptedFile>> NodeRestore::catalog() {
  if (!content_.has_catalog) return std::nullopt;
  const std::string file = scratch_ + "/catalog.db";
  auto restored = restore_file_of(kCatalogPrefix, file, {});
  if (!restored) return fail(restored.error().with_context("the list of databases"));
  // The store forgets tags that have no file.
  const std::string tags = options_.directory + "/tags";
  OFFPRINT_TRY_ASSIGN(lost_tags_, fetch_tag_files(objects_, files_, file, tags, scratch_));
  OFFPRINT_TRY_ASSIGN(auto history, read_history(kCatalogPrefix));
  AdoptedFile adopted;
  adopted.path = file;
  adopted.page_size = restored->page_size;
  adopted.page_count = restored->page_count;
  adopted.timestamp_ms = restored->timestamp_ms;
  const Bookmark last = history && !history->parts.empty() ? history->parts.back().from
                                                           : Bookmark{{}, {}, Lineage::random()};
  adopted.position = {last.lineage, database::epoch_after_loss(last.epoch), restored->txid,
                      restored->checksum};
  return adopted;
}

Result<> NodeRestore::plan() {
  std::string after;
  for (;;) {
    auto page = store_->list("", after, kListedAtOnce);
    for (const database::DatabaseInfo& info : page) {
      after = info.name;
      Wanted wanted;
      wanted.about.name = info.name;
      wanted.about.bookmark = info.bookmark;
      wanted.lineage = info.bookmark.lineage;
      wanted.epoch = info.bookmark.epoch;
      wanted.is_to_do = info.bookmark.txid.value == 0;
      if (!wanted.is_to_do) wanted.about.state = State::kThere;
      wanted_.push_back(std::move(wanted));
    }
    if (page.size() < kListedAtOnce) break;
  }
  OFFPRINT_TRY_ASSIGN(auto dropped_names, store_->dropped_names());
  std::map<std::string, Epoch> dropped;
  for (const auto& each : dropped_names) dropped[each.name] = each.epoch;
  OFFPRINT_TRY(plan_unlisted(dropped));
  std::ranges::sort(wanted_, {}, [](const Wanted& each) { return each.about.name; });
  for (Wanted& wanted : wanted_) {
    auto found = content_.databases.find(wanted.about.name);
    wanted.weight = 1 + (found == content_.databases.end() ? 0 : found->second.bytes);
    total_ += wanted.weight;
    if (!wanted.is_to_do) done_ += wanted.weight;
  }
  return {};
}

// Databases that the archive has and the list has not: dropped ones stay what they are; the others
// came when the list could not be archived any more, or there was none.
Result<> NodeRestore::plan_unlisted(const std::map<std::string, Epoch>& dropped) {
  std::set<std::string> listed;
  for (const Wanted& each : wanted_) listed.insert(each.about.name);
  for (const auto& [name, place] : content_.databases) {
    if (listed.contains(name)) continue;
    Wanted wanted;
    wanted.about.name = name;
    if (!place.has_history) {
      wanted.is_to_do = false;
      wanted.about.note =
          "another program's archive, or its history is gone: offprint restore "
          "makes a file of it";
      wanted_.push_back(std::move(wanted));
      continue;
    }
    auto history = read_history(name + "/");
    if (!history && !is_damage(history.error())) return fail(history.error());
    if (!history) {
      wanted.is_to_do = false;
      wanted.about.state = State::kDamaged;
      wanted.about.note = history.error().message();
      wanted_.push_back(std::move(wanted));
      continue;
    }
    if (!*history || (*history)->parts.empty()) continue;
    const History::Part& first = (*history)->parts.front();
    if (auto found = dropped.find(name);
        found != dropped.end() && first.from.epoch <= found->second) {
      dropped_.push_back(name);
      continue;
    }
    if (options_.at_ms && first.since_ms > *options_.at_ms) continue;  // there was none then
    wanted.lineage = first.from.lineage;
    if (content_.has_catalog)
      wanted.about.note = "the archived list of databases does not have it yet";
    wanted_.push_back(std::move(wanted));
  }
  return {};
}

// --- databases

Result<std::optional<History>> NodeRestore::read_history(const std::string& place) {
  auto text = read_object(objects_, place + kHistoryKey, kHistoryBytesMax);
  if (!text && text.error().code() == Code::kNotFound) return std::nullopt;
  if (!text) return fail(text.error());
  OFFPRINT_TRY_ASSIGN(History history, History::parse(as_text(*text)));
  return history;
}

Result<Restored> NodeRestore::restore_file_of(
    const std::string& place, const std::string& file,
    std::function<void(std::uint64_t, std::uint64_t)> progress) {
  RestoreOptions restore;
  restore.replace = true;
  restore.progress = std::move(progress);
  restore.cancelled = options_.cancelled;
  restore.files = &files_;
  return restore_file(objects_, place, target(), file, restore);
}

// Where the archive has something of it, the newest first.
Result<std::vector<std::string>> NodeRestore::places_of(const Wanted& wanted) {
  std::vector<std::string> places;
  const std::string& name = wanted.about.name;
  if (auto found = content_.databases.find(name); found != content_.databases.end()) {
    OFFPRINT_TRY_ASSIGN(auto history, read_history(name + "/"));
    const bool is_it = history && std::ranges::any_of(history->parts, [&](const auto& part) {
                         return part.from.lineage == wanted.lineage;
                       });
    if (is_it) places.push_back(name + "/");
  }
  auto dropped = content_.dropped.find(name + "@" + wanted.lineage.text());
  if (dropped == content_.dropped.end()) return places;
  places.insert(places.end(), dropped->second.rbegin(), dropped->second.rend());
  return places;
}

Result<bool> NodeRestore::restore_from(const std::string& place, Wanted& wanted,
                                       std::size_t number) {
  OFFPRINT_TRY_ASSIGN(auto history, read_history(place));
  if (!history || history->parts.empty()) return false;
  const std::string file = fmt::format("{}/{}.db", scratch_, number);
  std::uint64_t told = 0;
  auto restored = restore_file_of(place, file, [&](std::uint64_t done, std::uint64_t total) {
    const auto share = static_cast<double>(done) / static_cast<double>(std::max(total, done));
    const auto now = static_cast<std::uint64_t>(share * static_cast<double>(wanted.weight));
    tell_progress(now - std::exchange(told, now));
  });
  tell_progress(wanted.weight - told);
  if (!restored && restored.error().code() == Code::kNotFound) return false;
  if (!restored) return fail(restored.error());
  OFFPRINT_TRY_ASSIGN(auto name, DatabaseName::stored(wanted.about.name));
  OFFPRINT_TRY_ASSIGN(wanted.about.bookmark,
                      adopt_restored(*store_, name, file, *restored, *history, files_));
  wanted.about.state = State::kRestored;
  wanted.about.restored = *restored;
  return true;
}

Result<> NodeRestore::restore(Wanted& wanted, std::size_t number) {
  OFFPRINT_TRY_ASSIGN(auto places, places_of(wanted));
  for (const std::string& place : places) {
    OFFPRINT_TRY_ASSIGN(bool done, restore_from(place, wanted, number));
    if (done) return {};
  }
  OFFPRINT_TRY_ASSIGN(auto name, DatabaseName::stored(wanted.about.name));
  if (!store_->info(name)) {
    wanted.about.note = "the archive has none of its transactions";
    return {};
  }
  AdoptedFile nothing;
  nothing.position = {wanted.lineage, database::epoch_after_loss(wanted.epoch), TxId{},
                      store_->position(name)->checksum};
  OFFPRINT_TRY(store_->adopt_file(name, nothing));
  wanted.about.state = State::kEmpty;
  wanted.about.bookmark = nothing.position.bookmark();
  wanted.about.note = "the archive has none of its transactions";
  return {};
}

void NodeRestore::tell_progress(std::uint64_t more) {
  std::lock_guard lock(mutex_);
  done_ += more;
  if (options_.progress) options_.progress(done_, total_);
}

// Takes one database after the other until there are none or the archive does not answer.
void NodeRestore::work() {
  for (;;) {
    std::size_t number;
    {
      std::lock_guard lock(mutex_);
      if (failure_ || next_ == wanted_.size()) return;
      number = next_++;
    }
    Wanted& wanted = wanted_[number];
    Result<> done;
    if (wanted.is_to_do) done = restore(wanted, number);
    std::lock_guard lock(mutex_);
    if (!done && is_damage(done.error())) {
      wanted.about.state = State::kDamaged;
      wanted.about.note = done.error().message();
    } else if (!done) {
      if (!failure_) failure_ = done.error().with_context(wanted.about.name);
      return;
    }
    if (options_.restored) options_.restored(wanted.about);
  }
}

Result<NodeRestored> NodeRestore::run() {
  OFFPRINT_TRY_ASSIGN(content_, read_node_content(objects_));
  if (!content_.has_catalog && content_.databases.empty())
    return fail(Code::kNotFound, objects_.url() + ": no archive of a node");
  OFFPRINT_TRY(begin_folder());
  OFFPRINT_TRY(open_store());
  OFFPRINT_TRY(plan());
  std::vector<std::thread> threads;
  for (int i = 0; i < options_.jobs; ++i) threads.emplace_back([this] { work(); });
  for (std::thread& thread : threads) thread.join();
  if (failure_) return fail(*failure_);
  NodeRestored result;
  result.has_catalog = content_.has_catalog;
  result.dropped = dropped_;
  result.lost_tags = lost_tags_;
  for (Wanted& wanted : wanted_) result.databases.push_back(std::move(wanted.about));
  OFFPRINT_TRY(finish_folder(result));
  return result;
}

}  // namespace

bool NodeRestored::is_complete() const {
  return std::ranges::none_of(
      databases, [](const NodeDatabase& each) { return each.state == State::kDamaged; });
}

Result<NodeRestored> restore_node(ObjectStore& objects, const NodeRestoreOptions& options) {
  return NodeRestore(objects, options).run();
}

}  // namespace offprint::archive
