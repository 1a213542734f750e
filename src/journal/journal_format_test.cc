#include "journal/format.h"

#include <gtest/gtest.h>

#include "journal/journal_test_util.h"
#include "journal/pending.h"

// The stored bytes, pinned: the example of docs/format/journal.md.
namespace offprint::journal {
namespace {

JournalId example_id() {
  JournalId id;
  for (std::size_t i = 0; i < id.bytes.size(); ++i) id.bytes[i] = static_cast<std::uint8_t>(i);
  return id;
}

TEST(JournalFormat, SegmentHeaderOfTheExample) {
  Bytes bytes(kSegmentHeaderSize);
  encode_segment_header({example_id(), Lsn{0}, 64 << 20}, bytes.data());
  EXPECT_EQ(to_hex(bytes),
            "4f46505f4a524e4c00000001cef64be1"
            "000102030405060708090a0b0c0d0e0f"
            "00000000000000000000000004000000"
            "00000000000000000000000000000000");
  auto header = parse_segment_header(bytes);
  OFFPRINT_ASSERT_OK(header);
  EXPECT_EQ(header->id, example_id());
  EXPECT_EQ(header->begin, Lsn{0});
  EXPECT_EQ(header->size, 64u << 20);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(parse_segment_header(ByteView(bytes).first(size)));
  }
}

TEST(JournalFormat, RecordsOfTheExample) {
  std::uint32_t seed = example_id().crc_seed();
  auto segment = std::make_shared<SegmentFile>();
  segment->size = 64 << 20;
  PendingBuffer pending;
  GroupTable groups;

  Bytes metadata = groups.encode();
  RecordHeader mark;
  mark.length = static_cast<std::uint32_t>(kRecordHeaderSize + metadata.size());
  mark.kind = kMarkKind;
  mark.lsn = mark.durable_lsn = segment->first_record();
  mark.metadata_size = static_cast<std::uint32_t>(metadata.size());
  EXPECT_EQ(mark.padded_size(), groups.mark_size());
  pending.add(segment, mark, body_crc(metadata, {}, seed), metadata, {});

  RecordHeader record;
  record.length = kRecordHeaderSize + 5;
  record.kind = static_cast<std::uint8_t>(Kind::kTransaction);
  record.lsn = Lsn{mark.lsn.value + mark.padded_size()};
  record.durable_lsn = mark.durable_lsn;
  record.database_id = 1;
  OFFPRINT_ASSERT_OK(groups.advance(record, {}));
  pending.add(segment, record, body_crc({}, as_bytes("hello"), seed), {}, as_bytes("hello"));

  std::vector<PendingChunk> chunks = pending.take();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].offset, 0x1000u);
  EXPECT_EQ(to_hex(chunks[0].bytes),
            "4f504a520000004e10eadd6501ff0000"
            "00000000000010000000000000000000"
            "00000000000000000000000000001000"
            "00000000000000000000000000000000"
            "0000000000000006ff00000000000000"
            "4f504a520000004dcdb590cc01010000"
            "00000000000010500000000000000001"
            "00000000000000000000000000001000"
            "00000000000000010000000000000000"
            "000000000000000068656c6c6f000000");
  ByteView second = ByteView(chunks[0].bytes).subspan(mark.padded_size());
  auto header = parse_record_header(second, record.lsn, 1000);
  ASSERT_TRUE(header);
  EXPECT_TRUE(record_verifies(*header, second, seed));
  EXPECT_FALSE(record_verifies(*header, second, JournalId().crc_seed()));  // of another journal
  EXPECT_FALSE(parse_record_header(second, Lsn{record.lsn.value + 8}, 1000));
  EXPECT_FALSE(parse_record_header(second, record.lsn, 79));
}

TEST(JournalFormat, SegmentNames) {
  EXPECT_EQ(segment_name(Lsn{64 << 20}), "0000000004000000.seg");
  EXPECT_EQ(parse_segment_name("0000000004000000.seg"), Lsn{64 << 20});
  for (const char* name :
       {"", ".seg", "new.tmp", "spare-1", "000000000400000.seg", "00000000040000000.seg",
        "000000000400000G.seg", "0000000004000000.SEG", "000000000000ABCD.seg"}) {
    EXPECT_FALSE(parse_segment_name(name)) << name;
  }
}

TEST(JournalFormat, LargeReferenceRefusesWhatCouldBeAPath) {
  LargeReference reference{77, 88, std::string(32, 'a')};
  auto parsed = parse_large_reference(encode_large_reference(reference));
  OFFPRINT_ASSERT_OK(parsed);
  EXPECT_EQ(parsed->name, reference.name);
  EXPECT_EQ(parsed->size, 77u);
  EXPECT_EQ(parsed->crc, 88u);
  for (const std::string& name :
       {std::string(), std::string("../../etc/passwd"), std::string(32, '/'), std::string(31, 'a'),
        std::string(32, 'A')}) {
    reference.name = name;
    EXPECT_FALSE(parse_large_reference(encode_large_reference(reference))) << name;
  }
  EXPECT_FALSE(parse_large_reference(Bytes(11)));
}

}  // namespace
}  // namespace offprint::journal
