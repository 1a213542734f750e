#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <queue>

#include "ltx/checksum.h"
#include "ltx/layout.h"

// Compaction is a merge of sorted page lists: at each step the lowest page number among the inputs'
// heads, and of those that have it the newest input's image.
namespace offprint::ltx {
namespace {

struct Input {
  explicit Input(ByteSource& source) : decoder(source) {}

  Decoder decoder;
  Header header;
  Decoder::Page head{};
  // The smallest database among this input and all later ones: images of pages above it did not
  // outlive a truncation.
  std::uint32_t page_count_min = 0;
};

std::unexpected<Error> in_file(const Error& error, const Header& header) {
  return fail(error.with_context(file_name(header.min_txid, header.max_txid)));
}

class Compaction {
 public:
  Compaction(std::uint32_t flags, ByteSink& output) : flags_(flags), encoder_(output) {}

  Result<> open(std::span<ByteSource* const> sources);
  Result<Trailer> run();

 private:
  // A head waiting for its turn. The order of std::priority_queue: last comes first.
  struct Waiting {
    PageNo page;
    std::size_t input;
    bool operator<(const Waiting& other) const {
      return page != other.page ? page > other.page : input < other.input;
    }
  };

  Result<> check_sequence() const;
  Header merged_header() const;
  Result<> advance(std::size_t input);
  Result<> merge();
  Result<> check_growth(std::uint64_t page);
  Result<Checksum> finish_inputs();
  bool tracks_checksum() const { return (flags_ & kNoChecksumFlag) == 0; }

  const std::uint32_t flags_;
  Encoder encoder_;
  std::deque<Input> inputs_;  // decoders do not move
  std::priority_queue<Waiting> waiting_;
  std::uint64_t grown_next_ = 0;  // the next page that growth after a truncation must have brought
};

Result<> Compaction::open(std::span<ByteSource* const> sources) {
  if (sources.empty()) return fail(Code::kInvalid, "nothing to compact");
  for (ByteSource* source : sources) {
    Input& input = inputs_.emplace_back(*source);
    OFFPRINT_TRY_ASSIGN(input.header, input.decoder.begin());
  }
  std::uint32_t page_count_min = inputs_.back().header.page_count;
  for (std::size_t i = inputs_.size(); i-- > 0;) {
    page_count_min = std::min(page_count_min, inputs_[i].header.page_count);
    inputs_[i].page_count_min = page_count_min;
  }
  grown_next_ = std::uint64_t{page_count_min} + 1;
  return check_sequence();
}

Result<> Compaction::check_sequence() const {
  for (std::size_t i = 1; i < inputs_.size(); ++i) {
    const Header& before = inputs_[i - 1].header;
    const Header& after = inputs_[i].header;
    if (after.page_size != before.page_size)
      return fail(Code::kInvalid, "files of different page sizes");
    // Overlap is allowed, as long as each file leads further.
    if (after.min_txid > before.max_txid.next() || after.max_txid <= before.max_txid) {
      return fail(Code::kInvalid,
                  fmt::format("{} does not follow {}", file_name(after.min_txid, after.max_txid),
                              file_name(before.min_txid, before.max_txid)));
    }
  }
  if (tracks_checksum() &&
      !(inputs_.front().header.tracks_checksum() && inputs_.back().header.tracks_checksum())) {
    return fail(Code::kInvalid, "checksums asked for that the files do not track");
  }
  return {};
}

Header Compaction::merged_header() const {
  const Header& first = inputs_.front().header;
  const Header& last = inputs_.back().header;
  Header header;
  header.flags = flags_;
  header.page_size = first.page_size;
  header.page_count = last.page_count;
  header.min_txid = first.min_txid;
  header.max_txid = last.max_txid;
  header.timestamp_ms = last.timestamp_ms;
  if (tracks_checksum()) header.pre_apply = first.pre_apply;
  return header;
}

Result<> Compaction::advance(std::size_t input) {
  Input& from = inputs_[input];
  auto page = from.decoder.next();
  if (!page) return in_file(page.error(), from.header);
  if (!*page) return {};
  from.head = **page;
  waiting_.push({from.head.number, input});
  return {};
}

// A database that was once smaller than `page` and is now larger got every page in between from the
// files after that.
Result<> Compaction::check_growth(std::uint64_t page) {
  const Header& last = inputs_.back().header;
  if (grown_next_ == lock_page(last.page_size)) ++grown_next_;
  if (page < grown_next_) return {};
  if (page > grown_next_) {
    return fail(Code::kCorrupt,
                fmt::format("no file brings page {}, by which the database grew", grown_next_));
  }
  ++grown_next_;
  return {};
}

Result<> Compaction::merge() {
  for (std::size_t i = 0; i < inputs_.size(); ++i) OFFPRINT_TRY(advance(i));
  PageNo written = 0;
  while (!waiting_.empty()) {
    const Waiting next = waiting_.top();
    waiting_.pop();
    const Input& from = inputs_[next.input];
    if (next.page != written && next.page <= from.page_count_min) {
      OFFPRINT_TRY(check_growth(next.page));
      OFFPRINT_TRY(encoder_.page(next.page, from.head.content));
      written = next.page;
    }
    OFFPRINT_TRY(advance(next.input));
  }
  return check_growth(std::uint64_t{inputs_.back().header.page_count} + 1);
}

// Answers the last file's post-apply checksum.
Result<Checksum> Compaction::finish_inputs() {
  Checksum before;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const Header& header = inputs_[i].header;
    auto trailer = inputs_[i].decoder.finish();
    if (!trailer) return in_file(trailer.error(), header);
    const bool adjacent = i > 0 && header.min_txid == inputs_[i - 1].header.max_txid.next();
    if (adjacent && header.tracks_checksum() && before.value != 0 && header.pre_apply != before) {
      return in_file(
          Error(Code::kCorrupt, "pre-apply checksum is not what the file before it leaves"),
          header);
    }
    before = trailer->post_apply;
  }
  return before;
}

Result<Trailer> Compaction::run() {
  OFFPRINT_TRY(encoder_.begin(merged_header()));
  OFFPRINT_TRY(merge());
  OFFPRINT_TRY_ASSIGN(const Checksum post_apply, finish_inputs());
  auto trailer = encoder_.finish(tracks_checksum() ? post_apply : Checksum{});
  // The inputs were sound each by itself: together they are not.
  if (!trailer && trailer.error().code() == Code::kInvalid)
    return fail(Code::kCorrupt, trailer.error().message());
  return trailer;
}

}  // namespace

Result<Trailer> compact(std::span<ByteSource* const> inputs, std::uint32_t flags,
                        ByteSink& output) {
  Compaction compaction(flags, output);
  OFFPRINT_TRY(compaction.open(inputs));
  return compaction.run();
}

}  // namespace offprint::ltx
