#include "replica/stream_format.h"

#include <gtest/gtest.h>

#include "base/crc32c.h"

namespace offprint::replica {
namespace {

Position some_position() {
  Position position;
  for (std::uint8_t i = 0; i < 16; ++i) position.lineage.bytes[i] = i;
  position.epoch = Epoch{3};
  position.txid = TxId{0x100000002};
  position.checksum = Checksum{0x8000000000000001};
  return position;
}

// Feeds `bytes` in pieces of `piece` and hands each frame to `visit`.
template <class Visit>
Result<> read_all(ByteView bytes, std::size_t piece, const Visit& visit) {
  FrameReader reader;
  while (!bytes.empty()) {
    std::size_t size = std::min(piece, bytes.size());
    reader.feed(bytes.first(size));
    bytes = bytes.subspan(size);
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto frame, reader.next());
      if (!frame) break;
      visit(*frame);
    }
  }
  if (reader.pending() != 0) return fail(Code::kCorrupt, "cut");
  return {};
}

Bytes raw_frame(std::uint8_t kind, std::uint8_t flags, ByteView payload) {
  Bytes frame;
  append_be<std::uint32_t>(frame, static_cast<std::uint32_t>(payload.size()));
  frame.push_back(kind);
  frame.push_back(flags);
  append_be<std::uint16_t>(frame, 0);
  append_be<std::uint32_t>(frame, 9);
  append(frame, payload);
  append_be<std::uint32_t>(frame, crc32c(frame));
  return frame;
}

TEST(StreamFormat, EveryFrameComesBackInPiecesOfAnySize) {
  Bytes bytes;
  append_hello(bytes, {kStreamVersion, "offprint 0.1.0"});
  append_database(bytes, 4, "shop/orders");
  append_start(bytes, 4, {some_position(), 1700000000123});
  append_position(bytes, 4, {some_position(), -5, 77});
  append_snapshot_begin(bytes, 4, {some_position(), 4096, 10, 3, true});
  append_snapshot_end(bytes, 4);
  append_source(bytes, 4, some_position().bookmark());
  append_resync(bytes, 4, {ResyncReason::kOtherLineage, "forked"});
  append_end(bytes, 4, {EndReason::kDropped, "gone"});
  for (std::size_t piece : {std::size_t{1}, std::size_t{7}, bytes.size()}) {
    std::vector<FrameKind> kinds;
    Result<> done = read_all(bytes, piece, [&](const Frame& frame) {
      kinds.push_back(frame.kind);
      EXPECT_EQ(frame.database, frame.kind == FrameKind::kHello ? 0u : 4u);
      switch (frame.kind) {
        case FrameKind::kHello:
          EXPECT_EQ(parse_hello(frame.payload)->server, "offprint 0.1.0");
          break;
        case FrameKind::kSource:
          EXPECT_EQ(*parse_source(frame.payload), some_position().bookmark());
          EXPECT_FALSE(parse_source(frame.payload.first(27)));
          break;
        case FrameKind::kDatabase:
          EXPECT_EQ(*parse_database(frame.payload), "shop/orders");
          break;
        case FrameKind::kStart: {
          auto start = parse_position(frame.payload);
          EXPECT_EQ(start->position, some_position());
          EXPECT_EQ(start->unix_ms, 1700000000123);
          break;
        }
        case FrameKind::kPosition:
          EXPECT_EQ(parse_position(frame.payload)->unix_ms, -5);
          break;
        case FrameKind::kSnapshotBegin: {
          auto begin = parse_snapshot_begin(frame.payload);
          EXPECT_EQ(begin->position, some_position());
          EXPECT_EQ(begin->page_size, 4096u);
          EXPECT_EQ(begin->page_count, 10u);
          EXPECT_EQ(begin->pages_to_come, 3u);
          EXPECT_TRUE(begin->difference);
          break;
        }
        case FrameKind::kResync: {
          auto resync = parse_resync(frame.payload);
          EXPECT_EQ(resync->reason, ResyncReason::kOtherLineage);
          EXPECT_EQ(resync->text, "forked");
          break;
        }
        case FrameKind::kEnd:
          EXPECT_EQ(parse_end(frame.payload)->reason, EndReason::kDropped);
          break;
        default:
          break;
      }
    });
    ASSERT_TRUE(done) << done.error().message();
    EXPECT_EQ(kinds, (std::vector<FrameKind>{
                         FrameKind::kHello, FrameKind::kDatabase, FrameKind::kStart,
                         FrameKind::kPosition, FrameKind::kSnapshotBegin, FrameKind::kSnapshotEnd,
                         FrameKind::kSource, FrameKind::kResync, FrameKind::kEnd}));
  }
}

TEST(StreamFormat, LargeTransactionsAreSplitAndBounded) {
  for (std::size_t size : {std::size_t{0}, std::size_t{1}, kPayloadTarget, kPayloadTarget + 1,
                           5 * kPayloadTarget + 77}) {
    Bytes ltx(size);
    for (std::size_t i = 0; i < size; ++i) ltx[i] = static_cast<std::uint8_t>(i * 31 + i / 1000);
    Bytes bytes;
    append_transaction(bytes, 2, {Epoch{8}, size, {{1, {1, 2, 3}}, {77, {}}}}, ltx);
    Bytes joined;
    bool first = true;
    bool more = true;
    Result<> done = read_all(bytes, 100'000, [&](const Frame& frame) {
      EXPECT_TRUE(more);
      EXPECT_LE(frame.payload.size(), kPayloadMax);
      more = frame.more();
      if (first) {
        auto parsed = parse_transaction_first(frame.payload);
        ASSERT_TRUE(parsed) << parsed.error().message();
        EXPECT_EQ(parsed->head.epoch, Epoch{8});
        EXPECT_EQ(parsed->head.ltx_size, size);
        ASSERT_EQ(parsed->head.metadata.size(), 2u);
        EXPECT_EQ(parsed->head.metadata[0].value, (Bytes{1, 2, 3}));
        EXPECT_EQ(parsed->head.metadata[1].type, 77);
        append(joined, parsed->part);
      } else {
        append(joined, frame.payload);
      }
      first = false;
    });
    ASSERT_TRUE(done) << done.error().message();
    EXPECT_FALSE(more);
    EXPECT_EQ(joined, ltx);
  }
}

TEST(StreamFormat, PagesComeBack) {
  for (std::uint32_t page_size : {512u, 4096u, 65536u}) {
    Bytes bytes;
    PagesWriter writer(1);
    Bytes image(page_size);
    for (PageNo page = 1; page <= 40; ++page) {
      for (std::size_t i = 0; i < page_size; ++i) {  // every third one does not shrink
        image[i] = page % 3 == 0 ? static_cast<std::uint8_t>((i * i * 2654435761u) >> 13)
                                 : static_cast<std::uint8_t>(page);
      }
      writer.add(bytes, page, image);
    }
    writer.flush(bytes);
    writer.flush(bytes);
    PageNo expected = 1;
    Result<> done = read_all(bytes, 5000, [&](const Frame& frame) {
      PagesReader pages(frame.payload, page_size);
      while (auto page = *pages.next()) {
        EXPECT_EQ(page->number, expected);
        EXPECT_EQ(page->image[0], expected % 3 == 0 ? 0 : expected);
        ++expected;
      }
      PagesReader wrong(frame.payload, page_size == 512 ? 1024 : 512);
      EXPECT_EQ(wrong.next().error().code(), Code::kCorrupt);
    });
    ASSERT_TRUE(done) << done.error().message();
    EXPECT_EQ(expected, 41u);
  }
}

TEST(StreamFormat, RefusesEveryDamagedByte) {
  Bytes bytes;
  append_start(bytes, 4, {some_position(), 1});
  append_end(bytes, 4, {EndReason::kError, "x"});
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    Bytes damaged = bytes;
    damaged[i] ^= 0x10;
    EXPECT_FALSE(read_all(damaged, 64, [](const Frame&) {})) << "byte " << i;
    EXPECT_EQ(static_cast<bool>(read_all(ByteView(bytes).first(i), 64, [](const Frame&) {})),
              i == 0 || i == 68);
  }
  FrameReader reader;
  reader.feed(Bytes{0x00, 0x10, 0x00, 0x01, 1, 0, 0, 0, 0, 0, 0, 0});  // one byte over kPayloadMax
  EXPECT_EQ(reader.next().error().code(), Code::kCorrupt);
  EXPECT_EQ(reader.next().error().code(), Code::kCorrupt) << "an error stays";
}

TEST(StreamFormat, NewerFramesAreSkippedOrRefusedClearly) {
  Bytes bytes = raw_frame(200, kFlagOptional, Bytes{1, 2, 3});
  append_snapshot_end(bytes, 1);
  int frames = 0;
  ASSERT_TRUE(read_all(bytes, 3, [&](const Frame& frame) {
    EXPECT_EQ(frame.kind, FrameKind::kSnapshotEnd);
    ++frames;
  }));
  EXPECT_EQ(frames, 1);
  for (const Bytes& newer : {raw_frame(200, 0, Bytes{}), raw_frame(4, 0x40, Bytes{})}) {
    Result<> refused = read_all(newer, 100, [](const Frame&) {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kInvalid);
    EXPECT_NE(refused.error().message().find("newer"), std::string::npos);
  }
  Bytes hello;
  append_hello(hello, {2, "later"});
  ASSERT_TRUE(read_all(hello, 100, [](const Frame& frame) {
    EXPECT_EQ(parse_hello(frame.payload).error().code(), Code::kInvalid);
  }));
  // A newer server may append fields to a payload.
  Bytes longer(44 + 5, 0);
  EXPECT_TRUE(parse_position(longer));
}

TEST(StreamFormat, RefusesShortPayloads) {
  Bytes zeros(60, 0);
  for (std::size_t size = 0; size < 44; ++size)
    EXPECT_FALSE(parse_position(ByteView(zeros).first(size)));
  EXPECT_FALSE(parse_hello({}));
  EXPECT_FALSE(parse_database({}));
  EXPECT_FALSE(parse_resync({}));
  EXPECT_FALSE(parse_end({}));
  EXPECT_FALSE(parse_snapshot_begin(zeros)) << "page size 0";
  EXPECT_FALSE(parse_transaction_first(ByteView(zeros).first(15)));
  Bytes head(16, 0);
  head[15] = 7;
  EXPECT_FALSE(parse_transaction_first(head)) << "metadata beyond the end";
}

TEST(StreamFormat, PageHashesComeBack) {
  PageHashes hashes{4096, {1, 0, 0xffffffffffffffff}};
  Bytes body = encode_page_hashes(hashes);
  EXPECT_EQ(body.size(), 16u + 3 * 8);
  auto parsed = parse_page_hashes(body);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->page_size, 4096u);
  EXPECT_EQ(parsed->hashes, hashes.hashes);
  EXPECT_TRUE(parse_page_hashes(encode_page_hashes({})));
  for (std::size_t size = 0; size < body.size(); ++size)
    EXPECT_FALSE(parse_page_hashes(ByteView(body).first(size)));
  body[7] = 2;
  EXPECT_EQ(parse_page_hashes(body).error().code(), Code::kInvalid);
}

// The worked example of docs/format/stream.md.
TEST(StreamFormat, WorkedExample) {
  Bytes bytes;
  append_end(bytes, 0, {EndReason::kDropped, "gone"});
  EXPECT_EQ(to_hex(bytes),
            "000000050a000000000000000"
            "1676f6e65"
            "2ea09dcc");
}

}  // namespace
}  // namespace offprint::replica
