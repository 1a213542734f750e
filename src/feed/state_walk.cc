#include "feed/state_walk.h"

#include <utility>

#include "ltx/checksum.h"
#include "ltx/codec.h"

namespace offprint::feed {
namespace {

constexpr std::size_t kPagesToCheckpoint = 4'000;

}  // namespace

Result<std::unique_ptr<StateWalk>> StateWalk::begin(database::Store& store,
                                                    const database::DatabaseName& name,
                                                    const Bookmark& at) {
  std::unique_ptr<StateWalk> walk(new StateWalk(store, name));
  OFFPRINT_TRY(walk->load(at));
  return walk;
}

Result<> StateWalk::load(const Bookmark& at) {
  overlay_.clear();
  overlay_bytes_ = 0;
  base_.reset();
  position_ = at;
  pages_before_ = 0;
  if (at.txid.value == 0) return {};  // it was never written
  OFFPRINT_TRY_ASSIGN(base_, store_.snapshot_at(name_, at));
  page_size_ = base_->page_size();
  pages_before_ = base_->page_count();
  return {};
}

Result<ByteView> StateWalk::read(database::Snapshot* base, const Overlay* newest,
                                 const Overlay* older, std::uint32_t count, PageNo page) {
  if (page == 0 || page > count)
    return fail(Code::kCorrupt, "a page is asked for that the state does not have");
  for (const Overlay* overlay : {newest, older}) {
    if (overlay == nullptr) continue;
    if (auto found = overlay->find(page); found != overlay->end()) return ByteView(found->second);
  }
  if (base != nullptr && page <= base->page_count()) return base->page(page);
  zeros_.assign(page_size_, 0);
  return ByteView(zeros_);
}

Result<ByteView> StateWalk::before(PageNo page) {
  return read(base_.get(), &overlay_, nullptr, pages_before_, page);
}

Result<ByteView> StateWalk::after(PageNo page) {
  if (base_after_) return read(base_after_.get(), nullptr, nullptr, pages_after_, page);
  return read(base_.get(), &fresh_, &overlay_, pages_after_, page);
}

Result<> StateWalk::step(const database::LogEntry& entry) {
  if (entry.txid != position_.txid.next())
    return fail(Code::kBehind, "the log does not go on where the feed stands");
  next_ = {entry.epoch, entry.txid, position_.lineage};
  written_.clear();
  fresh_.clear();
  base_after_.reset();
  OFFPRINT_TRY_ASSIGN(auto payload, store_.open_payload(entry.location));
  ltx::Decoder decoder(*payload);
  OFFPRINT_TRY_ASSIGN(ltx::Header header, decoder.begin());
  if (base_ && header.page_size != page_size_)
    return fail(Code::kBehind, "the size of pages has changed");
  page_size_ = header.page_size;
  pages_after_ = header.page_count;
  std::size_t bytes = 0;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
    if (!page) break;
    written_.insert(page->number);
    bytes += page->content.size();
    if (bytes > kStepBytesMax) {
      fresh_.clear();
      continue;
    }
    fresh_.emplace(page->number, Bytes(page->content.begin(), page->content.end()));
  }
  OFFPRINT_TRY(decoder.finish());
  if (bytes > kStepBytesMax) {
    fresh_.clear();
    OFFPRINT_TRY_ASSIGN(base_after_, store_.snapshot_at(name_, next_));
  }
  return {};
}

Result<> StateWalk::settle() {
  position_ = next_;
  pages_since_checkpoint_ += written_.size();
  if (base_after_) {
    base_ = std::move(base_after_);
    overlay_.clear();
    overlay_bytes_ = 0;
  } else {
    for (auto& [page, image] : fresh_) {
      auto [place, is_new] = overlay_.insert_or_assign(page, std::move(image));
      if (is_new) overlay_bytes_ += page_size_;
    }
  }
  fresh_.clear();
  // What is cut off must not come back when the database grows again.
  if (pages_after_ < pages_before_) {
    for (PageNo page = pages_after_ + 1; page <= pages_before_; ++page) {
      if (overlay_.erase(page) != 0) overlay_bytes_ -= page_size_;
    }
  }
  pages_before_ = pages_after_;
  if (overlay_bytes_ > kOverlayBytesMax) return load(position_);
  return {};
}

void StateWalk::rest() {
  if (overlay_.empty()) return;
  auto fresh = store_.snapshot_at(name_, position_);
  if (!fresh) return;  // what it has is as good
  base_ = *std::move(fresh);
  overlay_.clear();
  overlay_bytes_ = 0;
}

Result<> StateWalk::rest_with_checkpoint() {
  if (pages_since_checkpoint_ < kPagesToCheckpoint) return {};
  pages_since_checkpoint_ = 0;
  base_.reset();
  OFFPRINT_TRY(store_.checkpoint(name_));
  return load(position_);
}

}  // namespace offprint::feed
