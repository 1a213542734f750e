// The rules of docs/cluster-protocol.md, run on the real state machine in worlds where everything
// that can go wrong does: all worlds of a small scope, and long random walks. The same walks have
// to notice when a rule is left out. OFFPRINT_TEST_ROUNDS=50000 walks far.
#include <chrono>
#include <cstdlib>
#include <random>
#include <unordered_set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "cluster/mutants.h"
#include "tests/protocol/world.h"

namespace offprint::cluster {
namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? std::strtoull(value, nullptr, 10) : otherwise;
}

struct Weighted {
  Step::Kind kind;
  std::uint32_t weight;
};
constexpr Weighted kWeights[] = {
    {Step::Kind::kTime, 6},      {Step::Kind::kTick, 12},       {Step::Kind::kDeliver, 40},
    {Step::Kind::kDouble, 2},    {Step::Kind::kLose, 4},        {Step::Kind::kPropose, 8},
    {Step::Kind::kSync, 30},     {Step::Kind::kCrash, 1},       {Step::Kind::kRestart, 4},
    {Step::Kind::kCasApply, 12}, {Step::Kind::kCasAnswer, 12},  {Step::Kind::kCasTimeout, 2},
    {Step::Kind::kCasFail, 1},   {Step::Kind::kLateApply, 2},   {Step::Kind::kLateLose, 1},
    {Step::Kind::kRead, 12},     {Step::Kind::kReadAnswer, 12}, {Step::Kind::kReadFail, 1},
    {Step::Kind::kHandOver, 3},  {Step::Kind::kRelease, 3},
};

// Each walk prefers other steps than the one before: rare meetings of them become common in some.
class Walker {
 public:
  explicit Walker(std::uint64_t seed) : random_(seed) {
    std::uint32_t sum = 0;
    for (const Weighted& each : kWeights) {
      constexpr std::uint32_t kFactors[] = {0, 1, 2, 2, 2, 8};
      sum += each.weight * kFactors[random_() % std::size(kFactors)];
      sums_.push_back(sum);
    }
  }

  Step next(std::size_t nodes, std::size_t packets) {
    if (planned_.empty() && random_() % 8 < plans_) plan(nodes, packets);
    if (planned_.empty()) return any(nodes, packets);
    Step step = planned_.back();
    planned_.pop_back();
    return step;
  }
  std::mt19937_64& random() { return random_; }

 private:
  Step any(std::size_t nodes, std::size_t packets) {
    std::uint64_t at = random_() % std::max(sums_.back(), 1U);
    std::size_t kind = 0;
    while (sums_[kind] <= at && kind + 1 < std::size(kWeights)) ++kind;
    Step step{kWeights[kind].kind};
    bool packet = step.kind == Step::Kind::kDeliver || step.kind == Step::Kind::kDouble ||
                  step.kind == Step::Kind::kLose;
    step.node = below(packet ? packets : nodes);
    step.other = below(4);
    return step;
  }

  // Steps that often follow on each other, so that walks come far.
  void plan(std::size_t nodes, std::size_t packets) {
    using Kind = Step::Kind;
    static const std::vector<std::vector<Kind>> kPlans = {
        {Kind::kPropose, Kind::kSync},
        {Kind::kTick, Kind::kCasApply, Kind::kCasAnswer, Kind::kSync},
        {Kind::kTick, Kind::kRead, Kind::kReadAnswer, Kind::kCasApply, Kind::kCasAnswer,
         Kind::kSync},
        {Kind::kTick, Kind::kRead, Kind::kReadAnswer, Kind::kCasTimeout},
        {Kind::kCrash, Kind::kRestart},
        {Kind::kLateApply},
        {Kind::kTime},
        {Kind::kTime, Kind::kTime, Kind::kTime, Kind::kTime},
        {},  // everybody talks
        {},
    };
    std::uint8_t node = below(nodes);
    std::vector<Step> steps;
    for (std::uint64_t count = 1 + random_() % 5; count > 0; --count) {
      const std::vector<Kind>& kinds = kPlans[random_() % kPlans.size()];
      for (Kind kind : kinds) steps.push_back({kind, node, 0});
      if (!kinds.empty()) continue;
      for (std::size_t i = 0; i < nodes; ++i)
        steps.push_back({Kind::kTick, static_cast<std::uint8_t>(i), 0});
      for (std::uint64_t left = random_() % (packets + 2 * nodes); left > 0; --left) {
        Kind kind = random_() % 8 == 0 ? Kind::kLose : Kind::kDeliver;
        steps.push_back({kind, random_() % 4 == 0 ? below(packets) : std::uint8_t{0}, 0});
        if (random_() % 2 == 0) steps.push_back({Kind::kSync, below(nodes), 0});
      }
    }
    planned_.assign(steps.rbegin(), steps.rend());
  }

  std::uint8_t below(std::size_t count) {
    return static_cast<std::uint8_t>(random_() % std::max<std::size_t>(count, 1));
  }

  std::mt19937_64 random_;
  std::vector<std::uint32_t> sums_;
  std::uint64_t plans_ = random_() % 5;  // of eight
  std::vector<Step> planned_;
};

WorldOptions random_options(std::mt19937_64& random) {
  WorldOptions options;
  options.nodes = 2 + random() % 2;
  if (random() % 8 == 0) options.nodes = 4;
  options.in_sync = 1 + random() % options.nodes;
  options.min_in_sync = static_cast<std::uint32_t>(1 + random() % 2);
  if (options.in_sync < options.min_in_sync) options.in_sync = options.min_in_sync;
  options.records_max = 2 + random() % 5;
  options.epochs_max = 12;
  options.versions_max = 40;
  options.packets_max = 3 + random() % 8;
  options.crashes_max = static_cast<int>(random() % 4);
  options.late_max = random() % 3;
  options.eject = Time{static_cast<std::int64_t>(random() % 3)};
  options.lease = Time{static_cast<std::int64_t>(2 + random() % 4)};
  options.grace = options.lease + Time{1};
  return options;
}

constexpr const char* kDoesNotHeal = "it does not heal";

struct Walked {
  std::uint64_t steps = 0;
  std::string violation;
  std::string trace;
};

// One walk; `traced`: writes down what happened.
Walked walk(std::uint64_t seed, std::uint64_t steps, bool traced) {
  Walker walker(seed);
  WorldOptions options = random_options(walker.random());
  World world(options);
  Walked walked;
  for (std::uint64_t tries = 0; walked.steps < steps && tries < steps * 20; ++tries) {
    Step step = walker.next(options.nodes, world.packets());
    if (!world.apply(step)) continue;
    ++walked.steps;
    if (traced) walked.trace += fmt::format("{:<16}{}\n", to_string(step), world.to_text());
    if (!world.violation().empty()) break;
  }
  bool heals = world.violation().empty() && world.heals();
  walked.violation = heals || !world.violation().empty() ? world.violation() : kDoesNotHeal;
  if (traced) walked.trace += world.to_text();
  return walked;
}

class ProtocolExplorerTest : public testing::Test {
 protected:
  void TearDown() override { active_mutant = Mutant::kNone; }
};

// Rounds: thousands of steps.
TEST_F(ProtocolExplorerTest, RandomWalksKeepTheInvariantsAndHeal) {
  std::uint64_t seed = from_environment("OFFPRINT_TEST_SEED", 1) * 1'000'000;
  std::uint64_t wanted = from_environment("OFFPRINT_TEST_ROUNDS", 300) * 1000;
  std::uint64_t steps = 0;
  for (std::uint64_t i = 0; steps < wanted; ++i) {
    Walked walked = walk(seed + i, 300, false);
    steps += walked.steps + 1;
    ASSERT_EQ(walked.violation, "") << "walk(" << seed + i << ")\n"
                                    << walk(seed + i, 300, true).trace;
  }
  fmt::print("{} steps\n", steps);
}

// All worlds that can be reached, nearest first, up to a number of them.
struct Explored {
  std::size_t worlds = 0;
  int depth = 0;
  bool exhausted = false;
  std::string violation;
};

Explored explore(const WorldOptions& options, std::size_t worlds_max) {
  Explored explored;
  std::unordered_set<std::uint64_t> seen;
  std::vector<World> level{World(options)}, next;
  level.front().settle();
  seen.insert(level.front().fingerprint());
  while (!level.empty() && seen.size() < worlds_max) {
    ++explored.depth;
    next.clear();
    for (const World& world : level) {
      for (const Step& step : world.candidates()) {
        World after = world;
        if (!after.apply(step) || !seen.insert(after.fingerprint()).second) continue;
        if (!after.violation().empty()) {
          explored.violation =
              after.violation() + " after " + to_string(step) + "\n" + after.to_text();
          return explored;
        }
        next.push_back(std::move(after));
      }
      if (seen.size() >= worlds_max) break;
    }
    std::swap(level, next);
  }
  explored.worlds = seen.size();
  explored.exhausted = level.empty();
  return explored;
}

// Rounds: hundreds of worlds of each scope.
TEST_F(ProtocolExplorerTest, AllWorldsOfSmallScopesKeepTheInvariants) {
  std::size_t worlds = from_environment("OFFPRINT_TEST_ROUNDS", 100) * 100;
  for (std::uint32_t min_in_sync : {1U, 2U}) {
    for (std::size_t nodes : {2U, 3U}) {
      for (std::int64_t eject : {0, 2}) {
        WorldOptions options;
        options.nodes = nodes;
        options.in_sync = nodes;
        options.min_in_sync = min_in_sync;
        options.records_max = 2;
        options.epochs_max = 3;
        options.versions_max = 5;
        options.packets_max = 2;
        options.crashes_max = 1;
        options.late_max = 1;
        options.eject = Time{eject};
        Explored explored = explore(options, worlds);
        EXPECT_EQ(explored.violation, "") << nodes << " nodes, " << min_in_sync << " in sync";
        fmt::print("{} nodes, {} in sync, eject {}: {} worlds, depth {}{}\n", nodes, min_in_sync,
                   eject, explored.worlds, explored.depth, explored.exhausted ? ", all" : "");
      }
    }
  }
}

class ProtocolMutantTest : public ProtocolExplorerTest, public testing::WithParamInterface<int> {};

TEST_P(ProtocolMutantTest, IsSeen) {
  active_mutant = static_cast<Mutant>(GetParam());
  std::uint64_t steps = 0;
  for (std::uint64_t i = 1; steps < 30'000'000; ++i) {
    Walked walked = walk(i, 300, false);
    steps += walked.steps + 1;
    if (walked.violation.empty() || walked.violation == kDoesNotHeal) continue;
    fmt::print("rule {} left out: {} after {} steps, walk({})\n", GetParam(), walked.violation,
               steps, i);
    return;
  }
  FAIL() << "rule " << GetParam() << " left out, and nobody noticed in " << steps << " steps";
}

INSTANTIATE_TEST_SUITE_P(Rules, ProtocolMutantTest, testing::Range(1, 15));

}  // namespace
}  // namespace offprint::cluster
