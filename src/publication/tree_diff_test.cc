#include "publication/tree_diff.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include <fmt/format.h>

#include "base/file_system.h"
#include "sqlite/btree_page.h"
#include "sqlite/connection.h"

namespace offprint::publication {
namespace {

// A database file as it was at a moment.
struct State {
  Bytes content;
  std::uint32_t page_size = 0;

  PageSource source() const {
    return [this](PageNo page) -> Result<ByteView> {
      if (page == 0 || std::uint64_t{page} * page_size > content.size())
        return fail(Code::kCorrupt, "no such page");
      return ByteView(content).subspan(std::uint64_t{page - 1} * page_size, page_size);
    };
  }
  std::uint32_t usable() const { return sqlite::usable_size(ByteView(content).first(page_size)); }
};

PageSet pages_that_differ(const State& a, const State& b) {
  PageSet changed;
  const std::size_t size = std::max(a.content.size(), b.content.size());
  for (std::size_t at = 0; at < size; at += a.page_size) {
    auto part = [&](const State& state) {
      if (at >= state.content.size()) return ByteView();
      return ByteView(state.content).subspan(at, a.page_size);
    };
    if (!std::ranges::equal(part(a), part(b)))
      changed.insert(static_cast<PageNo>(at / a.page_size + 1));
  }
  return changed;
}

class TreeDiffTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "offprint-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ + "/a.db";
  }
  void TearDown() override {
    connection_ = {};
    std::filesystem::remove_all(folder_);
  }
  void open() {
    sqlite::Connection::Options options;
    options.create = true;
    connection_ = sqlite::Connection::open(path_, options).value();
    run("PRAGMA synchronous=OFF");
  }
  void run(const std::string& sql) {
    auto done = connection_->execute(sql.c_str());
    ASSERT_TRUE(done) << sql << ": " << done.error().message();
  }
  State state() {
    std::ifstream file(path_, std::ios::binary);
    State now;
    now.content.assign(std::istreambuf_iterator<char>(file), {});
    now.page_size = static_cast<std::uint32_t>(connection_->query_int("PRAGMA page_size").value());
    return now;
  }
  PageNo root(const std::string& table) {
    return static_cast<PageNo>(
        connection_
            ->query_int(
                fmt::format("SELECT rootpage FROM sqlite_schema WHERE name='{}'", table).c_str())
            .value());
  }
  // Rows as text, by key.
  std::map<std::string, std::string> rows(const std::string& sql) {
    std::map<std::string, std::string> result;
    auto select = connection_->prepare(sql).value();
    while (select.step().value())
      result[std::string(select.column_text(0))] = std::string(select.column_text(1));
    return result;
  }

  TreeMap read_map(const State& of, const char* table) {
    return TreeMap::read(of.source(), root(table), of.usable()).value();
  }
  // The map of a state becomes that of an earlier one, too.
  void expect_way_back(const State& now, const State& earlier, const PageSet& changed, int step) {
    for (const char* table : {"t", "w"}) {
      TreeMap map = read_map(now, table);
      auto touched =
          map.advance(now.source(), earlier.source(), changed, TreeMap::Toward::kEarlier);
      ASSERT_TRUE(touched) << "back from step " << step << ": " << touched.error().message();
      ASSERT_EQ(map, read_map(earlier, table)) << "back from step " << step;
    }
  }

  std::string folder_, path_;
  std::optional<sqlite::Connection> connection_;
};

constexpr const char* kRowidRows =
    "SELECT rowid, typeof(a)||quote(a)||quote(b)||hex(coalesce(c,'-')) FROM t";
constexpr const char* kKeyedRows = "SELECT k, quote(b)||hex(coalesce(c,'-')) FROM w";

// Keys of rows that differ.
std::set<std::string> differing(const std::map<std::string, std::string>& a,
                                const std::map<std::string, std::string>& b) {
  std::set<std::string> keys;
  for (const auto& [key, value] : a) {
    auto other = b.find(key);
    if (other == b.end() || other->second != value) keys.insert(key);
  }
  for (const auto& [key, value] : b) {
    if (!a.contains(key)) keys.insert(key);
  }
  return keys;
}

// The first column of a record, a text.
std::string key_of(const Bytes& record) {
  const auto header = sqlite::read_varint(record);
  const auto type = sqlite::read_varint(ByteView(record).subspan(header.size));
  EXPECT_EQ(type.value % 2, 1u);
  const std::size_t size = (type.value - 13) / 2;
  return std::string(as_text(ByteView(record).subspan(header.value, size)));
}

// Statements that do all kinds of things to pages.
class RandomStatements {
 public:
  explicit RandomStatements(int seed) : random_(static_cast<unsigned>(seed)) {}

  int pick(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  void set_page_size(int bytes) { page_size_ = bytes; }
  std::string next() {
    const int id = pick(4000);
    std::string sql = pick(2) == 0 ? of_t(id) : of_others(id);
    // generate(FROM, TO): the numbers between them as rows of `value`.
    if (auto at = sql.find("generate("); at != std::string::npos) {
      const auto comma = sql.find(',', at), end = sql.find(')', at);
      sql.replace(
          at, end - at + 1,
          fmt::format("(WITH RECURSIVE g(value) AS (SELECT {0} UNION ALL SELECT value+1 "
                      "FROM g WHERE value<{1}) SELECT value FROM g)",
                      sql.substr(at + 9, comma - at - 9), sql.substr(comma + 1, end - comma - 1)));
    }
    return sql;
  }

 private:
  std::string value() {
    switch (pick(5)) {
      case 0:
        return fmt::format("{}", pick(100000));
      case 1:
        return "NULL";
      case 2:
        return fmt::format("zeroblob({})", pick(page_size_ * 3));
      default:
        return fmt::format("randomblob({})", pick(pick(8) == 0 ? page_size_ * 6 : 60));
    }
  }
  std::string of_t(int id) {
    switch (pick(8)) {
      case 0:
      case 1:
        return fmt::format("INSERT OR REPLACE INTO t VALUES({},{},{},{})", id, value(), value(),
                           value());
      case 2:
        return fmt::format(
            "INSERT OR REPLACE INTO t SELECT value, value%7, randomblob(value%90), NULL FROM "
            "generate({}, {})",
            id, id + pick(200));
      case 3:
        return fmt::format("UPDATE t SET c={} WHERE id BETWEEN {} AND {}", value(), id,
                           id + pick(30));
      case 4:  // of the same size, in place
        return fmt::format(
            "UPDATE t SET c=randomblob(length(c)), b=randomblob(length(b)) WHERE id BETWEEN {} AND "
            "{}",
            id, id + pick(60));
      case 5:
        return fmt::format("DELETE FROM t WHERE id BETWEEN {} AND {}", id, id + pick(400));
      case 6:
        return pick(10) == 0 ? "DELETE FROM t" : "UPDATE t SET a=a+1 WHERE id%17=3";
      default:
        return fmt::format("SAVEPOINT s; DELETE FROM t WHERE id<{}; ROLLBACK TO s; RELEASE s", id);
    }
  }
  std::string of_others(int id) {
    switch (pick(8)) {
      case 0:
      case 1:
        return fmt::format("INSERT OR REPLACE INTO w VALUES('k{}',{},{})", id, value(), value());
      case 2:
        return fmt::format(
            "INSERT OR REPLACE INTO w SELECT 'k'||value, value, randomblob(value%300) FROM "
            "generate({}, {})",
            id, id + pick(150));
      case 3:
        return fmt::format("DELETE FROM w WHERE b BETWEEN {} AND {}", id, id + pick(500));
      case 4:
        return fmt::format("UPDATE w SET c=randomblob(length(c)) WHERE k>='k{}' AND k<'k{}9'", id,
                           id / 10);
      case 5:
        return pick(10) == 0 ? "DELETE FROM w"
                             : "UPDATE OR IGNORE w SET k=k||'x' WHERE length(c)%13=1";
      case 6:
        return "INSERT INTO other SELECT value, randomblob(100) FROM generate(1, 200)";
      default:
        return "DELETE FROM other";
    }
  }

  std::mt19937 random_;
  int page_size_ = 512;
};

// What random statements do is found exactly, whatever they do to the pages.
TEST_P(TreeDiffTest, RandomWorkIsFound) {
  RandomStatements random(GetParam());
  open();
  const int page_size = 512 << random.pick(4);
  random.set_page_size(page_size);
  run(fmt::format("PRAGMA page_size={}; PRAGMA auto_vacuum={}", page_size, random.pick(3)));
  run("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c); CREATE INDEX ta ON t(a);"
      "CREATE TABLE w(k TEXT PRIMARY KEY, b, c) WITHOUT ROWID; CREATE TABLE other(a, b)");
  State before = state(), long_ago = before;
  TreeMap map_t = read_map(before, "t"), map_w = read_map(before, "w");
  auto rows_t = rows(kRowidRows), rows_w = rows(kKeyedRows);
  std::size_t found = 0, moved = 0;
  for (int step = 0; step < 120; ++step) {
    run("BEGIN");
    for (int i = random.pick(4); i >= 0; --i) run(random.next());
    run("COMMIT");
    State after = state();
    const PageSet changed = pages_that_differ(before, after);
    auto touched_t = map_t.advance(before.source(), after.source(), changed);
    ASSERT_TRUE(touched_t) << "step " << step << ": " << touched_t.error().message();
    auto touched_w = map_w.advance(before.source(), after.source(), changed);
    ASSERT_TRUE(touched_w) << "step " << step << ": " << touched_w.error().message();
    auto now_t = rows(kRowidRows), now_w = rows(kKeyedRows);
    std::set<std::string> keys_t, keys_w;
    for (std::int64_t rowid : touched_t->rowids) keys_t.insert(std::to_string(rowid));
    for (const Bytes& record : touched_w->records) keys_w.insert(key_of(record));
    EXPECT_EQ(keys_t.size(), touched_t->rowids.size());
    const auto truth_t = differing(rows_t, now_t), truth_w = differing(rows_w, now_w);
    EXPECT_TRUE(std::ranges::includes(keys_t, truth_t)) << "missed a row at step " << step;
    EXPECT_EQ(keys_w, truth_w) << "step " << step;
    found += truth_t.size();
    moved += keys_t.size() - truth_t.size();
    ASSERT_EQ(map_t, read_map(after, "t")) << "step " << step;
    ASSERT_EQ(map_w, read_map(after, "w")) << "step " << step;
    if (step % 10 == 9) {
      expect_way_back(after, before, changed, step);
      expect_way_back(after, long_ago, pages_that_differ(long_ago, after), step);
      long_ago = after;
    }
    before = std::move(after);
    rows_t = std::move(now_t);
    rows_w = std::move(now_w);
    if (HasFailure()) return;
  }
  EXPECT_GT(found, 1000u);
  // A row that only moved to another overflow page counts, too; there are few.
  EXPECT_LT(moved, found / 10 + 50);
}

INSTANTIATE_TEST_SUITE_P(Seeds, TreeDiffTest, ::testing::Range(1, 13));

}  // namespace
}  // namespace offprint::publication
