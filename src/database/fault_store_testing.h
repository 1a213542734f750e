#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/log.h"
#include "database/fault_world_testing.h"

// For tests only: a store on a machine that fails, and clients that remember what they were told.
namespace offprint::database::testing {

// A store on a machine, its clients, and everything they noticed that must not be.
class World {
 public:
  explicit World(Mutant mutant = Mutant::kNone) {
    machine.mutant = mutant;
    options.directory = "data";
    options.files = &machine;
    options.base_vfs = FaultVfs::kName;
    options.journal.segment_size = 64 << 10;
    if (mutant != Mutant::kNone) options.journal.spare_segments = 0;  // made anew, see Machine
    options.log_bytes_max = 192 << 10;
    options.checkpoint_frames = 24;
    options.idle_close_ms = 0;
    options.on_fatal = [this](const Error&) {
      if (machine.stopped()) return;
      failed = true;
      machine.stop();  // as the process does that ends there
    };
  }
  ~World() { stop_store(); }

  Machine machine;
  StoreOptions options;
  std::unique_ptr<Store> store;
  std::atomic<bool> failed{false};  // the store ended its process
  std::vector<std::string> violations;
  int writes_done = 0;
  int writes_undone = 0;   // of these
  std::string last_error;  // of the write answered last

  // --- the process

  bool start_store() {
    machine.starting = true;
    auto opened = Store::open(options);
    machine.starting = false;
    if (opened) {
      store = *std::move(opened);
    } else if (!machine.stopped()) {
      start_error = opened.error().message();
    }
    return store != nullptr;
  }
  void stop_store() {
    settle();
    store.reset();
    failed = false;
  }
  std::string start_error;

  // --- clients

  static DatabaseName name(const std::string& text) { return DatabaseName::parse(text).value(); }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& [text, database] : known) result.push_back(text);
    return result;
  }

  void create(const std::string& text, const CreateOptions& create_options) {
    auto made = store->create(name(text), create_options);
    // An import into it that failed is over: this one may be there empty.
    if (made || made.error().code() != Code::kConflict) maybe_filled.erase(text);
    if (!made || machine.stopped()) {
      maybe_created.insert(text);
      return;
    }
    KnownDatabase database;
    database.id = made->id;
    database.lineage = made->bookmark.lineage;
    known[text] = database;
    write(text, {0}, workload_schema());
    settle();
  }

  // Creates it with the content of a file: more than the journal takes in one record.
  void create_from_file(const std::string& text) {
    auto imported = store->import_file(name(text), source_file());
    if (!imported || machine.stopped() || failed) {
      maybe_created.insert(text);
      maybe_filled.insert(text);
      return;
    }
    KnownDatabase& database = known[text] = {};
    database.id = store->info(name(text))->id;
    database.lineage = imported->lineage;
    Write write{Told::kDone, imported->txid.value};
    for (int number : kImported) database.writes[number] = write;
  }

  void drop(const std::string& text) {
    settle();
    auto dropped = store->drop(name(text));
    if (dropped && !machine.stopped()) {
      known.erase(text);
    } else {
      known[text].maybe_dropped = true;
    }
  }

  // Without waiting for the answer.
  void write(const std::string& text, const std::vector<int>& numbers,
             std::vector<std::string> statements) {
    for (int number : numbers) known[text].writes[number] = {};
    auto request = std::make_unique<WorkRequest>(machine, std::move(statements), false);
    pending_.push_back({text, numbers, request->future()});
    store->submit(name(text), std::move(request));
  }

  // A write that is undone: the database is restored to what it was before.
  void write_and_undo(const std::string& text, int number) {
    settle();
    auto before = store->position(name(text));
    if (!before || before->txid.value == 0) return;
    write(text, {number}, {write_sql(number, 3, 400, 0)});
    settle();
    Write& made = known[text].writes[number];
    if (made.told != Told::kDone) return;
    auto state = store->snapshot_at(name(text), before->bookmark());
    if (!state) return;
    auto undone = store->rewrite(name(text), **state);
    made = {undone && !machine.stopped() ? Told::kRefused : Told::kUnknown, 0};
    if (made.told == Told::kRefused) ++writes_undone;
  }

  Reply run(const std::string& text, std::vector<std::string> statements, bool keep = false) {
    auto request = std::make_unique<WorkRequest>(machine, std::move(statements), keep);
    auto future = request->future();
    store->submit(name(text), std::move(request));
    return wait(future);
  }

  // A transaction in two requests; sometimes its client goes away between them.
  void write_in_steps(const std::string& text, int number, bool leave) {
    known[text].writes[number] = {};
    Reply begun = run(text, {"BEGIN IMMEDIATE", write_sql(number, 2, 100, 0)}, true);
    if (!begun.outcome.held) return take(text, {number}, begun);
    if (leave) {
      store->release(begun.outcome.held);
      begun.succeeded = false;
      return take(text, {number}, begun);
    }
    auto request = std::make_unique<WorkRequest>(
        machine, std::vector<std::string>{"SELECT count(*) FROM log", "COMMIT"}, true);
    auto future = request->future();
    store->submit(begun.outcome.held, std::move(request));
    take(text, {number}, wait(future));
  }

  // Everything acknowledged before it is there.
  void read(const std::string& text) {
    KnownDatabase& database = known[text];
    if (database.maybe_dropped) return;
    auto before = database.writes;
    Reply reply = run(text, {"SELECT id FROM log"});
    if (!reply.succeeded || reply.after_stop) return;
    std::set<int> there = {0};
    for (const std::string& row : reply.rows) there.insert(std::stoi(row));
    for (const auto& [number, write] : before) {
      if (write.told == Told::kDone && !there.contains(number))
        violation(text, fmt::format("write {} was acknowledged, but not read", number));
      if (write.told == Told::kRefused && there.contains(number))
        violation(text, fmt::format("write {} was refused, but was read", number));
    }
    database.seen.insert(there.begin(), there.end());
  }

  // Waits for all answers.
  void settle() {
    while (!pending_.empty()) {
      Pending next = std::move(pending_.front());
      pending_.pop_front();
      take(next.database, next.numbers, wait(next.reply));
    }
  }

  // --- afterwards

  // The files as any program finds them, before the store has recovered anything: older perhaps,
  // but a state that was.
  void check_plain_files() {
    auto disk = machine.copy();
    FaultVfs::instance().use(nullptr);
    FaultVfs::instance().use(disk.get());
    for (auto& [text, database] : known) {
      std::string path = fmt::format("data/databases/{:016x}.db", database.id);
      if (database.maybe_dropped || disk->content(path).empty()) continue;
      sqlite::Connection::Options raw;
      raw.vfs = FaultVfs::kName;
      auto stock = sqlite::Connection::open(path, raw);
      auto found = stock ? read_all(*stock) : Result<std::set<int>>(fail(stock.error()));
      if (!found) {
        violation(text, "plain file: " + found.error().message());
        continue;
      }
      for (const std::string& what : database.contradictions(*found, false))
        violation(text, "plain file: " + what);
    }
    FaultVfs::instance().use(&machine);
  }

  // Has every database opened, and recovered.
  void touch_all() {
    for (const DatabaseInfo& info : store->list("", "", 1000))
      run(info.name, {"SELECT count(*) FROM sqlite_schema"});
  }

  // The store runs again: compares everything with what its clients know, and takes what is there
  // for decided.
  void check_store() {
    std::map<std::string, DatabaseInfo> listed;
    for (const DatabaseInfo& info : store->list("", "", 1000)) listed.emplace(info.name, info);
    for (auto database = known.begin(); database != known.end();) {
      auto found = listed.find(database->first);
      bool gone =
          found == listed.end() || found->second.bookmark.lineage != database->second.lineage;
      if (gone && !database->second.maybe_dropped)
        violation(database->first, "the database is not there any more");
      database = gone ? known.erase(database) : std::next(database);
    }
    for (const auto& [text, info] : listed) {
      if (!known.contains(text)) {
        if (!maybe_created.contains(text)) violation(text, "was dropped, but is there");
        KnownDatabase& found = known[text];
        found.id = info.id;
        found.lineage = info.bookmark.lineage;
        for (int number : kImported) found.writes[number] = {};
      }
      known[text].maybe_dropped = false;
      check_database(text);
      if (maybe_filled.contains(text) && known[text].writes[0].told != Told::kDone)
        violation(text, "is there without the content that it was to begin with");
    }
    maybe_created.clear();
    maybe_filled.clear();
    if (machine.disk().content("data/databases/0000000000000000.db").empty())
      violations.push_back("the catalog has no file");
  }

  void check_database(const std::string& text) {
    KnownDatabase& database = known[text];
    std::set<int> there;
    Reply has_log = run(text, {"SELECT 1 FROM sqlite_schema WHERE name = 'log'"});
    if (!has_log.succeeded) return violation(text, "is not served: " + has_log.error + files());
    if (!has_log.rows.empty()) {
      Reply all = run(text, {"SELECT id FROM log"});
      Reply broken = run(text, {kBrokenWrites, "PRAGMA integrity_check"});
      if (!all.succeeded || !broken.succeeded)
        return violation(text, "cannot be read: " + all.error + broken.error);
      there.insert(0);
      for (const std::string& row : all.rows) there.insert(std::stoi(row));
      if (broken.rows != std::vector<std::string>{"ok"})
        violation(text, fmt::format("{}", fmt::join(broken.rows, "; ")));
    }
    for (const std::string& what : database.contradictions(there, true)) violation(text, what);
    for (auto& [number, write] : database.writes)
      write.told = there.contains(number) ? Told::kDone : Told::kRefused;
    check_checksum(text);
  }

  std::string files() {
    std::string text;
    auto listed = machine.list("data/databases");
    for (const std::string& file : listed ? *listed : std::vector<std::string>())
      text += fmt::format("\n  {}: {} bytes", file,
                          machine.disk().content("data/databases/" + file).size());
    for (const DatabaseInfo& info : store->list("", "", 100))
      text += fmt::format("\n  {:x} '{}' txid {}", info.id, info.name, info.bookmark.txid.value);
    return text;
  }

  void violation(const std::string& text, const std::string& what) {
    violations.push_back(fmt::format("database '{}': {}", text, what));
  }

  std::map<std::string, KnownDatabase> known;
  std::set<std::string> maybe_created;
  std::set<std::string> maybe_filled;  // of these, from a file

 private:
  struct Pending {
    std::string database;
    std::vector<int> numbers;
    std::future<Reply> reply;
  };

  // What the imported file has: a schema, which is write 0, and three writes.
  static constexpr std::array kImported = {0, 1'000'001, 1'000'002, 1'000'003};
  // On the machine's own disk.
  static const std::string& source_file() {
    static TemporaryFolder folder;
    static const std::string path = [] {
      std::string file = folder.path() + "/source.db";
      sqlite::Connection::Options options;
      options.create = true;
      auto source = sqlite::Connection::open(file, options).value();
      EXPECT_TRUE(source.execute("PRAGMA page_size=8192; PRAGMA auto_vacuum=2"));
      for (const std::string& sql : workload_schema()) EXPECT_TRUE(source.execute(sql.c_str()));
      for (int number : kImported)
        if (number > 0) EXPECT_TRUE(source.execute(write_sql(number, 20, 2'000, 0).c_str()));
      return file;
    }();
    return path;
  }

  Reply wait(std::future<Reply>& future) {
    if (future.wait_for(std::chrono::seconds(60)) == std::future_status::ready) return future.get();
    log::error("a request is never answered");
    std::abort();  // its request refers to this object
  }

  void take(const std::string& text, const std::vector<int>& numbers, const Reply& reply) {
    last_error = reply.outcome.error ? reply.outcome.error->message() : reply.error;
    Told told = Told::kDone;
    if (!reply.succeeded) told = Told::kRefused;
    if (reply.outcome.state == Outcome::State::kRejected) told = Told::kRefused;
    if (reply.outcome.state == Outcome::State::kUnknown || reply.after_stop) told = Told::kUnknown;
    std::uint64_t txid = told == Told::kDone ? reply.outcome.bookmark.txid.value : 0;
    for (int number : numbers) known[text].writes[number] = {told, txid};
    if (told == Told::kDone) ++writes_done;
  }

  static Result<std::set<int>> read_all(sqlite::Connection& stock) {
    OFFPRINT_TRY_ASSIGN(std::string sound, stock.query_text("PRAGMA integrity_check"));
    if (sound != "ok") return fail(Code::kCorrupt, sound);
    OFFPRINT_TRY_ASSIGN(auto has_log,
                        stock.query_int("SELECT count(*) FROM sqlite_schema WHERE name = 'log'"));
    std::set<int> there;
    if (has_log == 0) return there;
    there.insert(0);
    auto broken = stock.query_text(kBrokenWrites);
    if (broken) return fail(Code::kCorrupt, *broken);
    OFFPRINT_TRY_ASSIGN(auto select, stock.prepare("SELECT id FROM log"));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, select.step());
      if (!row) return there;
      there.insert(static_cast<int>(select.column_int(0)));
    }
  }

  void check_checksum(const std::string& text) {
    auto snapshot = store->snapshot(name(text));
    if (!snapshot) return violation(text, "no snapshot: " + snapshot.error().message());
    Checksum sum = ltx::kEmptyDatabase;
    for (PageNo page = 1; page <= (*snapshot)->page_count(); ++page) {
      auto image = (*snapshot)->page(page);
      if (!image) return violation(text, "snapshot: " + image.error().message());
      sum = ltx::toggle(sum, ltx::page_checksum(page, *image));
    }
    if (sum != (*snapshot)->position().checksum)
      violation(text, "the rolling checksum is not that of the pages");
  }

  std::deque<Pending> pending_;
};

}  // namespace offprint::database::testing
