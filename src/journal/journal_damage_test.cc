#include <cerrno>

#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "journal/format.h"
#include "journal/journal.h"
#include "journal/journal_test_util.h"

// What recovery makes of torn tails and of damage.
namespace offprint::journal {
namespace {

const std::string kFirst = "data/journal/" + segment_name(Lsn{0});
const std::string kSecond = "data/journal/" + segment_name(Lsn{kTestSegment});

// A journal after a crash: `synced` commits, one by one, then `batch` records that were written in
// one go.
struct Crashed {
  std::unique_ptr<FaultFileSystem> files = std::make_unique<FaultFileSystem>();
  std::vector<Location> locations;
  Lsn stated_durable;  // by the records of the batch
  Lsn end;
};

Bytes payload_of(std::uint64_t i) { return test_payload(i, 30 + i * 41 % 200); }

Crashed crashed_journal(std::uint64_t synced, std::uint64_t batch) {
  Crashed result;
  auto opened = open_journal(*result.files);
  EXPECT_TRUE(opened);
  Journal& journal = *opened->journal;
  std::uint64_t i = 0;
  for (; i < synced; ++i) {
    auto location = journal.commit(test_draft(payload_of(i)));
    EXPECT_TRUE(location);
    result.locations.push_back(*location);
  }
  result.stated_durable = journal.durable_lsn();
  for (; i < synced + batch; ++i) {
    auto location = journal.append(test_draft(payload_of(i)));
    EXPECT_TRUE(location);
    result.locations.push_back(*location);
  }
  EXPECT_TRUE(journal.wait_durable(result.locations.back()));
  result.end = journal.end_lsn();
  result.files->process_crash();
  return result;
}

// Opens a copy and checks that it shows the first records only, or says that it is damaged. Returns
// how many, or -1.
int survivors(const Crashed& crashed, FaultFileSystem& copy) {
  auto opened = open_journal(copy);
  if (!opened) {
    EXPECT_EQ(opened.error().code(), Code::kCorrupt) << opened.error().message();
    return -1;
  }
  EXPECT_LE(opened->records.size(), crashed.locations.size());
  for (std::size_t i = 0; i < opened->records.size(); ++i) {
    EXPECT_EQ(opened->records[i].location.lsn, crashed.locations[i].lsn);
    EXPECT_EQ(opened->records[i].payload, payload_of(i));
  }
  return static_cast<int>(opened->records.size());
}

// How many records lie wholly below `lsn`.
int whole_below(const Crashed& crashed, std::uint64_t lsn) {
  int count = 0;
  for (const Location& each : crashed.locations) count += each.lsn.value + each.size <= lsn ? 1 : 0;
  return count;
}

TEST(JournalDamage, TailTornAtEveryByteEndsThere) {
  Crashed crashed = crashed_journal(3, 3);
  Bytes content = crashed.files->content(kFirst);
  Bytes noise = test_payload(99, content.size());
  for (std::uint64_t cut = crashed.stated_durable.value; cut < crashed.end.value; ++cut) {
    for (bool zeros : {true, false}) {
      auto copy = crashed.files->clone();
      Bytes torn = content;
      for (std::uint64_t at = cut; at < crashed.end.value; ++at) torn[at] = zeros ? 0 : noise[at];
      copy->put(kFirst, torn);
      int expected = whole_below(crashed, cut);
      int found = survivors(crashed, *copy);
      // The last bytes of a record may be padding, or zeros anyway.
      if (found != expected) {
        ASSERT_TRUE(zeros && found == expected + 1) << "cut at " << cut << ": " << found;
        ASSERT_TRUE(std::equal(
            torn.begin(),
            torn.begin() + static_cast<std::ptrdiff_t>(
                               crashed.locations[static_cast<std::size_t>(found) - 1].lsn.value +
                               crashed.locations[static_cast<std::size_t>(found) - 1].size),
            content.begin()));
      }
    }
  }
}

TEST(JournalDamage, EveryFlippedBitIsATailOrDamageAndNeverAnotherRecord) {
  Crashed crashed = crashed_journal(2, 2);
  std::uint64_t damage = 0;
  std::uint64_t tails = 0;
  auto copy = crashed.files->clone();
  const Bytes content = crashed.files->content(kFirst);
  for (std::uint64_t at = 0; at < crashed.end.value; ++at) {
    if (at == kSegmentHeaderSize) at = kSegmentHeaderBlock;
    for (int bit = 0; bit < 8; ++bit) {
      copy->put(kFirst, content);
      copy->corrupt(kFirst, at, static_cast<std::uint8_t>(1 << bit));
      int found = survivors(crashed, *copy);
      if (at < crashed.stated_durable.value) {
        ASSERT_EQ(found, -1) << "byte " << at << " bit " << bit;
        ++damage;
      } else {
        ASSERT_EQ(found, whole_below(crashed, at)) << "byte " << at << " bit " << bit;
        ++tails;
      }
    }
  }
  EXPECT_GT(damage, 2000u);
  EXPECT_GT(tails, 2000u);
}

TEST(JournalDamage, DamageIsNamedAndNothingIsChanged) {
  Crashed crashed = crashed_journal(3, 1);
  crashed.files->corrupt(kFirst, crashed.locations[1].lsn.value + 80, 1);
  Bytes before = crashed.files->content(kFirst);
  auto opened = open_journal(*crashed.files);
  OFFPRINT_EXPECT_CODE(opened, Code::kCorrupt);
  const std::string& message = opened.error().message();
  EXPECT_NE(message.find(kFirst), std::string::npos) << message;
  EXPECT_NE(message.find("offset " + std::to_string(crashed.locations[1].lsn.value)),
            std::string::npos)
      << message;
  EXPECT_NE(message.find(lsn_text(crashed.locations[1].lsn)), std::string::npos) << message;
  EXPECT_EQ(crashed.files->content(kFirst), before);
}

// The last batch is stated durable by nobody until the next start; from then on damage to it is
// damage.
TEST(JournalDamage, WhatAStartHasServedIsNeverCutOff) {
  for (bool clean_stop : {false, true}) {
    Crashed crashed = crashed_journal(2, 2);
    {
      auto opened = open_journal(*crashed.files);
      OFFPRINT_ASSERT_OK(opened);
      ASSERT_EQ(opened->records.size(), 4u);
      if (!clean_stop) crashed.files->process_crash();
    }
    crashed.files->corrupt(kFirst, crashed.locations[3].lsn.value + 80, 1);
    OFFPRINT_EXPECT_CODE(open_journal(*crashed.files), Code::kCorrupt);
  }
}

TEST(JournalDamage, ACleanStopStatesItsLastBatchDurable) {
  FaultFileSystem files;
  Location last;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    auto location = opened->journal->commit(test_draft(Bytes(100)));
    OFFPRINT_ASSERT_OK(location);
    last = *location;
  }
  files.corrupt(kFirst, last.lsn.value + 80, 1);
  OFFPRINT_EXPECT_CODE(open_journal(files), Code::kCorrupt);
}

TEST(JournalDamage, WhatIsCutOffNeverComesBack) {
  // A bad record, good ones after it, and then new records that end exactly where the good ones
  // begin.
  for (std::uint64_t bad = 0; bad < 3; ++bad) {
    Crashed crashed = crashed_journal(2, 4);
    FaultFileSystem& files = *crashed.files;
    files.corrupt(kFirst, crashed.locations[2 + bad].lsn.value + 90, 1);
    std::vector<Record> before;
    {
      auto opened = open_journal(files);
      OFFPRINT_ASSERT_OK(opened);
      ASSERT_EQ(opened->records.size(), 2 + bad);
      // The start's own mark and this record fill the hole exactly.
      std::uint64_t room = crashed.locations[3 + bad].lsn.value - opened->journal->end_lsn().value;
      auto location = opened->journal->append(test_draft(
          Bytes(room > kRecordHeaderSize && room < 1000 ? room - kRecordHeaderSize : 0)));
      OFFPRINT_ASSERT_OK(location);
      OFFPRINT_ASSERT_OK(opened->journal->wait_durable(*location));
      files.process_crash();
    }
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    ASSERT_EQ(opened->records.size(), 3 + bad);
    for (std::size_t i = 0; i < 2 + bad; ++i) EXPECT_EQ(opened->records[i].payload, payload_of(i));
    EXPECT_EQ(opened->records.back().group_lsn.value, 3 + bad);
  }
}

TEST(JournalDamage, WhatIsCutOffInTheNextSegmentNeverComesBack) {
  FaultFileSystem files;
  Location bad;
  auto fill_segment = [](Journal& journal) {  // and one record in the next one
    std::vector<Location> locations;
    while (journal.segments().size() < 2) {
      auto location = journal.append(test_draft(Bytes(9000)));
      EXPECT_TRUE(location);
      locations.push_back(*location);
    }
    return locations;
  };
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    auto locations = fill_segment(*opened->journal);
    bad = locations[2];
    auto last = opened->journal->append(test_draft(test_payload(1, 500)));
    OFFPRINT_ASSERT_OK(last);
    OFFPRINT_ASSERT_OK(opened->journal->wait_durable(*last));
    files.process_crash();
  }
  files.corrupt(kFirst, bad.lsn.value + 100, 1);
  std::size_t count = 0;
  {
    auto opened = open_journal(files);
    OFFPRINT_ASSERT_OK(opened);
    ASSERT_EQ(opened->records.size(), 2u);
    // Ends exactly where the record of 500 bytes stood.
    auto locations = fill_segment(*opened->journal);
    OFFPRINT_ASSERT_OK(opened->journal->wait_durable(locations.back()));
    count = 2 + locations.size();
    files.process_crash();
  }
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  ASSERT_EQ(opened->records.size(), count);
  EXPECT_EQ(opened->records.back().payload.size(), 9000u);
}

// Three segments and a bit.
std::unique_ptr<FaultFileSystem> long_journal(bool crash = true) {
  auto files = std::make_unique<FaultFileSystem>();
  auto opened = open_journal(*files);
  EXPECT_TRUE(opened);
  for (std::uint64_t i = 0; i < 60; ++i) {
    EXPECT_TRUE(opened->journal->commit(test_draft(test_payload(i, 4000))));
  }
  EXPECT_EQ(opened->journal->segments().size(), 4u);
  if (crash) files->process_crash();
  return files;
}

TEST(JournalDamage, MissingSegments) {
  for (std::uint64_t missing = 0; missing < 4; ++missing) {
    auto files = long_journal();
    std::string name = segment_name(Lsn{missing * kTestSegment});
    OFFPRINT_ASSERT_OK(files->remove("data/journal/" + name));
    auto opened = open_journal(*files);
    if (missing == 0) {  // as after remove_before
      OFFPRINT_ASSERT_OK(opened);
      EXPECT_EQ(opened->records.back().payload, test_payload(59, 4000));
      continue;
    }
    OFFPRINT_EXPECT_CODE(opened, Code::kCorrupt);
    EXPECT_NE(opened.error().message().find(name), std::string::npos) << opened.error().message();
  }
}

TEST(JournalDamage, DamagedFillerIsDamage) {
  auto files = long_journal();
  Bytes content = files->content(kFirst);
  // The filler is the last record of the segment.
  std::uint64_t filler = 0;
  for (std::uint64_t at = kSegmentHeaderBlock; at + kRecordHeaderSize <= kTestSegment; at += 8) {
    if (claims_lsn(ByteView(content).subspan(at), Lsn{at})) filler = at;
  }
  ASSERT_EQ(content[filler + 13], kFillerKind);
  files->corrupt(kFirst, filler + 14, 1);
  OFFPRINT_EXPECT_CODE(open_journal(*files), Code::kCorrupt);
}

TEST(JournalDamage, ForeignAndDamagedHeaders) {
  struct Case {
    std::string what;
    std::uint64_t at;
    Code code;
  };
  for (const Case& each : {Case{"magic", 0, Code::kCorrupt}, Case{"version", 11, Code::kCorrupt},
                           Case{"id", 20, Code::kCorrupt}, Case{"begin", 39, Code::kCorrupt}}) {
    auto files = long_journal();
    files->corrupt(kSecond, each.at, 1);
    auto opened = open_journal(*files);
    OFFPRINT_EXPECT_CODE(opened, each.code);
    EXPECT_NE(opened.error().message().find(kSecond), std::string::npos)
        << each.what << opened.error().message();
  }
  auto files = long_journal();
  auto other = long_journal();
  files->put(kSecond, other->content(kSecond));
  OFFPRINT_EXPECT_CODE(open_journal(*files), Code::kCorrupt);
  files = long_journal();
  files->put(kSecond, files->content(kFirst));
  OFFPRINT_EXPECT_CODE(open_journal(*files), Code::kCorrupt);
  files = long_journal();
  Bytes shorter = files->content(kFirst);
  shorter.resize(shorter.size() - 1);
  files->put(kFirst, shorter);
  OFFPRINT_EXPECT_CODE(open_journal(*files), Code::kCorrupt);
}

// Replaces what stands at `lsn` in the first segment by a valid record with this header.
void forge(FaultFileSystem& files, RecordHeader header) {
  Bytes content = files.content(kFirst);
  SegmentHeader segment = *parse_segment_header(content);
  header.length = kRecordHeaderSize;
  encode_record_header(header, body_crc({}, {}, segment.id.crc_seed()),
                       content.data() + header.lsn.value);
  files.put(kFirst, content);
}

TEST(JournalDamage, NewerFormatsAreRefusedUntouched) {
  RecordHeader newer;
  newer.version = kFormatVersion + 1;
  newer.kind = 1;
  RecordHeader unknown;
  unknown.kind = 77;
  for (RecordHeader header : {newer, unknown}) {
    for (bool above_the_tail : {false, true}) {
      Crashed crashed = crashed_journal(2, 1);
      header.lsn = Lsn{crashed.end.value + (above_the_tail ? 800 : 0)};
      forge(*crashed.files, header);
      Bytes before = crashed.files->content(kFirst);
      auto opened = open_journal(*crashed.files);
      OFFPRINT_EXPECT_CODE(opened, Code::kInvalid);
      EXPECT_NE(opened.error().message().find("newer"), std::string::npos)
          << opened.error().message();
      EXPECT_EQ(crashed.files->content(kFirst), before);
    }
  }
  Crashed crashed = crashed_journal(2, 1);
  Bytes content = crashed.files->content(kFirst);
  content[11] = kFormatVersion + 1;
  store_be<std::uint32_t>(content.data() + 12, crc32c(ByteView(content).subspan(16, 48),
                                                      crc32c(ByteView(content).first(12))));
  crashed.files->put(kFirst, content);
  auto opened = open_journal(*crashed.files);
  OFFPRINT_EXPECT_CODE(opened, Code::kInvalid);
  EXPECT_NE(opened.error().message().find("newer"), std::string::npos) << opened.error().message();
}

TEST(JournalDamage, LargePayloadThatIsMissingOrChanged) {
  for (int what = 0; what < 3; ++what) {
    FaultFileSystem files;
    std::string path;
    {
      auto opened = open_journal(files);
      OFFPRINT_ASSERT_OK(opened);
      auto large = opened->journal->create_large_payload();
      OFFPRINT_ASSERT_OK(large);
      OFFPRINT_ASSERT_OK((*large)->write(test_payload(1, 5000)));
      OFFPRINT_ASSERT_OK((*large)->finish());
      path = "data/journal/large/" + (*large)->file();
      Draft draft;
      draft.large_file = (*large)->file();
      draft.large_size = (*large)->size();
      OFFPRINT_ASSERT_OK(opened->journal->commit(std::move(draft)));
    }
    if (what == 0) OFFPRINT_ASSERT_OK(files.remove(path));
    if (what == 1) files.put(path, Bytes(4999));
    if (what == 2) files.corrupt(path, 4000, 4);
    auto opened = open_journal(files);
    if (what < 2) {
      OFFPRINT_EXPECT_CODE(opened, Code::kCorrupt);
      EXPECT_NE(opened.error().message().find(path), std::string::npos);
    } else {
      OFFPRINT_ASSERT_OK(opened);
      OFFPRINT_EXPECT_CODE(read_all(*opened->journal, opened->records[0].location), Code::kCorrupt);
    }
  }
}

TEST(JournalDamage, ReadChecksTheRecordAgain) {
  FaultFileSystem files;
  auto opened = open_journal(files);
  OFFPRINT_ASSERT_OK(opened);
  auto location = opened->journal->commit(test_draft(Bytes(100)));
  OFFPRINT_ASSERT_OK(location);
  files.corrupt(kFirst, location->lsn.value + 100, 1);
  auto record = opened->journal->read(*location);
  OFFPRINT_EXPECT_CODE(record, Code::kCorrupt);
  EXPECT_NE(record.error().message().find(kFirst), std::string::npos);
}

}  // namespace
}  // namespace offprint::journal
