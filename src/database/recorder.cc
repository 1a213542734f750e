#include "database/recorder.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "database/replay.h"
#include "ltx/checksum.h"

namespace offprint::database {
namespace {

constexpr std::size_t kKnownChecksumsMax = 1 << 16;
constexpr std::size_t kImagesOfOneMax = 16;  // pages of a transaction whose images are kept
constexpr std::size_t kImagesMax = 64;

}  // namespace

Result<PageReader> PageReader::open(const std::string& path, const char* vfs,
                                    const std::string& encoding) {
  sqlite::Connection::Options options;
  options.vfs = vfs;
  options.busy_timeout_ms = 5'000;
  OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(path, options));
  OFFPRINT_TRY(connection.execute(fmt::format("PRAGMA encoding='{}'", encoding).c_str()));
  OFFPRINT_TRY(connection.execute(
      "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL; PRAGMA cache_size=-256"));
  OFFPRINT_TRY_ASSIGN(auto select,
                      connection.prepare("SELECT data FROM sqlite_dbpage('main') WHERE pgno=?1",
                                         SQLITE_PREPARE_PERSISTENT));
  return PageReader(std::move(connection), std::move(select));
}

Result<> PageReader::begin() { return connection_.execute("BEGIN"); }

void PageReader::end() {
  select_.reset();
  if (!connection_.autocommit()) (void)connection_.execute("COMMIT");
}

Result<ByteView> PageReader::page(PageNo page) {
  select_.reset();
  select_.bind(1, page);
  OFFPRINT_TRY_ASSIGN(bool found, select_.step());
  if (!found) return fail(Code::kNotFound, fmt::format("page {} does not exist", page));
  return select_.column_blob(0);
}

TransactionRecorder::TransactionRecorder(const Options& options, DatabaseState state,
                                         PageReader& old_pages, Decided decided)
    : options_(options), state_(state), old_pages_(old_pages), decided_(std::move(decided)) {}

std::optional<Error> TransactionRecorder::take_error() {
  return std::exchange(error_, std::nullopt);
}

Outcome TransactionRecorder::outcome() const {
  Outcome outcome;
  if (!unknown_) return outcome;
  outcome.state = Outcome::State::kUnknown;
  outcome.error = unknown_;
  return outcome;
}

Result<> TransactionRecorder::commit(sqlite::CapturedTransaction& transaction) {
  error_.reset();
  Result<> result = stopped_           ? Result<>(fail(*stopped_))
                    : options_.is_copy ? take_expected(transaction.wal_point())
                                       : record(transaction, false);
  if (!result) error_ = result.error();
  return result;
}

Result<> TransactionRecorder::foreign_commit(sqlite::CapturedTransaction* transaction) {
  error_.reset();
  Result<> result =
      transaction != nullptr && !options_.is_copy
          ? record(*transaction, true)
          : Result<>(
                fail(Code::kUnavailable,
                     "another program changed the database file in a way that cannot be followed; "
                     "export it and import it under a new name"));
  if (result) {
    log::warn("database {}: captured a change that another program made to its file",
              options_.database_id);
    return result;
  }
  error_ = result.error();
  stopped_ = result.error();
  log::error("database {} takes no more writes: {}", options_.database_id,
             result.error().message());
  return result;
}

void TransactionRecorder::broken(const Error& error) {
  log::error("database {}: {}; it is recovered from the journal", options_.database_id,
             error.message());
  broken_ = error;
}

// The pages that a transaction of ours carries: those that SQLite wrote, and for the very first
// one, which must carry the whole database, also those that were in the file before.
class TransactionRecorder::PageWalk {
 public:
  PageWalk(sqlite::CapturedTransaction& transaction, PageReader& old_pages, bool whole)
      : transaction_(transaction), old_pages_(old_pages), whole_(whole) {}

  template <class Visit>
  Result<> run(Visit visit) {
    PageNo lock = ltx::lock_page(transaction_.page_size());
    PageNo next = 1;
    auto fill_up_to = [&](PageNo end) -> Result<> {
      for (; whole_ && next < end; ++next) {
        if (next == lock) continue;
        OFFPRINT_TRY_ASSIGN(ByteView image, old_pages_.page(next));
        OFFPRINT_TRY(visit(next, image));
      }
      return {};
    };
    auto pages = transaction_.pages();
    for (std::size_t i = 0; i < pages.size(); ++i) {
      OFFPRINT_TRY(fill_up_to(pages[i]));
      OFFPRINT_TRY_ASSIGN(ByteView image, transaction_.image(i));
      OFFPRINT_TRY(visit(pages[i], image));
      next = pages[i] + 1;
    }
    return fill_up_to(transaction_.page_count() + 1);
  }

 private:
  sqlite::CapturedTransaction& transaction_;
  PageReader& old_pages_;
  bool whole_;
};

Result<> TransactionRecorder::record(sqlite::CapturedTransaction& transaction, bool is_foreign) {
  fresh_.clear();
  fresh_images_.clear();
  const std::uint64_t image_bytes =
      std::uint64_t{transaction.pages().size()} * transaction.page_size();
  OFFPRINT_TRY(old_pages_.begin());
  journal::Draft draft;
  std::unique_ptr<journal::LargePayload> large;
  Result<DatabaseState> next = [&]() -> Result<DatabaseState> {
    if (image_bytes <= sqlite::kCaptureMemoryMax) {
      draft.payload.reserve(image_bytes / 2 + 512);
      ltx::BytesSink sink(draft.payload);
      return encode(transaction, sink, is_foreign);
    }
    OFFPRINT_TRY_ASSIGN(large, options_.decider.journal->create_large_payload());
    OFFPRINT_TRY_ASSIGN(DatabaseState state, encode(transaction, *large, is_foreign));
    OFFPRINT_TRY(large->finish());
    draft.large_file = large->file();
    draft.large_size = large->size();
    return state;
  }();
  old_pages_.end();
  if (!next) return fail(std::move(next).error());
  return append(*next, std::move(draft), transaction.wal_point());
}

Result<DatabaseState> TransactionRecorder::encode(sqlite::CapturedTransaction& transaction,
                                                  ltx::ByteSink& sink, bool is_foreign) {
  DatabaseState next = state_;
  next.position.txid = state_.position.txid.next();
  next.position.epoch = std::max(next.position.epoch, options_.decider.least_epoch);
  next.page_size = transaction.page_size();
  next.page_count = transaction.page_count();
  next.timestamp_ms = std::max(options_.wall_clock_ms(), state_.timestamp_ms);
  bool first = next.position.txid.value == 1;
  Checksum checksum = first ? ltx::kEmptyDatabase : state_.position.checksum;

  ltx::Header header;
  header.page_size = next.page_size;
  header.page_count = next.page_count;
  header.min_txid = header.max_txid = next.position.txid;
  header.timestamp_ms = next.timestamp_ms;
  header.pre_apply = first ? Checksum{} : state_.position.checksum;
  ltx::Encoder encoder(sink);
  OFFPRINT_TRY(encoder.begin(header));

  // What was there before a foreign change is not known.
  std::optional<UndoWriter> undo;
  if (!first && !is_foreign)
    undo.emplace(state_.page_count, options_.decider.payload_bytes_max / 4);
  auto take_old = [&](PageNo page, ByteView fresh) -> Result<> {
    OFFPRINT_TRY_ASSIGN(ByteView image, old_image(page));
    checksum = ltx::toggle(checksum, old_checksum(page, image));
    if (undo) undo->add(page, image, fresh);
    return {};
  };
  const bool keeps_images = !first && transaction.pages().size() <= kImagesOfOneMax;
  PageWalk walk(transaction, old_pages_, first);
  OFFPRINT_TRY(walk.run([&](PageNo page, ByteView image) -> Result<> {
    if (page == 1) std::copy_n(image.begin(), next.header.size(), next.header.begin());
    Checksum fresh = ltx::page_checksum(page, image);
    if (page <= state_.page_count && !is_foreign) OFFPRINT_TRY(take_old(page, image));
    checksum = ltx::toggle(checksum, fresh);
    fresh_.emplace_back(page, fresh);
    if (keeps_images) fresh_images_.emplace_back(image.begin(), image.end());
    return encoder.page(page, image);
  }));
  for (PageNo page = next.page_count + 1; page <= state_.page_count && !is_foreign; ++page) {
    if (page != ltx::lock_page(next.page_size)) OFFPRINT_TRY(take_old(page, {}));
  }
  undo_ = undo ? undo->finish() : std::nullopt;
  if (is_foreign) {
    known_.clear();  // what the other program replaced is not known: the whole file is read
    images_.clear();
    OFFPRINT_TRY_ASSIGN(checksum, scan_checksum(old_pages_, next));
  }
  next.position.checksum = checksum;
  OFFPRINT_TRY(encoder.finish(checksum));
  return next;
}

Result<> TransactionRecorder::append(const DatabaseState& next, journal::Draft draft,
                                     const sqlite::WalPoint& point) {
  draft.kind = journal::Kind::kTransaction;
  draft.database_id = options_.database_id;
  draft.metadata.push_back({journal::MetadataType::kDatabaseState, next.encode()});
  if (source_)
    draft.metadata.push_back({journal::MetadataType::kSourcePosition, encode_source(*source_)});
  if (undo_) draft.metadata.push_back({journal::MetadataType::kUndo, *std::exchange(undo_, {})});
  auto placed = place(options_.decider, std::move(draft));
  if (!placed && placed.error().code() == Code::kIo) journal_error_ = placed.error();
  OFFPRINT_TRY_ASSIGN(CommitLog::Appended appended, std::move(placed));
  if (auto committed = options_.decider.log->wait(appended); !committed) {
    unknown_ = committed.error();
    if (unknown_->code() == Code::kIo) journal_error_ = unknown_;
    return committed;
  }
  LogEntry entry{next.position.txid,       next.position.epoch, next.position.checksum,
                 state_.position.checksum, next.timestamp_ms,   appended.location};
  remember_fresh(next.page_count);
  source_.reset();
  state_ = next;
  decided_(state_, point, entry);
  return {};
}

// What the decided transaction carried; the database has `page_count` pages now.
void TransactionRecorder::remember_fresh(std::uint32_t page_count) {
  for (PageNo page = page_count + 1; page <= state_.page_count && !known_.empty(); ++page) {
    known_.erase(page);
    images_.erase(page);
  }
  if (known_.size() + fresh_.size() > kKnownChecksumsMax) known_.clear();
  if (fresh_.size() <= kKnownChecksumsMax) {
    for (const auto& [page, checksum] : fresh_) known_[page] = checksum;
  } else {
    known_.clear();
  }
  if (images_.size() + fresh_images_.size() > kImagesMax) images_.clear();
  for (std::size_t i = 0; i < fresh_.size(); ++i) {
    if (i < fresh_images_.size()) {
      images_[fresh_[i].first] = std::move(fresh_images_[i]);
    } else if (!images_.empty()) {
      images_.erase(fresh_[i].first);
    }
  }
}

Result<CommitLog::Appended> place(const Decider& decider, journal::Draft draft) {
  std::unique_ptr<journal::LargePayload> large;  // until the record names it
  if (draft.payload.size() > decider.payload_bytes_max) {
    OFFPRINT_TRY_ASSIGN(large, decider.journal->create_large_payload());
    OFFPRINT_TRY(large->write(draft.payload));
    OFFPRINT_TRY(large->finish());
    draft.payload.clear();
    draft.large_file = large->file();
    draft.large_size = large->size();
  }
  return decider.log->append(std::move(draft), decider.term);
}

// Of a copy: what is committed is in the journal already.
Result<> TransactionRecorder::take_expected(const sqlite::WalPoint& point) {
  if (expected_.empty()) return fail(Code::kNotPrimary, "this is a copy: write at the primary");
  for (const Decision& decision : std::exchange(expected_, {})) {
    state_ = decision.state;
    decided_(state_, point, decision.entry);
  }
  return {};
}

// As its last transaction carried it; valid until the next call.
Result<ByteView> TransactionRecorder::old_image(PageNo page) {
  if (auto found = images_.find(page); found != images_.end()) return ByteView(found->second);
  OFFPRINT_TRY_ASSIGN(ByteView image, old_pages_.page(page));
  if (page != 1) return image;
  page_one_.assign(image.begin(), image.end());
  std::copy(state_.header.begin(), state_.header.end(), page_one_.begin());
  return ByteView(page_one_);
}

Checksum TransactionRecorder::old_checksum(PageNo page, ByteView image) const {
  auto found = known_.find(page);
  return found != known_.end() ? found->second : ltx::page_checksum(page, image);
}

Result<Checksum> scan_checksum(PageReader& reader, const DatabaseState& state) {
  bool begins = reader.connection().autocommit();
  if (begins) OFFPRINT_TRY(reader.begin());
  Checksum checksum = ltx::kEmptyDatabase;
  for (PageNo page = 1; page <= state.page_count; ++page) {
    if (page == ltx::lock_page(state.page_size)) continue;
    OFFPRINT_TRY_ASSIGN(ByteView image, reader.page(page));
    Bytes as_sent(image.begin(), image.end());
    if (page == 1) std::copy(state.header.begin(), state.header.end(), as_sent.begin());
    checksum = ltx::toggle(checksum, ltx::page_checksum(page, as_sent));
  }
  if (begins) reader.end();
  return checksum;
}

}  // namespace offprint::database
