#include "cluster/guardian_page.h"

#include <csignal>
#include <cstring>
#include <random>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace offprint::cluster {

struct GuardianPageProbe {
  GuardianPage& page;
  // The state that is told, as bytes that anybody may spoil.
  std::span<std::uint8_t> bytes() const {
    auto* slot = &page.shared_.slots[page.shared_.current - 1];
    return {reinterpret_cast<std::uint8_t*>(slot),
            sizeof slot->size + sizeof slot->checksum + slot->size};
  }
  std::atomic<std::uint32_t>& current() const { return page.shared_.current; }
};

namespace {

std::unique_ptr<GuardianPage> new_page() {
  auto page = GuardianPage::create();
  EXPECT_TRUE(page) << page.error().message();
  return *std::move(page);
}

TEST(GuardianPageTest, OnlyAMemberThatActedHasSomethingToSay) {
  auto page = new_page();
  EXPECT_FALSE(page->read());
  page->begin(MemberId{7});
  page->know("n2", "127.0.0.1:2");
  EXPECT_FALSE(page->read()) << "it was never primary";
  page->acts_in(Epoch{3});
  page->know("n3", "[::1]:3");
  page->know("n2", "127.0.0.1:22");
  auto words = page->read();
  ASSERT_TRUE(words);
  EXPECT_EQ(words->member, MemberId{7});
  EXPECT_EQ(words->epoch, Epoch{3});
  EXPECT_EQ(words->peers, (std::vector<std::string>{"127.0.0.1:22", "[::1]:3"}));
  page->rest();
  EXPECT_FALSE(page->read());
  page->acts_in(Epoch{5});
  EXPECT_EQ(page->read()->epoch, Epoch{5});
  page->begin(MemberId{8});
  EXPECT_FALSE(page->read()) << "another member acted";
}

TEST(GuardianPageTest, PeersBeyondItsSizeAreNotKept) {
  auto page = new_page();
  page->begin(MemberId{7});
  page->acts_in(Epoch{1});
  for (std::size_t i = 0; i < 2 * GuardianPage::kPeersMax; ++i)
    page->know(fmt::format("n{}", i), std::string(263, 'h'));
  page->know("long", std::string(10'000, 'h'));
  ASSERT_TRUE(page->read());
  EXPECT_EQ(page->read()->peers.size(), GuardianPage::kPeersMax);
}

TEST(GuardianPageTest, WhatWasSpoiltSaysNothing) {
  auto page = new_page();
  page->begin(MemberId{7});
  page->know("n2", "127.0.0.1:2");
  page->acts_in(Epoch{3});
  const GuardianPageProbe probe{*page};
  ASSERT_TRUE(page->read());
  for (std::uint8_t& byte : probe.bytes()) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      byte ^= static_cast<std::uint8_t>(1U << bit);
      EXPECT_FALSE(page->read());
      byte ^= static_cast<std::uint8_t>(1U << bit);
    }
  }
  EXPECT_TRUE(page->read());
  probe.current() = 77;
  EXPECT_FALSE(page->read());
}

// A process that is killed while it writes leaves a state that it was in, as one.
TEST(GuardianPageTest, WhoIsKilledWhileWritingLeavesAWholeState) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 60; ++round) {
    auto page = new_page();
    page->begin(MemberId{7});
    page->know("n2", "h:1");
    page->acts_in(Epoch{1});
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (std::uint32_t i = 2;; ++i) {
        page->know("n2", fmt::format("{}:{}", std::string(i % 250, 'h'), i));
        page->acts_in(Epoch{i});
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500 + random() % 3'000));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    auto words = page->read();
    ASSERT_TRUE(words);
    ASSERT_EQ(words->peers.size(), 1U);
    const std::string& address = words->peers[0];
    const auto of = static_cast<std::uint32_t>(std::stoul(address.substr(address.find(':') + 1)));
    EXPECT_TRUE(of == words->epoch.value || of == words->epoch.value + 1)
        << address << " in epoch " << words->epoch.value;
  }
}

}  // namespace
}  // namespace offprint::cluster
