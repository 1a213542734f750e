// The -wal of a program, read by our own reader: against files that SQLite wrote, and against what
// can be wrong with them.
#include "tail/wal_reader.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tail/tail_testing.h"

namespace offprint::tail::testing {
namespace {

constexpr std::uint32_t kPageSize = 512;

// A -wal in memory, written as SQLite writes it, its checksums in either order of bytes.
class WrittenWal {
 public:
  explicit WrittenWal(bool big_endian) : big_endian_(big_endian) { begin(1, 1000); }

  // From its beginning; old frames stay behind.
  void begin(std::uint32_t salt1, std::uint32_t salt2) {
    place_ = {};
    place_.page_size = kPageSize;
    place_.salt1 = salt1;
    place_.salt2 = salt2;
    Bytes header;
    for (std::uint32_t word : {0x377f0682u | static_cast<std::uint32_t>(big_endian_), 3007000u,
                               kPageSize, 0u, salt1, salt2})
      append_be(header, word);
    add(header);
    append_be(header, place_.checksum1);
    append_be(header, place_.checksum2);
    put(0, header);
  }
  // `size_after_commit` 0: no commit.
  void frame(PageNo page, std::uint32_t size_after_commit, std::uint8_t fill) {
    Bytes header;
    append_be(header, page);
    append_be(header, size_after_commit);
    Bytes image(kPageSize, fill);
    add(header);
    add(image);
    for (std::uint32_t word : {place_.salt1, place_.salt2, place_.checksum1, place_.checksum2})
      append_be(header, word);
    append(header, image);
    put(sqlite::frame_offset(++place_.last_frame, kPageSize), header);
    place_.page_count = size_after_commit;
    if (size_after_commit != 0) ++place_.change;
  }
  const WalPlace& place() const { return place_; }
  Bytes& bytes() { return bytes_; }
  ReadWal reader() {
    return [this](std::uint64_t offset, std::span<std::uint8_t> to) -> Result<std::size_t> {
      if (offset >= bytes_.size()) return std::size_t{0};
      std::size_t size = std::min<std::size_t>(to.size(), bytes_.size() - offset);
      std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), size, to.begin());
      return size;
    };
  }

 private:
  void add(const Bytes& bytes) {
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
      place_.checksum1 += word(bytes.data() + at) + place_.checksum2;
      place_.checksum2 += word(bytes.data() + at + 4) + place_.checksum1;
    }
  }
  std::uint32_t word(const std::uint8_t* at) const {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value |= std::uint32_t{at[i]} << (big_endian_ ? 24 - 8 * i : 8 * i);
    return value;
  }
  void put(std::uint64_t offset, const Bytes& what) {
    bytes_.resize(std::max<std::size_t>(bytes_.size(), offset + what.size()));
    std::copy(what.begin(), what.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  }

  const bool big_endian_;
  WalPlace place_;
  Bytes bytes_;
};

class WalReaderTest : public ::testing::TestWithParam<bool> {
 protected:
  WrittenWal wal_{GetParam()};
  const WalPlace nowhere_;
};

TEST_P(WalReaderTest, TheLastImageOfAPageWins) {
  wal_.frame(3, 0, 1);
  wal_.frame(1, 3, 2);
  wal_.frame(3, 3, 3);
  auto read = read_wal(wal_.reader(), nowhere_, wal_.place());
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_THAT(read->pages, ::testing::ElementsAre(WalPage{1, 2}, WalPage{3, 3}));
  EXPECT_EQ(read->commits, 2u);
  Bytes image(kPageSize);
  ASSERT_TRUE(read_frame(wal_.reader(), wal_.place(), {3, 3}, image));
  EXPECT_EQ(image, Bytes(kPageSize, 3));
}

TEST_P(WalReaderTest, GoesOnBehindAPlace) {
  wal_.frame(1, 1, 1);
  WalPlace from = wal_.place();
  for (std::uint8_t i = 0; i < 200; ++i) wal_.frame(2 + i % 7, 8, i);
  auto read = read_wal(wal_.reader(), from, wal_.place());
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->pages.size(), 7u);
  EXPECT_EQ(read->commits, 200u);
  EXPECT_TRUE(read_wal(wal_.reader(), wal_.place(), wal_.place())->pages.empty());
}

// SQLite repeats the last frame of a commit up to the end of a sector.
TEST_P(WalReaderTest, RepeatedFramesAreNoCommits) {
  wal_.frame(1, 2, 1);
  wal_.frame(1, 2, 1);
  wal_.frame(1, 2, 2);
  EXPECT_EQ(read_wal(wal_.reader(), nowhere_, wal_.place())->commits, 2u);
}

TEST_P(WalReaderTest, PagesAboveTheLastSizeAreDropped) {
  wal_.frame(9, 9, 1);
  wal_.frame(2, 4, 2);
  EXPECT_THAT(read_wal(wal_.reader(), nowhere_, wal_.place())->pages,
              ::testing::ElementsAre(WalPage{2, 2}));
}

TEST_P(WalReaderTest, ANewGenerationIsReadFromItsBeginning) {
  for (std::uint8_t i = 0; i < 5; ++i) wal_.frame(i + 1u, 5, i);
  WalPlace from = wal_.place();
  wal_.begin(2, 77);
  wal_.frame(2, 5, 9);  // frames 2 to 5 of the old one stay behind it
  EXPECT_THAT(read_wal(wal_.reader(), from, wal_.place())->pages,
              ::testing::ElementsAre(WalPage{2, 1}));
  WalPlace beyond = wal_.place();
  beyond.last_frame = 2;
  EXPECT_EQ(read_wal(wal_.reader(), from, beyond).error().code(), Code::kBehind);
}

// The rest of a generation is there as long as the next one has not reached it.
TEST_P(WalReaderTest, TheRestOfAGenerationIsRead) {
  wal_.frame(1, 3, 1);
  const WalPlace from = wal_.place();
  EXPECT_EQ(read_wal_rest(wal_.reader(), from)->frames, 0u);
  wal_.frame(2, 0, 2);
  wal_.frame(3, 3, 3);
  wal_.frame(4, 4, 4);
  wal_.frame(5, 0, 5);  // of a transaction that was rolled back
  wal_.begin(2, 77);
  wal_.frame(3, 4, 9);
  auto rest = read_wal_rest(wal_.reader(), from);
  ASSERT_TRUE(rest) << rest.error().message();
  EXPECT_EQ(rest->commits, 2u);
  EXPECT_EQ(rest->frames, 3u);
  auto after = read_wal(wal_.reader(), from, wal_.place());
  ASSERT_TRUE(after) << after.error().message();
  EXPECT_THAT(join_changes(*rest, *after, 4).pages,
              ::testing::ElementsAre(WalPage{2, 2, true}, WalPage{3, 1}, WalPage{4, 4, true}));
  EXPECT_EQ(join_changes(*rest, *after, 3).pages.size(), 2u);
  EXPECT_EQ(join_changes(*rest, *after, 4).commits, 3u);
  Bytes image(kPageSize);
  ASSERT_TRUE(read_frame(wal_.reader(), from, {4, 4, true}, image));
  EXPECT_EQ(image[0], 4);
  wal_.frame(6, 6, 1);
  rest = read_wal_rest(wal_.reader(), from);  // its first frame was written over
  ASSERT_TRUE(rest) << rest.error().message();
  EXPECT_EQ(rest->commits, 0u);
  EXPECT_EQ(read_frame(wal_.reader(), from, {2, 2, true}, image).error().code(), Code::kBehind);
}

TEST_P(WalReaderTest, ARestWithFewerPagesIsNotTaken) {
  wal_.frame(1, 3, 1);
  const WalPlace from = wal_.place();
  wal_.frame(1, 2, 2);
  wal_.frame(1, 3, 3);
  wal_.begin(2, 77);
  wal_.frame(1, 3, 9);
  wal_.bytes().resize(sqlite::frame_offset(4, kPageSize));
  EXPECT_EQ(read_wal_rest(wal_.reader(), from).error().code(), Code::kBehind);
}

TEST_P(WalReaderTest, WhatIsNotThatCommitIsNotTaken) {
  wal_.frame(1, 2, 1);
  WalPlace first = wal_.place();
  wal_.frame(2, 0, 2);
  WalPlace open = wal_.place();  // in the middle of a commit
  wal_.frame(1, 2, 3);
  const WalPlace last = wal_.place();
  EXPECT_EQ(read_wal(wal_.reader(), first, open).error().code(), Code::kBehind);
  WalPlace other = last;
  ++other.checksum2;
  EXPECT_EQ(read_wal(wal_.reader(), first, other).error().code(), Code::kBehind);
  other = first;
  ++other.checksum1;
  EXPECT_EQ(read_wal(wal_.reader(), other, last).error().code(), Code::kBehind);
  EXPECT_EQ(read_wal(wal_.reader(), last, first).error().code(), Code::kBehind);
  EXPECT_TRUE(read_wal(wal_.reader(), first, last));
}

TEST_P(WalReaderTest, AnyTornByteIsNoticed) {
  wal_.frame(1, 2, 1);
  wal_.frame(2, 2, 2);
  const WalPlace to = wal_.place();
  for (std::size_t at = 0; at < wal_.bytes().size(); at += 7) {
    wal_.bytes()[at] ^= 0x10;
    EXPECT_EQ(read_wal(wal_.reader(), nowhere_, to).error().code(), Code::kBehind) << at;
    wal_.bytes()[at] ^= 0x10;
  }
  EXPECT_TRUE(read_wal(wal_.reader(), nowhere_, to));
  wal_.bytes().pop_back();
  EXPECT_EQ(read_wal(wal_.reader(), nowhere_, to).error().code(), Code::kBehind);
  wal_.bytes().clear();
  EXPECT_EQ(read_wal(wal_.reader(), nowhere_, to).error().code(), Code::kBehind);
}

TEST_P(WalReaderTest, AFrameThatIsWrittenOverIsNotTaken) {
  wal_.frame(1, 1, 1);
  const WalPlace to = wal_.place();
  wal_.begin(2, 5);
  wal_.frame(1, 1, 2);
  Bytes image(kPageSize);
  EXPECT_EQ(read_frame(wal_.reader(), to, {1, 1}, image).error().code(), Code::kBehind);
}

INSTANTIATE_TEST_SUITE_P(BothOrders, WalReaderTest, ::testing::Bool(), [](const auto& test) {
  return test.param ? "BigEndian" : "LittleEndian";
});

class SqlitesWalTest : public TailTest {};

// What SQLite wrote, transaction by transaction, makes the pages that SQLite reads.
TEST_F(SqlitesWalTest, PagesAreThoseThatSqliteReads) {
  auto writer = program();
  run(writer, "PRAGMA wal_autocheckpoint=0; CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)");
  auto source = SourceFile::open(path_);
  ASSERT_TRUE(source) << source.error().message();
  ASSERT_TRUE((*source)->begin());
  std::map<PageNo, Bytes> pages;
  for (PageNo page = 1; page <= *(*source)->page_count(); ++page) {
    ByteView image = *(*source)->page(page);
    pages[page] = {image.begin(), image.end()};
  }
  for (int i = 0; i < 60; ++i) {
    WalPlace from = (*source)->place();
    run(writer, i % 7 == 6 ? std::string("DELETE FROM t WHERE id % 2 = 0; VACUUM")
                           : fmt::format("INSERT INTO t(b) VALUES(randomblob({}))", 300 * i));
    (*source)->end();
    ASSERT_TRUE((*source)->begin());
    ReadWal wal = [&](std::uint64_t offset, std::span<std::uint8_t> to) {
      return (*source)->read_wal_at(offset, to);
    };
    auto read = read_wal(wal, from, (*source)->place());
    ASSERT_TRUE(read) << read.error().message();
    PageNo count = (*source)->place().page_count;
    for (const WalPage& page : read->pages) {
      Bytes image((*source)->page_size());
      ASSERT_TRUE(read_frame(wal, (*source)->place(), page, image));
      pages[page.page] = image;
    }
    pages.erase(pages.upper_bound(count), pages.end());
    ASSERT_EQ(pages.size(), count);
    for (const auto& [number, image] : pages) {
      auto there = (*source)->page(number);
      ASSERT_TRUE(there);
      EXPECT_TRUE(std::ranges::equal(*there, image)) << number;
    }
  }
}

// A database's file and its -wal as bytes, and the states that were committed in its generation.
struct Recorded {
  struct State {
    WalPlace place;
    std::map<PageNo, Bytes> pages;
  };
  Bytes file, wal;
  std::vector<State> states;
};

class DamagedWalTest : public TailTest {
 protected:
  static Bytes bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write(const std::string& path, const Bytes& bytes) {
    std::ofstream(path, std::ios::binary) << as_text(bytes);
  }
  // Nothing: SQLite does not find a page that is said to be there.
  static std::optional<std::map<PageNo, Bytes>> pages_of(SourceFile& source) {
    std::map<PageNo, Bytes> pages;
    for (PageNo page = 1; page <= source.page_count().value_or(0); ++page) {
      auto image = source.page(page);
      if (!image) return std::nullopt;
      pages[page] = {image->begin(), image->end()};
    }
    return pages;
  }
  std::string statement() {
    switch (random_() % 8) {
      case 0:
        return "DELETE FROM t WHERE id % 3 = 0; VACUUM";
      case 1:
        return "BEGIN; INSERT INTO t(b) VALUES(randomblob(20000)); ROLLBACK";
      case 2:
        return "PRAGMA wal_checkpoint(PASSIVE)";
      case 3:
        return random_() % 4 == 0 ? "PRAGMA wal_checkpoint(RESTART)" : "UPDATE t SET b = b";
      default:
        return fmt::format("INSERT INTO t(b) VALUES(randomblob({}))", random_() % 3000);
    }
  }
  // What SQLite wrote in some transactions, in a -wal that was begun anew now and then.
  Recorded record() {
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
    auto writer = program("DELETE");
    run(writer, fmt::format("PRAGMA page_size={}; VACUUM", 512u << (random_() % 4)));
    run(writer,
        "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=2; "
        "PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)");
    Recorded recorded;
    for (auto left = 5 + random_() % 20; left > 0; --left) {
      run(writer, statement());
      auto source = SourceFile::open(path_);
      EXPECT_TRUE(source && (*source)->begin());
      const WalPlace& place = (*source)->place();
      if (!recorded.states.empty() && !recorded.states[0].place.same_generation(place))
        recorded.states.clear();
      if (place.last_frame == 0) continue;
      auto pages = pages_of(**source);
      EXPECT_TRUE(pages);
      recorded.states.push_back({place, std::move(pages).value_or(std::map<PageNo, Bytes>())});
    }
    recorded.file = bytes_of(path_);
    recorded.wal = bytes_of(path_ + "-wal");
    return recorded;
  }
  // Torn, flipped, zeroed, a part of it at another place.
  void damage(Bytes& wal) {
    if (wal.empty()) return;
    auto at = [&](std::size_t below) { return static_cast<std::ptrdiff_t>(random_() % below); };
    const std::ptrdiff_t from = at(wal.size());
    const auto count = std::min<std::ptrdiff_t>(at(5000), std::ssize(wal) - from);
    switch (random_() % 5) {
      case 0:
        wal.resize(static_cast<std::size_t>(from));
        break;
      case 1:
        wal[static_cast<std::size_t>(from)] ^= static_cast<std::uint8_t>(1u << (random_() % 8));
        break;
      case 2:
        std::fill_n(wal.begin() + from, count, std::uint8_t{0});
        break;
      case 3: {
        Bytes part(wal.begin() + from, wal.begin() + from + count);
        auto to = std::min<std::ptrdiff_t>(at(wal.size()), std::ssize(wal) - count);
        std::copy(part.begin(), part.end(), wal.begin() + to);
        break;
      }
      default:
        break;  // as it is
    }
  }

  const std::uint32_t seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
};

// Whatever became of a -wal's bytes: up to where SQLite reads it we read the same pages, and what
// we take as one of the states that were committed is that state.
TEST_F(DamagedWalTest, GivesWhatSqliteReadsAndCommittedStatesAlone) {
  SCOPED_TRACE(seed_);
  int with_frames = 0, refused = 0, taken = 0;
  for (int round = 0; round < 100 && !HasFailure(); ++round) {
    Recorded recorded = record();
    Bytes wal = recorded.wal;
    damage(wal);
    ReadWal reader = [&](std::uint64_t offset, std::span<std::uint8_t> to) -> Result<std::size_t> {
      if (offset >= wal.size()) return std::size_t{0};
      std::size_t size = std::min<std::size_t>(to.size(), wal.size() - offset);
      std::copy_n(wal.begin() + static_cast<std::ptrdiff_t>(offset), size, to.begin());
      return size;
    };
    const std::string copy = folder_.path() + "/app/copy.db";
    for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(copy + suffix);
    write(copy, recorded.file);
    write(copy + "-wal", wal);
    auto source = SourceFile::open(copy);
    ASSERT_TRUE(source);
    // SQLite may refuse it: a file from which pages are missing that its -wal had, or one whose
    // first page knows of fewer than the frames that are left.
    const WalPlace place = (*source)->begin() ? (*source)->place() : WalPlace();
    auto found = place.last_frame > 0 ? pages_of(**source) : std::nullopt;
    if (found) {
      ++with_frames;
      auto read = read_wal(reader, {}, place);
      ASSERT_TRUE(read) << read.error().message();
      std::map<PageNo, Bytes> pages;
      for (PageNo page = 1; page <= place.page_count; ++page) {
        auto at = std::size_t{page - 1} * place.page_size;
        // A checkpoint of what is lost may have cut the file: SQLite reads zeros behind its end.
        pages[page].resize(place.page_size);
        if (at + place.page_size > recorded.file.size()) continue;
        auto begin = recorded.file.begin() + static_cast<std::ptrdiff_t>(at);
        pages[page] = {begin, begin + place.page_size};
      }
      for (const WalPage& page : read->pages) {
        pages[page.page].resize(place.page_size);
        ASSERT_TRUE(read_frame(reader, place, page, pages[page.page]));
      }
      EXPECT_TRUE(pages == *found);
    }
    for (const Recorded::State& state : recorded.states) {
      auto read = read_wal(reader, {}, state.place);
      ++(read ? taken : refused);
      if (!read) continue;
      Bytes image(state.place.page_size);
      for (const WalPage& page : read->pages) {
        ASSERT_TRUE(read_frame(reader, state.place, page, image));
        EXPECT_TRUE(image == state.pages.at(page.page)) << page.page;
      }
    }
  }
  EXPECT_GT(with_frames, 20);
  EXPECT_GT(refused, 30);
  EXPECT_GT(taken, 30);
}

}  // namespace
}  // namespace offprint::tail::testing
