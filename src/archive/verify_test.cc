#include "archive/verify.h"

#include <gmock/gmock.h>

#include "archive/archive_testing.h"
#include "archive/history.h"
#include "archive/restore_testing.h"

namespace offprint::archive::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

class VerifyTest : public ArchiveTest {
 protected:
  void SetUp() override {
    ArchiveTest::SetUp();
    create("orders");
    write("orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    auto archive = load("orders").value();
    for (int day = 0; day < 3; ++day) {
      for (int i = 0; i < 3; ++i) {
        write("orders", "INSERT INTO t(b) VALUES(randomblob(3000))");
        ASSERT_TRUE(archive->put_transactions());
      }
      pass(25h);
      ASSERT_TRUE(archive->keep_up(now_ms_));
    }
    ASSERT_TRUE(archive->note_head());
  }
  Result<Verified> verify() {
    VerifyOptions options;
    options.scratch = folder_.path();
    return verify_archive(*objects_, "orders/", options);
  }
};

TEST_F(VerifyTest, ASoundArchiveIsProven) {
  auto verified = verify();
  ASSERT_TRUE(verified) << verified.error().message();
  EXPECT_TRUE(verified->damage.empty()) << verified->damage.front();
  EXPECT_EQ(verified->files, files("orders").size());
  ASSERT_EQ(verified->moments.size(), 4u) << "three days' snapshots and the newest moment";
  for (const Restored& moment : verified->moments) EXPECT_TRUE(moment.proven);
  EXPECT_EQ(verified->moments.back().txid, store_->position(name("orders"))->txid);
  EXPECT_EQ(verified->moments.back().checksum, store_->position(name("orders"))->checksum);
  VerifyOptions options;
  options.scratch = folder_.path();
  EXPECT_EQ(verify_archive(*objects_, "nothing/", options).error().code(), Code::kNotFound);
}

// Each object in turn, damaged and gone: the file, or a moment that needs it, is named.
TEST_F(VerifyTest, DamageIsNamed) {
  for (const ArchivedFile& file : files("orders")) {
    Bytes sound = read_object(*objects_, file.key, 1 << 20).value();
    Bytes damaged = sound;
    damaged[damaged.size() / 2] ^= 1;
    ltx::BytesSource source(damaged);
    ASSERT_TRUE(objects_->put(file.key, source));
    auto verified = verify();
    ASSERT_TRUE(verified) << verified.error().message();
    EXPECT_THAT(verified->damage, Contains(HasSubstr(file.key)));
    ltx::BytesSource again(sound);
    ASSERT_TRUE(objects_->put(file.key, again));
  }
  std::string newest = files("orders").back().key;
  ASSERT_TRUE(objects_->remove({newest}));
  auto verified = verify();
  ASSERT_TRUE(verified);
  for (const ArchivedFile& file : files("orders")) {
    if (file.max_txid == store_->position(name("orders"))->txid) return;  // another file has it
  }
  EXPECT_THAT(verified->damage, Contains(HasSubstr("must reach")));
}

// Without the history nobody knows what is missing at the end.
TEST_F(VerifyTest, TheHistoryIsMissed) {
  const std::string key = std::string("orders/") + kHistoryKey;
  const Bytes sound = read_object(*objects_, key, kHistoryBytesMax).value();
  ASSERT_TRUE(objects_->remove({key}));
  auto verified = verify();
  ASSERT_TRUE(verified) << verified.error().message();
  EXPECT_THAT(verified->damage, Contains(HasSubstr(key)));
  EXPECT_THAT(verified->damaged_keys, Contains(key));
  EXPECT_EQ(verified->moments.size(), 4u) << "all the same these can be restored";
  for (std::size_t at : {std::size_t{0}, sound.size() / 2, sound.size() - 2}) {
    Bytes damaged = sound;
    damaged[at] ^= 1;
    ltx::BytesSource source(damaged);
    ASSERT_TRUE(objects_->put(key, source));
    verified = verify();
    ASSERT_TRUE(verified) << verified.error().message();
    EXPECT_THAT(verified->damaged_keys, Contains(key));
    EXPECT_LE(verified->damage.size(), 2u) << "it is said once";
  }
  // Stock Litestream's archives have none.
  for (const ArchivedFile& file : files("orders")) ASSERT_TRUE(objects_->remove({file.key}));
  ASSERT_TRUE(objects_->remove({key}));
  std::mt19937_64 random(1);
  const DatabaseLife life = random_life(random, 3, Writer::kStock);
  for (std::uint64_t txid = 1; txid <= 3; ++txid) {
    ltx::BytesSource source(life.files[txid - 1]);
    ASSERT_TRUE(objects_->put(
        "orders/" + objects_->level_prefix(0) + ltx::file_name({txid}, {txid}), source));
  }
  verified = verify();
  ASSERT_TRUE(verified) << verified.error().message();
  EXPECT_TRUE(verified->damage.empty()) << verified->damage.front();
}

}  // namespace
}  // namespace offprint::archive::testing
