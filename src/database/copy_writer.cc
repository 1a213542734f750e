#include "database/copy_writer.h"

#include <algorithm>

#include "base/clock.h"
#include "ltx/checksum.h"

namespace offprint::database {
namespace {

class CopyWriterImpl final : public CopyWriter {
 public:
  CopyWriterImpl(const CopyTarget& target, std::unique_ptr<journal::LargePayload> payload,
                 std::function<Result<>(const NewHistory&)> finish)
      : payload_(std::move(payload)), encoder_(*payload_), finish_(std::move(finish)) {
    history_.target = target;
  }

  Result<> begin() {
    const CopyTarget& target = history_.target;
    ltx::Header header;
    // A whole copy is a snapshot whose checksum the encoder proves; what differs proves nothing
    // alone: the file is read when it was applied.
    header.flags = target.whole ? 0 : ltx::kNoChecksumFlag;
    header.page_size = target.page_size;
    header.page_count = target.page_count;
    header.min_txid = target.whole ? TxId{1} : target.position.txid;
    header.max_txid = target.position.txid;
    header.timestamp_ms = unix_time_ms();
    return encoder_.begin(header);
  }

  Result<> page(PageNo page, ByteView image) override {
    if (page == ltx::lock_page(history_.target.page_size)) return {};
    if (page == 1 && image.size() >= history_.header.size()) {
      std::copy_n(image.begin(), history_.header.size(), history_.header.begin());
      history_.has_header = true;
    }
    return encoder_.page(page, image);
  }

  Result<> finish() override {
    if (history_.target.page_count != 0) {
      const Checksum checksum = history_.target.position.checksum;
      auto finished = encoder_.finish(history_.target.whole ? checksum : Checksum{});
      if (!finished) return fail(Code::kCorrupt, finished.error().message());
      OFFPRINT_TRY(payload_->finish());
      history_.payload_file = payload_->file();
      history_.payload_size = payload_->size();
    }
    return finish_(history_);
  }

 private:
  std::unique_ptr<journal::LargePayload> payload_;
  ltx::Encoder encoder_;
  NewHistory history_;
  std::function<Result<>(const NewHistory&)> finish_;
};

}  // namespace

Result<std::unique_ptr<CopyWriter>> make_copy_writer(
    journal::Journal& journal, const CopyTarget& target,
    std::function<Result<>(const NewHistory&)> finish) {
  OFFPRINT_TRY_ASSIGN(auto payload, journal.create_large_payload());
  auto writer = std::make_unique<CopyWriterImpl>(target, std::move(payload), std::move(finish));
  if (target.page_count != 0) OFFPRINT_TRY(writer->begin());
  return writer;
}

}  // namespace offprint::database
