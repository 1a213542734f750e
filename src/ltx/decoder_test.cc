#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ltx/lz4_frame.h"
#include "ltx/test_pages.h"

// What a decoder refuses (docs/format/ltx.md), each with all checksums right, so that nothing else
// can be the reason.
namespace offprint::ltx {
namespace {

using reference::block_frame;
using reference::Frame;
using reference::lz4_frame;
using testing::HasSubstr;

constexpr Checksum kSome{kChecksumFlag | 12345};

reference::File change(std::vector<Frame> frames = {}) {
  const Header header{
      .page_size = 512, .page_count = 4, .min_txid = {7}, .max_txid = {7}, .pre_apply = kSome};
  return {header, std::move(frames), kSome.value, {}, {}};
}

reference::File snapshot(std::vector<Frame> frames, std::uint32_t page_count) {
  const Header header{.page_size = 512, .page_count = page_count, .min_txid = {1}, .max_txid = {1}};
  Model model;
  for (const Frame& frame : frames) model[frame.number] = frame.content;
  return {header, std::move(frames), checksum_of(model).value, {}, {}};
}

void expect_refused(const reference::File& file, const char* why) {
  const auto decoded = decode(file.bytes());
  ASSERT_FALSE(decoded) << why;
  EXPECT_EQ(decoded.error().code(), Code::kCorrupt);
  EXPECT_THAT(decoded.error().message(), HasSubstr(why));
}

void expect_accepted(const reference::File& file) {
  const auto decoded = decode(file.bytes());
  EXPECT_TRUE(decoded) << decoded.error().message();
}

const Bytes kPage(512, 3);

TEST(DecoderTest, AcceptsTheUntouchedFiles) {
  expect_accepted(change());
  expect_accepted(change({block_frame(1, kPage), block_frame(4, kPage)}));
  // Both encodings may stand in one file.
  expect_accepted(change({block_frame(1, kPage), lz4_frame(2, kPage), block_frame(3, kPage)}));
  expect_accepted(snapshot({block_frame(1, kPage), lz4_frame(2, kPage)}, 2));
}

TEST(DecoderTest, RefusesAnotherMagic) {
  Bytes file = change().bytes();
  file[3] = '4';
  const auto decoded = decode(file);
  ASSERT_FALSE(decoded);
  EXPECT_THAT(decoded.error().message(), HasSubstr("not an LTX file"));
}

TEST(DecoderTest, IgnoresTheReservedBytesButForTheChecksum) {
  Bytes file = change().bytes();
  file[85] = 1;
  EXPECT_THAT(decode(file).error().message(), HasSubstr("wrong file checksum"));
  // The hash goes over the logical stream: without pages that is the file itself.
  store_be<std::uint64_t>(file.data() + file.size() - 8,
                          kChecksumFlag | reference::crc64(ByteView(file).first(file.size() - 8)));
  EXPECT_TRUE(decode(file));
}

TEST(DecoderTest, RefusesHeadersThatBreakARule) {
  auto file = change();
  file.header.page_size = 1000;
  expect_refused(file, "page size 1000");
  file = change();
  file.header.flags = 1;
  expect_refused(file, "unknown flags");
  file = change();
  file.header.wal_salt1 = 1;
  expect_refused(file, "WAL salt without WAL offset");
}

TEST(DecoderTest, RefusesPagesOutOfOrder) {
  expect_refused(change({block_frame(2, kPage), block_frame(1, kPage)}), "page 1 after page 2");
  expect_refused(change({block_frame(2, kPage), block_frame(2, kPage)}), "page 2 after page 2");
  expect_refused(change({lz4_frame(2, kPage), lz4_frame(2, kPage)}), "page 2 after page 2");
}

TEST(DecoderTest, RefusesPagesOutsideTheDatabase) {
  expect_refused(change({block_frame(5, kPage)}), "page 5 of a database of 4 pages");
  Frame zero = block_frame(0, kPage);
  expect_refused(change({zero}), "page 0");
}

TEST(DecoderTest, RefusesTheLockPage) {
  auto file = change({block_frame(2097153, kPage)});
  file.header.page_count = 3'000'000;
  expect_refused(file, "lock page 2097153");
  file.frames[0].number = 2097154;
  expect_accepted(file);
}

TEST(DecoderTest, RefusesUnknownPageFlags) {
  for (std::uint16_t flags : std::initializer_list<std::uint16_t>{2, 3, 0x8000}) {
    Frame frame = block_frame(1, kPage);
    frame.flags = flags;
    expect_refused(change({frame}), "unknown page flags");
  }
}

TEST(DecoderTest, RefusesBlocksOfTheWrongLength) {
  for (std::size_t size : {1u, 511u, 256u}) {
    expect_refused(change({block_frame(1, Bytes(size, 3))}), "inflates to");
  }
  expect_refused(change({block_frame(1, Bytes(513, 3))}), "does not inflate");
  expect_refused(change({block_frame(1, Bytes(60'000, 3))}), "does not inflate");
}

TEST(DecoderTest, RefusesBlockSizesOutOfBounds) {
  for (std::uint32_t size : {0u, 531u, 0x7fffffffu, 0xffffffffu}) {
    Frame frame = block_frame(1, kPage);
    frame.size = size;
    expect_refused(change({frame}), "LZ4 block of");
  }
  Frame cut = block_frame(1, kPage);
  cut.payload.pop_back();
  *cut.size -= 1;
  expect_refused(change({cut}), "page 1");
}

TEST(DecoderTest, RefusesAnIndexThatDisagrees) {
  const auto good = change({block_frame(1, kPage), block_frame(3, kPage)});
  const auto size = static_cast<std::uint8_t>(10 + good.frames[0].payload.size());
  const auto second = static_cast<std::uint8_t>(100 + size);
  ASSERT_LT(second, 0x80 + size);
  Bytes right;
  for (std::uint64_t value :
       {1ul, 100ul, std::uint64_t{size}, 3ul, std::uint64_t{second}, std::uint64_t{size}, 0ul}) {
    reference::File::append_varint(right, value);
  }
  auto file = good;
  file.index = right;
  expect_accepted(file);
  for (std::size_t i = 0; i < right.size(); ++i) {
    file.index = right;
    ++(*file.index)[i];
    expect_refused(file, "page index does not agree");
  }
  file.index = Bytes{0};
  expect_refused(file, "page index does not agree");
  file.index = right;
  file.index->insert(file.index->begin(), {0x81, 0x00});  // a longer form of 1
  expect_refused(file, "page index does not agree");
  file.index = std::nullopt;
  for (std::uint64_t length :
       {std::uint64_t{0}, std::uint64_t{right.size() + 1}, ~std::uint64_t{0}}) {
    file.index_length = length;
    expect_refused(file, "page index does not agree");
  }
}

TEST(DecoderTest, RefusesIncompleteSnapshots) {
  expect_refused(snapshot({block_frame(1, kPage)}, 2), "snapshot leaves out page 2");
  expect_refused(snapshot({block_frame(2, kPage)}, 2), "snapshot leaves out page 1");
  expect_refused(snapshot({block_frame(1, kPage), block_frame(3, kPage)}, 3),
                 "snapshot leaves out page 2");
  expect_refused(snapshot({}, 1), "snapshot leaves out page 1");
  // Also where no checksum would tell.
  auto file = snapshot({block_frame(1, kPage)}, 2);
  file.header.flags = kNoChecksumFlag;
  file.post_apply = 0;
  expect_refused(file, "snapshot leaves out page 2");
}

TEST(DecoderTest, RefusesWrongTrailers) {
  auto file = snapshot({block_frame(1, kPage)}, 1);
  file.post_apply ^= 1;
  expect_refused(file, "not that of the snapshot's pages");
  file = change();
  file.post_apply = 0;
  expect_refused(file, "no post-apply checksum");
  file.post_apply = 5;
  expect_refused(file, "no post-apply checksum");
  file = change();
  file.header.page_count = 0;
  expect_refused(file, "deletion is not the empty one");
  file.post_apply = kEmptyDatabase.value;
  expect_accepted(file);
  file = change();
  file.header.flags = kNoChecksumFlag;
  file.header.pre_apply = {};
  expect_refused(file, "in a file that tracks none");
  file.post_apply = 0;
  expect_accepted(file);
}

TEST(DecoderTest, ReadsEveryKindOfLz4Frame) {
  std::mt19937_64 random(1);
  for (std::uint32_t page_size : {512u, 65536u}) {
    for (int kind = 0; kind < 32; ++kind) {
      LZ4F_preferences_t preferences = reference::usual_frame();
      preferences.frameInfo.blockMode = (kind & 1) != 0 ? LZ4F_blockLinked : LZ4F_blockIndependent;
      preferences.frameInfo.blockChecksumFlag =
          (kind & 2) != 0 ? LZ4F_blockChecksumEnabled : LZ4F_noBlockChecksum;
      preferences.frameInfo.blockSizeID = (kind & 4) != 0 ? LZ4F_max4MB : LZ4F_max64KB;
      preferences.frameInfo.contentSize = (kind & 8) != 0 ? page_size : 0;
      preferences.autoFlush = (kind & 16) != 0;
      auto file = change({lz4_frame(2, random_page(random, page_size), preferences)});
      file.header.page_size = page_size;
      expect_accepted(file);
    }
  }
}

// One page in several linked blocks: matches reach back into earlier blocks.
TEST(DecoderTest, ReadsLinkedBlocks) {
  LZ4F_preferences_t preferences = reference::usual_frame();
  preferences.frameInfo.blockMode = LZ4F_blockLinked;
  preferences.autoFlush = 1;
  std::mt19937_64 random(2);
  Bytes page(4096);
  for (std::size_t i = 0; i < 1024; ++i)
    page[i] = page[i + 1024] = page[i + 2048] = page[i + 3072] =
        static_cast<std::uint8_t>(random());
  LZ4F_cctx* context = nullptr;
  ASSERT_FALSE(LZ4F_isError(LZ4F_createCompressionContext(&context, LZ4F_VERSION)));
  Bytes payload(LZ4F_compressFrameBound(page.size() * 8, &preferences));
  std::size_t used = LZ4F_compressBegin(context, payload.data(), payload.size(), &preferences);
  for (std::size_t at = 0; at < page.size(); at += 1024) {
    used += LZ4F_compressUpdate(context, payload.data() + used, payload.size() - used,
                                page.data() + at, 1024, nullptr);
  }
  used += LZ4F_compressEnd(context, payload.data() + used, payload.size() - used, nullptr);
  LZ4F_freeCompressionContext(context);
  payload.resize(used);
  ASSERT_LT(used, 2000u);

  auto file = change({Frame{1, 0, std::nullopt, payload, page}});
  file.header.page_size = 4096;
  expect_accepted(file);
  // The same bytes said to be independent blocks: the matches lead nowhere, which is an error and
  // not an overrun.
  payload[4] |= 0x20;
  payload[6] = static_cast<std::uint8_t>(xxh32(ByteView(payload).subspan(4, 2)) >> 8);
  file.frames[0].payload = payload;
  expect_refused(file, "block does not inflate");
}

TEST(DecoderTest, RefusesBadLz4Frames) {
  const auto refuse = [](Bytes payload, const char* why) {
    expect_refused(change({Frame{1, 0, std::nullopt, std::move(payload), kPage}}), why);
  };
  LZ4F_preferences_t preferences = reference::usual_frame();
  preferences.frameInfo.contentChecksumFlag = LZ4F_noContentChecksum;
  refuse(lz4_frame(1, kPage, preferences).payload, "no content checksum");
  refuse(lz4_frame(1, Bytes(511)).payload, "shorter than a page");
  refuse(lz4_frame(1, Bytes()).payload, "shorter than a page");
  refuse(lz4_frame(1, Bytes(513)).payload, "block does not inflate");
  refuse(lz4_frame(1, Bytes(200'000)).payload, "block");
  preferences = reference::usual_frame();
  preferences.frameInfo.dictID = 1;
  refuse(lz4_frame(1, kPage, preferences).payload, "dictionary");
  preferences = reference::usual_frame();
  preferences.frameInfo.contentSize = 513;
  refuse(lz4_frame(1, Bytes(513), preferences).payload, "wrong content size");

  // Noise does not shrink: its block is stored raw.
  std::mt19937_64 random(4);
  Bytes noise(513);
  for (std::uint8_t& byte : noise) byte = static_cast<std::uint8_t>(random());
  refuse(lz4_frame(1, noise).payload, "longer than a page");

  const Bytes good = lz4_frame(1, kPage).payload;
  const auto with = [&](std::size_t at, std::uint8_t value) {
    Bytes payload = good;
    payload[at] = value;
    return payload;
  };
  refuse(with(0, 5), "wrong magic");
  refuse(with(4, 0x94), "unknown version");
  refuse(with(4, good[4] | 2), "unknown version");
  refuse(with(5, 0x30), "unknown block size");
  refuse(with(5, 0x41), "unknown block size");
  refuse(with(6, static_cast<std::uint8_t>(good[6] + 1)), "wrong descriptor checksum");
  refuse(with(10, 0x7f), "block size out of bounds");
  refuse(with(good.size() - 1, static_cast<std::uint8_t>(good.back() + 1)),
         "wrong content checksum");
  Bytes empty_block = good;
  empty_block.insert(empty_block.begin() + 7, {0, 0, 0, 0x80});
  refuse(empty_block, "block size out of bounds");
}

// A source of few bytes that notes how much was asked for at once.
class NotingSource final : public ByteSource {
 public:
  explicit NotingSource(ByteView bytes) : bytes_(bytes) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    asked_max = std::max(asked_max, to.size());
    return bytes_.read(to);
  }
  std::size_t asked_max = 0;

 private:
  BytesSource bytes_;
};

TEST(DecoderTest, ClaimedSizesMakeNoLargeBuffers) {
  Frame frame = block_frame(1, kPage);
  frame.size = 0xffffffff;
  auto file = change({frame});
  file.header.page_count = 0xffffffff;
  const Bytes bytes = file.bytes();
  NotingSource source(bytes);
  Decoder decoder(source);
  ASSERT_TRUE(decoder.begin());
  EXPECT_FALSE(decoder.next());
  EXPECT_LE(source.asked_max, 16u << 10);
}

class FailingSource final : public ByteSource {
 public:
  Result<std::size_t> read(std::span<std::uint8_t>) override {
    return fail(Code::kIo, "read failed");
  }
};

TEST(DecoderTest, PassesOnWhatTheSourceAnswers) {
  FailingSource source;
  Decoder decoder(source);
  const auto begun = decoder.begin();
  ASSERT_FALSE(begun);
  EXPECT_EQ(begun.error().code(), Code::kIo);
}

// A snapshot of a database over 1 GiB: the lock page is left out, and nothing else may be.
TEST(DecoderTest, SnapshotsStepOverTheLockPage) {
  constexpr PageNo kLock = 16385;
  const Header header{.flags = kNoChecksumFlag,
                      .page_size = 65536,
                      .page_count = kLock + 1,
                      .min_txid = {1},
                      .max_txid = {1}};
  const Bytes page(65536);
  Bytes out;
  BytesSink sink(out);
  Encoder encoder(sink);
  ASSERT_TRUE(encoder.begin(header));
  for (PageNo number = 1; number < kLock; ++number) ASSERT_TRUE(encoder.page(number, page));
  ASSERT_TRUE(encoder.page(kLock + 1, page));
  ASSERT_TRUE(encoder.finish(Checksum{}));

  BytesSource source(out);
  Decoder decoder(source);
  ASSERT_TRUE(decoder.begin());
  std::vector<PageNo> seen;
  for (;;) {
    const auto next = decoder.next();
    ASSERT_TRUE(next) << next.error().message();
    if (!*next) break;
    seen.push_back((*next)->number);
  }
  ASSERT_TRUE(decoder.finish());
  ASSERT_EQ(seen.size(), kLock);
  EXPECT_EQ(seen[kLock - 2], kLock - 1);
  EXPECT_EQ(seen.back(), kLock + 1);
}

}  // namespace
}  // namespace offprint::ltx
