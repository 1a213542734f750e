#include "database/folder_fill.h"

#include <filesystem>

#include "database/testing.h"
#include "ltx/checksum.h"
#include "sqlite/connection.h"

namespace offprint::database {
namespace {

// The machine's files, whose names stop changing after so many changes: the process was killed.
class KilledFiles final : public FileSystem {
 public:
  explicit KilledFiles(int changes) : left_(changes) {}

  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override {
    if (mode != Mode::kRead) OFFPRINT_TRY(change());
    return real_.open(path, mode);
  }
  Result<> rename(const std::string& from, const std::string& to) override {
    OFFPRINT_TRY(change());
    return real_.rename(from, to);
  }
  Result<> rename_new(const std::string& from, const std::string& to) override {
    OFFPRINT_TRY(change());
    return real_.rename_new(from, to);
  }
  Result<> remove(const std::string& path) override {
    OFFPRINT_TRY(change());
    return real_.remove(path);
  }
  Result<bool> exists(const std::string& path) override { return real_.exists(path); }
  Result<std::optional<FileStatus>> status(const std::string& path) override {
    return real_.status(path);
  }
  Result<> set_modified(const std::string& path, std::int64_t modified_ms) override {
    return real_.set_modified(path, modified_ms);
  }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    return real_.list(directory);
  }
  Result<> create_directories(const std::string& directory) override {
    OFFPRINT_TRY(change());
    return real_.create_directories(directory);
  }
  Result<> sync_directory(const std::string& directory) override {
    return real_.sync_directory(directory);
  }

 private:
  Result<> change() {
    if (left_ == 0) return fail(Code::kIo, "killed");
    --left_;
    return {};
  }
  FileSystem& real_ = FileSystem::real();
  int left_;
};

class FolderFillTest : public testing::StoreTest {
 protected:
  void SetUp() override {
    options_.directory = folder_.path() + "/source";
    options_.journal.segment_size = 4 << 20;
    open();
    create("a");
    create("small", {.page_size = 512});
    create("never");
    run("a", {"CREATE TABLE t(x)", "INSERT INTO t VALUES (randomblob(100000))"});
    run("small", {"CREATE TABLE t(x)", "INSERT INTO t VALUES (7)"});
    source_ = std::move(store_);
  }
  std::string target() const { return folder_.path() + "/target"; }

  // All of the source's databases, and what the folder is to say.
  Result<> fill(FileSystem& files, std::string_view mark = "mark") {
    OFFPRINT_TRY_ASSIGN(FolderFill fill, FolderFill::begin(files, target()));
    std::vector<std::uint64_t> ids{0};
    for (const DatabaseInfo& each : source_->list("", "", 100)) {
      if (each.bookmark.txid.value != 0) ids.push_back(each.id);
    }
    for (std::uint64_t id : ids) OFFPRINT_TRY(send(fill, id));
    return fill.finish(ids, {1, journal::Lsn{7}, Epoch{2}, Epoch{3}}, as_bytes(mark));
  }
  Result<> send(FolderFill& fill, std::uint64_t id) {
    OFFPRINT_TRY_ASSIGN(auto snapshot, source_->snapshot(id));
    DatabaseState state;
    state.position = snapshot->position();
    state.page_size = snapshot->page_size();
    state.page_count = snapshot->page_count();
    for (PageNo page = 1; page <= state.page_count; ++page) {
      OFFPRINT_TRY_ASSIGN(ByteView image, snapshot->page(page));
      if (page == 1) {
        std::copy_n(image.begin(), state.header.size(), state.header.begin());
        OFFPRINT_TRY(fill.database(id, state.encode()));
      }
      OFFPRINT_TRY(fill.pages(image));
    }
    return {};
  }
  // The store of the folder; nothing: there is none.
  void open_target() {
    options_.directory = target();
    open();
  }
  bool has(const std::string& database) { return store_->info(name(database)).has_value(); }

  std::unique_ptr<Store> source_;
};

TEST_F(FolderFillTest, TheFolderHoldsWhatTheOtherNodeHas) {
  FileSystem& files = FileSystem::real();
  ASSERT_TRUE(fill(files));
  EXPECT_FALSE(std::filesystem::exists(target() + "/journal"));
  ASSERT_TRUE(FolderFill::take_over(files, target()));
  EXPECT_EQ(as_text(read_file(files, target() + "/node", 100).value()), "mark");
  EXPECT_FALSE(std::filesystem::exists(target() + "/filling"));
  journal::GroupState group;
  {
    auto journal = journal::Journal::open(files, target() + "/journal", {},
                                          [](const journal::Record&) { return Result<>(); });
    ASSERT_TRUE(journal);
    group = (*journal)->group(1);
  }
  EXPECT_EQ(group, (journal::GroupState{journal::Lsn{7}, journal::Lsn{0}, Epoch{2}, Epoch{3}}));
  open_target();
  for (const char* each : {"a", "small", "never"}) {
    EXPECT_EQ(store_->position(name(each)).value(), source_->position(name(each)).value()) << each;
    EXPECT_EQ(store_->info(name(each))->id, source_->info(name(each))->id);
  }
  EXPECT_EQ(query("a", "SELECT count(*), sum(length(x)) FROM t"), "1|100000");
  EXPECT_EQ(query("a", "PRAGMA integrity_check"), "ok");
  EXPECT_EQ(query("small", "INSERT INTO t VALUES (8) RETURNING x"), "8");
  EXPECT_EQ(store_->position(name("small"))->txid, TxId{2});
  open();
  EXPECT_EQ(query("small", "SELECT sum(x) FROM t"), "15");
  create("further");
}

TEST_F(FolderFillTest, CutShortAnywhereItIsTheOldOrTheNewFolder) {
  open_target();
  create("old");
  run("old", {"CREATE TABLE t(x)", "INSERT INTO t VALUES (randomblob(3000000))"});
  store_.reset();
  FileSystem& files = FileSystem::real();
  const std::string kept = folder_.path() + "/kept";
  std::filesystem::copy(target(), kept, std::filesystem::copy_options::recursive);
  bool was_old = false;
  int changes = 0;
  for (bool is_done = false; !is_done; ++changes) {
    ASSERT_LT(changes, 500);
    KilledFiles killed(changes);
    Result<> done = fill(killed);
    if (done) done = FolderFill::take_over(killed, target());
    is_done = done.has_value();
    const bool is_new = FolderFill::is_finished(files, target()).value() ||
                        std::filesystem::exists(target() + "/node");
    ASSERT_TRUE(FolderFill::take_over(files, target()));
    open_target();
    ASSERT_TRUE(store_);
    EXPECT_EQ(has("old"), !is_new) << changes;
    EXPECT_EQ(has("a"), is_new) << changes;
    if (is_new) {
      EXPECT_EQ(query("a", "SELECT sum(length(x)) FROM t"), "100000") << changes;
      EXPECT_EQ(as_text(read_file(files, target() + "/node", 100).value()), "mark");
    } else {
      EXPECT_EQ(query("old", "SELECT sum(length(x)) FROM t"), "3000000") << changes;
    }
    was_old |= !is_new;
    store_.reset();
    std::filesystem::remove_all(target());
    std::filesystem::copy(kept, target(), std::filesystem::copy_options::recursive);
  }
  EXPECT_TRUE(was_old);
  EXPECT_GT(changes, 20);
}

TEST_F(FolderFillTest, WhatContradictsItselfIsRefused) {
  FileSystem& files = FileSystem::real();
  const std::uint64_t id = source_->info(name("small"))->id;
  auto snapshot = source_->snapshot(id).value();
  DatabaseState state;
  state.position = snapshot->position();
  state.page_size = snapshot->page_size();
  state.page_count = snapshot->page_count();
  Bytes pages;
  for (PageNo page = 1; page <= state.page_count; ++page) append(pages, *snapshot->page(page));
  auto finish = [&](Bytes images) -> Result<> {
    OFFPRINT_TRY_ASSIGN(FolderFill fill, FolderFill::begin(files, target()));
    OFFPRINT_TRY(fill.database(id, state.encode()));
    OFFPRINT_TRY(fill.pages(images));
    const std::uint64_t ids[] = {id};
    return fill.finish(ids, {1, journal::Lsn{1}, Epoch{1}, Epoch{1}}, as_bytes("m"));
  };
  EXPECT_TRUE(finish(pages));
  auto refused = [&](const Bytes& images) {
    Result<> result = finish(images);
    return !result && result.error().code() == Code::kCorrupt &&
           !FolderFill::is_finished(files, target()).value();
  };
  Bytes changed = pages;
  changed[700] ^= 1;
  EXPECT_TRUE(refused(changed));
  EXPECT_TRUE(refused({pages.begin(), pages.end() - 512}));
  EXPECT_TRUE(refused({pages.begin(), pages.end() - 1}));
  Bytes longer = pages;
  longer.resize(longer.size() + 512);
  EXPECT_TRUE(refused(longer));
  FolderFill fill = FolderFill::begin(files, target()).value();
  EXPECT_FALSE(fill.pages(pages)) << "of no database";
  EXPECT_FALSE(fill.database(1, as_bytes("no state")));
  const std::uint64_t missing[] = {id};
  EXPECT_FALSE(fill.finish(missing, {1, journal::Lsn{1}, Epoch{1}, Epoch{1}}, {}));
}

}  // namespace
}  // namespace offprint::database
