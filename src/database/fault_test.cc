// What was acknowledged is there, what was refused is not, and nothing is there in part: whatever
// the disk does, and whenever the power goes.
#include <algorithm>
#include <cstdlib>
#include <random>
#include <thread>

#include "database/fault_store_testing.h"

namespace offprint::database::testing {
namespace {

using namespace std::chrono_literals;
using Dice = std::mt19937_64;

int pick(Dice& dice, int below) { return static_cast<int>(dice() % static_cast<unsigned>(below)); }

// Random work of several clients, until the machine stops or `operations` are done.
class RandomWork {
 public:
  RandomWork(World& world, Dice& dice) : world_(world), dice_(dice) {}

  void run(int operations) {
    for (int i = 0; i < operations && !world_.machine.stopped(); ++i) {
      one();
      if (is_full_ && pick(dice_, 6) == 0) make_room();
    }
    world_.settle();
    make_room();
    if (world_.failed) world_.violations.push_back("a full disk ended the store");
  }

 private:
  void one() {
    std::vector<std::string> names = world_.names();
    if (names.size() < 2 || (names.size() < 4 && pick(dice_, 25) == 0)) return create();
    const std::string& name =
        names[static_cast<std::size_t>(pick(dice_, static_cast<int>(names.size())))];
    switch (pick(dice_, 40)) {
      case 0:
        return world_.drop(name);
      case 1:
        return world_.write(name, {}, {"VACUUM"});
      case 2:
        world_.write_in_steps(name, next_++, pick(dice_, 3) == 0);
        return;
      case 3: {  // more than the journal takes in one record, more than the capture keeps in memory
        int number = next_++;
        return world_.write(name, {number}, {write_sql(number, 200, 6'000, victim(name))});
      }
      case 4:
        return world_.write(name, {},
                            {fmt::format("CREATE TABLE t{}(a, b)", pick(dice_, 9)),
                             fmt::format("DROP TABLE t{}", pick(dice_, 9))});
      case 5:
      case 6:
        world_.settle();
        return world_.read(name);
      case 7:
        return world_.settle();
      case 8: {  // refused: nothing of it may stay
        int number = next_;
        std::string first = small(name);
        return world_.write(
            name, {number},
            {"BEGIN", first, fmt::format("INSERT OR ROLLBACK INTO log(id) VALUES({})", number)});
      }
      case 9:  // the disk is full for a while
        world_.machine.disk().set_capacity(world_.machine.disk().used_bytes() + dice_() % 100'000);
        is_full_ = true;
        return;
      case 10:
        make_room();
        world_.stop_store();
        world_.start_store();
        if (world_.store == nullptr) world_.machine.stop();
        return;
      case 11:
        return world_.write_and_undo(name, next_++);
      default:
        break;
    }
    if (pick(dice_, 3) != 0) {
      int number = next_;
      return world_.write(name, {number}, {small(name)});
    }
    std::vector<int> numbers = {next_, next_ + 1};
    std::string first = small(name);
    std::string second = small(name);
    world_.write(name, numbers, {"BEGIN", first, second, "COMMIT"});
  }

  void make_room() {
    world_.machine.disk().set_capacity(UINT64_MAX);
    is_full_ = false;
  }

  void create() {
    CreateOptions options;
    options.page_size = 1024u << pick(dice_, 4);
    options.auto_vacuum = pick(dice_, 3);
    for (const char* name : {"a", "b", "c", "d"}) {
      if (world_.known.contains(name)) continue;
      return pick(dice_, 4) == 0 ? world_.create_from_file(name) : world_.create(name, options);
    }
  }

  std::string small(const std::string& name) {
    return write_sql(next_++, 1 + pick(dice_, 6), 10 + pick(dice_, 900), victim(name));
  }
  int victim(const std::string& name) {
    const auto& writes = world_.known[name].writes;
    if (writes.empty()) return 0;
    auto chosen = std::next(writes.begin(), pick(dice_, static_cast<int>(writes.size())));
    return chosen->first;
  }

  World& world_;
  Dice& dice_;
  bool is_full_ = false;
  static inline int next_ = 1;
};

int rounds(int normal) {
  const char* text = std::getenv("OFFPRINT_TEST_ROUNDS");
  return text == nullptr ? normal : std::atoi(text);
}
std::uint64_t seed() {
  const char* text = std::getenv("OFFPRINT_TEST_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

// Machines that stop at random moments, after which the power was lost or only the process died.
// Returns what is wrong; ends early when something is.
std::vector<std::string> crash_at_random(Mutant mutant, int round_count, std::uint64_t first_seed) {
  constexpr int kRoundsOfOneWorld = 10;
  int acknowledged = 0, undone = 0;
  std::unique_ptr<World> world;
  Dice dice(first_seed);
  auto count = [&] {
    if (!world) return;
    acknowledged += world->writes_done;
    undone += world->writes_undone;
  };
  for (int round = 0; round < round_count; ++round) {
    if (round % kRoundsOfOneWorld == 0) {
      count();
      world.reset();  // one machine at a time
      world = std::make_unique<World>(mutant);
      world->start_store();
    }
    bool at_once = pick(dice, 5) == 0;  // what a recovery has served is lost before anything else
    world->machine.stop_after(dice() % 3'000);
    RandomWork(*world, dice).run(at_once ? 0 : 10 + pick(dice, 60));
    bool in_order = pick(dice, 8) == 0;
    if (in_order) world->stop_store();
    world->machine.stop();
    world->stop_store();
    bool power = false;
    for (bool again = true; again;) {
      power = pick(dice, 3) != 0;
      if (power) {
        world->machine.lose_power(dice());
      } else {
        world->machine.start_again();
      }
      world->check_plain_files();
      again = pick(dice, 4) == 0;  // it stops again while it recovers
      if (again) world->machine.stop_after(dice() % 400);
      if (!world->start_store()) {
        again = again && world->machine.stopped();
        if (!again) world->violations.push_back("the store does not start: " + world->start_error);
      }
      if (!again) break;
      if (world->store) world->touch_all();
      world->machine.stop();
      world->stop_store();
    }
    if (world->store) world->check_store();
    for (std::string& what : world->violations)
      what = fmt::format("round {} ({}): {}", round, power ? "power lost" : "killed", what);
    if (!world->violations.empty()) return world->violations;
  }
  count();
  fmt::print("{} rounds, {} writes acknowledged, {} undone by restores\n", round_count,
             acknowledged, undone);
  EXPECT_TRUE(undone > 0 || round_count < 50);
  return {};
}

// A little of everything, one thing after the other. False: the process had to end on the way.
bool scripted_work(World& world) {
  int next = 1;
  auto lives = [&] { return world.store != nullptr && !world.failed; };
  auto write = [&](const char* name, int size, int n = 3) {
    if (!lives() || !world.known.contains(name)) return;
    world.write(name, {next}, {write_sql(next, n, size, next - 2)});
    world.settle();
    ++next;
  };
  CreateOptions small_pages;
  small_pages.page_size = 1024;
  small_pages.auto_vacuum = 1;
  if (lives()) world.create("a", {});
  for (int i = 0; i < 4; ++i) write("a", 100);
  if (lives()) world.create("b", small_pages);
  write("b", 500);
  write("a", 6'000, 200);
  if (lives() && world.known.contains("a")) world.write_in_steps("a", next++, false);
  if (lives() && world.known.contains("a")) world.read("a");
  if (lives() && world.known.contains("b")) world.write("b", {}, {"VACUUM"});
  for (int i = 0; i < 8; ++i) write("b", 3'000);
  if (lives() && world.known.contains("b")) world.drop("b");
  if (lives()) world.create("b", small_pages);
  write("b", 100);
  if (lives()) world.create_from_file("c");
  write("c", 100);
  for (int i = 0; i < 4; ++i) write("a", 2'000);
  if (lives()) {
    world.stop_store();
    world.start_store();
  }
  write("a", 100);
  write("b", 100);
  if (lives() && world.known.contains("a")) world.read("a");
  return lives();
}

// As its supervisor does when it has ended itself.
bool restart(World& world) {
  world.stop_store();
  world.machine.start_again();
  if (world.start_store()) return true;
  world.violations.push_back("the store does not start: " + world.start_error);
  return false;
}

// After a fault that has passed, every database takes writes again.
void expect_alive(World& world) {
  int next = 100'000;
  for (const std::string& name : world.names()) {
    KnownDatabase& database = world.known[name];
    if (database.maybe_dropped || database.writes[0].told != Told::kDone) continue;
    for (int attempt = 0;; ++attempt, ++next) {
      world.write(name, {next}, {write_sql(next, 2, 50, 0)});
      world.settle();
      if (database.writes[next++].told == Told::kDone) break;
      if (world.failed && !restart(world)) return;  // the fault came this late
      if (attempt == 2)
        return world.violation(name,
                               "takes no writes though the fault has passed: " + world.last_error);
    }
  }
}

// Runs the script with one fault; the fault hits when `arm` says so. Answers whether it did.
struct Fault {
  std::optional<FaultFileSystem::Operation> operation;  // none: whatever changes or syncs
  int error_number;
};
std::vector<std::string> script_with_fault(const Fault& fault, std::uint64_t n, bool& hit) {
  World world;
  auto count = [&] {
    return fault.operation ? world.machine.disk().call_count(*fault.operation)
                           : world.machine.changes_.load();
  };
  if (fault.operation) {
    world.machine.disk().fail(*fault.operation, n, fault.error_number);
  } else {
    world.machine.disk().fail_mutation(n, fault.error_number);
  }
  bool lives = world.start_store() && scripted_work(world);
  hit = count() > n;
  if (!lives) {
    if (!restart(world)) return world.violations;
    world.check_store();
  }
  if (hit) expect_alive(world);
  if (n % 3 == 0) {
    world.machine.stop();
    world.stop_store();
    world.machine.lose_power(n);
    world.check_plain_files();
  } else if (n % 3 == 1) {
    world.machine.stop();
    world.stop_store();
    world.machine.start_again();
  } else {
    world.stop_store();
    world.machine.start_again();
  }
  if (!world.start_store()) return {"the store does not start again: " + world.start_error};
  world.check_store();
  return world.violations;
}

// One fault at about so many points of the script, or at each.
void fail_everywhere(const Fault& fault, int normal) {
  constexpr int kPoints = 1'500;  // that the script has, about
  const auto gap = static_cast<std::uint64_t>(std::max(1, 2 * kPoints / rounds(normal)));
  Dice dice(seed());
  int points = 0;
  std::uint64_t n = 0;
  bool hit = true;
  while (hit) {
    std::vector<std::string> wrong = script_with_fault(fault, n, hit);
    ASSERT_TRUE(wrong.empty()) << "fault " << fault.error_number << " at point " << n << ":\n"
                               << fmt::format("{}", fmt::join(wrong, "\n"));
    ++points;
    n += 1 + dice() % gap;
  }
  fmt::print("{} points up to {}\n", points, n);
}

class FaultTest : public ::testing::Test {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::critical); }
  void TearDown() override { spdlog::set_level(spdlog::level::info); }
};

TEST_F(FaultTest, NoAcknowledgedWriteIsLostUnderPowerLoss) {
  std::vector<std::string> wrong = crash_at_random(Mutant::kNone, rounds(200), seed());
  EXPECT_TRUE(wrong.empty()) << fmt::format("{}", fmt::join(wrong, "\n"));
}

TEST_F(FaultTest, AnInputOutputErrorAtAnyPointLosesNothing) {
  fail_everywhere({std::nullopt, EIO}, 60);
}

TEST_F(FaultTest, AFullDiskAtAnyPointLosesNothing) { fail_everywhere({std::nullopt, ENOSPC}, 60); }

TEST_F(FaultTest, AFailedReadLosesNothing) {
  fail_everywhere({FaultFileSystem::Operation::kRead, EIO}, 60);
}

TEST_F(FaultTest, AFailedOpenLosesNothing) {
  fail_everywhere({FaultFileSystem::Operation::kOpen, EIO}, 200);
}

// A database that nothing was written to yet has a file as soon as it is opened. However often the
// machine stops while it is made, the next opening goes on from what is there.
TEST_F(FaultTest, AFirstOpeningThatStopsAnywhereIsDoneAgain) {
  Dice dice(seed());
  CreateOptions options;
  options.page_size = 2048;
  options.auto_vacuum = 1;
  for (int i = 0; i < rounds(600); ++i) {
    World world;
    ASSERT_TRUE(world.start_store());
    ASSERT_TRUE(world.store->create(World::name("a"), options));
    for (int stops = 0; stops < 4; ++stops) {
      world.machine.stop_after(dice() % 25);
      world.run("a", {"SELECT 1 FROM sqlite_schema"});
      world.machine.stop();
      world.stop_store();
      if (pick(dice, 3) == 0) {
        world.machine.start_again();
      } else {
        world.machine.lose_power(dice());
      }
      ASSERT_TRUE(world.start_store());
    }
    Reply reply = world.run("a", {"CREATE TABLE t(a)"});
    ASSERT_TRUE(reply.succeeded) << "round " << i << ": " << reply.error;
  }
}

void expect_noticed(Mutant mutant) {
  std::vector<std::string> noticed = crash_at_random(mutant, 1'000, seed());
  ASSERT_FALSE(noticed.empty());
  fmt::print("noticed: {}\n", noticed.front());
}

// The catalog cannot be written while the DROP record can.
TEST_F(FaultTest, ADroppedDatabaseStaysDroppedThoughTheCatalogIsFull) {
  World world;
  ASSERT_TRUE(world.start_store());
  world.create("a", {});
  world.create("b", {});
  Lineage lineage = world.known["a"].lineage;
  std::atomic<bool> full{true};
  auto refuse = [&full](const FaultFileSystem::Call& call) {
    bool catalog = call.path.ends_with("0000000000000000.db-wal");
    return full && catalog && call.operation == FaultFileSystem::Operation::kWrite ? ENOSPC : 0;
  };
  world.machine.disk().set_hook(refuse);
  EXPECT_TRUE(world.store->drop(World::name("a")));
  EXPECT_EQ(world.store->info(World::name("a")).error().code(), Code::kNotFound);
  EXPECT_FALSE(world.store->create(World::name("a"), {}));
  for (int number = 1; number < 200; ++number)  // enough to free the segment with the record
    world.write("b", {number}, {write_sql(number, 3, 3'000, number - 2)});
  world.stop_store();
  ASSERT_TRUE(world.start_store());
  EXPECT_EQ(world.store->info(World::name("a")).error().code(), Code::kNotFound);
  full = false;
  auto again = world.store->create(World::name("a"), {});
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_NE(again->bookmark.lineage, lineage);
  world.known.erase("a");
  world.maybe_created.insert("a");
  world.stop_store();
  world.machine.start_again();
  ASSERT_TRUE(world.start_store());
  world.check_store();
  EXPECT_TRUE(world.violations.empty()) << world.violations.front();
}

// SQLite syncs the database file only when its checkpoint reaches the newest commit: one that runs
// beside commits ends without. What is recorded of it must be in the file on the disk all the same:
// a later sync that fails would take it away for good.
TEST_F(FaultTest, ACheckpointBesideCommitsIsOnTheDiskBeforeItIsRecorded) {
  using enum FaultFileSystem::Operation;
  for (int i = 0; i < rounds(20); ++i) {
    World world;
    world.options.idle_close_ms = 60'000;
    ASSERT_TRUE(world.start_store());
    world.create("a", {});
    world.create("b", {});
    std::string path = fmt::format("data/databases/{:016x}.db", world.known["a"].id);
    std::promise<void> first_moves, first_may_end, second_begins, second_may_go_on;
    auto may_end = first_may_end.get_future();
    auto may_go_on = second_may_go_on.get_future();
    int checkpoint = 1;  // one at a time, each on its own thread
    bool moves = false;
    world.machine.disk().set_hook([&](const FaultFileSystem::Call& call) {
      if (world.machine.stopped()) return EIO;
      if (call.operation == kWrite && call.path == path && !moves) {
        moves = true;
        first_moves.set_value();
        may_end.wait();
      } else if (call.operation == kSync && call.path == path + "-wal" && moves &&
                 checkpoint++ == 1) {
        second_begins.set_value();
        may_go_on.wait();
      }
      return 0;
    });
    world.write("a", {1}, {write_sql(1, 30, 6'000, 0)});
    first_moves.get_future().wait();
    world.write("a", {2}, {write_sql(2, 3, 600, 0)});
    world.settle();
    first_may_end.set_value();
    second_begins.get_future().wait();
    world.write("b", {3}, {write_sql(3, 3, 600, 0)});  // takes the record to the disk
    world.settle();
    world.machine.stop();
    second_may_go_on.set_value();
    world.stop_store();
    world.machine.lose_power(seed() + static_cast<std::uint64_t>(i));
    ASSERT_TRUE(world.machine.disk().remove(path + "-wal"));
    ASSERT_TRUE(world.start_store());
    world.check_store();
    ASSERT_TRUE(world.violations.empty()) << "round " << i << ": " << world.violations.front();
  }
}

TEST_F(FaultTest, TheTestNoticesCommitsThatAreNotSynced) {
  expect_noticed(Mutant::kCommitsNotSynced);
}

TEST_F(FaultTest, TheTestNoticesATailThatIsServedBeforeItIsSynced) {
  expect_noticed(Mutant::kTailNotSynced);
}

TEST_F(FaultTest, TheTestNoticesCheckpointsThatAreNotSynced) {
  expect_noticed(Mutant::kCheckpointsNotSynced);
}

}  // namespace
}  // namespace offprint::database::testing
