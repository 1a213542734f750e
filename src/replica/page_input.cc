#include "replica/page_input.h"

#include <algorithm>

#include <fmt/format.h>

namespace offprint::replica {

void MemoryPages::put(PageNo page, Bytes image) {
  size_bytes_ += image.size();
  Bytes& kept = pages_[page];
  size_bytes_ -= kept.size();
  kept = std::move(image);
}

void MemoryPages::drop_above(PageNo last) {
  for (auto it = pages_.upper_bound(last); it != pages_.end(); it = pages_.erase(it))
    size_bytes_ -= it->second.size();
}

Result<> MemoryPages::rewind() {
  at_ = pages_.begin();
  return {};
}

Result<std::optional<InputPage>> MemoryPages::next() {
  if (at_ == pages_.end()) return std::nullopt;
  InputPage page{at_->first, at_->second};
  ++at_;
  return page;
}

Result<Spool> Spool::create(FileSystem& files, const std::string& path) {
  OFFPRINT_TRY(files.remove(path));
  OFFPRINT_TRY_ASSIGN(auto file, files.open(path, FileSystem::Mode::kCreateNew));
  OFFPRINT_TRY(files.remove(path));
  return Spool(std::move(file));
}

Result<> Spool::append(ByteView bytes) {
  OFFPRINT_TRY(file_->write_at(size_, bytes));
  size_ += bytes.size();
  return {};
}

Result<std::size_t> LtxPages::Source::read(std::span<std::uint8_t> to) {
  OFFPRINT_TRY_ASSIGN(std::size_t got, spool_.read_at(offset_, to));
  offset_ += got;
  return got;
}

Result<> LtxPages::rewind() {
  decoder_.reset();
  source_ = std::make_unique<Source>(spool_);
  decoder_ = std::make_unique<ltx::Decoder>(*source_);
  OFFPRINT_TRY_ASSIGN(header_, decoder_->begin());
  return {};
}

Result<std::optional<InputPage>> LtxPages::next() {
  OFFPRINT_TRY_ASSIGN(std::optional<ltx::Decoder::Page> page, decoder_->next());
  if (!page) return std::nullopt;
  return InputPage{page->number, page->content};
}

Result<std::unique_ptr<LtxPages>> LtxPages::open(Spool spool) {
  std::unique_ptr<LtxPages> pages(new LtxPages(std::move(spool)));
  OFFPRINT_TRY(pages->rewind());
  for (;;) {
    OFFPRINT_TRY_ASSIGN(std::optional<InputPage> page, pages->next());
    if (!page) break;
  }
  OFFPRINT_TRY_ASSIGN(pages->trailer_, pages->decoder_->finish());
  return pages;
}

Result<> SpooledPages::put(PageNo page, ByteView image) {
  if (page <= last_ || image.size() + 4 != record_.size()) {
    return fail(Code::kCorrupt, fmt::format("page {} of a snapshot follows page {}", page, last_));
  }
  store_be<std::uint32_t>(record_.data(), page);
  std::copy(image.begin(), image.end(), record_.begin() + 4);
  last_ = page;
  ++count_;
  return spool_.append(record_);
}

Result<> SpooledPages::rewind() {
  offset_ = 0;
  return {};
}

Result<std::optional<InputPage>> SpooledPages::next() {
  OFFPRINT_TRY_ASSIGN(std::size_t got, spool_.read_at(offset_, record_));
  if (got == 0) return std::nullopt;
  if (got != record_.size()) return fail(Code::kIo, "the spool file was cut");
  offset_ += got;
  return InputPage{load_be<std::uint32_t>(record_.data()), ByteView(record_).subspan(4)};
}

}  // namespace offprint::replica
