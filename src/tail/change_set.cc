#include "tail/change_set.h"

#include <algorithm>

#include "base/clock.h"
#include "ltx/checksum.h"
#include "ltx/file_stream.h"

namespace offprint::tail {
class ChangeSet::Output final : public ltx::ByteSink {
 public:
  explicit Output(Options options) : options_(std::move(options)) {}

  Result<> write(ByteView bytes) override {
    if (!file_ && bytes_.size() + bytes.size() <= options_.memory_max) {
      append(bytes_, bytes);
      return {};
    }
    if (!file_) OFFPRINT_TRY(open_file());
    OFFPRINT_TRY(file_->write_at(size_, bytes));
    size_ += bytes.size();
    return {};
  }

  database::IncomingTransaction take(Epoch epoch) {
    database::IncomingTransaction transaction;
    transaction.epoch = epoch;
    transaction.ltx = std::move(bytes_);
    if (!file_) return transaction;
    transaction.open = [file = file_]() -> Result<std::unique_ptr<ltx::ByteSource>> {
      return std::make_unique<ltx::FileSource>(file);
    };
    return transaction;
  }

 private:
  Result<> open_file() {
    OFFPRINT_TRY(options_.files->remove(options_.spool_path));
    OFFPRINT_TRY_ASSIGN(file_,
                        options_.files->open(options_.spool_path, FileSystem::Mode::kCreateNew));
    OFFPRINT_TRY(options_.files->remove(options_.spool_path));
    OFFPRINT_TRY(file_->write_at(0, bytes_));
    size_ = bytes_.size();
    bytes_ = {};
    return {};
  }

  const Options options_;
  Bytes bytes_;
  std::shared_ptr<File> file_;
  std::uint64_t size_ = 0;  // of the file
};

ChangeSet::ChangeSet(Options options, const Position& before)
    : before_(before),
      after_(before),
      output_(std::make_unique<Output>(std::move(options))),
      encoder_(*output_) {}

ChangeSet::~ChangeSet() = default;

Result<> ChangeSet::begin(std::uint32_t page_size, std::uint32_t page_count) {
  after_.txid = before_.txid.next();
  lock_page_ = ltx::lock_page(page_size);
  page_count_ = page_count;
  ltx::Header header;
  header.page_size = page_size;
  header.page_count = page_count;
  header.min_txid = after_.txid;
  header.max_txid = after_.txid;
  header.timestamp_ms = unix_time_ms();
  header.pre_apply = header.is_snapshot() ? Checksum{} : before_.checksum;
  return encoder_.begin(header);
}

Result<> ChangeSet::page(PageNo page, std::optional<ByteView> old, ByteView image) {
  if (page == lock_page_ || (old && std::ranges::equal(*old, image))) return {};
  if (old) after_.checksum = ltx::toggle(after_.checksum, ltx::page_checksum(page, *old));
  after_.checksum = ltx::toggle(after_.checksum, ltx::page_checksum(page, image));
  changed_ = true;
  return encoder_.page(page, image);
}

void ChangeSet::remove(PageNo page, ByteView old) {
  if (page == lock_page_) return;
  after_.checksum = ltx::toggle(after_.checksum, ltx::page_checksum(page, old));
  changed_ = true;
}

Result<std::optional<database::IncomingTransaction>> ChangeSet::finish() {
  if (!changed_) {
    after_ = before_;
    return std::nullopt;
  }
  OFFPRINT_TRY(encoder_.finish(after_.checksum));
  return output_->take(after_.epoch);
}

}  // namespace offprint::tail
