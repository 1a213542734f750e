#include "replica/position_file.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/crc32c.h"
#include "sqlite/page_apply_testing.h"

namespace offprint::replica {
namespace {

using sqlite::testing::TemporaryFolder;

Note some_note(std::uint64_t txid) {
  Note note;
  note.page_size = 4096;
  note.before.position = {Lineage::random(), Epoch{1}, TxId{txid - 1},
                          Checksum{0x8000000000000001}};
  note.after = note.before;
  note.after.position.txid = TxId{txid};
  note.after.page_count = 12;
  note.after.cookie_offset = 0xfffffff0;
  note.after.cookie_highest = 77;
  note.after.header.fill(0x5a);
  note.probe = {9, true, Checksum{3}, Checksum{4}};
  note.boot_id = current_boot_id();
  note.source = "http://127.0.0.1:8080/db/shop/orders";
  return note;
}

void overwrite(const std::string& path, std::uint64_t offset, ByteView bytes) {
  auto file = FileSystem::real().open(path, FileSystem::Mode::kReadWrite);
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->write_at(offset, bytes));
}

TEST(PositionFile, NotesComeBack) {
  for (bool flag : {false, true}) {
    Note note = some_note(5);
    note.sequence = 8;
    note.clean = flag;
    note.probe.existed = !flag;
    Bytes slot = encode_note(note);
    EXPECT_EQ(slot.size(), kNoteSlotSize);
    auto back = decode_note(slot);
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(*back, note);
  }
}

TEST(PositionFile, EveryDamagedByteIsNoticed) {
  Bytes slot = encode_note(some_note(5));
  for (std::size_t i = 0; i < slot.size(); ++i) {
    slot[i] ^= 1;
    EXPECT_FALSE(decode_note(slot)) << i;
    slot[i] ^= 1;
  }
  EXPECT_FALSE(decode_note(ByteView(slot).first(500)));
}

TEST(PositionFile, ATornSlotFallsBackToTheOther) {
  TemporaryFolder folder;
  std::string path = folder / "file-offprint";
  auto created = PositionFile::create(FileSystem::real(), path, some_note(1));
  ASSERT_TRUE(created) << created.error().message();
  EXPECT_EQ((*created)->latest().sequence, 2u);
  for (std::uint64_t txid = 2; txid < 30; ++txid) ASSERT_TRUE((*created)->write(some_note(txid)));
  created->reset();
  auto content = read_file(FileSystem::real(), path, 1 << 20);
  ASSERT_TRUE(content);
  EXPECT_EQ(content->size(), kNoteFileSize);
  Note newer = some_note(30);
  newer.sequence = 31;
  Bytes next = encode_note(newer);
  // The next note's slot, half written at every length: the note before it counts.
  std::size_t slot =
      decode_note(ByteView(*content).first(kNoteSlotSize))->after.position.txid.value == 28 ? 0 : 1;
  for (std::size_t written = 0; written <= kNoteSlotSize; written += 4) {
    overwrite(path, 0, *content);
    overwrite(path, slot * kNoteSlotSize, ByteView(next).first(written));
    auto opened = PositionFile::open(FileSystem::real(), path);
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_EQ((*opened)->latest().after.position.txid.value, written == kNoteSlotSize ? 30u : 29u)
        << written;
  }
}

TEST(PositionFile, RefusesWhatItCannotRead) {
  TemporaryFolder folder;
  std::string path = folder / "file-offprint";
  EXPECT_EQ(PositionFile::open(FileSystem::real(), path).error().code(), Code::kNotFound);
  ASSERT_TRUE(PositionFile::create(FileSystem::real(), path, some_note(1)));
  overwrite(path, 100, Bytes(1800, 0xee));
  EXPECT_EQ(PositionFile::open(FileSystem::real(), path).error().code(), Code::kCorrupt);

  // A newer version in either slot, however its fields may stand: refused, never overwritten.
  ASSERT_TRUE(PositionFile::create(FileSystem::real(), path, some_note(1)));
  Bytes newer = encode_note(some_note(1));
  newer[11] = 2;
  newer.resize(kNoteSlotSize - 4);
  append_be<std::uint32_t>(newer, crc32c(newer));
  overwrite(path, kNoteSlotSize, newer);
  auto refused = PositionFile::open(FileSystem::real(), path);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kInvalid);
  EXPECT_NE(refused.error().message().find("newer version"), std::string::npos);
}

TEST(PositionFile, OneWriterAtATime) {
  TemporaryFolder folder;
  std::string path = folder / "file-offprint";
  auto first = PositionFile::create(FileSystem::real(), path, some_note(1));
  ASSERT_TRUE(first);
  EXPECT_EQ(PositionFile::open(FileSystem::real(), path).error().code(), Code::kBusy);
  first->reset();
  EXPECT_TRUE(PositionFile::open(FileSystem::real(), path));
}

TEST(PositionFile, MaskLeavesContentAlone) {
  Bytes page(512, 0xff);
  mask_probe(2, page);
  EXPECT_EQ(page, Bytes(512, 0xff));
  mask_probe(1, page);
  EXPECT_EQ(std::count(page.begin(), page.end(), 0), 2 + 4 + 4 + 8);
  for (std::size_t at : {std::size_t{18}, std::size_t{24}, std::size_t{40}, std::size_t{99}})
    EXPECT_EQ(page[at], 0);
  for (std::size_t at : {std::size_t{28}, std::size_t{60}, std::size_t{68}, std::size_t{100}})
    EXPECT_EQ(page[at], 0xff);
}

}  // namespace
}  // namespace offprint::replica
