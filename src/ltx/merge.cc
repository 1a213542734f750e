#include "ltx/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ltx/checksum.h"

// A merge of sorted page lists: at each step the lowest page number among the inputs' heads, and of
// those that have it the newest input's image.
namespace offprint::ltx {

std::unexpected<Error> Merge::in_file(const Error& error, const Input& input) {
  return fail(error.with_context(input.name));
}

Result<> Merge::open(std::span<const MergeInput> inputs) {
  if (inputs.empty()) return fail(Code::kInvalid, "nothing to compact");
  for (const MergeInput& from : inputs) {
    Input& input = inputs_.emplace_back(from);
    auto header = input.decoder.begin();
    if (!header) return input.name.empty() ? fail(header.error()) : in_file(header.error(), input);
    input.header = *header;
    if (input.name.empty()) input.name = file_name(header->min_txid, header->max_txid);
  }
  std::uint32_t page_count_min = inputs_.back().header.page_count;
  for (std::size_t i = inputs_.size(); i-- > 0;) {
    page_count_min = std::min(page_count_min, inputs_[i].header.page_count);
    inputs_[i].page_count_min = page_count_min;
  }
  grown_next_ = std::uint64_t{page_count_min} + 1;
  return check_sequence();
}

Result<> Merge::check_sequence() const {
  for (std::size_t i = 1; i < inputs_.size(); ++i) {
    const Header& before = inputs_[i - 1].header;
    const Header& after = inputs_[i].header;
    if (after.page_size != before.page_size)
      return fail(Code::kInvalid, "files of different page sizes");
    // Overlap is allowed, as long as each file leads further.
    if (after.min_txid > before.max_txid.next() || after.max_txid <= before.max_txid) {
      return fail(Code::kInvalid,
                  fmt::format("{} does not follow {}", inputs_[i].name, inputs_[i - 1].name));
    }
  }
  return {};
}

Result<> Merge::advance(std::size_t input) {
  Input& from = inputs_[input];
  auto page = from.decoder.next();
  if (!page) return in_file(page.error(), from);
  if (!*page) return {};
  from.head = **page;
  waiting_.push({from.head.number, input});
  return {};
}

// A database that was once smaller than `page` and is now larger got every page in between from the
// files after that.
Result<> Merge::check_growth(std::uint64_t page) {
  if (grown_next_ == lock_page(last().page_size)) ++grown_next_;
  if (page < grown_next_) return {};
  if (page > grown_next_) {
    return fail(Code::kCorrupt,
                fmt::format("no file brings page {}, by which the database grew", grown_next_));
  }
  ++grown_next_;
  return {};
}

Result<std::optional<Decoder::Page>> Merge::next() {
  if (!std::exchange(started_, true)) {
    for (std::size_t i = 0; i < inputs_.size(); ++i) OFFPRINT_TRY(advance(i));
  }
  if (shown_) OFFPRINT_TRY(advance(*std::exchange(shown_, std::nullopt)));
  while (!waiting_.empty()) {
    const Waiting next = waiting_.top();
    waiting_.pop();
    const Input& from = inputs_[next.input];
    if (observer_ != nullptr) observer_->image(next.input, next.page, from.head.content);
    if (next.page != last_ && next.page <= from.page_count_min) {
      OFFPRINT_TRY(check_growth(next.page));
      last_ = next.page;
      shown_ = next.input;
      return from.head;
    }
    OFFPRINT_TRY(advance(next.input));
  }
  return std::optional<Decoder::Page>();
}

Result<> Merge::finish() {
  OFFPRINT_TRY(check_growth(std::uint64_t{last().page_count} + 1));
  Checksum before;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    Input& input = inputs_[i];
    auto trailer = input.decoder.finish();
    if (!trailer) return in_file(trailer.error(), input);
    const bool adjacent = i > 0 && input.header.min_txid == inputs_[i - 1].header.max_txid.next();
    if (adjacent && input.header.tracks_checksum() && before.value != 0 &&
        input.header.pre_apply != before) {
      return in_file(
          Error(Code::kCorrupt, "pre-apply checksum is not what the file before it leaves"), input);
    }
    before = trailer->post_apply;
    input.trailer = *trailer;
  }
  return {};
}

}  // namespace offprint::ltx
