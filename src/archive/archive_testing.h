#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "archive/database_archive.h"
#include "archive/restore.h"
#include "database/testing.h"
#include "sqlite/connection.h"

// A store with a clock of its own, an archive in a folder, and a model of what each transaction
// left.
namespace offprint::archive::testing {

class ArchiveTest : public database::testing::StoreTest {
 protected:
  void SetUp() override {
    options_.wall_clock_ms = [this] { return now_ms_.load(); };
    StoreTest::SetUp();
    folder_url_ = "file://" + folder_.path() + "/archive";
    objects_ = open_object_store(folder_url_).value();
  }
  void TearDown() override { store_.reset(); }

  void pass(std::chrono::milliseconds time) { now_ms_ += time.count(); }
  // One transaction; the model notes what the database has then.
  void write(const std::string& database, const std::string& sql) {
    auto answers = run(database, {sql});
    ASSERT_EQ(answers.outcome.state, database::Outcome::State::kCommitted) << sql;
    note(database);
  }
  void note(const std::string& database) {
    TxId txid = store_->position(name(database))->txid;
    model_[database][txid] = query(database, kContent);
    at_ms_[database][txid] = now_ms_;
  }
  std::string model(const std::string& database, TxId txid) { return model_[database][txid]; }

  Result<std::unique_ptr<DatabaseArchive>> load(const std::string& database) {
    return DatabaseArchive::load(*objects_, database + "/", *store_, name(database), schedule_);
  }
  // What a restored file has: its content, or the error.
  struct Content {
    Result<Restored> restored;
    std::string text;
  };
  Content restore(const std::string& database, const RestoreTarget& target = Newest{}) {
    std::string file = folder_.path() + "/restored.db";
    RestoreOptions options;
    options.replace = true;
    Content content{restore_file(*objects_, database + "/", target, file, options), ""};
    if (!content.restored) return content;
    auto connection = sqlite::Connection::open(file, {}).value();
    content.text = connection.query_text(kContent).value();
    return content;
  }
  std::vector<ArchivedFile> files(const std::string& database) {
    return list_files(*objects_, database + "/").value();
  }

  static constexpr const char* kContent =
      "SELECT ifnull(group_concat(a || ':' || length(b), ' '), 'none') FROM t";
  std::atomic<std::int64_t> now_ms_{1'699'963'200'000};  // at noon
  Schedule schedule_;
  std::string folder_url_;
  std::unique_ptr<ObjectStore> objects_;
  std::map<std::string, std::map<TxId, std::string>> model_;
  std::map<std::string, std::map<TxId, std::int64_t>> at_ms_;
};

}  // namespace offprint::archive::testing
