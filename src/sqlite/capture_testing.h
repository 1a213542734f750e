#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "sqlite/capture.h"
#include "sqlite/capture_state.h"
#include "sqlite/connection.h"

// For tests only: databases as lists of page images, and a gate that a test steers.
namespace offprint::sqlite::testing {

// A folder of the test's own, in memory where the machine has that, removed at its end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::filesystem::path root = "/dev/shm";
    if (!std::filesystem::exists(root)) root = std::filesystem::temp_directory_path();
    std::string pattern = (root / "offprint-capture-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// The whole content of a database, page by page.
struct Pages {
  std::vector<std::string> images;

  bool operator==(const Pages&) const = default;
  std::uint32_t count() const { return static_cast<std::uint32_t>(images.size()); }

  void apply(CapturedTransaction& transaction) {
    images.resize(transaction.page_count(), std::string(transaction.page_size(), '\0'));
    for (std::size_t i = 0; i < transaction.pages().size(); ++i) {
      std::uint32_t page = transaction.pages()[i];
      Result<ByteView> image = transaction.image(i);
      ASSERT_TRUE(image) << image.error().message();
      if (page > count()) images.resize(page);  // only when a rule is left out
      images[page - 1] = std::string(as_text(*image));
    }
  }
};

// As `connection` sees it; an Error when it cannot be read.
inline Result<Pages> read_pages(Connection& connection) {
  Pages pages;
  OFFPRINT_TRY_ASSIGN(Statement all,
                      connection.prepare("SELECT data FROM sqlite_dbpage('main') ORDER BY pgno"));
  while (true) {
    OFFPRINT_TRY_ASSIGN(bool row, all.step());
    if (!row) return pages;
    pages.images.emplace_back(as_text(all.column_blob(0)));
  }
}

inline Connection open_connection(const std::string& path, const char* vfs = nullptr) {
  Connection::Options options;
  options.create = true;
  options.vfs = vfs;
  options.busy_timeout_ms = 5000;
  Result<Connection> opened = Connection::open(path, options);
  EXPECT_TRUE(opened) << opened.error().message();
  return *std::move(opened);
}

// Runs statements that must succeed.
inline void must(Connection& connection, const std::string& sql) {
  Result<> done = connection.execute(sql.c_str());
  ASSERT_TRUE(done) << sql << ": " << done.error().message();
}

// SQLite's extended code of running `sql`, 0 when it succeeds.
inline int code_of(Connection& connection, const std::string& sql) {
  Result<> done = connection.execute(sql.c_str());
  return done ? SQLITE_OK : done.error().sqlite_code();
}

// A database as hosted: WAL, FULL, no checkpoints of its own.
inline Connection open_hosted(const std::string& path, const char* vfs = "offprint") {
  register_capture_vfs();
  Connection connection = open_connection(path, vfs);
  must(connection, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0");
  return connection;
}

// A gate that accepts and records, unless told otherwise.
class RecordingGate : public CommitGate {
 public:
  struct Seen {
    std::uint32_t page_count = 0;
    WalPoint point;
    std::vector<std::uint32_t> pages;
    std::vector<std::string> images;
  };

  Result<> commit(CapturedTransaction& transaction) override {
    if (on_commit) on_commit();
    if (refuse) return fail(Code::kUnavailable, "refused by the test");
    commits.push_back(record(transaction));
    return {};
  }
  Result<> foreign_commit(CapturedTransaction* transaction) override {
    ++foreign_calls;
    if (refuse_foreign) return fail(Code::kUnavailable, "refused by the test");
    if (transaction == nullptr) {
      ++foreign_unknown;
    } else {
      foreign.push_back(record(*transaction));
    }
    return {};
  }
  void broken(const Error& error) override { broken_with.push_back(error.message()); }

  std::function<void()> on_commit;
  bool refuse = false;
  bool refuse_foreign = false;
  int foreign_calls = 0;
  int foreign_unknown = 0;
  std::vector<Seen> commits;
  std::vector<Seen> foreign;
  std::vector<std::string> broken_with;

 private:
  static Seen record(CapturedTransaction& transaction) {
    Seen seen{transaction.page_count(), transaction.wal_point(), {}, {}};
    for (std::size_t i = 0; i < transaction.pages().size(); ++i) {
      seen.pages.push_back(transaction.pages()[i]);
      Result<ByteView> image = transaction.image(i);
      EXPECT_TRUE(image) << image.error().message();
      if (image) seen.images.emplace_back(as_text(*image));
    }
    return seen;
  }
};

}  // namespace offprint::sqlite::testing
