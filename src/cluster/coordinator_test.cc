#include "cluster/coordinator.h"

#include <cerrno>

#include "base/fault_file_system.h"
#include "cluster/coordinator_contract.h"
#include "cluster/coordinator_local.h"

namespace offprint::cluster {
namespace {

using namespace testing;
using Kind = RegisterFault::Kind;

constexpr const char* kPath = "/data/register";

std::shared_ptr<Coordinator> open_static(FileSystem& files) {
  auto opened = create_static_coordinator(files, kPath);
  EXPECT_TRUE(opened) << opened.error().message();
  return std::move(*opened);
}

struct Files {
  Files() {
    EXPECT_TRUE(system.create_directories("/data"));
    EXPECT_TRUE(system.sync_directory("/"));
  }
  FaultFileSystem system;
};

TEST(MemCoordinator, KeepsTheContract) {
  auto table = std::make_shared<RegisterTable>();
  Contract contract{[table] { return create_mem_coordinator(table); }, "/c/"};
  check_all(contract);
  check_end(contract);
}

TEST(StaticCoordinator, KeepsTheContractInAFileAndInMemory) {
  Files files;
  {
    auto one = open_static(files.system);
    check_all({[one] { return one; }, "/c/"});
  }
  check_end({[&] { return open_static(files.system); }, "/end/"});
  std::shared_ptr<Coordinator> one = create_static_coordinator(files.system, "").value();
  check_all({[one] { return one; }, "/c/"});
}

TEST(StaticCoordinator, AnAppliedSwapOutlivesAPowerLoss) {
  Files files;
  std::int64_t version = 0;
  for (int round = 0; round < 20; ++round) {
    {
      auto one = open_static(files.system);
      auto before = read(*one, "/k");
      ASSERT_TRUE(before);
      ASSERT_EQ(before->has_value(), round > 0);
      if (round > 0) {
        EXPECT_EQ((*before)->value, std::to_string(round - 1));
        EXPECT_EQ((*before)->version, version);
      }
      ASSERT_TRUE(announce(*one, {"/node", "gone with the process", 2000}));
      std::int64_t next = apply(*one, "/k", version, std::to_string(round));
      EXPECT_GT(next, version);
      version = next;
    }
    files.system.power_loss(static_cast<std::uint64_t>(round));
  }
  auto node = read(*open_static(files.system), "/node");
  ASSERT_TRUE(node);
  EXPECT_FALSE(*node);
}

// Whatever operation fails, the outcome that was told holds after a power loss.
TEST(StaticCoordinator, AFailingDiskMakesTheOutcomeUnknownAndEndsTheRegister) {
  for (std::uint64_t nth = 0; nth < 6; ++nth) {
    Files files;
    std::int64_t first = 0;
    SwapResult second;
    {
      auto one = open_static(files.system);
      first = apply(*one, "/k", 0, "first");
      files.system.fail_mutation(nth, EIO);
      second = swap(*one, "/k", first, "second");
      if (second.outcome != Outcome::kApplied) {
        EXPECT_EQ(second.outcome, Outcome::kUnknown) << nth;
        EXPECT_FALSE(read(*one, "/k")) << "the disk is not known";
        EXPECT_EQ(swap(*one, "/other", 0, "").outcome, Outcome::kFailed);
      }
    }
    files.system.power_loss(nth);
    auto after = read(*open_static(files.system), "/k");
    ASSERT_TRUE(after && *after) << nth << (after ? " absent" : after.error().message());
    if (second.outcome == Outcome::kApplied) {
      EXPECT_EQ((*after)->value, "second");
    } else {
      EXPECT_TRUE((*after)->value == "first" || (*after)->value == "second");
    }
  }
}

void put_file(FileSystem& files, const std::string& text) {
  ASSERT_TRUE(write_file_atomically(files, kPath, as_bytes(text)));
}

// The file of the first version of the format, which every later one reads.
constexpr const char* kFirstFile =
    "{\"v\":1,\"crc32c\":\"CHECKSUM\"}\n"
    "{\"revision\":9,\"entries\":[\n"
    "{\"key\":\"L2s=\",\"version\":7,\"value\":\"djE=\"}\n]}\n";

TEST(StaticCoordinator, ReadsTheFileOfTheFirstVersion) {
  Files files;
  std::string text = kFirstFile;
  put_file(files.system, text.replace(text.find("CHECKSUM"), 8, "5f5f5f5f"));
  auto wrong = create_static_coordinator(files.system, kPath);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code(), Code::kCorrupt);
  EXPECT_NE(wrong.error().message().find(kPath), std::string::npos);
  text = kFirstFile;
  put_file(files.system, text.replace(text.find("CHECKSUM"), 8, "6c7cc2de"));
  auto one = open_static(files.system);
  auto entry = read(*one, "/k");
  ASSERT_TRUE(entry && *entry);
  EXPECT_EQ(**entry, (RegisterEntry{"/k", "v1", 7}));
  EXPECT_EQ(apply(*one, "/k", 7, "v2"), 10);
}

TEST(StaticCoordinator, SaysWhatIsWrongWithAFile) {
  Files files;
  put_file(files.system, "{\"v\":2,\"shape\":\"another\"}\n");
  auto newer = create_static_coordinator(files.system, kPath);
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code(), Code::kInvalid);
  EXPECT_NE(newer.error().message().find("newer"), std::string::npos);
  for (const char* text : {"", "{}", "\n", "{\"v\":1}\n", "[1]\n"}) {
    put_file(files.system, text);
    auto damaged = create_static_coordinator(files.system, kPath);
    ASSERT_FALSE(damaged) << text;
    EXPECT_EQ(damaged.error().code(), Code::kCorrupt) << text;
  }
}

// A table, and a coordinator whose next call has a fault.
struct Faulty {
  void next(Kind kind, int delay_ms = 0) { fault = {kind, delay_ms}; }
  RegisterFault take() { return fault.exchange({}); }
  std::shared_ptr<RegisterTable> table = std::make_shared<RegisterTable>();
  std::atomic<RegisterFault> fault{RegisterFault{}};
  std::unique_ptr<Coordinator> one =
      create_mem_coordinator(table, [this](const std::string&) { return take(); });
};

TEST(MemCoordinator, ASwapOfUnknownOutcomeMayHaveBeenAppliedOrLost) {
  Faulty faulty;
  faulty.next(Kind::kAnswerLost);
  EXPECT_EQ(swap(*faulty.one, "/k", 0, "a", 20).outcome, Outcome::kUnknown);
  auto landed = read(*faulty.one, "/k");
  ASSERT_TRUE(landed && *landed);
  EXPECT_EQ((*landed)->value, "a");
  faulty.next(Kind::kRequestLost);
  EXPECT_EQ(swap(*faulty.one, "/k", (*landed)->version, "b", 20).outcome, Outcome::kUnknown);
  auto same = read(*faulty.one, "/k");
  ASSERT_TRUE(same);
  EXPECT_EQ(*same, *landed);
  faulty.next(Kind::kUnreachable);
  SwapResult failed = swap(*faulty.one, "/k", (*landed)->version, "c", 20);
  ASSERT_EQ(failed.outcome, Outcome::kFailed);
  EXPECT_EQ(failed.error->code(), Code::kUnavailable);
  faulty.next(Kind::kUnreachable);
  EXPECT_FALSE(read(*faulty.one, "/k"));
  faulty.next(Kind::kRequestLost);
  auto late = read(*faulty.one, "/k", 20);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), Code::kTimeout);
}

TEST(MemCoordinator, AHeldSwapLandsLaterOrIsRefusedThen) {
  Faulty faulty;
  auto other = create_mem_coordinator(faulty.table);
  faulty.next(Kind::kHeld);
  EXPECT_EQ(swap(*faulty.one, "/k", 0, "late", 20).outcome, Outcome::kUnknown);
  ASSERT_EQ(faulty.table->held(), 1u);
  EXPECT_FALSE(*read(*other, "/k"));
  EXPECT_EQ(faulty.table->land_held().outcome, Outcome::kApplied);
  auto landed = read(*other, "/k");
  ASSERT_TRUE(landed && *landed);
  EXPECT_EQ((*landed)->value, "late");
  faulty.next(Kind::kHeld);
  EXPECT_EQ(swap(*faulty.one, "/k", (*landed)->version, "later", 20).outcome, Outcome::kUnknown);
  apply(*other, "/k", (*landed)->version, "first");
  EXPECT_EQ(faulty.table->land_held().outcome, Outcome::kRefused);
  faulty.next(Kind::kHeld);
  EXPECT_EQ(swap(*faulty.one, "/z", 0, "never", 20).outcome, Outcome::kUnknown);
  faulty.table->drop_held();
  EXPECT_FALSE(*read(*other, "/z"));
}

TEST(MemCoordinator, ADelayPastTheDeadlineIsUnknownAndLands) {
  Faulty faulty;
  auto other = create_mem_coordinator(faulty.table);
  faulty.next(Kind::kNone, 200);
  EXPECT_EQ(swap(*faulty.one, "/k", 0, "slow", 20).outcome, Outcome::kUnknown);
  EXPECT_TRUE(eventually(*other, "/k", [](const auto& entry) { return entry.has_value(); }));
  faulty.next(Kind::kNone, 20);
  EXPECT_EQ(swap(*faulty.one, "/j", 0, "in time").outcome, Outcome::kApplied);
}

TEST(MemCoordinator, WhatItAnnouncedComesBackAndGoesWithIt) {
  auto table = std::make_shared<RegisterTable>();
  auto other = create_mem_coordinator(table);
  Hints hints;
  other->watch("/node/", hints.call());
  {
    auto one = create_mem_coordinator(table);
    ASSERT_TRUE(announce(*one, {"/node/n1", "here", 30}));
    table->forget("/node/n1");
    EXPECT_TRUE(
        eventually(*other, "/node/n1", [](const auto& entry) { return entry.has_value(); }));
  }
  EXPECT_FALSE(*read(*other, "/node/n1"));
  EXPECT_TRUE(hints.saw("/node/n1", std::nullopt));
  other.reset();
}

// The watch's, the announcements' and other calls' callbacks may call again.
TEST(MemCoordinator, ACallbackMayCallTheCoordinator) {
  auto one = create_mem_coordinator(std::make_shared<RegisterTable>());
  std::promise<SwapResult> answer;
  one->read("/k", in_ms(5000), [&](const auto& entry) {
    ASSERT_TRUE(entry && !*entry);
    one->compare_and_swap({"/k", 0, "from within"}, in_ms(5000),
                          [&](SwapResult result) { answer.set_value(std::move(result)); });
  });
  EXPECT_EQ(answer.get_future().get().outcome, Outcome::kApplied);
}

}  // namespace
}  // namespace offprint::cluster
