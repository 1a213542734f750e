// Of FileTail: what changed in the file, as transactions of the database.
#include <algorithm>
#include <future>

#include <fmt/format.h>

#include "base/log.h"
#include "ltx/checksum.h"
#include "sqlite/page_apply.h"
#include "tail/file_tail.h"

namespace offprint::tail {
namespace {

using database::Snapshot;

constexpr PageNo kPagesBetweenLooks = 1024;

std::uint32_t cookie_of(ByteView page_one) {
  return load_be<std::uint32_t>(page_one.data() + sqlite::kSchemaCookieOffset);
}

// It says nothing about the copy's content.
bool passes(const Error& error) {
  return error.code() == Code::kFull || error.code() == Code::kBusy ||
         error.code() == Code::kTimeout || error.code() == Code::kUnavailable;
}

}  // namespace

// --- one transaction ---------------------------------------------------------------------------

Result<> FileTail::send(ChangeSet& changes) {
  OFFPRINT_TRY_ASSIGN(auto transaction, changes.finish());
  OFFPRINT_TRY(check_compared());
  if (!transaction) return {};
  std::vector<database::IncomingTransaction> transactions;
  transactions.push_back(*std::move(transaction));
  std::promise<Result<>> applied;
  store_.apply(name_, std::move(transactions),
               [&](Result<> result) { applied.set_value(std::move(result)); });
  OFFPRINT_TRY(applied.get_future().get());
  position_ = changes.after();
  page_count_ = changes.page_count();
  std::lock_guard lock(mutex_);
  ++status_.transactions;
  return {};
}

// --- by the -wal -------------------------------------------------------------------------------

// From the state that is held to the newest one, which is held then.
Result<> FileTail::take_changes() {
  OFFPRINT_TRY(open_spare());
  OFFPRINT_TRY(spare_->begin());
  {
    std::lock_guard lock(mutex_);
    if (status_.behind_since_ms == 0) status_.behind_since_ms = unix_time_ms();
    status_.wal_bytes = sqlite::frame_offset(spare_->place().last_frame + 1, spare_->page_size());
  }
  auto changes = read_changes(*spare_);
  const bool stood_aside = !held_->is_reading();
  const bool missed = !changes && changes.error().code() == Code::kBehind;
  Result<> sent = changes ? send(**changes) : fail(changes.error());
  if (missed) {
    log::info("database '{}' is compared with {}, page by page: {}", name_.text(), path_,
              sent.error().message());
    held_->end();
    std::swap(held_, spare_);
    same_ = false;
    const Deadline start = SteadyClock::now();
    Result<> compared = compare();
    if (stood_aside) do_not_stand_aside(SteadyClock::now() - start);
    return compared;
  }
  if (!sent) {
    spare_->end();
    return sent;
  }
  held_->end();
  std::swap(held_, spare_);
  return {};
}

// What the -wal has behind the state that is held. Nobody kept its program from beginning it anew
// when there is no read transaction: then the rest of the generation before may be there, too.
Result<WalChanges> FileTail::read_written(const ReadWal& wal, const WalPlace& to) {
  const WalPlace& from = held_->place();
  if (held_->is_reading() || to.salt1 != from.salt1 + 1) return read_wal(wal, from, to);
  OFFPRINT_TRY_ASSIGN(WalChanges rest, read_wal_rest(wal, from));  // the first to be written over
  OFFPRINT_TRY_ASSIGN(WalChanges written, read_wal(wal, from, to));
  note_restart(from.last_frame + rest.frames);
  return join_changes(std::move(rest), written, to.page_count);
}

// Whether the -wal can only have gone from one place to the other by the commits that are there
// now. While a reader stays, SQLite sees to that (docs/tailing.md). Without one the wal-index
// counts: commits, and in a salt the times that the -wal was begun anew. kBehind: something may be
// missing.
Result<> FileTail::check_continued(const WalPlace& to, const WalChanges& written) const {
  const WalPlace& from = held_->place();
  if (from.same_generation(to)) return {};
  if (held_->is_reading() && held_->lets_restart()) return {};
  // A commit that nobody ever saw may stand behind those of the generation before.
  const bool countable =
      written.copies == 0 ||
      std::ranges::none_of(written.pages, [](const WalPage& page) { return page.is_before; });
  if (!held_->is_reading() && to.salt1 == from.salt1 + 1 && countable &&
      to.change - from.change == written.commits)
    return {};
  return fail(Code::kBehind,
              fmt::format("the -wal was begun anew {} times meanwhile, and {} of {} commits are in "
                          "it now",
                          to.salt1 - from.salt1, written.commits, to.change - from.change));
}

// In one transaction: what was before is in held_ or, when that had to give way, in the database;
// the -wal has what is now.
Result<std::unique_ptr<ChangeSet>> FileTail::read_changes(SourceFile& next) {
  auto set = std::make_unique<ChangeSet>(spool(), position_);
  const WalPlace& to = next.place();
  ReadWal wal = [&next](std::uint64_t offset, std::span<std::uint8_t> bytes) {
    return next.read_wal_at(offset, bytes);
  };
  OFFPRINT_TRY_ASSIGN(WalChanges written, read_written(wal, to));
  OFFPRINT_TRY(check_continued(to, written));
  advance_ = written.frames;
  if (written.pages.empty()) return set;
  const PageNo old_count = page_count_;
  if (held_->page_size() != next.page_size())
    return fail(Code::kBehind, "the pages are of another size");
  std::unique_ptr<Snapshot> copy;
  if (!held_->is_reading()) {
    OFFPRINT_TRY_ASSIGN(copy, store_.snapshot(name_));
    if (copy->position() != position_)
      return fail(Code::kConflict, "the database is not what it was");
  }
  auto old_page = [&](PageNo page) { return copy ? copy->page(page) : held_->page(page); };
  ChangeSet& changes = *set;
  OFFPRINT_TRY(changes.begin(next.page_size(), to.page_count));
  Bytes image(next.page_size());
  PageNo grown = old_count + 1;  // pages from here on are new
  for (const WalPage& page : written.pages) {
    OFFPRINT_TRY(add_growth(changes, next, grown, page.page));
    OFFPRINT_TRY(read_frame(wal, page.is_before ? held_->place() : to, page, image));
    std::optional<ByteView> old;
    if (page.page <= old_count) {
      OFFPRINT_TRY_ASSIGN(old, old_page(page.page));
    }
    OFFPRINT_TRY(changes.page(page.page, old, image));
  }
  OFFPRINT_TRY(add_growth(changes, next, grown, to.page_count + 1));
  for (PageNo page = to.page_count + 1; page <= old_count; ++page) {
    if (page == ltx::lock_page(next.page_size())) continue;
    OFFPRINT_TRY_ASSIGN(ByteView old, old_page(page));
    changes.remove(page, old);
  }
  return set;
}

// New pages below `before` that no commit wrote: they are whatever SQLite reads there.
Result<> FileTail::add_growth(ChangeSet& changes, SourceFile& next, PageNo& from, PageNo before) {
  for (; from < before; ++from) {
    if (from == ltx::lock_page(next.page_size())) continue;
    OFFPRINT_TRY_ASSIGN(ByteView image, next.page(from));
    OFFPRINT_TRY(changes.page(from, {}, image));
  }
  from = std::max(from, before + 1);
  return {};
}

// --- by comparison -----------------------------------------------------------------------------

// What held_ sees of a page. Large files have many: nobody waits for all of them.
Result<ByteView> FileTail::compared_page(PageNo page) {
  if (interrupted_) return fail(Code::kUnavailable, "it is not followed any more");
  if (page % kPagesBetweenLooks == 0) OFFPRINT_TRY(store_.info(name_));  // it may be dropped
  return held_->page(page);
}

// Makes the database equal to what held_ sees.
Result<> FileTail::compare() {
  set_state(TailState::kComparing);
  {
    std::lock_guard lock(mutex_);
    ++status_.comparisons;
  }
  OFFPRINT_TRY_ASSIGN(position_, store_.position(name_));
  if (position_.txid.value == 0) {  // a full disk may have kept what the journal has from its file
    OFFPRINT_TRY_ASSIGN(auto recovered, store_.snapshot(name_));
    position_ = recovered->position();
  }
  if (!held_->is_reading()) OFFPRINT_TRY(held_->begin());
  if (held_->lets_restart()) compared_at_ = FileStamp::of(path_);
  OFFPRINT_TRY_ASSIGN(page_count_, held_->page_count());
  if (page_count_ == 0) return fail(Code::kBusy, "the file has no pages yet");
  if (position_.txid.value == 0) {
    OFFPRINT_TRY(send_all());
  } else if (auto copy = store_.snapshot(name_); !copy) {
    if (passes(copy.error())) return fail(std::move(copy).error());
    log::warn("database '{}' cannot be read, and is made again: {}", name_.text(),
              copy.error().message());
    OFFPRINT_TRY(begin_anew(position_, false));
  } else {
    bool other_size = (*copy)->page_size() != held_->page_size();
    bool other = other_size;
    if (!other) {
      OFFPRINT_TRY_ASSIGN(other, is_other_content(**copy));
    }
    if (other) {
      copy->reset();
      OFFPRINT_TRY(begin_anew(position_, true));
    } else if (auto sent = send_difference(**copy); !sent) {
      auto info = store_.info(name_);
      if (!info || info->stopped.empty() || passes(sent.error())) return sent;
      copy->reset();  // the copy's file was damaged
      OFFPRINT_TRY(begin_anew(position_, false));
    }
  }
  if (compared_at_) {
    stamp_ = std::exchange(compared_at_, std::nullopt);
    stamp_place_ = held_->place();
  }
  written_over_ = false;
  same_ = true;
  return note_source();
}

// Whether this is no later state of what the database has. Its readers then start from nothing.
Result<bool> FileTail::is_other_content(Snapshot& copy) {
  OFFPRINT_TRY_ASSIGN(ByteView ours, copy.page(1));
  Bytes page_one(ours.begin(), ours.end());
  OFFPRINT_TRY_ASSIGN(ByteView theirs, held_->page(1));
  if (cookie_of(theirs) < cookie_of(page_one)) return true;
  if (remembered_.inode != 0 && remembered_ != open_file_) {
    OFFPRINT_TRY_ASSIGN(PageNo count, held_->page_count());
    if (count != copy.page_count()) return true;
    for (PageNo page = 1; page <= count; ++page) {
      if (page == ltx::lock_page(copy.page_size())) continue;
      OFFPRINT_TRY_ASSIGN(ByteView one, copy.page(page));
      OFFPRINT_TRY_ASSIGN(ByteView other, compared_page(page));
      if (!std::ranges::equal(one, other)) return true;
    }
    return false;
  }
  if (cookie_of(theirs) != cookie_of(page_one)) return false;
  std::string schema;
  OFFPRINT_TRY_ASSIGN(auto sql, store_.sql_snapshot(name_));
  OFFPRINT_TRY(sql->with([&](sqlite::Connection& connection) -> Result<> {
    OFFPRINT_TRY_ASSIGN(schema, connection.query_text(kSchemaTextSql));
    return {};
  }));
  OFFPRINT_TRY_ASSIGN(std::string schema_there, held_->schema_text());
  return schema != schema_there;
}

Result<> FileTail::send_all() {
  ChangeSet changes(spool(), position_);
  OFFPRINT_TRY_ASSIGN(PageNo count, held_->page_count());
  OFFPRINT_TRY(changes.begin(held_->page_size(), count));
  for (PageNo page = 1; page <= count; ++page) {
    if (page == ltx::lock_page(held_->page_size())) continue;
    OFFPRINT_TRY_ASSIGN(ByteView image, compared_page(page));
    OFFPRINT_TRY(changes.page(page, {}, image));
  }
  return send(changes);
}

Result<> FileTail::send_difference(Snapshot& copy) {
  position_ = copy.position();
  ChangeSet changes(spool(), position_);
  OFFPRINT_TRY_ASSIGN(PageNo count, held_->page_count());
  OFFPRINT_TRY(changes.begin(held_->page_size(), count));
  for (PageNo page = 1; page <= count; ++page) {
    if (page == ltx::lock_page(held_->page_size())) continue;
    std::optional<ByteView> old;
    if (page <= copy.page_count()) {
      OFFPRINT_TRY_ASSIGN(old, copy.page(page));
    }
    OFFPRINT_TRY_ASSIGN(ByteView image, compared_page(page));
    OFFPRINT_TRY(changes.page(page, old, image));
  }
  for (PageNo page = count + 1; page <= copy.page_count(); ++page) {
    OFFPRINT_TRY_ASSIGN(ByteView old, copy.page(page));
    changes.remove(page, old);
  }
  return send(changes);
}

// The whole of it, as a history that does not follow on what the database has.
Result<> FileTail::begin_anew(const Position& position, bool other_content) {
  database::CopyTarget target;
  target.position = position;
  if (other_content) target.position.lineage = Lineage::random();
  target.position.epoch.value += 1;
  target.position.txid = position.txid.next();
  target.position.checksum = ltx::kEmptyDatabase;
  target.page_size = held_->page_size();
  OFFPRINT_TRY_ASSIGN(target.page_count, held_->page_count());
  const PageNo lock = ltx::lock_page(target.page_size);
  for (PageNo page = 1; page <= target.page_count; ++page) {
    if (page == lock) continue;
    OFFPRINT_TRY_ASSIGN(ByteView image, compared_page(page));
    target.position.checksum =
        ltx::toggle(target.position.checksum, ltx::page_checksum(page, image));
  }
  OFFPRINT_TRY_ASSIGN(auto writer, store_.begin_copy(name_, target));
  for (PageNo page = 1; page <= target.page_count; ++page) {
    if (page == lock) continue;
    OFFPRINT_TRY_ASSIGN(ByteView image, compared_page(page));
    OFFPRINT_TRY(writer->page(page, image));
  }
  OFFPRINT_TRY(check_compared());
  OFFPRINT_TRY(writer->finish());
  position_ = target.position;
  page_count_ = target.page_count;
  if (other_content) {
    log::info("{} is another database than before: '{}' has a new lineage", path_, name_.text());
  }
  std::lock_guard lock_status(mutex_);
  ++status_.transactions;
  if (other_content) ++status_.lineages;
  return {};
}

}  // namespace offprint::tail
