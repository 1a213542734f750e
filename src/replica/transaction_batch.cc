#include "replica/transaction_batch.h"

#include <fmt/format.h>

#include "ltx/checksum.h"

namespace offprint::replica {
namespace {

constexpr std::size_t kCookieOffset = 40;  // in page 1

}  // namespace

Result<> check_follows(const Position& current, Epoch epoch, const ltx::Header& header) {
  if (!header.tracks_checksum() || header.page_count == 0) {
    return fail(Code::kCorrupt, "a transaction without checksum or pages");
  }
  if (header.min_txid != current.txid.next() || epoch < current.epoch) {
    return fail(
        Code::kBehind,
        fmt::format("transaction {} of epoch {} does not follow on {} of epoch {}",
                    header.min_txid.value, epoch.value, current.txid.value, current.epoch.value));
  }
  // A database's first transaction has no content before it.
  Checksum before = header.is_snapshot() ? ltx::kEmptyDatabase : header.pre_apply;
  if (before != current.checksum) {
    return fail(
        Code::kConflict,
        fmt::format(
            "the copy diverged: at transaction {} it has checksum {:016x}, the primary {:016x}",
            current.txid.value, current.checksum.value, before.value));
  }
  return {};
}

Result<> TransactionBatch::add(Epoch epoch, ltx::DecodedFile transaction) {
  const ltx::Header& header = transaction.header;
  OFFPRINT_TRY(check_follows(position_, epoch, header));
  if (page_size_ != 0 && header.page_size != page_size_) {
    return fail(Code::kConflict,
                fmt::format("the pages are of {} bytes now, not {}", header.page_size, page_size_));
  }
  page_size_ = header.page_size;
  page_count_ = header.page_count;
  timestamp_ms_ = header.timestamp_ms;
  position_.epoch = epoch;
  position_.txid = header.max_txid;
  position_.checksum = transaction.trailer.post_apply;
  if (!transaction.pages.empty() && transaction.pages.front().first == 1) {
    std::uint32_t cookie =
        load_be<std::uint32_t>(transaction.pages.front().second.data() + kCookieOffset);
    cookie_moved_ = cookie_moved_ || (cookie_ && *cookie_ != cookie);
    cookie_ = cookie;
  }
  for (auto& [page, image] : transaction.pages) pages_.put(page, std::move(image));
  pages_.drop_above(page_count_);
  ++count_;
  return {};
}

}  // namespace offprint::replica
