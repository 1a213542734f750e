// Archives and disks that fail: a restore answers an error or what was there, never anything else.
// OFFPRINT_TEST_ROUNDS says of how many databases (each is damaged 40 times, by each of four
// tests), OFFPRINT_TEST_SEED adds to seeds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>

#include "archive/restore_testing.h"

namespace offprint::archive {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::IsEmpty;

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

class DamageTest : public testing::TestWithParam<int> {
 protected:
  // One object is damaged; answers how it was before.
  std::string damage(TestArchive& archive, std::mt19937_64& random);
  void check(TestArchive& archive, const DatabaseLife& life, const RestoreTarget& target,
             const std::string& damaged);

  int restored_ = 0;
  int refused_ = 0;
};

std::string DamageTest::damage(TestArchive& archive, std::mt19937_64& random) {
  const auto objects = archive.store->list("");
  if (!objects || objects->empty()) return "all of it";  // the damage before took the last one
  const std::string key = objects->at(random() % objects->size()).key;
  const std::string path = "/archive/" + key;
  Bytes content = archive.files.content(path);
  if (content.empty()) return key;  // the damage before left nothing of it
  const auto at = [&] {
    return content.begin() + static_cast<std::ptrdiff_t>(random() % content.size());
  };
  switch (random() % 7) {
    case 0:
      EXPECT_TRUE(archive.files.remove(path));
      return key;
    case 1:
      *at() ^= static_cast<std::uint8_t>(1u << random() % 8);
      break;
    case 2:
      content.erase(at(), content.end());
      break;
    case 3:
      for (std::uint64_t count = 1 + random() % 20; count > 0; --count)
        content.push_back(static_cast<std::uint8_t>(random() % 2 == 0 ? 0 : random()));
      break;
    case 4: {  // a sector that was never written
      const auto from = at();
      std::fill(from, from + std::min<std::ptrdiff_t>(512, content.end() - from), std::uint8_t{0});
      break;
    }
    case 5:  // another object of this archive
      content = archive.files.content("/archive/" + objects->at(random() % objects->size()).key);
      break;
    default:
      content.erase(at());
      break;
  }
  archive.files.put(path, content);
  return key;
}

void DamageTest::check(TestArchive& archive, const DatabaseLife& life, const RestoreTarget& target,
                       const std::string& damaged) {
  const auto restored = archive.restore(target);
  if (!restored) {
    ++refused_;
    EXPECT_THAT(restored.error().code(), AnyOf(Code::kCorrupt, Code::kNotFound, Code::kInvalid))
        << damaged << ": " << restored.error().message();
    EXPECT_THAT(archive.output_names(), IsEmpty());
    return;
  }
  ++restored_;
  const std::uint64_t txid = restored->txid.value;
  if (const auto* wanted = std::get_if<TxId>(&target)) {
    EXPECT_EQ(txid, wanted->value);
  }
  ASSERT_LT(txid, life.states.size());
  EXPECT_TRUE(archive.take_output() == life.content_at(txid)) << damaged;
  EXPECT_THAT(archive.output_names(), IsEmpty());
}

TEST_P(DamageTest, GivesAnErrorOrTheRightContent) {
  const std::uint64_t first = 1 + number_from("OFFPRINT_TEST_SEED", 0);
  const std::uint64_t rounds = number_from("OFFPRINT_TEST_ROUNDS", 50);
  for (std::uint64_t seed = first; seed < first + rounds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed * 4 + static_cast<std::uint64_t>(GetParam()));
    const DatabaseLife life =
        random_life(random, 1 + random() % 14, static_cast<Writer>(random() % 3));
    TestArchive whole;
    fill_randomly(whole, life, random);
    if (whole.chain().newest().value == 0) continue;
    const bool promised = whole.chain().newest().value == life.length() && random() % 2 == 0;
    for (int round = 0; round < 40; ++round) {
      TestArchive archive;
      const auto objects = whole.store->list("").value();
      for (const ObjectInfo& object : objects)
        archive.files.put("/archive/" + object.key, whole.files.content("/archive/" + object.key));
      std::string damaged;
      for (std::uint64_t count = 1 + random() % 2; count > 0; --count)
        damaged += damage(archive, random) + " ";
      if (promised) archive.put_history(history_of(life));
      const std::uint64_t txid = 1 + random() % life.length();
      switch (random() % 3) {
        case 0:
          check(archive, life, TxId{txid}, damaged);
          break;
        case 1:
          check(archive, life, AtTime{DatabaseLife::time_of(txid)}, damaged);
          break;
        default:
          // Never less than was promised.
          if (const auto newest = archive.restore(Newest{}, {.replace = true});
              newest && promised) {
            EXPECT_EQ(newest->txid.value, life.length()) << damaged;
          }
          (void)archive.files.remove("/out/a.db");
          check(archive, life, Newest{}, damaged);
          break;
      }
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(restored_, static_cast<int>(rounds));
  EXPECT_GT(refused_, static_cast<int>(rounds));
}

INSTANTIATE_TEST_SUITE_P(Seeds, DamageTest, testing::Range(0, 4));

// A disk that fails at any step: an error, nothing half done under the name.
TEST(RestoreFaultTest, AnyFailureOfTheDiskLeavesNoFile) {
  std::mt19937_64 random(1);
  const DatabaseLife life = random_life(random, 80, Writer::kOurs);
  TestArchive archive;
  archive.put_level_0(life);
  int failures = 0;
  for (std::uint64_t step = 0;; ++step) {
    archive.files.fail_mutation(step, step % 2 == 0 ? EIO : ENOSPC);
    const auto restored = archive.restore(Newest{});
    archive.files.fail_mutation(UINT64_MAX, EIO);
    if (restored) {
      EXPECT_TRUE(archive.take_output() == life.content_at(80));
      break;
    }
    ++failures;
    EXPECT_THAT(restored.error().code(), AnyOf(Code::kIo, Code::kFull));
    const Bytes left = archive.files.content("/out/a.db");
    EXPECT_TRUE(left.empty() || left == life.content_at(80));
    for (const std::string& name : archive.output_names())
      EXPECT_TRUE(archive.files.remove("/out/" + name));
    ASSERT_LT(step, 1000u);
  }
  EXPECT_GT(failures, 8);
}

// The machine stops at any step: under the name there is the old file or the new one, whole.
TEST(RestoreFaultTest, APowerLossLeavesTheOldFileOrTheNewOne) {
  std::mt19937_64 random(2);
  const DatabaseLife life = random_life(random, 40, Writer::kOurs);
  const Bytes old = Bytes(5000, 7);
  bool saw_old = false;
  bool saw_new = false;
  for (std::uint64_t step = 0; step < 1000; ++step) {
    TestArchive archive;
    archive.put_level_0(life);
    archive.files.put("/out/a.db", old);
    archive.files.crash_at(archive.files.call_count() + step, step);
    const auto restored = archive.restore(Newest{}, {.replace = true});
    archive.files.restart();
    if (restored) archive.files.power_loss(step);
    const Bytes left = archive.files.content("/out/a.db");
    if (restored) {
      EXPECT_TRUE(left == life.content_at(40)) << step;
      break;
    }
    saw_old = saw_old || left == old;
    saw_new = saw_new || left == life.content_at(40);
    EXPECT_TRUE(left == old || left == life.content_at(40)) << step;
  }
  EXPECT_TRUE(saw_old);
}

}  // namespace
}  // namespace offprint::archive
