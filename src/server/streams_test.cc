// Streams over the routes and a real store: what followers get, frame by frame.
#include <thread>

#include <gtest/gtest.h>

#include "ltx/checksum.h"
#include "ltx/codec.h"
#include "replica/stream_format.h"
#include "replica/transaction_delta.h"
#include "server/store_testing.h"

namespace offprint::server {
namespace {

using replica::FrameKind;

// Reads a stream as a connection would: fills, waits for wake-ups, ticks.
class Follower {
 public:
  Follower(std::shared_ptr<testing::FakeClient> client, Response response)
      : client_(std::move(client)), stream_(std::move(response.stream)) {
    stream_->start(client_);
  }

  struct Frame {
    FrameKind kind;
    std::uint32_t database;
    bool more;
    Bytes payload;
  };
  // The next frame that is none of a heartbeat; nothing at the end.
  std::optional<Frame> next() {
    for (;;) {
      std::optional<Frame> frame = any();
      if (!frame || frame->kind != FrameKind::kPosition) return frame;
      ++positions;
    }
  }
  Frame expect(FrameKind kind) {
    std::optional<Frame> frame = next();
    EXPECT_TRUE(frame);
    if (!frame) return {};
    EXPECT_EQ(static_cast<int>(frame->kind), static_cast<int>(kind));
    return *frame;
  }
  // A whole transaction, decoded and verified.
  ltx::DecodedFile transaction() {
    Frame first = expect(FrameKind::kTransaction);
    auto parsed = replica::parse_transaction_first(first.payload);
    EXPECT_TRUE(parsed);
    Bytes file(parsed->part.begin(), parsed->part.end());
    for (bool more = first.more; more;) {
      Frame part = expect(FrameKind::kTransaction);
      append(file, part.payload);
      more = part.more;
    }
    EXPECT_EQ(file.size(), parsed->head.ltx_size);
    auto decoded = ltx::decode(file);
    EXPECT_TRUE(decoded) << decoded.error().message();
    return *decoded;
  }
  replica::StreamPosition start() {
    return *replica::parse_position(expect(FrameKind::kStart).payload);
  }
  bool at_end() { return !next(); }
  void stop() { stream_->stop(); }

  int positions = 0;
  std::size_t bytes = 0;

 private:
  std::optional<Frame> any() {
    for (;;) {
      auto frame = reader_.next();
      EXPECT_TRUE(frame) << frame.error().message();
      if (!frame) return std::nullopt;
      if (*frame) {
        return Frame{(*frame)->kind, (*frame)->database, (*frame)->more(),
                     Bytes((*frame)->payload.begin(), (*frame)->payload.end())};
      }
      if (ended_) return std::nullopt;
      std::string text;
      auto state = stream_->fill(text);
      bytes += text.size();
      reader_.feed(as_bytes(text));
      if (state == BodyStream::State::kEnd) ended_ = true;
      EXPECT_NE(state, BodyStream::State::kFailed);
      if (state == BodyStream::State::kWait && text.empty())
        client_->wait_for_wake_or(std::chrono::milliseconds(100));
    }
  }

  std::shared_ptr<testing::FakeClient> client_;
  std::unique_ptr<BodyStream> stream_;
  replica::FrameReader reader_;
  bool ended_ = false;
};

// 1 to `count`, as the table n of a statement.
std::string numbers(int count) {
  return "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < " +
         std::to_string(count) + ") ";
}

// What a follower of "s" has.
struct Copy {
  explicit Copy(database::Store& store) {
    auto snapshot = *store.snapshot(*database::DatabaseName::parse("s"));
    page_size = snapshot->page_size();
    checksum = snapshot->position().checksum;
    for (PageNo page = 1; page <= snapshot->page_count(); ++page) {
      ByteView image = *snapshot->page(page);
      pages.emplace_back(image.begin(), image.end());
    }
  }
  void take(const ltx::DecodedFile& file) {
    pages.resize(file.header.page_count);
    for (const auto& [page, image] : file.pages) pages[page - 1] = image;
    checksum = file.trailer.post_apply;
  }
  std::uint32_t page_size = 0;
  Checksum checksum;
  std::vector<Bytes> pages;
};

class StreamsTest : public testing::RoutesTest {
 protected:
  void SetUp() override {
    RoutesTest::SetUp();
    create("s");
  }
  void sql(const std::string& text, const std::string& name = "s") {
    post("/db/" + name + "/query", "{\"sql\":\"" + text + "\"}");
  }
  Position position(const std::string& name = "s") {
    return *store->position(*database::DatabaseName::parse(name));
  }
  Follower follow(const std::string& target, const std::string& method = "GET",
                  const std::string& body = {}) {
    auto client = send(method, target, body);
    Response response = client->wait();
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.content_type, replica::kStreamContentType);
    Follower follower(client, std::move(response));
    auto hello = replica::parse_hello(follower.expect(FrameKind::kHello).payload);
    EXPECT_EQ(hello->version, replica::kStreamVersion);
    return follower;
  }
  Follower follow_from(const Bookmark& bookmark) {
    return follow("/db/s/stream?from=" + bookmark.text());
  }
};

TEST_F(StreamsTest, FollowsFromAPosition) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  Position before = position();
  sql("INSERT INTO t VALUES (1, 'a')");
  Position middle = position();
  Follower follower = follow_from(before.bookmark());
  replica::StreamPosition start = follower.start();
  EXPECT_EQ(start.position, before);
  ltx::DecodedFile first = follower.transaction();
  EXPECT_EQ(first.header.min_txid, middle.txid);
  EXPECT_EQ(first.header.pre_apply, before.checksum);
  EXPECT_EQ(first.trailer.post_apply, middle.checksum);
  EXPECT_EQ(follower.positions, 1) << "the primary's position comes at once";
  for (int i = 2; i < 50; ++i) {
    sql("INSERT INTO t VALUES (" + std::to_string(i) + ", 'b')");
    EXPECT_EQ(follower.transaction().trailer.post_apply, position().checksum);
  }
}

TEST_F(StreamsTest, DeltasMakeTheSameTransactionsOfTheFollowersPages) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  sql("CREATE INDEX i ON t(v)");
  sql(numbers(3000) + "INSERT INTO t SELECT i, hex(randomblob(50)) FROM n");
  Copy copy(*store);
  Position start = position();
  Follower files = follow_from(start.bookmark());
  Follower deltas = follow("/db/s/stream?encodings=zip,%20delta&from=" + start.bookmark().text());
  files.start();
  deltas.start();
  for (int i = 0; i < 60; ++i) {
    sql(i % 10 == 9 ? "CREATE TABLE t" + std::to_string(i) + "(x)"
        : i % 3 == 0
            ? "DELETE FROM t WHERE id % 50 = " + std::to_string(i % 50)
            : "REPLACE INTO t VALUES (" + std::to_string(i * 37) + ", hex(randomblob(60)))");
    ltx::DecodedFile file = files.transaction();
    Follower::Frame frame = deltas.expect(FrameKind::kDelta);
    auto made = replica::rebuild(frame.payload, copy.checksum, copy.page_size,
                                 [&](PageNo page, std::span<std::uint8_t> image) -> Result<bool> {
                                   if (page > copy.pages.size()) return false;
                                   std::ranges::copy(copy.pages[page - 1], image.begin());
                                   return true;
                                 });
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->epoch, position().epoch);
    EXPECT_EQ(made->file.header, file.header);
    EXPECT_EQ(made->file.trailer.post_apply, file.trailer.post_apply);
    EXPECT_EQ(made->file.pages, file.pages);
    copy.take(file);
  }
  EXPECT_LT(deltas.bytes * 10, files.bytes);
}

// Beside it the LTX file, whose pages are compressed: 8 KB.
TEST_F(StreamsTest, ARowOfATableWithTwoIndexesCosts300Bytes) {
  sql("CREATE TABLE o(id INTEGER PRIMARY KEY, customer, status, total, note)");
  sql(numbers(200'000) +
      "INSERT INTO o SELECT i, abs(random()) % 20000, 'new', i * 1.5, hex(randomblob(20)) FROM n");
  sql("CREATE INDEX o1 ON o(customer)");
  sql("CREATE INDEX o2 ON o(status, total)");
  Follower follower = follow("/db/s/stream?encodings=delta&from=" + position().bookmark().text());
  follower.start();
  auto cost = [&](const std::string& set) {
    constexpr int kTransactions = 200;
    std::size_t bytes = 0;
    for (int i = 1; i <= kTransactions; ++i) {
      sql("UPDATE o SET " + set + " WHERE id = " + std::to_string(i * 7919 % 200'000));
      bytes += replica::kFrameHeaderSize + follower.expect(FrameKind::kDelta).payload.size() +
               replica::kFrameTrailerSize;
    }
    return bytes / kTransactions;
  };
  std::size_t unindexed = cost("note = hex(randomblob(20))");
  std::size_t indexed = cost("status = 'paid'");
  RecordProperty("unindexed_bytes", static_cast<int>(unindexed));
  RecordProperty("indexed_bytes", static_cast<int>(indexed));
  EXPECT_LE(unindexed, 150u);
  EXPECT_LE(indexed, 300u);
}

TEST_F(StreamsTest, OnlyWhoNamesTheEncodingGetsDeltas) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  std::string from = "/db/s/stream?from=" + position().bookmark().text();
  for (const char* list : {"", "&encodings=", "&encodings=zip", "&encodings=deltas,ltx"}) {
    Follower follower = follow(from + list);
    follower.start();
    sql("INSERT INTO t(v) VALUES (1)");
    follower.transaction();
  }
  auto client = send("GET", from, {}, "Offprint-Stream-Encodings: delta\r\n");
  Follower follower(client, client->wait());
  follower.expect(FrameKind::kHello);
  follower.start();
  for (int i = 0; i < 4; ++i) follower.expect(FrameKind::kDelta);
}

TEST_F(StreamsTest, WhatDoesNotFitIntoADeltaIsSentWhole) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  Bookmark empty = position().bookmark();
  sql(numbers(1000) + "INSERT INTO t SELECT i, randomblob(4000) FROM n");
  sql("UPDATE t SET v = 1");  // what it replaces is too much for the log
  sql("UPDATE t SET v = 2 WHERE id = 1");
  Follower follower = follow("/db/s/stream?encodings=delta&from=" + empty.text());
  follower.start();
  for (int i = 0; i < 2; ++i) follower.transaction();
  follower.expect(FrameKind::kDelta);
}

TEST_F(StreamsTest, HeartbeatsWhenNothingHappens) {
  sql("CREATE TABLE t(id)");
  Follower follower = follow_from(position().bookmark());
  follower.start();
  sql("INSERT INTO t VALUES (1)");
  follower.transaction();
  int before = follower.positions;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(2500));
    sql("INSERT INTO t VALUES (2)");
  });
  follower.transaction();
  later.join();
  EXPECT_GE(follower.positions, before + 2);
}

TEST_F(StreamsTest, LongHistoryAndLargeTransactions) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  Position before = position();
  for (int i = 0; i < 300; ++i) sql("INSERT INTO t(v) VALUES (hex(randomblob(500)))");
  sql("INSERT INTO t(v) VALUES (randomblob(3000000))");
  sql("INSERT INTO t(v) VALUES (1)");
  Follower follower = follow_from(before.bookmark());
  EXPECT_EQ(follower.start().position, before);
  Checksum checksum = before.checksum;
  for (int i = 0; i < 302; ++i) {
    ltx::DecodedFile file = follower.transaction();
    EXPECT_EQ(file.header.pre_apply, checksum);
    checksum = file.trailer.post_apply;
  }
  EXPECT_EQ(checksum, position().checksum);
}

TEST_F(StreamsTest, SnapshotThenTransactions) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000) "
      "INSERT INTO t SELECT i, hex(randomblob(300)) FROM n");
  Position at = position();
  Follower follower = follow("/db/s/stream");
  auto begin = replica::parse_snapshot_begin(follower.expect(FrameKind::kSnapshotBegin).payload);
  ASSERT_TRUE(begin);
  EXPECT_EQ(begin->position, at);
  EXPECT_FALSE(begin->difference);
  Checksum checksum = ltx::kEmptyDatabase;
  PageNo pages = 0;
  for (;;) {
    auto frame = *follower.next();
    if (frame.kind == FrameKind::kSnapshotEnd) break;
    ASSERT_EQ(frame.kind, FrameKind::kPages);
    replica::PagesReader reader(frame.payload, begin->page_size);
    while (auto page = *reader.next()) {
      EXPECT_EQ(page->number, ++pages);
      checksum = ltx::toggle(checksum, ltx::page_checksum(page->number, page->image));
    }
  }
  EXPECT_EQ(pages, begin->page_count);
  EXPECT_EQ(checksum, at.checksum);
  EXPECT_EQ(follower.start().position, at);
  sql("INSERT INTO t(v) VALUES (1)");
  EXPECT_EQ(follower.transaction().header.pre_apply, at.checksum);
}

TEST_F(StreamsTest, PagesThatDiffer) {
  sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) "
      "INSERT INTO t SELECT i, hex(randomblob(300)) FROM n");
  replica::PageHashes hashes;
  {
    auto snapshot = *store->snapshot(*database::DatabaseName::parse("s"));
    hashes.page_size = snapshot->page_size();
    for (PageNo page = 1; page <= snapshot->page_count(); ++page) {
      hashes.hashes.push_back(ltx::page_checksum(page, *snapshot->page(page)).value);
    }
  }
  sql("UPDATE t SET v = 'changed' WHERE id % 1000 = 0");
  auto ask_pages = [&](const replica::PageHashes& have) {
    Bytes body = replica::encode_page_hashes(have);
    return follow("/db/s/pages", "POST", std::string(as_text(body)));
  };
  auto count = [&](Follower& follower, bool difference) {
    auto begin = replica::parse_snapshot_begin(follower.expect(FrameKind::kSnapshotBegin).payload);
    EXPECT_EQ(begin->difference, difference);
    EXPECT_EQ(begin->position, position());
    std::size_t pages = 0;
    for (;;) {
      auto frame = *follower.next();
      if (frame.kind == FrameKind::kSnapshotEnd) break;
      replica::PagesReader reader(frame.payload, begin->page_size);
      while (*reader.next()) ++pages;
    }
    EXPECT_EQ(replica::parse_end(follower.expect(FrameKind::kEnd).payload)->reason,
              replica::EndReason::kDone);
    EXPECT_TRUE(follower.at_end());
    return pages;
  };
  Follower some = ask_pages(hashes);
  std::size_t changed = count(some, true);
  EXPECT_GE(changed, 5u);
  EXPECT_LE(changed, 12u);
  EXPECT_LT(some.bytes, hashes.hashes.size() * hashes.page_size / 20) << "at most 5 % of the file";
  Follower all = ask_pages({});
  EXPECT_EQ(count(all, false), hashes.hashes.size());
  hashes.page_size = 512;
  Follower other_size = ask_pages(hashes);
  EXPECT_EQ(count(other_size, false), hashes.hashes.size());
}

TEST_F(StreamsTest, UnknownPositionsAskForPages) {
  sql("CREATE TABLE t(id)");
  auto reason = [&](Bookmark bookmark) {
    Follower follower = follow_from(bookmark);
    auto resync = replica::parse_resync(follower.expect(FrameKind::kResync).payload);
    EXPECT_TRUE(follower.at_end());
    return resync->reason;
  };
  Bookmark other = position().bookmark();
  other.lineage = Lineage::random();
  EXPECT_EQ(reason(other), replica::ResyncReason::kOtherLineage);
  Bookmark future = position().bookmark();
  future.txid.value += 5;
  EXPECT_EQ(reason(future), replica::ResyncReason::kUnknownPosition);
}

TEST_F(StreamsTest, DropEndsTheStream) {
  sql("CREATE TABLE t(id)");
  Follower follower = follow_from(position().bookmark());
  follower.start();
  EXPECT_EQ(ask("GET", "/v1/databases/s").body.find("\"readers\":0"), std::string::npos);
  EXPECT_EQ(ask("DELETE", "/v1/databases/s").status, 204);
  EXPECT_EQ(replica::parse_end(follower.expect(FrameKind::kEnd).payload)->reason,
            replica::EndReason::kDropped);
  EXPECT_TRUE(follower.at_end());
}

TEST_F(StreamsTest, StopEndsTheStream) {
  sql("CREATE TABLE t(id)");
  Follower follower = follow_from(position().bookmark());
  follower.start();
  follower.stop();
  EXPECT_EQ(replica::parse_end(follower.expect(FrameKind::kEnd).payload)->reason,
            replica::EndReason::kShuttingDown);
  EXPECT_TRUE(follower.at_end());
}

TEST_F(StreamsTest, NodeStreamCarriesManyDatabases) {
  create("u/v");
  sql("CREATE TABLE t(id)");
  sql("CREATE TABLE t(id)", "u/v");
  Position s = position();
  Follower follower = follow("/v1/stream?db=s@" + s.bookmark().text() + "&db=u%2Fv");
  EXPECT_EQ(*replica::parse_database(follower.expect(FrameKind::kDatabase).payload), "s");
  EXPECT_EQ(*replica::parse_database(follower.expect(FrameKind::kDatabase).payload), "u/v");
  EXPECT_EQ(follower.start().position, s);
  EXPECT_EQ(follower.start().position, position("u/v"));
  sql("INSERT INTO t VALUES (1)", "u/v");
  EXPECT_EQ(follower.transaction().trailer.post_apply, position("u/v").checksum);
  sql("INSERT INTO t VALUES (1)");
  EXPECT_EQ(follower.transaction().trailer.post_apply, position().checksum);
  EXPECT_EQ(ask("DELETE", "/v1/databases/s").status, 204);
  EXPECT_EQ(follower.expect(FrameKind::kEnd).database, 1u);
  sql("INSERT INTO t VALUES (2)", "u/v");
  follower.transaction();
}

TEST_F(StreamsTest, NodeStreamOfAllFindsNewDatabases) {
  sql("CREATE TABLE t(id)");
  Follower follower = follow("/v1/stream", "POST");
  EXPECT_EQ(*replica::parse_database(follower.expect(FrameKind::kDatabase).payload), "s");
  follower.start();
  create("late");
  EXPECT_EQ(*replica::parse_database(follower.expect(FrameKind::kDatabase).payload), "late");
  EXPECT_EQ(follower.expect(FrameKind::kStart).database, 2u);
  sql("CREATE TABLE t(id)", "late");
  follower.transaction();
}

TEST_F(StreamsTest, ADatabaseThatIsNotThereIsSaidToBeDropped) {
  Follower follower = follow("/v1/stream?db=nope&db=s");
  EXPECT_EQ(*replica::parse_database(follower.expect(FrameKind::kDatabase).payload), "nope");
  EXPECT_EQ(replica::parse_end(follower.expect(FrameKind::kEnd).payload)->reason,
            replica::EndReason::kDropped);
  EXPECT_EQ(*replica::parse_database(follower.expect(FrameKind::kDatabase).payload), "s");
  EXPECT_EQ(follower.expect(FrameKind::kStart).database, 2u);
}

TEST_F(StreamsTest, PatternsChooseAndSnapshotsComeFirst) {
  create("shop/a");
  sql("CREATE TABLE t(id)", "shop/a");
  Follower follower = follow("/v1/stream?match=shop/*&snapshots=1");
  EXPECT_EQ(*replica::parse_database(follower.expect(FrameKind::kDatabase).payload), "shop/a");
  follower.expect(FrameKind::kSnapshotBegin);
  follower.expect(FrameKind::kPages);
  follower.expect(FrameKind::kSnapshotEnd);
  follower.expect(FrameKind::kStart);
}

TEST_F(StreamsTest, Refusals) {
  EXPECT_EQ(ask("GET", "/db/nope/stream").status, 404);
  EXPECT_EQ(ask("GET", "/db/s/stream?from=here").status, 400);
  EXPECT_EQ(ask("GET", "/db/s/stream?version=0").status, 400);
  EXPECT_EQ(ask("GET", "/db/s/stream", {}, "Offprint-Stream-Version: x\r\n").status, 400);
  EXPECT_EQ(ask("POST", "/db/s/pages", "rubbish").status, 400);
  EXPECT_EQ(ask("GET", "/v1/stream?db=s@x").status, 400);
}

}  // namespace
}  // namespace offprint::server
