#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "sqlite/connection.h"

// For tests only: a primary that makes random transactions and says which pages each of them
// changed.
namespace offprint::sqlite::testing {

// A folder of the test's own, removed at its end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "offprint-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline Connection open_plain(const std::string& path, int busy_timeout_ms = 5000) {
  Connection::Options options;
  options.create = true;
  options.busy_timeout_ms = busy_timeout_ms;
  Result<Connection> db = Connection::open(path, options);
  if (!db) throw std::runtime_error("open " + path + ": " + db.error().message());
  return *std::move(db);
}

inline void must(Connection& db, const std::string& sql) {
  Result<> done = db.execute(sql.c_str());
  if (!done) throw std::runtime_error(sql + ": " + done.error().message());
}

// What one transaction changed.
struct Change {
  std::uint32_t page_count = 0;
  std::map<std::uint32_t, Bytes> pages;

  // Several changes as one: the last image of each page, none above the final size.
  void merge(const Change& later) {
    page_count = later.page_count;
    for (const auto& [page, image] : later.pages) pages[page] = image;
    pages.erase(pages.upper_bound(page_count), pages.end());
  }
};

// A number that two databases share only when schema, rows, user_version and application_id are the
// same.
inline std::uint64_t content_hash(Connection& db) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  auto mix = [&hash](ByteView bytes) {
    for (std::uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3u;
    hash = (hash ^ 0xff) * 0x100000001b3u;
  };
  auto mix_rows = [&](const std::string& sql, std::vector<std::string>* first_column) {
    Result<Statement> query = db.prepare(sql);
    if (!query) throw std::runtime_error(sql + ": " + query.error().message());
    for (;;) {
      Result<bool> row = query->step();
      if (!row) throw std::runtime_error(sql + ": " + row.error().message());
      if (!*row) break;
      if (first_column != nullptr) first_column->emplace_back(query->column_text(0));
      for (int column = 0; column < query->column_count(); ++column) {
        std::uint8_t type = static_cast<std::uint8_t>(query->column_type(column));
        mix({&type, 1});
        mix(as_bytes(query->column_text(column)));
      }
    }
  };
  must(db, "BEGIN");
  std::vector<std::string> tables;
  mix_rows("SELECT name, sql FROM sqlite_schema ORDER BY name, sql", nullptr);
  mix_rows(
      "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%' ORDER BY "
      "name",
      &tables);
  for (const std::string& table : tables) mix_rows("SELECT * FROM \"" + table + "\"", nullptr);
  mix_rows("PRAGMA user_version", nullptr);
  mix_rows("PRAGMA application_id", nullptr);
  must(db, "COMMIT");
  return hash;
}

class RandomPrimary {
 public:
  struct Options {
    std::uint32_t page_size = 4096;
    std::uint64_t seed = 1;
    int auto_vacuum = 0;  // 0 none, 1 full, 2 incremental
    const char* encoding = "UTF-8";
    // Rows are deleted beyond this, so that the file stays small.
    int rows_max = 300;
    // Sets the schema cookie to random values too. Readers of the primary itself do not survive
    // this; those of a replica must.
    bool cookie_jumps = false;
  };

  RandomPrimary(const std::string& path, const Options& options)
      : options_(options), random_(options.seed), db_(open_plain(path)) {
    must(db_, fmt::format("PRAGMA page_size={}; PRAGMA auto_vacuum={}; PRAGMA encoding='{}'; "
                          "PRAGMA journal_mode=WAL;"
                          "PRAGMA synchronous=OFF",
                          options.page_size, options.auto_vacuum, options.encoding));
  }

  Connection& db() { return db_; }
  std::uint32_t page_size() const { return options_.page_size; }
  const std::map<std::uint32_t, Bytes>& images() const { return images_; }
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

  // The first one makes the tables.
  void make_tables() {
    must(db_,
         "BEGIN; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE INDEX ta ON t(a);"
         "CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE VIRTUAL TABLE f USING "
         "fts5(x); COMMIT");
  }

  // One random statement or transaction; may change nothing.
  void random_transaction() {
    switch (below(20)) {
      case 0:
        return ddl();
      case 1:
        return must(db_, "VACUUM");
      case 2:
        return must(db_, "PRAGMA incremental_vacuum(" + std::to_string(below(20)) + ")");
      case 3:
        return flip_auto_vacuum();
      case 4:
        return must(db_, "PRAGMA user_version=" + std::to_string(below(3)));
      case 5:
        return must(db_, "UPDATE t SET a=a WHERE id%7=" + std::to_string(below(7)));
      case 6:
        return must(db_, "DELETE FROM t WHERE id%5=" + std::to_string(below(5)));
      case 7:
        return must(db_, "DELETE FROM f WHERE rowid%3=" + std::to_string(below(3)));
      case 8:
        return must(db_, "PRAGMA wal_checkpoint(TRUNCATE)");
      case 9:
        if (!options_.cookie_jumps) return rows();
        return must(db_, "PRAGMA schema_version=" + std::to_string(below(200)));
      default:
        return rows();
    }
  }

  // Every page that differs from the last call's state.
  Change capture() {
    Change change;
    std::uint32_t lock_page = 0x40000000 / options_.page_size + 1;
    Result<Statement> pages = db_.prepare("SELECT pgno, data FROM sqlite_dbpage");
    if (!pages) throw std::runtime_error(pages.error().message());
    while (*pages->step()) {
      auto page = static_cast<std::uint32_t>(pages->column_int(0));
      ByteView image = pages->column_blob(1);
      change.page_count = page;
      if (page == lock_page) continue;
      Bytes& kept = images_[page];
      if (std::equal(kept.begin(), kept.end(), image.begin(), image.end())) continue;
      kept.assign(image.begin(), image.end());
      change.pages[page] = kept;
    }
    images_.erase(images_.upper_bound(change.page_count), images_.end());
    return change;
  }

  // The whole database as one change.
  Change whole() {
    capture();
    return Change{images_.empty() ? 0 : images_.rbegin()->first, images_};
  }

 private:
  void rows() {
    std::string sql = "BEGIN;";
    for (std::uint64_t i = 0, n = 1 + below(12); i < n; ++i) {
      std::uint64_t size = below(10) == 0 ? below(4ull * options_.page_size) : below(200);
      switch (below(5)) {
        case 0:
          sql += fmt::format("REPLACE INTO w VALUES('k{}',hex(randomblob({})));", below(100),
                             size / 2);
          break;
        case 1:
          sql += fmt::format("INSERT INTO f VALUES('word{} and word{} of {}');", below(50),
                             below(50), i);
          break;
        case 2:
          sql += fmt::format("UPDATE t SET b=randomblob({}) WHERE id%31={};", size, below(31));
          break;
        default:
          sql += fmt::format("INSERT INTO t(a,b) VALUES({},randomblob({}));", below(1000), size);
          break;
      }
    }
    sql +=
        fmt::format("DELETE FROM t WHERE id NOT IN (SELECT id FROM t ORDER BY id DESC LIMIT {});",
                    options_.rows_max);
    sql += "COMMIT";
    must(db_, sql);
  }

  void ddl() {
    std::uint64_t number = below(12);
    switch (below(4)) {
      case 0:
        return must(db_, fmt::format("CREATE TABLE IF NOT EXISTS c{0}(x{0}, y TEXT DEFAULT 'd', z)",
                                     number));
      case 1:
        return must(db_, fmt::format("DROP TABLE IF EXISTS c{}", number));
      case 2:
        return must(
            db_, fmt::format(
                     "DROP TABLE IF EXISTS c{0}; CREATE TABLE c{0} AS SELECT id x, a y, b z FROM t",
                     number));
      default:
        must(db_, fmt::format("CREATE TABLE IF NOT EXISTS c{}(x)", number));
        return must(db_, fmt::format("ALTER TABLE c{} ADD COLUMN n{}", number, ++columns_));
    }
  }

  void flip_auto_vacuum() {
    must(db_, "PRAGMA auto_vacuum=" + std::to_string(below(3)));
    if (below(3) == 0) must(db_, "VACUUM");
  }

  Options options_;
  std::mt19937_64 random_;
  Connection db_;
  std::map<std::uint32_t, Bytes> images_;
  std::uint64_t columns_ = 0;
};

}  // namespace offprint::sqlite::testing
