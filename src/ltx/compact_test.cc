#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "ltx/test_pages.h"
#include "ltx/vectors.h"

namespace offprint::ltx {
namespace {

using testing::HasSubstr;

Result<Bytes> compact_files(const std::vector<Bytes>& files, const CompactOptions& options) {
  std::deque<BytesSource> sources;
  std::vector<ByteSource*> inputs;
  for (const Bytes& file : files) inputs.push_back(&sources.emplace_back(file));
  Bytes out;
  BytesSink sink(out);
  OFFPRINT_TRY(compact(inputs, options, sink));
  return out;
}
Result<Bytes> compact_files(const std::vector<Bytes>& files, std::uint32_t flags = 0) {
  return compact_files(files, CompactOptions{.flags = flags});
}

void expect_refused(const std::vector<Bytes>& files, std::uint32_t flags, Code code,
                    const char* why) {
  const auto compacted = compact_files(files, flags);
  ASSERT_FALSE(compacted) << why;
  EXPECT_EQ(compacted.error().code(), code) << compacted.error().message();
  EXPECT_THAT(compacted.error().message(), HasSubstr(why));
}

TEST(CompactTest, GivesWhatTheStockLibraryGives) {
  const auto compacted =
      compact_files({*from_hex(vectors::kSnapshot), *from_hex(vectors::kIncremental)});
  ASSERT_TRUE(compacted) << compacted.error().message();
  const auto ours = decode(*compacted);
  const auto stock = decode(*from_hex(vectors::kCompacted));
  ASSERT_TRUE(ours && stock);
  EXPECT_EQ(ours->header, stock->header);
  EXPECT_EQ(ours->pages, stock->pages);
  EXPECT_EQ(ours->trailer.post_apply, stock->trailer.post_apply);
}

TEST(CompactTest, WithoutChecksumsThereIsNoneInTheResult) {
  const auto compacted = compact_files(
      {*from_hex(vectors::kSnapshot), *from_hex(vectors::kIncremental)}, kNoChecksumFlag);
  ASSERT_TRUE(compacted) << compacted.error().message();
  const auto decoded = decode(*compacted);
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(decoded->header.flags, kNoChecksumFlag);
  EXPECT_EQ(decoded->trailer.post_apply.value, 0u);
  EXPECT_EQ(decoded->pages[0].second, Bytes(512, 0xaa));
}

// What an archive that stock programs read is made of: no checksums, frames, and our own header
// fields.
TEST(CompactTest, OptionsStandInTheResult) {
  const CompactOptions options{.flags = kNoChecksumFlag,
                               .encoding = PageEncoding::kFrame,
                               .node_id = 0xa992da1927bb5c9f,
                               .wal_offset = 32,
                               .wal_salt1 = 5,
                               .wal_salt2 = 6};
  const std::vector<std::vector<Bytes>> runs = {
      {*from_hex(vectors::kSnapshot), *from_hex(vectors::kIncremental)},
      {*from_hex(vectors::kSnapshotWithoutChecksums), *from_hex(vectors::kIncremental)},
  };
  for (const auto& run : runs) {
    const auto compacted = compact_files(run, options);
    ASSERT_TRUE(compacted) << compacted.error().message();
    // Page header without a size, then the frame's magic.
    EXPECT_EQ(to_hex(ByteView(*compacted).subspan(kHeaderSize, 10)), "00000001000004224d18");
    const auto decoded = decode(*compacted);
    ASSERT_TRUE(decoded) << decoded.error().message();
    EXPECT_EQ(decoded->header, (Header{.flags = kNoChecksumFlag,
                                       .page_size = 512,
                                       .page_count = 2,
                                       .min_txid = {1},
                                       .max_txid = {2},
                                       .timestamp_ms = 2000,
                                       .wal_offset = 32,
                                       .wal_salt1 = 5,
                                       .wal_salt2 = 6,
                                       .node_id = 0xa992da1927bb5c9f}));
    EXPECT_EQ(decoded->pages, (Pages{{1, Bytes(512, 0xaa)}, {2, ramp_page()}}));
    EXPECT_EQ(decoded->trailer.post_apply.value, 0u);
  }
}

TEST(CompactTest, DeletionLeavesNothing) {
  const auto compacted =
      compact_files({*from_hex(vectors::kSnapshot), *from_hex(vectors::kIncremental),
                     *from_hex(vectors::kDeletion)});
  ASSERT_TRUE(compacted) << compacted.error().message();
  const auto decoded = decode(*compacted);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->header.page_count, 0u);
  EXPECT_EQ(decoded->header.max_txid, TxId{3});
  EXPECT_TRUE(decoded->pages.empty());
  EXPECT_EQ(decoded->trailer.post_apply, kEmptyDatabase);
}

// A database's life: states[i] is what transactions 1 to i left, files[i] is transaction i + 1.
struct History {
  std::vector<Model> states{Model{}};
  std::vector<Bytes> files;
};

RandomFile random_transaction(std::mt19937_64& random, const Model& before, TxId txid,
                              std::uint32_t page_size, bool tracked) {
  RandomFile made;
  Header& header = made.header;
  const auto old_count = static_cast<std::uint32_t>(before.size());
  std::uint32_t count = old_count;
  switch (random() % 6) {
    case 0:
      count += static_cast<std::uint32_t>(random() % 5);
      break;
    case 1:
      count -= static_cast<std::uint32_t>(random() % (old_count + 1));
      break;
    default:
      break;
  }
  if (count == 0 && (!tracked || random() % 2 == 0)) count = 1;
  header = {.flags = tracked ? 0 : kNoChecksumFlag,
            .page_size = page_size,
            .page_count = count,
            .min_txid = txid,
            .max_txid = txid,
            .timestamp_ms = static_cast<std::int64_t>(txid.value * 10)};
  if (tracked && !header.is_snapshot()) header.pre_apply = checksum_of(before);
  for (PageNo page = 1; page <= count; ++page) {
    if (page > old_count || header.is_snapshot() || random() % 3 == 0) {
      made.pages.emplace_back(page, random_page(random, page_size));
    }
  }
  return made;
}

History random_history(std::mt19937_64& random, std::uint32_t page_size, bool tracked) {
  History history;
  for (std::uint64_t txid = 1; txid <= 12; ++txid) {
    Model state = history.states.back();
    RandomFile made = random_transaction(random, state, TxId{txid}, page_size, tracked);
    for (const auto& [page, content] : made.pages) state[page] = content;
    state.erase(state.upper_bound(made.header.page_count), state.end());
    if (tracked) made.post_apply = checksum_of(state);
    const auto encoding = random() % 2 == 0 ? PageEncoding::kBlock : PageEncoding::kFrame;
    history.files.push_back(random() % 2 == 0
                                ? encode(made.header, made.pages, made.post_apply, encoding)
                                : reference_file(made, random() % 2 == 0));
    history.states.push_back(std::move(state));
  }
  return history;
}

void expect_leads(const Model& before, const Model& after, const DecodedFile& file) {
  Model state = before;
  for (const auto& [page, content] : file.pages) state[page] = content;
  state.erase(state.upper_bound(file.header.page_count), state.end());
  EXPECT_TRUE(state == after);
  if (!file.header.tracks_checksum()) return;
  if (!file.header.is_snapshot()) {
    EXPECT_EQ(file.header.pre_apply, checksum_of(before));
  }
  EXPECT_EQ(file.trailer.post_apply, checksum_of(after));
}

// Transactions first+1 to last as one file, made in one step or through files that overlap.
Result<Bytes> compact_range(std::mt19937_64& random, const History& history, std::size_t first,
                            std::size_t last, std::uint32_t flags) {
  if (last - first >= 2 && random() % 2 == 0) {
    const std::size_t middle_end = first + 1 + random() % (last - first - 1);
    const std::size_t middle_begin = first + random() % (middle_end - first + 1);
    OFFPRINT_TRY_ASSIGN(Bytes older, compact_range(random, history, first, middle_end, flags));
    OFFPRINT_TRY_ASSIGN(Bytes newer, compact_range(random, history, middle_begin, last, flags));
    return compact_files({std::move(older), std::move(newer)}, flags);
  }
  const auto at = [&](std::size_t i) {
    return history.files.begin() + static_cast<std::ptrdiff_t>(i);
  };
  return compact_files({at(first), at(last)}, flags);
}

// Property: applying the compacted file leads where its parts lead one by one.
TEST(CompactTest, LeadsWhereItsPartsLead) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const bool tracked = random() % 3 != 0;
    const std::uint32_t page_size = seed % 10 == 0 ? 512u << random() % 8 : 512u;
    const History history = random_history(random, page_size, tracked);
    for (int round = 0; round < 6; ++round) {
      const std::size_t first = random() % history.files.size();
      const std::size_t last = first + 1 + random() % (history.files.size() - first);
      const bool deleted = history.states[last].empty();
      const std::uint32_t flags = tracked && (deleted || random() % 2 == 0) ? 0 : kNoChecksumFlag;
      const auto compacted = compact_range(random, history, first, last, flags);
      if (!compacted && flags != 0) {
        // An untracked step may not end in a deletion.
        EXPECT_THAT(compacted.error().message(), HasSubstr("deletion"));
        continue;
      }
      ASSERT_TRUE(compacted) << compacted.error().message();
      const auto decoded = decode(*compacted);
      ASSERT_TRUE(decoded) << decoded.error().message();
      EXPECT_EQ(decoded->header.min_txid, TxId{first + 1});
      EXPECT_EQ(decoded->header.max_txid, TxId{last});
      EXPECT_EQ(decoded->header.timestamp_ms, static_cast<std::int64_t>(last * 10));
      EXPECT_EQ(decoded->header.flags, flags);
      expect_leads(history.states[first], history.states[last], *decoded);
    }
  }
}

// Files for the refusals: each leads from `before` by the given pages.
Bytes change(std::uint64_t txid, std::uint32_t page_count, const std::vector<PageNo>& pages,
             std::uint64_t before, std::uint64_t after, std::uint32_t page_size = 512) {
  const Header header{.page_size = page_size,
                      .page_count = page_count,
                      .min_txid = {txid},
                      .max_txid = {txid},
                      .pre_apply = {kChecksumFlag | before}};
  Pages contents;
  for (PageNo page : pages)
    contents.emplace_back(page, Bytes(page_size, static_cast<std::uint8_t>(txid)));
  return encode(header, contents, Checksum{kChecksumFlag | after});
}

TEST(CompactTest, RefusesInputsThatDoNotFollowEachOther) {
  const Bytes two = change(2, 3, {1}, 1, 2);
  const Bytes three = change(3, 3, {1}, 2, 3);
  const Bytes four = change(4, 3, {1}, 3, 4);
  const auto two_to_three = compact_files({two, three});
  ASSERT_TRUE(two_to_three);
  expect_refused({}, 0, Code::kInvalid, "nothing to compact");
  expect_refused({two, four}, 0, Code::kInvalid, "does not follow");
  expect_refused({three, two}, 0, Code::kInvalid, "does not follow");
  expect_refused({two, two}, 0, Code::kInvalid, "does not follow");
  expect_refused({two, change(3, 3, {1}, 2, 3, 1024)}, 0, Code::kInvalid, "different page sizes");
  expect_refused({two, change(3, 3, {1}, 7, 3)}, 0, Code::kCorrupt,
                 "pre-apply checksum is not what");
  expect_refused({two, three}, 1, Code::kInvalid, "unknown flags");
  expect_refused({*two_to_three, three}, 0, Code::kInvalid, "does not follow");
  EXPECT_TRUE(compact_files({two, three, four}));
  // Overlapping, and leading further.
  EXPECT_TRUE(compact_files({two, *two_to_three, four}));
}

TEST(CompactTest, RefusesDamagedInputsAndNamesThem) {
  const Bytes two = change(2, 3, {1, 3}, 1, 2);
  const Bytes three = change(3, 3, {2}, 2, 3);
  for (std::size_t at = 0; at < three.size(); ++at) {
    Bytes damaged = three;
    damaged[at] = static_cast<std::uint8_t>(damaged[at] ^ 0x80);
    EXPECT_FALSE(compact_files({two, damaged})) << at;
  }
  Bytes damaged = three;
  damaged.back() ^= 1;
  expect_refused({two, damaged}, 0, Code::kCorrupt,
                 "0000000000000003-0000000000000003.ltx: wrong file checksum");
}

TEST(CompactTest, RefusesToInventChecksums) {
  const Bytes untracked = *from_hex(vectors::kSnapshotWithoutChecksums);
  expect_refused({untracked}, 0, Code::kInvalid, "do not track");
  expect_refused({untracked, *from_hex(vectors::kIncremental)}, 0, Code::kInvalid, "do not track");
  EXPECT_TRUE(compact_files({untracked}, kNoChecksumFlag));
}

// A page that a truncation took away does not come back: growth must bring it.
TEST(CompactTest, TruncatedPagesDoNotComeBack) {
  const Bytes shrink = change(3, 2, {1}, 2, 3);
  const Bytes grow = change(4, 4, {1, 3, 4}, 3, 4);
  const Bytes grow_short = change(4, 4, {1, 4}, 3, 4);
  const Bytes before = change(2, 6, {3, 4, 5, 6}, 1, 2);
  const auto compacted = compact_files({before, shrink, grow});
  ASSERT_TRUE(compacted) << compacted.error().message();
  const auto decoded = decode(*compacted);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->pages, (Pages{{1, Bytes(512, 4)}, {3, Bytes(512, 4)}, {4, Bytes(512, 4)}}));
  expect_refused({before, shrink, grow_short}, 0, Code::kCorrupt, "no file brings page 3");
  expect_refused({shrink, change(4, 4, {3}, 3, 4)}, 0, Code::kCorrupt, "no file brings page 4");
  // Growth over the lock page brings all but that.
  const Bytes small = change(2, 16384, {16384}, 1, 2, 65536);
  EXPECT_TRUE(compact_files({small, change(3, 16386, {16386}, 2, 3, 65536)}));
  EXPECT_TRUE(compact_files({small, change(3, 16385, {1}, 2, 3, 65536)}));
}

// The parts are sound and the chain is too, but what the last one promises is not what the pages
// make.
TEST(CompactTest, RefusesASnapshotWhoseChecksumIsWrong) {
  const Bytes liar = change(2, 2, {1}, 0x2992da1927bb5c9f, 77);
  expect_refused({*from_hex(vectors::kSnapshot), liar}, 0, Code::kCorrupt,
                 "not that of the snapshot's pages");
}

}  // namespace
}  // namespace offprint::ltx
