#include "archive/verify.h"

#include <gmock/gmock.h>

#include "archive/archive_testing.h"

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

}  // namespace
}  // namespace offprint::archive::testing
