#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "archive/chain.h"
#include "archive/file_store.h"
#include "archive/history.h"
#include "archive/restore.h"
#include "base/fault_file_system.h"
#include "ltx/test_pages.h"

// For tests: the life of a database from a seed, and archives of it.
namespace offprint::archive {

// Who writes an archive: stock programs (no checksums), we (checksums as node ids), or one that
// tracks checksums as LTX has them.
enum class Writer { kStock, kOurs, kTracked };

struct DatabaseLife {
  std::uint32_t page_size = 512;
  std::vector<ltx::Model> states{ltx::Model{}};  // by transaction
  std::vector<Bytes> files;                      // of transaction i + 1
  Writer writer = Writer::kStock;

  std::uint64_t length() const { return files.size(); }
  static std::int64_t time_of(std::uint64_t txid) {
    return 1'700'000'000'000 + static_cast<std::int64_t>(txid) * 1000;
  }
  std::uint64_t node_id_of(std::uint64_t txid) const {
    return writer == Writer::kOurs ? ltx::checksum_of(states[txid]).value : 0;
  }
  std::uint32_t flags() const { return writer == Writer::kTracked ? 0 : ltx::kNoChecksumFlag; }
  Bytes content_at(std::uint64_t txid) const {
    Bytes content;
    for (const auto& [page, image] : states[txid]) append(content, image);
    return content;
  }
};

inline void add_transaction(DatabaseLife& life, std::mt19937_64& random) {
  const std::uint64_t txid = life.states.size();
  ltx::Model state = life.states.back();
  const auto before = static_cast<std::uint32_t>(state.size());
  std::uint32_t count = before;
  if (txid == 1 || random() % 4 == 0) count += 1 + static_cast<std::uint32_t>(random() % 6);
  if (count > 1 && random() % 6 == 0) count = 1 + static_cast<std::uint32_t>(random() % count);
  ltx::Pages pages;
  for (PageNo page = 1; page <= count; ++page) {
    if (page > before || txid == 1 || random() % 3 == 0)
      pages.emplace_back(page, ltx::random_page(random, life.page_size));
  }
  for (const auto& [page, image] : pages) state[page] = image;
  state.erase(state.upper_bound(count), state.end());
  life.states.push_back(state);
  ltx::Header header{.flags = life.flags(),
                     .page_size = life.page_size,
                     .page_count = count,
                     .min_txid = {txid},
                     .max_txid = {txid},
                     .timestamp_ms = DatabaseLife::time_of(txid),
                     .node_id = life.node_id_of(txid)};
  const bool tracked = life.writer == Writer::kTracked;
  if (tracked && txid > 1) header.pre_apply = ltx::checksum_of(life.states[txid - 1]);
  life.files.push_back(
      ltx::encode(header, pages, tracked ? ltx::checksum_of(state) : Checksum{},
                  random() % 2 == 0 ? ltx::PageEncoding::kBlock : ltx::PageEncoding::kFrame));
}

inline DatabaseLife random_life(std::mt19937_64& random, std::uint64_t length, Writer writer,
                                std::uint32_t page_size = 512) {
  DatabaseLife life;
  life.page_size = page_size;
  life.writer = writer;
  while (life.length() < length) add_transaction(life, random);
  return life;
}

// Transactions min to max as one file.
inline Bytes compacted(const DatabaseLife& life, std::uint64_t min, std::uint64_t max,
                       ltx::PageEncoding encoding = ltx::PageEncoding::kFrame) {
  std::deque<ltx::BytesSource> sources;
  std::vector<ltx::ByteSource*> inputs;
  for (std::uint64_t txid = min; txid <= max; ++txid)
    inputs.push_back(&sources.emplace_back(life.files[txid - 1]));
  Bytes out;
  ltx::BytesSink sink(out);
  const auto trailer = ltx::compact(
      inputs, {.flags = life.flags(), .encoding = encoding, .node_id = life.node_id_of(max)}, sink);
  EXPECT_TRUE(trailer) << trailer.error().message();
  return out;
}

// An archive in a folder of a file system in memory.
class TestArchive {
 public:
  explicit TestArchive(std::string prefix_in_store = "") : prefix(std::move(prefix_in_store)) {
    store = std::move(*open_file_store("/archive", files));
    EXPECT_TRUE(files.create_directories("/out"));
    EXPECT_TRUE(files.sync_directory("/"));
  }

  std::string path_of(int level, std::uint64_t min, std::uint64_t max) const {
    return "/archive/" + prefix + store->level_prefix(level) + ltx::file_name({min}, {max});
  }
  void put(int level, std::uint64_t min, std::uint64_t max, const Bytes& content) {
    files.put(path_of(level, min, max), content);
  }
  void put_level_0(const DatabaseLife& life, std::uint64_t first = 1) {
    for (std::uint64_t txid = first; txid <= life.length(); ++txid)
      put(0, txid, txid, life.files[txid - 1]);
  }
  void put_history(const History& history) {
    files.put("/archive/" + prefix + kHistoryKey, as_bytes(history.text()));
  }
  Chain chain() {
    auto listed = list_files(*store, prefix);
    EXPECT_TRUE(listed);
    return Chain(*std::move(listed));
  }
  Result<Restored> restore(const RestoreTarget& target, RestoreOptions options = {}) {
    options.files = &files;
    return restore_file(*store, prefix, target, "/out/a.db", options);
  }
  // The file, which goes away again.
  Bytes take_output() {
    Bytes content = files.content("/out/a.db");
    EXPECT_TRUE(files.remove("/out/a.db"));
    return content;
  }
  std::vector<std::string> output_names() { return *files.list("/out"); }

  FaultFileSystem files;
  std::string prefix;
  std::unique_ptr<ObjectStore> store;
};

// A history of one epoch, whose head is the life's end.
inline History history_of(const DatabaseLife& life) {
  History history;
  history.database = "orders";
  Lineage lineage;
  lineage.bytes[0] = 7;
  history.parts = {{Bookmark{{3}, {1}, lineage}, DatabaseLife::time_of(1)}};
  history.head = {lineage, {3}, {life.length()}, ltx::checksum_of(life.states.back())};
  history.head_ms = DatabaseLife::time_of(life.length());
  return history;
}

// Every transaction once at level 0, and some of them again, in any way that levels allow: longer
// runs, snapshots, overlaps. Then some files go.
inline void fill_randomly(TestArchive& archive, const DatabaseLife& life, std::mt19937_64& random) {
  const auto encoding = [&] {
    return random() % 2 == 0 ? ltx::PageEncoding::kBlock : ltx::PageEncoding::kFrame;
  };
  const std::uint64_t keep = random() % 3;  // 0: everything
  for (std::uint64_t txid = 1; txid <= life.length(); ++txid) {
    if (keep == 0 || random() % (keep * 8) != 0) archive.put(0, txid, txid, life.files[txid - 1]);
  }
  for (std::uint64_t count = random() % 8; count > 0; --count) {
    const std::uint64_t min = 1 + random() % life.length();
    const std::uint64_t max = min + random() % (life.length() - min + 1);
    archive.put(static_cast<int>(1 + random() % 8), min, max,
                compacted(life, min, max, encoding()));
  }
  for (std::uint64_t count = random() % 4; count > 0; --count) {
    const std::uint64_t max = 1 + random() % life.length();
    archive.put(kSnapshotLevel, 1, max, compacted(life, 1, max, encoding()));
  }
}

}  // namespace offprint::archive
