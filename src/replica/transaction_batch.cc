#include "replica/transaction_batch.h"

#include <fmt/format.h>

#include "ltx/follows.h"
#include "sqlite/page_apply.h"

namespace offprint::replica {

Result<> TransactionBatch::add(Epoch epoch, ltx::DecodedFile transaction) {
  const ltx::Header& header = transaction.header;
  OFFPRINT_TRY(ltx::check_follows(position_, epoch, header));
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
    std::uint32_t cookie = load_be<std::uint32_t>(transaction.pages.front().second.data() +
                                                  sqlite::kSchemaCookieOffset);
    cookie_moved_ = cookie_moved_ || (cookie_ && *cookie_ != cookie);
    cookie_ = cookie;
  }
  for (auto& [page, image] : transaction.pages) pages_.put(page, std::move(image));
  pages_.drop_above(page_count_);
  ++count_;
  return {};
}

}  // namespace offprint::replica
