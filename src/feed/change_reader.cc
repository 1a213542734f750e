#include "feed/change_reader.h"

namespace offprint::feed {
namespace {

constexpr std::size_t kEntriesAtOnce = 256;

}  // namespace

Result<std::unique_ptr<ChangeReader>> ChangeReader::open(database::Store& store,
                                                         const database::DatabaseName& name,
                                                         const Bookmark& since,
                                                         const Options& options) {
  OFFPRINT_TRY(store.log_after(name, since, 1));  // the log leads on from there
  std::unique_ptr<ChangeReader> reader(new ChangeReader(store, name, options));
  OFFPRINT_TRY_ASSIGN(reader->walk_, StateWalk::begin(store, name, since));
  return reader;
}

Result<> ChangeReader::want_rows(bool wanted) {
  if (wanted == wants_rows()) return {};
  differences_.reset();
  if (!wanted) return {};
  auto made = std::make_unique<RowDifferences>(*walk_, options_.transaction_bytes_max,
                                               name_.text().starts_with('@'));
  OFFPRINT_TRY(made->start());
  differences_ = std::move(made);
  return {};
}

Result<std::shared_ptr<const Transaction>> ChangeReader::next(const OnStep& on_step,
                                                              const OnRead& on_read) {
  if (entries_.empty()) {
    OFFPRINT_TRY_ASSIGN(auto entries, store_.log_after(name_, walk_->position(), kEntriesAtOnce));
    entries_.assign(entries.begin(), entries.end());
  }
  if (entries_.empty()) return std::shared_ptr<const Transaction>();
  const database::LogEntry entry = entries_.front();
  entries_.pop_front();
  auto transaction = std::make_shared<Transaction>(options_.counter);
  transaction->previous = walk_->position();
  transaction->timestamp_ms = entry.timestamp_ms;
  OFFPRINT_TRY(walk_->step(entry));
  std::size_t bytes = sizeof(Transaction);
  if (differences_) {
    const std::size_t before = transaction->bytes;
    OFFPRINT_TRY(differences_->compare(*transaction));
    bytes += transaction->bytes - before;
  }
  transaction->bytes = bytes;
  if (options_.counter) options_.counter->fetch_add(bytes, std::memory_order_relaxed);
  transaction->at = walk_->next_position();
  if (on_read) on_read(transaction);
  if (on_step) OFFPRINT_TRY(on_step(*walk_));
  OFFPRINT_TRY(walk_->settle());
  return std::shared_ptr<const Transaction>(std::move(transaction));
}

}  // namespace offprint::feed
