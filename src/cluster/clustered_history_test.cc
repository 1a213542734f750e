// Restores in place, forks and files that are taken over, in a cluster whose nodes die.
#include <cstdlib>
#include <random>

#include "cluster/clustered_store.h"
#include "cluster/clustered_store_testing.h"

namespace offprint::cluster {
namespace {

using database::testing::Answers;
using testing::member_of;

class ClusteredHistoryTest : public testing::StoreCluster {
 protected:
  static constexpr const char* kLook = "SELECT count(*), count(DISTINCT v), min(v) FROM t";

  Running primary_node() {
    Running found;
    EXPECT_TRUE(within(std::chrono::seconds(30), [&] {
      const auto at = primary();
      found = at ? nodes_[*at]->running() : nullptr;
      return found && found->cluster.store_leads();
    })) << describe();
    return found;
  }
  // A database of `rows` rows of 3 kB, all with this value.
  void import_rows(const std::string& database, const std::string& value, int rows) {
    const std::string path = folder_.path() + "/" + database;
    auto made = sqlite::Connection::open(path, {.create = true});
    ASSERT_TRUE(made && made->execute("CREATE TABLE t(v, filler)"));
    ASSERT_TRUE(made->execute(
        fmt::format("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
                    "INSERT INTO t SELECT '{}', randomblob(3000) FROM n",
                    rows, value)
            .c_str()));
    auto imported = primary_node()->store->import_file(name(database), path);
    ASSERT_TRUE(imported) << imported.error().message();
  }
  void hand_over_to(std::size_t to) {
    EXPECT_TRUE(within(std::chrono::seconds(20), [&] {
      const auto from = primary();
      Running node = from ? nodes_[*from]->running() : nullptr;
      if (node && *from != to)
        (void)node->cluster.log().hand_over(0, member_of(static_cast<int>(to) + 1));
      return primary() == to;
    })) << describe();
  }
  // It dies, loses power, or gives way to another one.
  void end_primary(std::mt19937_64& random) {
    const std::size_t at = primary().value_or(0);
    switch (random() % 3) {
      case 0:
        hand_over_to((at + 1) % 3);
        break;
      case 1:
        nodes_[at]->crash();
        nodes_[at]->start();
        break;
      default:
        nodes_[at]->stop(random());
        nodes_[at]->start();
    }
    connect();
  }
  // On a thread: what `work` makes of the newest state of a database, at that node. It lets go of
  // the node before it ends.
  template <class Answer, class Work>
  static std::thread begin(Running node, const std::string& database, Result<Answer>& done,
                           Work work) {
    return std::thread([node = std::move(node), database, &done, work]() mutable {
      auto state = node->store->snapshot(name(database));
      done = state ? work(*node->store, **state) : fail(state.error());
      if (state) state->reset();
      node.reset();
    });
  }
  static std::mt19937_64 seeded() {
    const char* seed = std::getenv("OFFPRINT_TEST_SEED");
    return std::mt19937_64(seed != nullptr ? std::strtoull(seed, nullptr, 10) : 11);
  }
  static int rounds(int usual) {
    const char* wanted = std::getenv("OFFPRINT_TEST_ROUNDS");
    return wanted != nullptr ? std::atoi(wanted) : usual;
  }
  // The same on all nodes, and sound.
  std::string on_all_nodes(const std::string& database, const std::string& sql) {
    std::set<std::string> seen;
    for (auto& node : nodes_) {
      database::Store& store = *node->running()->store;
      seen.insert(rows(store, database, sql));
      EXPECT_EQ(rows(store, database, "PRAGMA integrity_check"), "ok\n");
    }
    EXPECT_EQ(seen.size(), 1U);
    return *seen.begin();
  }

  const database::testing::TemporaryFolder folder_;
};

TEST_F(ClusteredHistoryTest, ARestoreInPlaceIsOnAllNodes) {
  create("shop");
  ASSERT_TRUE(write("shop", "CREATE TABLE t(a)"));
  ASSERT_TRUE(write("shop", "INSERT INTO t VALUES('before')"));
  Running node = primary_node();
  const Bookmark before = node->store->info(name("shop"))->bookmark;
  ASSERT_TRUE(write("shop", "CREATE TABLE other(b)"));
  ASSERT_TRUE(write("shop", "UPDATE t SET a = 'after'"));
  const Bookmark after = node->store->info(name("shop"))->bookmark;
  ASSERT_TRUE(agree());
  const std::size_t other = (*primary() + 1) % 3;
  {
    Running follower = nodes_[other]->running();
    auto state = follower->store->snapshot_at(name("shop"), before);
    ASSERT_TRUE(state) << state.error().message();
    auto refused = follower->store->rewrite(name("shop"), **state);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kNotPrimary);
  }
  auto state = node->store->snapshot_at(name("shop"), before);
  ASSERT_TRUE(state);
  auto restored = node->store->rewrite(name("shop"), **state);
  state->reset();
  ASSERT_TRUE(restored) << restored.error().message();
  EXPECT_EQ(restored->txid, after.txid.next());
  EXPECT_EQ(restored->epoch.value, after.epoch.value + 1);
  EXPECT_EQ(restored->lineage, after.lineage);
  node.reset();
  ASSERT_TRUE(write("shop", "INSERT INTO t VALUES('later')"));
  ASSERT_TRUE(agree());
  EXPECT_EQ(on_all_nodes("shop",
                         "SELECT group_concat(a), (SELECT count(*) FROM sqlite_schema)"
                         " FROM t"),
            "before,later|1\n");
  // Who is primary then can undo it.
  hand_over_to(other);
  node = primary_node();
  state = node->store->snapshot_at(name("shop"), after);
  ASSERT_TRUE(state) << state.error().message();
  ASSERT_TRUE(node->store->rewrite(name("shop"), **state));
  state->reset();
  node.reset();
  ASSERT_TRUE(agree());
  EXPECT_EQ(on_all_nodes("shop", "SELECT group_concat(a) FROM t"), "after\n");
}

// What it becomes goes through the log in many parts. Whatever happens to the primary meanwhile, it
// is what it was or what it was to become, on all nodes, and what was acknowledged is there.
TEST_F(ClusteredHistoryTest, ARestoreIsNeverAMixtureWhoeverDies) {
  import_rows("old", "old", 700);
  import_rows("new", "new", 500);
  create("shop");
  ASSERT_TRUE(write("shop", "CREATE TABLE t(v, filler)"));
  ASSERT_TRUE(write("shop", "INSERT INTO t VALUES('first', 0)"));
  std::mt19937_64 random = seeded();
  std::string last = "1|1|first\n";
  int acknowledged = 0;
  for (int round = 0, end = rounds(8); round < end; ++round) {
    const std::string source = round % 2 == 0 ? "old" : "new";
    const std::string wanted = round % 2 == 0 ? "700|1|old\n" : "500|1|new\n";
    Result<Bookmark> done = fail(Code::kInternal, "not run");
    std::thread restoring = begin(primary_node(), source, done, [](auto& store, auto& state) {
      return store.rewrite(name("shop"), state);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 500));
    end_primary(random);
    restoring.join();
    (void)primary_node();
    ASSERT_TRUE(agree()) << describe();
    const std::string found = on_all_nodes("shop", kLook);
    if (done) {
      EXPECT_EQ(found, wanted);
      ++acknowledged;
    } else {
      EXPECT_TRUE(found == wanted || found == last) << found << done.error().message();
      if (done.error().code() != Code::kUnknown) EXPECT_EQ(found, last) << done.error().message();
    }
    last = found;
  }
  fmt::print("{} restores acknowledged\n", acknowledged);
}

TEST_F(ClusteredHistoryTest, AForkIsTheSameOnAllNodes) {
  import_rows("shop", "row", 600);
  Running node = primary_node();
  const Bookmark imported = node->store->info(name("shop"))->bookmark;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(write("shop", "INSERT INTO t VALUES('row', 0)"));
  node = primary_node();
  const Bookmark newest = node->store->info(name("shop"))->bookmark;
  for (const auto& [fork, at] : {std::pair("then", imported), std::pair("now", newest)}) {
    auto state = node->store->snapshot_at(name("shop"), at);
    ASSERT_TRUE(state) << state.error().message();
    auto made = node->store->fork(name("shop"), name(fork), **state);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->bookmark.txid, at.txid);
    EXPECT_NE(made->bookmark.lineage, at.lineage);
  }
  node.reset();
  ASSERT_TRUE(write("now", "INSERT INTO t VALUES('row', 1)"));
  for (std::size_t i = 0; i < 3; ++i) {  // all of them once more, from what their disks have
    ASSERT_TRUE(agree()) << describe();
    for (auto& each : nodes_) {
      auto info = each->running()->store->info(name("now"));
      ASSERT_TRUE(info);
      EXPECT_EQ(info->ancestors, std::vector{newest});
      EXPECT_EQ(info->stopped, "");
      auto request = std::make_unique<database::testing::TextRequest>(
          std::vector<std::string>{"SELECT count(*) FROM t"}, false);
      request->at_least = newest;  // the parent's: what is shared counts as reached
      auto future = request->future();
      each->running()->store->submit(name("now"), std::move(request));
      const Answers answers = future.get();
      EXPECT_FALSE(answers.outcome.error) << answers.outcome.error->message();
    }
    EXPECT_EQ(on_all_nodes("then", kLook), "600|1|row\n");
    EXPECT_EQ(on_all_nodes("now", kLook), "606|1|row\n");
    restart(i, i == 1 ? std::nullopt : std::optional<std::uint64_t>(i));
  }
  ASSERT_TRUE(agree()) << describe();
}

// Nobody sees a database without the content that it was to begin with, and when its primary is
// gone it goes, too.
TEST_F(ClusteredHistoryTest, AForkThatIsCutShortWasNeverThere) {
  import_rows("shop", "row", 600);
  ASSERT_TRUE(agree());
  const std::size_t at = primary().value_or(0);
  const std::size_t other = (at + 1) % 3;
  auto lists = [&](std::size_t n) {
    return nodes_[n]->running()->store->info(name("fork")).has_value();
  };
  Result<database::DatabaseInfo> made = fail(Code::kInternal, "not run");
  std::thread forking = begin(nodes_[at]->running(), "shop", made, [](auto& store, auto& state) {
    return store.fork(name("shop"), name("fork"), state);
  });
  EXPECT_TRUE(within(std::chrono::seconds(20), [&] { return lists(other); }));
  for (int n = 1; n <= 3; ++n) nodes_[at]->cut(n, true);
  if (nodes_[other]->running()->store->info(name("fork"))->page_count == 0) {
    const Answers read = run(*nodes_[other]->running()->store, "fork", {"SELECT 1"});
    ASSERT_TRUE(read.outcome.error);
    EXPECT_EQ(read.outcome.error->code(), Code::kUnavailable);
  }
  nodes_[at]->crash();
  forking.join();
  EXPECT_FALSE(made);
  ASSERT_TRUE(within(std::chrono::seconds(30), [&] { return !lists(other); })) << describe();
  for (int n = 1; n <= 3; ++n) nodes_[at]->cut(n, false);
  nodes_[at]->start();
  connect();
  ASSERT_TRUE(agree()) << describe();
  EXPECT_FALSE(lists(at));
  create("fork");  // the name is free
  EXPECT_TRUE(write("fork", "CREATE TABLE mine(a)"));
  EXPECT_TRUE(agree());
}

TEST_F(ClusteredHistoryTest, AForkIsWholeOrNotThereWhoeverDies) {
  import_rows("shop", "row", 800);
  std::mt19937_64 random = seeded();
  int acknowledged = 0, whole = 0;
  for (int round = 0, end = rounds(8); round < end; ++round) {
    const std::string fork = fmt::format("fork{}", round);
    Result<database::DatabaseInfo> made = fail(Code::kInternal, "not run");
    std::thread forking = begin(primary_node(), "shop", made, [fork](auto& store, auto& state) {
      return store.fork(name("shop"), name(fork), state);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 500));
    end_primary(random);
    forking.join();
    (void)primary_node();
    ASSERT_TRUE(within(std::chrono::seconds(30), [&] {
      const auto info = primary_node()->store->info(name(fork));
      return !info || info->page_count != 0;
    })) << fork;
    ASSERT_TRUE(agree()) << describe();
    const bool is_there = primary_node()->store->info(name(fork)).has_value();
    if (is_there) EXPECT_EQ(on_all_nodes(fork, kLook), "800|1|row\n");
    EXPECT_TRUE(!made || is_there) << fork;
    acknowledged += made ? 1 : 0;
    whole += is_there ? 1 : 0;
  }
  fmt::print("{} forks acknowledged, {} there\n", acknowledged, whole);
}

TEST_F(ClusteredHistoryTest, ATagOutlivesItsPrimary) {
  import_rows("shop", "row", 600);
  Running node = primary_node();
  const Bookmark imported = node->store->info(name("shop"))->bookmark;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(write("shop", "INSERT INTO t VALUES('other', 0)"));
  node = primary_node();
  for (const auto& [tag, at] : {std::pair("newest", node->store->info(name("shop"))->bookmark),
                                std::pair("old", imported)}) {
    auto state = node->store->snapshot_at(name("shop"), at);
    ASSERT_TRUE(state) << state.error().message();
    auto added = node->store->add_tag(name("shop"), tag, **state);
    ASSERT_TRUE(added) << added.error().message();
    EXPECT_EQ(added->bookmark, at);
    EXPECT_EQ(node->store->add_tag(name("shop"), tag, **state).error().code(), Code::kConflict);
  }
  EXPECT_EQ(node->store->list("", "", 10).size(), 1U);  // nobody sees how they are kept
  node.reset();
  ASSERT_TRUE(write("shop", "DELETE FROM t"));
  const std::size_t dead = primary().value_or(0);
  nodes_[dead]->stop(3);
  node = primary_node();
  ASSERT_EQ(node->store->tags(name("shop"))->size(), 2U);
  for (const auto& [tag, rows] : {std::pair("newest", 603), std::pair("old", 600)}) {
    auto state = node->store->snapshot_at(name("shop"), database::Tag{tag});
    ASSERT_TRUE(state) << state.error().message();
    ASSERT_TRUE(node->store->rewrite(name("shop"), **state));
    EXPECT_EQ(this->rows(*node->store, "shop", "SELECT count(*) FROM t"),
              fmt::format("{}\n", rows));
  }
  ASSERT_TRUE(node->store->remove_tag(name("shop"), "newest"));
  EXPECT_EQ(node->store->remove_tag(name("shop"), "newest").error().code(), Code::kNotFound);
  node.reset();
  nodes_[dead]->start();
  connect();
  ASSERT_TRUE(agree());
  for (auto& each : nodes_) {
    database::Store& store = *each->running()->store;
    const auto tags = store.tags(name("shop"));
    ASSERT_TRUE(tags && tags->size() == 1);
    EXPECT_EQ(tags->front().tag, "old");
    EXPECT_TRUE(store.snapshot_at(name("shop"), database::Tag{"old"}));
    EXPECT_EQ(store.list("=", "", 10).size(), 1U);
  }
  ASSERT_TRUE(primary_node()->store->drop(name("shop")));
  for (auto& each : nodes_) {
    EXPECT_TRUE(within(std::chrono::seconds(20),
                       [&] { return each->running()->store->list("=", "", 10).empty(); }));
  }
}

// A tag is there with all of its state, or not at all.
TEST_F(ClusteredHistoryTest, ATagIsWholeOrNotThereWhoeverDies) {
  import_rows("shop", "row", 800);
  std::mt19937_64 random = seeded();
  int acknowledged = 0;
  std::size_t whole = 0;
  for (int round = 0, end = rounds(6); round < end; ++round) {
    const std::string tag = fmt::format("tag{}", round);
    Result<database::TagInfo> made = fail(Code::kInternal, "not run");
    std::thread adding = begin(primary_node(), "shop", made, [tag](auto& store, auto& state) {
      return store.add_tag(name("shop"), tag, state);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 500));
    end_primary(random);
    adding.join();
    acknowledged += made ? 1 : 0;
    ASSERT_TRUE(agree()) << describe();
    Running node = primary_node();
    const auto tags = node->store->tags(name("shop"));
    ASSERT_TRUE(tags);
    EXPECT_TRUE(!made || std::ranges::count(*tags, tag, &database::TagInfo::tag) == 1);
    for (const auto& each : *tags) {
      auto state = node->store->snapshot_at(name("shop"), database::Tag{each.tag});
      ASSERT_TRUE(state) << state.error().message();
      EXPECT_EQ((*state)->position().bookmark(), each.bookmark);
    }
    // What was cut short goes.
    ASSERT_TRUE(within(std::chrono::seconds(20), [&] {
      const auto listed = node->store->tags(name("shop"));
      return listed && listed->size() == node->store->list("=", "", 100).size();
    }));
    whole = node->store->tags(name("shop"))->size();
  }
  fmt::print("{} tags acknowledged, {} there\n", acknowledged, whole);
}

TEST_F(ClusteredHistoryTest, AFileIsTakenOverOnAllNodes) {
  import_rows("shop", "row", 600);
  Running node = primary_node();
  database::AdoptedFile file;
  file.path = nodes_[*primary()]->folder() + "/restored.db";
  {
    auto state = node->store->snapshot(name("shop"));
    ASSERT_TRUE(state);
    auto out = disks_.open(file.path, FileSystem::Mode::kCreateNew);
    ASSERT_TRUE(out);
    for (PageNo page = 1; page <= (*state)->page_count(); ++page) {
      const auto image = (*state)->page(page);
      ASSERT_TRUE(image && (*out)->write_at(std::uint64_t{page - 1} * image->size(), *image));
    }
    ASSERT_TRUE((*out)->sync());
    file.position = (*state)->position();
    file.position.epoch = Epoch{70'000};
    file.position.txid = TxId{42};
    file.page_size = (*state)->page_size();
    file.page_count = (*state)->page_count();
    file.timestamp_ms = 1'000'000'000'000;
  }
  auto adopted = node->store->adopt_file(name("again"), file);
  ASSERT_TRUE(adopted) << adopted.error().message();
  EXPECT_EQ(node->store->info(name("again"))->written_at_ms, file.timestamp_ms);
  node.reset();
  ASSERT_TRUE(write("again", "INSERT INTO t VALUES('row', 0)"));
  ASSERT_TRUE(agree());
  EXPECT_EQ(on_all_nodes("again", kLook), "601|1|row\n");
  for (auto& each : nodes_) {
    const auto at = each->running()->store->position(name("again"));
    EXPECT_EQ(at->txid, TxId{43});
    EXPECT_EQ(at->lineage, file.position.lineage);
    // What came later in earlier epochs is of another history.
    const Bookmark lost{Epoch{1}, TxId{43}, at->lineage};
    auto request = std::make_unique<database::testing::TextRequest>(
        std::vector<std::string>{"SELECT 1"}, false);
    request->at_least = lost;
    auto future = request->future();
    each->running()->store->submit(name("again"), std::move(request));
    const Answers answers = future.get();
    EXPECT_TRUE(answers.outcome.error) << each->folder() << describe();
  }
}

}  // namespace
}  // namespace offprint::cluster
