// A copy of another node's database: its transactions go into the journal first, then into the
// file.
#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

#include "base/log.h"
#include "database/hosted_database.h"
#include "database/recovery.h"
#include "database/replay.h"
#include "database/undo.h"
#include "ltx/checksum.h"
#include "ltx/file_stream.h"
#include "ltx/follows.h"

namespace offprint::database {

// What a copy's pages were before each of the transactions that are taken together: in its file,
// or, of pages that an earlier one of them changed, in memory.
class FormerPages {
 public:
  // `file` is null when there is none yet.
  FormerPages(sqlite::PageApplier* file, std::size_t undo_bytes_max)
      : file_(file), undo_bytes_max_(undo_bytes_max) {}

  // The next transaction comes, to be applied at `before`.
  void expect(const DatabaseState& before) { before_ = before; }
  void begin(const ltx::Header& header) {
    undo_.reset();
    known_ &= file_ != nullptr && header.page_size == before_.page_size;
    if (known_) undo_.emplace(before_.page_count, undo_bytes_max_);
    page_count_ = header.page_count;
  }
  // Ascending.
  void change(PageNo page, ByteView image) {
    if (undo_ && page <= before_.page_count) note(page, image);
    if (!known_) return;
    changed_bytes_ += image.size();
    known_ = changed_bytes_ <= kChangedBytesMax;
    if (known_) changed_[page].assign(image.begin(), image.end());
  }
  // Nothing: it is not known.
  std::optional<Bytes> undo() {
    for (PageNo page = page_count_ + 1; undo_ && page <= before_.page_count; ++page) {
      if (page != ltx::lock_page(before_.page_size)) note(page, {});
    }
    return undo_ ? undo_->finish() : std::nullopt;
  }

 private:
  static constexpr std::size_t kChangedBytesMax = 16 << 20;

  void note(PageNo page, ByteView image) {
    if (auto found = changed_.find(page); found != changed_.end())
      return undo_->add(page, found->second, image);
    buffer_.resize(before_.page_size);
    if (auto there = file_->read(page, buffer_); !there || !*there) {
      known_ = false;  // that is for others to complain about
      undo_.reset();
      return;
    }
    if (page == 1) std::ranges::copy(before_.header, buffer_.begin());
    undo_->add(page, buffer_, image);
  }

  sqlite::PageApplier* file_;
  const std::size_t undo_bytes_max_;
  DatabaseState before_;
  std::uint32_t page_count_ = 0;
  bool known_ = true;  // what pages are before the next transaction
  std::optional<UndoWriter> undo_;
  std::unordered_map<PageNo, Bytes> changed_;  // as the transactions so far left them
  std::size_t changed_bytes_ = 0;
  Bytes buffer_;
};

namespace {

using Decision = TransactionRecorder::Decision;

// A transaction that was read to its end and is sound.
struct Verified {
  ltx::Header header;
  ltx::Trailer trailer;
  std::optional<std::array<std::uint8_t, 100>> page_one;  // the beginning of page 1
};

Result<Verified> verify(ltx::ByteSource& source, FormerPages& former) {
  Verified verified;
  ltx::Decoder decoder(source);
  OFFPRINT_TRY_ASSIGN(verified.header, decoder.begin());
  former.begin(verified.header);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
    if (!page) break;
    former.change(page->number, page->content);
    if (page->number != 1) continue;
    verified.page_one.emplace();
    std::copy_n(page->content.begin(), verified.page_one->size(), verified.page_one->begin());
  }
  OFFPRINT_TRY_ASSIGN(verified.trailer, decoder.finish());
  return verified;
}

Result<std::unique_ptr<ltx::ByteSource>> source_of(const IncomingTransaction& transaction) {
  if (transaction.ltx.empty()) return transaction.open();
  return std::make_unique<ltx::BytesSource>(transaction.ltx);
}

Result<DatabaseState> state_after(const DatabaseState& before, Epoch epoch,
                                  const Verified& transaction) {
  const ltx::Header& header = transaction.header;
  OFFPRINT_TRY(ltx::check_follows(before.position, epoch, header));
  if (header.min_txid != header.max_txid) return fail(Code::kCorrupt, "more than one transaction");
  if (before.page_count != 0 && header.page_size != before.page_size)
    return fail(Code::kConflict, "the pages are of another size now");
  DatabaseState next = before;
  next.position.epoch = epoch;
  next.position.txid = header.max_txid;
  next.position.checksum = transaction.trailer.post_apply;
  next.page_size = header.page_size;
  next.page_count = header.page_count;
  next.timestamp_ms = header.timestamp_ms;
  if (transaction.page_one) next.header = *transaction.page_one;
  return next;
}

}  // namespace

void HostedDatabase::apply(std::vector<IncomingTransaction> transactions,
                           std::function<void(Result<>)> done) {
  std::unique_lock lock(mutex_);
  auto shared = std::make_shared<std::vector<IncomingTransaction>>(std::move(transactions));
  tasks_.push_back([self = shared_from_this(), shared, done = std::move(done)] {
    done(self->apply_at_turn(*shared));
  });
  schedule(lock);
}

Result<> HostedDatabase::apply_at_turn(std::vector<IncomingTransaction>& transactions) {
  DatabaseState state;
  {
    std::lock_guard lock(mutex_);
    if (refused_) return fail(*refused_);
    if (!stopped_.empty()) return fail(Code::kConflict, stopped_);
    state = state_;
  }
  bool has_file = state.page_count != 0;
  if (has_file) {
    if (auto files = open_files(); !files) return fail(files.error());
    std::lock_guard lock(mutex_);
    if (!stopped_.empty()) return fail(Code::kConflict, stopped_);
  }
  std::optional<Error> failure;
  auto decisions = take_into_journal(transactions, state, failure);
  OFFPRINT_TRY(bring_in(std::move(decisions), has_file));
  if (failure) return fail(*failure);
  return {};
}

// What is decided, into the file.
Result<> HostedDatabase::bring_in(std::vector<Decision> decisions, bool has_file) {
  if (!has_file && !decisions.empty()) {  // recovery makes it
    close_files();
    for (const Decision& decision : decisions) note_decided(decision);
    needs_recovery_ = true;
    if (auto files = open_files(); !files) return fail(files.error());
  } else {
    OFFPRINT_TRY(apply_to_file(std::move(decisions)));
  }
  became_visible();
  {
    std::lock_guard lock(mutex_);
    last_used_ = SteadyClock::now();
  }
  start_checkpoint_if_due();
  return {};
}

// Durable in the journal, they are decided: whatever happens to the file, recovery brings them in.
// `failure`: why not all were taken.
std::vector<Decision> HostedDatabase::take_into_journal(
    std::vector<IncomingTransaction>& transactions, DatabaseState state,
    std::optional<Error>& failure) {
  std::vector<Decision> decisions;
  std::shared_ptr<OpenFiles> files;
  {
    std::lock_guard lock(mutex_);
    files = files_;
  }
  FormerPages former(files ? &files->applier() : nullptr,
                     environment_.options.journal.segment_size / 16);
  for (IncomingTransaction& transaction : transactions) {
    auto decision = take_into_journal(transaction, state, former);
    if (!decision) {
      failure = decision.error();
      break;
    }
    state = decision->state;
    decisions.push_back(*std::move(decision));
  }
  if (decisions.empty()) return decisions;
  if (auto durable = environment_.journal->wait_durable(decisions.back().entry.location); !durable)
    environment_.fatal(durable.error());
  return decisions;
}

Result<Decision> HostedDatabase::take_into_journal(IncomingTransaction& transaction,
                                                   const DatabaseState& state,
                                                   FormerPages& former) {
  OFFPRINT_TRY_ASSIGN(auto source, source_of(transaction));
  former.expect(state);
  OFFPRINT_TRY_ASSIGN(Verified verified, verify(*source, former));
  OFFPRINT_TRY_ASSIGN(DatabaseState next, state_after(state, transaction.epoch, verified));
  auto undo = former.undo();
  journal::Draft draft;
  draft.kind = journal::Kind::kTransaction;
  draft.database_id = identity_.id;
  draft.metadata.push_back({journal::MetadataType::kDatabaseState, next.encode()});
  if (undo) draft.metadata.push_back({journal::MetadataType::kUndo, *std::move(undo)});
  std::unique_ptr<journal::LargePayload> large;  // until the record names it
  if (transaction.ltx.empty()) {
    OFFPRINT_TRY_ASSIGN(source, transaction.open());
    OFFPRINT_TRY_ASSIGN(large, environment_.journal->create_large_payload());
    OFFPRINT_TRY(ltx::copy_bytes(*source, *large));
    OFFPRINT_TRY(large->finish());
    draft.large_file = large->file();
    draft.large_size = large->size();
  } else {
    draft.payload = std::move(transaction.ltx);
  }
  OFFPRINT_TRY_ASSIGN(Taken taken, take_place(std::move(draft), state, next));
  return taken.decision;
}

Decider HostedDatabase::decider() {
  std::lock_guard lock(mutex_);
  return {environment_.journal.get(), environment_.log, term_,
          ends_.empty() ? Epoch{} : ends_.back().epoch,
          environment_.options.journal.segment_size / 4};
}

Result<HostedDatabase::Taken> HostedDatabase::take_place(journal::Draft draft,
                                                         const DatabaseState& before,
                                                         const DatabaseState& next) {
  auto appended = place(decider(), std::move(draft));
  if (!appended && appended.error().code() == Code::kIo) environment_.fatal(appended.error());
  if (!appended) return fail(appended.error());
  LogEntry entry{next.position.txid,       next.position.epoch, next.position.checksum,
                 before.position.checksum, next.timestamp_ms,   appended->location};
  return Taken{{next, entry}, *appended};
}

Result<Decision> HostedDatabase::decide(journal::Draft draft, const DatabaseState& before,
                                        const DatabaseState& next) {
  OFFPRINT_TRY_ASSIGN(Taken taken, take_place(std::move(draft), before, next));
  auto decided = environment_.log->wait(taken.appended);
  if (!decided && decided.error().code() == Code::kIo) environment_.fatal(decided.error());
  if (!decided) return fail(decided.error());
  return taken.decision;
}

Result<> HostedDatabase::apply_to_file(std::vector<Decision> decisions) {
  if (decisions.empty()) return {};
  OFFPRINT_TRY_ASSIGN(auto files, open_files());
  DatabaseState state = decisions.back().state;
  std::vector<journal::Location> records;
  for (const Decision& decision : decisions) records.push_back(decision.entry.location);
  sqlite::PageApplier& applier = files->applier();
  auto applied = [&]() -> Result<> {
    OFFPRINT_TRY(applier.begin());
    if (auto written = write_newest_images(applier, state.page_size, state.page_count, records,
                                           false, *environment_.journal);
        !written) {
      applier.rollback();
      return written;
    }
    files->recorder().expect(decisions);
    return applier.commit(state.page_count);
  }();
  files->recorder().expect({});
  if (applied) return {};
  auto stopped = files->recorder().stopped_error();
  bool noted;
  {
    std::lock_guard lock(mutex_);
    if (stopped) stopped_ = stopped->message();
    noted = state_.position.txid >= state.position.txid;
  }
  // They are in the journal: recovery brings them into the file, now or when it can be opened
  // again.
  for (const Decision& decision : decisions) {
    if (!noted) note_decided(decision);
  }
  log::warn("database '{}': {}; it is recovered from the journal", identity_.name,
            applied.error().message());
  files.reset();
  lose_files();
  if (stopped) return fail(Code::kConflict, stopped->message());
  OFFPRINT_TRY_ASSIGN(files, open_files());
  return {};
}

void HostedDatabase::note_decided(const Decision& decision) {
  std::lock_guard lock(mutex_);
  state_ = decision.state;
  state_lsn_ = decision.entry.location.lsn;
  if (decision.new_history) {
    log_.clear();
    checkpointed_ = TxId{0};
    closed_as_.reset();
    return note_new_history(unapplied_,
                            {decision.entry.txid, decision.entry.location, true, decision.whole});
  }
  log_.push_back(decision.entry);
  unapplied_.push_back({.txid = decision.entry.txid,
                        .location = decision.entry.location,
                        .whole = decision.entry.txid.value == 1});
}

void HostedDatabase::move_unwritten(const Position& position) {
  {
    std::lock_guard lock(mutex_);
    if (state_.position.txid.value != 0) return;
    state_.position = position;
  }
  became_visible();
}

Result<> HostedDatabase::begin_new_history(const NewHistory& history,
                                           std::optional<std::int64_t> timestamp_ms) {
  Result<> result = fail(Code::kUnavailable, "not run");
  run_task_and_wait(
      [&] { result = begin_new_history_at_turn(history, timestamp_ms.value_or(unix_time_ms())); });
  return result;
}

Result<> HostedDatabase::begin_new_history_at_turn(const NewHistory& history,
                                                   std::int64_t timestamp_ms) {
  const CopyTarget& target = history.target;
  DatabaseState before;
  if (follows_) return fail(read_only_error());
  {
    std::lock_guard lock(mutex_);
    if (dropped_ || (refused_ && refused_->code() != Code::kCorrupt)) return fail(*refused_);
    before = state_;
  }
  if (!identity_.is_copy && before.position.txid.value != 0)
    return fail(Code::kConflict, "the database was written meanwhile");
  DatabaseState state = before;
  state.position = target.position;
  state.page_size = target.page_size;
  state.page_count = target.page_count;
  state.timestamp_ms = timestamp_ms;
  if (history.has_header) state.header = history.header;
  journal::Draft draft;
  draft.kind = journal::Kind::kTransaction;
  draft.database_id = identity_.id;
  draft.metadata.push_back({journal::MetadataType::kDatabaseState, state.encode()});
  draft.metadata.push_back(
      {journal::MetadataType::kNewHistory, Bytes{static_cast<std::uint8_t>(target.whole)}});
  draft.large_file = history.payload_file;
  draft.large_size = history.payload_size;
  OFFPRINT_TRY_ASSIGN(Decision decision, decide(std::move(draft), before, state));
  decision.new_history = true;
  decision.whole = target.whole;
  close_files();
  note_decided(decision);
  {
    std::lock_guard lock(mutex_);
    stopped_.clear();
    refused_.reset();
  }
  needs_recovery_ = true;
  auto files = open_files();
  // Of a copy it is proven only now. What begins here was proven before it was decided.
  if (!files && identity_.is_copy) return fail(files.error());
  if (!files)
    log::warn("database '{}' cannot be opened: {}", identity_.name, files.error().message());
  became_visible();
  return {};
}

}  // namespace offprint::database
