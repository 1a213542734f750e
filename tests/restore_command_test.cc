// `offprint restore` as its users meet it: docs/guides/archive.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "archive/object_store.h"
#include "base/clock.h"
#include "ltx/checksum.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::int64_t kTime = 1'763'805'600'000;  // 2025-11-22T10:00:00Z

class RestoreCommandTest : public ::testing::Test {
 protected:
  // A database after each of three transactions: t has as many rows.
  void SetUp() override {
    auto store = archive::open_object_store("file://" + folder_ / "archive");
    ASSERT_TRUE(store);
    for (int i = 1; i <= 3; ++i) {
      ASSERT_EQ(run_program({"sqlite3", folder_ / "source.db",
                             "CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES (1)"})
                    .exit_code,
                0);
      put_snapshot(**store, TxId{static_cast<std::uint64_t>(i)});
    }
  }
  void put_snapshot(archive::ObjectStore& store, TxId txid) {
    std::ifstream file(folder_ / "source.db", std::ios::binary);
    const Bytes content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    ltx::Header header{.flags = ltx::kNoChecksumFlag,
                       .page_size = 4096,
                       .page_count = static_cast<std::uint32_t>(content.size() / 4096),
                       .min_txid = {1},
                       .max_txid = txid,
                       .timestamp_ms = kTime + static_cast<std::int64_t>(txid.value) * 1000};
    Checksum sum = ltx::kEmptyDatabase;
    const auto page = [&](PageNo number) {
      return ByteView(content).subspan((number - 1) * std::size_t{4096}, 4096);
    };
    for (PageNo number = 1; number <= header.page_count; ++number)
      sum = ltx::toggle(sum, ltx::page_checksum(number, page(number)));
    header.node_id = sum.value;
    Bytes encoded;
    ltx::BytesSink sink(encoded);
    ltx::Encoder encoder(sink, ltx::PageEncoding::kFrame);
    ASSERT_TRUE(encoder.begin(header));
    for (PageNo number = 1; number <= header.page_count; ++number)
      ASSERT_TRUE(encoder.page(number, page(number)));
    ASSERT_TRUE(encoder.finish(Checksum{}));
    ltx::BytesSource source(encoded);
    ASSERT_TRUE(store.put(store.level_prefix(9) + ltx::file_name({1}, txid), source));
  }
  Finished restore(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {program(), "restore"});
    return run_program(arguments);
  }
  std::string rows() {
    return run_program({"sqlite3", folder_ / "a.db", "SELECT count(*) FROM t"}).out;
  }

  TemporaryFolder folder_;
  std::string url_ = "file://" + folder_ / "archive";
  std::string file_ = folder_ / "a.db";
};

TEST_F(RestoreCommandTest, RestoresTheNewestAndSaysWhatItIs) {
  const Finished done = restore({url_, file_});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out,
              AllOf(StartsWith(file_ + " is the database at txid 3 of 2025-11-22T10:00:03.000Z: "
                                       "8.0 KiB in 2 pages, checksum "),
                    HasSubstr(" as archived\n")));
  EXPECT_EQ(rows(), "3\n");
}

TEST_F(RestoreCommandTest, RestoresAnyMomentAsJson) {
  const std::pair<const char*, const char*> moments[] = {
      {"2", "2\n"},
      {"2025-11-22T10:00:01.5Z", "1\n"},
      {"2025-11-22T12:00:02+02:00", "2\n"},
      {"2030-01-01T00:00:00Z", "3\n"},
  };
  for (const auto& [at, expected] : moments) {
    const Finished done = restore({url_, file_, "--at", at, "--json", "--force"});
    EXPECT_EQ(done.exit_code, 0) << at << done.err;
    EXPECT_THAT(done.out, AllOf(StartsWith("{\"file\":\"" + file_ + "\",\"txid\":"),
                                HasSubstr("\"proven\":true,\"page_size\":4096,\"page_count\":2,"
                                          "\"archive_files\":1,"),
                                HasSubstr("\"bookmark\":null}\n")));
    EXPECT_EQ(rows(), expected) << at;
  }
}

TEST_F(RestoreCommandTest, RefusalsSayWhatToDo) {
  const auto refused = [&](const std::vector<std::string>& arguments, int exit_code) {
    const Finished done = restore(arguments);
    EXPECT_EQ(done.exit_code, exit_code) << done.out << done.err;
    return done.err;
  };
  EXPECT_THAT(refused({url_, file_, "--at", "yesterday"}, 2), HasSubstr("no time like"));
  EXPECT_THAT(refused({url_, file_, "--at", "0"}, 2), HasSubstr("no transaction's number"));
  EXPECT_THAT(refused({"ftp://a/b", file_}, 2), HasSubstr("an archive is file:///FOLDER"));
  EXPECT_THAT(refused({url_ + "/none", file_}, 1), HasSubstr("no such folder"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "archive/none"));
  EXPECT_THAT(refused({url_ + "/ltx", file_}, 1), HasSubstr("no archive of a database is there"));
  EXPECT_THAT(refused({url_, file_, "--at", "4"}, 1), HasSubstr("ends at transaction 3"));
  EXPECT_THAT(refused({url_, file_, "--at", "2020-01-01T00:00:00Z"}, 1),
              HasSubstr("2025-11-22T10:00:01.000Z (transaction 1)"));
  const std::string bookmark = Bookmark{{1}, {2}, Lineage::random()}.text();
  EXPECT_THAT(refused({url_, file_, "--at", bookmark}, 1), HasSubstr("has no history"));
  EXPECT_FALSE(std::filesystem::exists(file_));
  EXPECT_EQ(restore({url_, file_}).exit_code, 0);
  EXPECT_THAT(refused({url_, file_}, 1), HasSubstr("--force replaces it"));
}

}  // namespace
}  // namespace offprint::testing
