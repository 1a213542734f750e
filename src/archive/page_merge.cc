#include "archive/page_merge.h"

#include "archive/archive_header.h"

namespace offprint::archive {

Result<> PageMerge::add(const database::LogEntry& entry, ltx::ByteSource& payload) {
  ltx::Decoder decoder(payload);
  OFFPRINT_TRY_ASSIGN(ltx::Header header, decoder.begin());
  if (header.max_txid != entry.txid || (header_ && header.min_txid != header_->max_txid.next()))
    return fail(Code::kCorrupt, "the log's transactions do not follow from each other");
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
    if (!page) break;
    Bytes& image = pages_[page->number];
    bytes_ += page->content.size() - image.size();
    image.assign(page->content.begin(), page->content.end());
  }
  OFFPRINT_TRY(decoder.finish());
  TxId min = header_ ? header_->min_txid : header.min_txid;
  header_ = archive_header(header, entry.checksum);
  header_->min_txid = min;
  // What a transaction cut off is not there any more; what a later one adds again comes with it.
  for (auto beyond = pages_.upper_bound(header.page_count); beyond != pages_.end();) {
    bytes_ -= beyond->second.size();
    beyond = pages_.erase(beyond);
  }
  return {};
}

Result<> PageMerge::write(ltx::ByteSink& to) const {
  ltx::Encoder encoder(to, kArchiveEncoding);
  OFFPRINT_TRY(encoder.begin(*header_));
  for (const auto& [page, image] : pages_) OFFPRINT_TRY(encoder.page(page, image));
  OFFPRINT_TRY(encoder.finish(Checksum{}));
  return {};
}

}  // namespace offprint::archive
