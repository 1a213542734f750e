#include "feed/change_cursor.h"

namespace offprint::feed {
namespace {

constexpr std::size_t kPieceBytes = 1 << 20, kPieceCount = 64;

}  // namespace

ChangeCursor::State ChangeCursor::end(Error error) {
  error_ = std::move(error);
  drop_reader();
  return State::kEnded;
}

void ChangeCursor::drop_reader() {
  if (!reader_) return;
  reader_.reset();
  --feed_->shared().readers;
}

// A piece of what the feed's memory does not have.
Result<> ChangeCursor::read_behind() {
  FeedShared& shared = feed_->shared();
  if (reader_ && reader_->position() != position_) drop_reader();
  if (!reader_) {
    ChangeReader::Options options;
    options.transaction_bytes_max = shared.transaction_bytes_max;
    options.counter = shared.bytes;
    OFFPRINT_TRY_ASSIGN(auto opened,
                        ChangeReader::open(shared.store, feed_->name(), position_, options));
    OFFPRINT_TRY(opened->want_rows(true));
    reader_ = std::move(opened);
    ++shared.readers;
  }
  for (std::size_t bytes = 0; bytes < kPieceBytes && read_.size() < kPieceCount;) {
    OFFPRINT_TRY_ASSIGN(auto read, reader_->next());
    if (!read) break;
    bytes += read->bytes;
    read_.push_back(std::move(read));
  }
  // What it keeps open serves one listener at a time when there are many.
  if (shared.readers > shared.readers_max) drop_reader();
  return {};
}

ChangeCursor::State ChangeCursor::next(bool may_block) {
  if (error_) return State::kEnded;
  if (auto ended = feed_->error()) return end(*std::move(ended));
  std::shared_ptr<const Transaction> found;
  if (read_.empty()) {
    auto next = feed_->after(position_, true);
    found = std::move(next.transaction);
    if (next.is_behind) {
      if (!may_block) return State::kNeedsHelper;
      if (auto read = read_behind(); !read) return end(std::move(read).error());
    } else if (may_block) {
      drop_reader();
    }
  }
  if (!found && !read_.empty()) {
    found = std::move(read_.front());
    read_.pop_front();
  }
  if (!found) return State::kIdle;
  position_ = found->at;
  std::lock_guard lock(mutex_);
  current_ = std::move(found);
  return State::kTransaction;
}

std::shared_ptr<const Transaction> ChangeCursor::take() {
  std::lock_guard lock(mutex_);
  return current_;
}

void ChangeCursor::cut_if_before(const Bookmark& position) {
  std::shared_ptr<const Transaction> gone;
  std::lock_guard lock(mutex_);
  if (current_ && current_->at.txid < position.txid) gone = std::move(current_);
}

}  // namespace offprint::feed
