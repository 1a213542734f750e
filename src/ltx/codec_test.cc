#include "ltx/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "ltx/checksum.h"
#include "ltx/test_pages.h"
#include "ltx/vectors.h"

namespace offprint::ltx {
namespace {

using testing::HasSubstr;

// What the stock library wrote is read as it was meant.
class VectorTest : public testing::TestWithParam<std::string_view> {
 protected:
  Bytes file_ = *from_hex(GetParam());
};

TEST(VectorsTest, SnapshotIsReadAsMeant) {
  const auto decoded = decode(*from_hex(vectors::kSnapshot));
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(decoded->header, (Header{.page_size = 512,
                                     .page_count = 2,
                                     .min_txid = {1},
                                     .max_txid = {1},
                                     .timestamp_ms = 1000}));
  EXPECT_EQ(decoded->pages, (Pages{{1, Bytes(512)}, {2, ramp_page()}}));
  EXPECT_EQ(decoded->trailer.post_apply.value, 0xa992da1927bb5c9fu);
  EXPECT_EQ(decoded->trailer.file.value, 0xd71d50d553907dc4u);
}

TEST(VectorsTest, IncrementalIsReadAsMeant) {
  const auto decoded = decode(*from_hex(vectors::kIncremental));
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(decoded->header, (Header{.page_size = 512,
                                     .page_count = 2,
                                     .min_txid = {2},
                                     .max_txid = {2},
                                     .timestamp_ms = 2000,
                                     .pre_apply = {0xa992da1927bb5c9f},
                                     .wal_offset = 32,
                                     .wal_size = 536,
                                     .wal_salt1 = 1,
                                     .wal_salt2 = 2,
                                     .node_id = 7}));
  EXPECT_EQ(decoded->pages, (Pages{{1, Bytes(512, 0xaa)}}));
  EXPECT_EQ(decoded->trailer.post_apply.value, 0xe5963a1927bb5c9fu);
  EXPECT_EQ(decoded->trailer.file.value, 0x83893d3dadca47f4u);
}

TEST(VectorsTest, DeletionAndUntrackedSnapshotAreReadAsMeant) {
  const auto deletion = decode(*from_hex(vectors::kDeletion));
  ASSERT_TRUE(deletion) << deletion.error().message();
  EXPECT_EQ(deletion->header.page_count, 0u);
  EXPECT_EQ(deletion->header.pre_apply.value, 0xe5963a1927bb5c9fu);
  EXPECT_TRUE(deletion->pages.empty());
  EXPECT_EQ(deletion->trailer.post_apply, kEmptyDatabase);

  const auto untracked = decode(*from_hex(vectors::kSnapshotWithoutChecksums));
  ASSERT_TRUE(untracked) << untracked.error().message();
  EXPECT_EQ(untracked->header.flags, kNoChecksumFlag);
  EXPECT_FALSE(untracked->header.tracks_checksum());
  EXPECT_EQ(untracked->pages.size(), 2u);
  EXPECT_EQ(untracked->trailer.post_apply.value, 0u);
}

// Our encoder's file says the same; only the LZ4 blocks may differ in their bytes.
TEST_P(VectorTest, IsWrittenAgainWithTheSameMeaning) {
  const auto decoded = decode(file_);
  ASSERT_TRUE(decoded) << decoded.error().message();
  const Bytes again = encode(decoded->header, decoded->pages, decoded->trailer.post_apply);
  const auto redecoded = decode(again);
  ASSERT_TRUE(redecoded) << redecoded.error().message();
  EXPECT_EQ(redecoded->header, decoded->header);
  EXPECT_EQ(redecoded->pages, decoded->pages);
  EXPECT_EQ(redecoded->trailer.post_apply, decoded->trailer.post_apply);
  EXPECT_TRUE(std::equal(file_.begin(), file_.begin() + 100, again.begin()));
  // Without pages there is one way to write it.
  if (decoded->pages.empty()) {
    EXPECT_EQ(again, file_);
  }
}

// Every single bit is either refused, or (in a compressed block) means the same.
TEST_P(VectorTest, NoFlippedBitChangesTheMeaning) {
  const auto original = decode(file_);
  ASSERT_TRUE(original);
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < file_.size() * 8; ++bit) {
    Bytes damaged = file_;
    damaged[bit / 8] = static_cast<std::uint8_t>(damaged[bit / 8] ^ (1 << bit % 8));
    const auto decoded = decode(damaged);
    if (!decoded) {
      EXPECT_EQ(decoded.error().code(), Code::kCorrupt);
      ++refused;
      continue;
    }
    EXPECT_GE(bit / 8, kHeaderSize + 10);
    EXPECT_EQ(decoded->header, original->header);
    EXPECT_EQ(decoded->pages, original->pages);
  }
  EXPECT_GT(refused, file_.size() * 7);
}

TEST_P(VectorTest, NoPrefixAndNoContinuationIsAccepted) {
  for (std::size_t size = 0; size < file_.size(); ++size) {
    const auto decoded = decode(ByteView(file_).first(size));
    ASSERT_FALSE(decoded) << size;
    EXPECT_EQ(decoded.error().code(), Code::kCorrupt);
  }
  for (std::size_t extra : {1u, 6u, 16u, 100u, 40'000u}) {
    Bytes longer = file_;
    longer.resize(file_.size() + extra);
    EXPECT_FALSE(decode(longer)) << extra;
  }
}

INSTANTIATE_TEST_SUITE_P(All, VectorTest,
                         testing::Values(vectors::kSnapshot, vectors::kIncremental,
                                         vectors::kCompacted, vectors::kDeletion,
                                         vectors::kSnapshotWithoutChecksums));

// encode∘decode is the identity, for all page sizes, kinds of content, snapshots, changes and both
// flags; the reference writer's files in both page encodings say the same.
class RoundTripTest : public testing::TestWithParam<std::uint32_t> {};

TEST_P(RoundTripTest, DecodeGivesWhatWasEncoded) {
  const std::uint32_t page_size = GetParam();
  std::mt19937_64 random(page_size);
  const int rounds = page_size > 8192 ? 10 : 40;
  for (int round = 0; round < rounds; ++round) {
    const RandomFile made = random_file(random, page_size);
    SCOPED_TRACE(testing::Message() << "page size " << page_size << " round " << round);
    const Bytes file = encode(made.header, made.pages, made.post_apply);
    const Bytes frames = encode(made.header, made.pages, made.post_apply, PageEncoding::kFrame);
    for (const Bytes& variant :
         {file, frames, reference_file(made, false), reference_file(made, true)}) {
      const auto decoded = decode(variant);
      ASSERT_TRUE(decoded) << decoded.error().message();
      EXPECT_EQ(decoded->header, made.header);
      EXPECT_EQ(decoded->pages, made.pages);
      EXPECT_EQ(decoded->trailer.post_apply, made.post_apply);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PageSizes, RoundTripTest,
                         testing::Values(512, 1024, 2048, 4096, 8192, 16384, 32768, 65536));

// LZ4's own decoder, which old readers use in one form or another, accepts our frames.
TEST_P(RoundTripTest, FramesAreWhatOtherDecodersExpect) {
  const std::uint32_t page_size = GetParam();
  std::mt19937_64 random(page_size);
  std::vector<Bytes> pages = {Bytes(page_size), random_page(random, page_size), Bytes(page_size)};
  for (std::uint8_t& byte : pages[2]) byte = static_cast<std::uint8_t>(random());
  for (const Bytes& page : pages) {
    const Header header{.flags = kNoChecksumFlag,
                        .page_size = page_size,
                        .page_count = 1,
                        .min_txid = {1},
                        .max_txid = {1}};
    const Bytes file = encode(header, {{1, page}}, Checksum{}, PageEncoding::kFrame);
    EXPECT_EQ(to_hex(ByteView(file).subspan(kHeaderSize, 6)), "000000010000");
    LZ4F_dctx* context = nullptr;
    ASSERT_EQ(LZ4F_createDecompressionContext(&context, LZ4F_VERSION), 0u);
    Bytes inflated(page_size + 1);
    std::size_t inflated_size = inflated.size();
    std::size_t taken = file.size() - kHeaderSize - 6;
    const std::size_t wanted = LZ4F_decompress(context, inflated.data(), &inflated_size,
                                               file.data() + kHeaderSize + 6, &taken, nullptr);
    LZ4F_freeDecompressionContext(context);
    EXPECT_EQ(wanted, 0u);  // the frame ended, its checksum was right
    inflated.resize(inflated_size);
    EXPECT_EQ(inflated, page);
    // End mark, index of one page, its length, trailer.
    EXPECT_LE(file.size() - kHeaderSize - 6 - taken, 6u + 7 + 1 + 8 + kTrailerSize);
    EXPECT_LE(taken, page_size + 19u);
  }
}

// Counts pieces; fails on demand.
class PieceSink final : public ByteSink {
 public:
  Result<> write(ByteView bytes) override {
    if (pieces.size() == fail_at) return fail(Code::kFull, "no space left");
    pieces.push_back(bytes.size());
    append(all, bytes);
    return {};
  }
  std::vector<std::size_t> pieces;
  Bytes all;
  std::size_t fail_at = SIZE_MAX;
};

TEST(EncoderTest, SmallFilesLeaveInOnePiece) {
  PieceSink sink;
  Encoder encoder(sink);
  std::mt19937_64 random(1);
  const Header header{.page_size = 4096,
                      .page_count = 9,
                      .min_txid = {2},
                      .max_txid = {2},
                      .pre_apply = kEmptyDatabase};
  ASSERT_TRUE(encoder.begin(header));
  for (PageNo page : {1u, 4u, 9u}) ASSERT_TRUE(encoder.page(page, random_page(random, 4096)));
  ASSERT_TRUE(encoder.finish(kEmptyDatabase));
  EXPECT_EQ(sink.pieces.size(), 1u);
  EXPECT_EQ(encoder.size(), sink.all.size());
}

TEST(EncoderTest, LargeFilesLeaveInLargePieces) {
  PieceSink sink;
  Encoder encoder(sink);
  const Header header{.flags = kNoChecksumFlag,
                      .page_size = 512,
                      .page_count = 60'000,
                      .min_txid = {2},
                      .max_txid = {2}};
  ASSERT_TRUE(encoder.begin(header));
  const Bytes page(512, 7);
  for (PageNo number = 1; number <= header.page_count; ++number)
    ASSERT_TRUE(encoder.page(number, page));
  ASSERT_TRUE(encoder.finish(Checksum{}));
  EXPECT_EQ(encoder.size(), sink.all.size());
  for (std::size_t i = 0; i + 3 < sink.pieces.size(); ++i) EXPECT_GE(sink.pieces[i], 64u << 10);
  const auto decoded = decode(sink.all);
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(decoded->pages.size(), header.page_count);
}

TEST(EncoderTest, CanBeUsedAgainAfterFinishAndAfterAnError) {
  Bytes out;
  BytesSink sink(out);
  Encoder encoder(sink);
  std::mt19937_64 random(3);
  for (std::uint32_t page_size : {512u, 65536u, 4096u}) {
    const RandomFile made = random_file(random, page_size);
    ASSERT_FALSE(encoder.begin(Header{}));
    ASSERT_TRUE(encoder.begin(made.header));
    ASSERT_FALSE(encoder.page(0, Bytes(page_size)));
    out.clear();
    ASSERT_TRUE(encoder.begin(made.header));
    for (const auto& [number, content] : made.pages) ASSERT_TRUE(encoder.page(number, content));
    ASSERT_TRUE(encoder.finish(made.post_apply));
    EXPECT_EQ(out, encode(made.header, made.pages, made.post_apply));
  }
}

TEST(EncoderTest, PassesOnWhatTheSinkAnswers) {
  PieceSink sink;
  sink.fail_at = 0;
  Encoder encoder(sink);
  ASSERT_TRUE(encoder.begin({.flags = kNoChecksumFlag,
                             .page_size = 512,
                             .page_count = 1,
                             .min_txid = {2},
                             .max_txid = {2}}));
  ASSERT_TRUE(encoder.page(1, Bytes(512)));
  const auto finished = encoder.finish(Checksum{});
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().code(), Code::kFull);
}

// The stock encoder's refusals, and those that it lacks.
TEST(EncoderTest, RefusesWhatTheFormatForbids) {
  const Header incremental{.page_size = 512,
                           .page_count = 4,
                           .min_txid = {2},
                           .max_txid = {2},
                           .pre_apply = kEmptyDatabase};
  const Header snapshot{.page_size = 512, .page_count = 2, .min_txid = {1}, .max_txid = {1}};
  Header untracked = incremental;
  untracked.flags = kNoChecksumFlag;
  untracked.pre_apply = {};
  const Bytes page(512);
  const Checksum post{kChecksumFlag | 5};
  const auto refusal = [](const Header& header, const std::vector<std::pair<PageNo, Bytes>>& pages,
                          Checksum end) {
    Bytes out;
    BytesSink sink(out);
    Encoder encoder(sink);
    if (auto begun = encoder.begin(header); !begun) return begun.error();
    for (const auto& [number, content] : pages) {
      if (auto written = encoder.page(number, content); !written) return written.error();
    }
    auto finished = encoder.finish(end);
    return finished ? Error(Code::kInternal, "accepted") : finished.error();
  };
  const auto expect = [&](const Header& header, const Pages& pages, Checksum end, const char* why) {
    const Error error = refusal(header, pages, end);
    EXPECT_EQ(error.code(), Code::kInvalid) << why;
    EXPECT_THAT(error.message(), HasSubstr(why));
  };
  expect(incremental, {{5, page}}, post, "page 5 of a database of 4 pages");
  expect(incremental, {{2, page}, {2, page}}, post, "page 2 after page 2");
  expect(incremental, {{3, page}, {2, page}}, post, "page 2 after page 3");
  expect(incremental, {{0, page}}, post, "page 0");
  expect(incremental, {{1, Bytes(513)}}, post, "another size");
  expect(incremental, {}, Checksum{}, "no post-apply checksum");
  expect(incremental, {}, Checksum{5}, "no post-apply checksum");
  expect(untracked, {}, post, "post-apply checksum in a file that tracks none");
  expect(snapshot, {{2, page}}, post, "snapshot leaves out page 1");
  expect(snapshot, {{1, page}}, page_checksum(1, page), "snapshot leaves out page 2");
  expect(snapshot, {{1, page}, {2, page}}, post, "not that of the snapshot's pages");
  Header deletion = incremental;
  deletion.page_count = 0;
  expect(deletion, {}, post, "deletion is not the empty one");
  expect(deletion, {{1, page}}, kEmptyDatabase, "page 1 of a database of 0 pages");
  Header large = incremental;
  large.page_size = 65536;
  large.page_count = 20'000;
  expect(large, {{16385, Bytes(65536)}}, post, "lock page");
}

TEST(HeaderTest, EveryRuleIsChecked) {
  const Header good{.page_size = 4096,
                    .page_count = 3,
                    .min_txid = {5},
                    .max_txid = {6},
                    .pre_apply = {kChecksumFlag | 9},
                    .wal_offset = 32,
                    .wal_size = 8,
                    .wal_salt1 = 1};
  EXPECT_TRUE(good.validate());
  const auto expect = [&](const char* why, auto change) {
    Header header = good;
    change(header);
    const auto valid = header.validate();
    ASSERT_FALSE(valid) << why;
    EXPECT_EQ(valid.error().code(), Code::kCorrupt);
    EXPECT_THAT(valid.error().message(), HasSubstr(why));
  };
  expect("unknown flags 0x00000001", [](Header& h) { h.flags = 1; });
  expect("unknown flags", [](Header& h) { h.flags = 0x80000000; });
  for (std::uint32_t size : {0u, 1u, 256u, 1000u, 4097u, 131072u}) {
    expect("page size", [&](Header& h) { h.page_size = size; });
  }
  expect("first transaction is 0", [](Header& h) { h.min_txid = {0}; });
  expect("before the first", [](Header& h) { h.max_txid = {4}; });
  expect("negative WAL offset", [](Header& h) { h.wal_offset = -1; });
  expect("negative WAL size", [](Header& h) { h.wal_size = -1; });
  expect("WAL salt without", [](Header& h) { h.wal_offset = h.wal_size = 0; });
  expect("WAL size without", [](Header& h) { h.wal_offset = 0; });
  expect("in a snapshot", [](Header& h) { h.min_txid = {1}; });
  expect("no pre-apply checksum", [](Header& h) { h.pre_apply = {}; });
  expect("no pre-apply checksum", [](Header& h) { h.pre_apply = {9}; });
  expect("tracks none", [](Header& h) { h.flags = kNoChecksumFlag; });
  expect("deletion", [](Header& h) {
    h.flags = kNoChecksumFlag;
    h.pre_apply = {};
    h.page_count = 0;
  });
}

TEST(FileNameTest, TextAndBack) {
  EXPECT_EQ(file_name({1}, {0xabcdef}), "0000000000000001-0000000000abcdef.ltx");
  const auto parsed = parse_file_name("0000000000000001-0000000000abcdef.ltx");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->first, TxId{1});
  EXPECT_EQ(parsed->second, TxId{0xabcdef});
  for (std::string_view other :
       {"", "0000000000000001-0000000000ABCDEF.ltx", "0000000000000001-0000000000abcdef.ltx.tmp",
        "000000000000001-0000000000abcdef.ltx", "0000000000000001_0000000000abcdef.ltx"}) {
    EXPECT_FALSE(parse_file_name(other)) << other;
  }
}

}  // namespace
}  // namespace offprint::ltx
