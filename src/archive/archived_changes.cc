#include "archive/archived_changes.h"

#include <algorithm>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "base/bytes.h"
#include "database/touched_tables.h"
#include "ltx/checksum.h"
#include "ltx/codec.h"
#include "sqlite/page_apply.h"

namespace offprint::archive {
namespace {

using database::Snapshot;
using database::TransactionDetails;

constexpr std::size_t kChangedBytesMax = 32 << 20;

// A state, and what was changed since: in memory, as long as that is not much.
class LaterState final : public Snapshot {
 public:
  explicit LaterState(std::unique_ptr<Snapshot> base)
      : base_(std::move(base)),
        position_(base_->position()),
        page_size_(base_->page_size()),
        page_count_(base_->page_count()) {}

  Position position() const override { return position_; }
  std::uint32_t page_size() const override { return page_size_; }
  std::uint32_t page_count() const override { return page_count_; }
  Result<ByteView> page(PageNo page) override {
    if (auto found = changed_.find(page); found != changed_.end()) return ByteView(found->second);
    return base_->page(page);
  }

  // False: it has become too much, and this is no state any more.
  bool change(PageNo page, ByteView image) {
    auto [entry, is_new] = changed_.try_emplace(page);
    if (is_new) changed_bytes_ += image.size();
    entry->second.assign(image.begin(), image.end());
    return changed_bytes_ <= kChangedBytesMax;
  }
  // Its checksum is not known.
  void reach(const Bookmark& bookmark, std::uint32_t page_count) {
    position_ = Position{bookmark.lineage, bookmark.epoch, bookmark.txid, Checksum{}};
    page_count_ = page_count;
    changed_.erase(changed_.upper_bound(page_count), changed_.end());
  }

 private:
  std::unique_ptr<Snapshot> base_;
  Position position_;
  const std::uint32_t page_size_;
  std::uint32_t page_count_;
  std::map<PageNo, Bytes> changed_;
  std::size_t changed_bytes_ = 0;
};

std::uint32_t cookie_of(ByteView page_one) {
  return load_be<std::uint32_t>(page_one.data() + sqlite::kSchemaCookieOffset);
}

// Goes from moment to moment, oldest first.
class Walk {
 public:
  Walk(ObjectStore& objects, const StateAt& state_at) : objects_(objects), state_at_(state_at) {}

  Result<TransactionDetails> describe(const ArchivedMoment& moment) {
    auto details = describe_from_former(moment);
    if (!details) state_.reset();  // half of it may be there
    return details;
  }

 private:
  Result<TransactionDetails> describe_from_former(const ArchivedMoment& moment) {
    if (!moment.former && moment.first.value != 1)
      return fail(Code::kNotFound, "the archive does not have what was before it");
    if (!moment.former) {
      state_.reset();  // there was nothing
    } else if (!state_ || state_->position().txid != moment.former->txid) {
      OFFPRINT_TRY(go_to(*moment.former));
    }
    TransactionDetails details;
    OFFPRINT_TRY_ASSIGN(const std::vector<PageNo> pages, read_pages(moment, details));
    if (!state_) OFFPRINT_TRY(go_to(moment.bookmark));
    details.pages = static_cast<std::uint32_t>(pages.size());
    OFFPRINT_TRY_ASSIGN(details.tables, database::touched_tables(*state_, pages));
    return details;
  }

  Result<> go_to(const Bookmark& at) {
    state_.reset();
    OFFPRINT_TRY_ASSIGN(auto base, state_at_(at));
    state_ = std::make_unique<LaterState>(std::move(base));
    return {};
  }

  // The pages that its object changes. The state is the one after it then, or there is none.
  Result<std::vector<PageNo>> read_pages(const ArchivedMoment& moment,
                                         TransactionDetails& details) {
    OFFPRINT_TRY_ASSIGN(auto source, objects_.get(moment.key));
    ltx::Decoder decoder(*source);
    OFFPRINT_TRY_ASSIGN(const ltx::Header header, decoder.begin());
    if (header.max_txid != moment.bookmark.txid || header.min_txid > moment.first)
      return fail(Code::kCorrupt,
                  fmt::format("{}/{}: it is not what its name says", objects_.url(), moment.key));
    if (state_ && header.page_size != state_->page_size())
      return fail(Code::kNotFound, "pages had another size before it");
    details.page_count = header.page_count;
    details.schema_changed = !state_;
    std::vector<PageNo> pages;
    bool is_kept = state_ != nullptr;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(const auto page, decoder.next());
      if (!page) break;
      if (state_ && page->number <= state_->page_count()) {
        OFFPRINT_TRY_ASSIGN(const ByteView former, state_->page(page->number));
        if (std::ranges::equal(former, page->content)) continue;
        if (page->number == 1)
          details.schema_changed = cookie_of(former) != cookie_of(page->content);
      }
      pages.push_back(page->number);
      if (is_kept) is_kept = state_->change(page->number, page->content);
    }
    OFFPRINT_TRY(decoder.finish());
    if (is_kept)
      state_->reach(moment.bookmark, header.page_count);
    else
      state_.reset();
    return pages;
  }

  ObjectStore& objects_;
  const StateAt& state_at_;
  std::unique_ptr<LaterState> state_;
};

}  // namespace

std::vector<Result<TransactionDetails>> describe_moments(ObjectStore& objects,
                                                         const std::vector<ArchivedMoment>& moments,
                                                         const StateAt& state_at) {
  std::vector<Result<TransactionDetails>> all;
  Walk walk(objects, state_at);
  std::optional<Error> failure;  // of the store, which the others would meet, too
  for (auto moment = moments.rbegin(); moment != moments.rend(); ++moment) {
    if (failure) {
      all.push_back(fail(*failure));
      continue;
    }
    all.push_back(walk.describe(*moment));
    if (all.back()) continue;
    const Error& error = all.back().error();
    if (error.code() != Code::kNotFound && error.code() != Code::kCorrupt) failure = error;
  }
  std::ranges::reverse(all);
  return all;
}

}  // namespace offprint::archive
