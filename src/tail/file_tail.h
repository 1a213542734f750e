#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/file_system.h"
#include "database/store.h"
#include "tail/change_set.h"
#include "tail/source_file.h"
#include "tail/tail_status.h"
#include "tail/wal_reader.h"

namespace offprint::tail {

struct FileTailOptions {
  std::string directory;                    // of what is remembered between starts; it is there
  bool set_wal = false;                     // turn files in rollback mode into WAL mode
  std::uint32_t checkpoint_frames = 1'000;  // frames of the -wal that are not in the file …
  std::uint32_t restart_frames = 16'000;    // … and in all, before writers wait a moment
  std::chrono::milliseconds quiet{1'000};   // without a commit, then the -wal is emptied
  FileSystem* files = &FileSystem::real();
};

// Which file it is that has a name now.
struct FileIdentity {
  std::uint64_t inode = 0;   // 0: none
  std::int64_t born_ns = 0;  // an inode's number is used again; 0: the file system does not say
  bool operator==(const FileIdentity&) const = default;
  static FileIdentity of(const std::string& path);
  std::string text() const;
  static FileIdentity parse(std::string_view text);
};

// What stands beside a program's file. SQLite goes on with what it has opened, also when that was
// removed or replaced: nothing that it says is about the file any more.
struct FilesBeside {
  FileIdentity wal, shm;
  bool operator==(const FilesBeside&) const = default;
  bool are_there() const { return wal.inode != 0 && shm.inode != 0; }
  static FilesBeside of(const std::string& path);
};

// What a file that is written to shows of it.
struct FileStamp {
  std::uint64_t size = 0;
  std::int64_t written_ns = 0;
  std::int64_t changed_ns = 0;  // by the system's clock: nobody can set it, as `cp -p` the other
  bool operator==(const FileStamp&) const = default;
  static std::optional<FileStamp> of(const std::string& path);
};

// Keeps one hosted database equal to a program's own file: a whole transaction at a time, each a
// state that the program committed. Between two steps it holds a read transaction at the state that
// the database has, or none when the program is about to begin its -wal anew. What it can prove
// nothing about it compares, page by page. docs/tailing.md.
// Thread: step() and close() one at a time; status() any.
class FileTail {
 public:
  FileTail(database::Store& store, database::DatabaseName name, std::string path,
           FileTailOptions options);
  ~FileTail();

  // The database is there from then on, though it may have nothing yet. step() does the same.
  Result<> make_database();
  // Takes what there is. Then: when it is to be called again at the latest (it is called earlier
  // when the file or its folder changed). Blocks on disks.
  Deadline step(bool something_changed);
  // Whatever changes, it is not called again before this: nothing was found, a commit is under way.
  Deadline not_before() const { return not_before_; }
  // A step that compares ends soon, as a failure; none may follow. Any thread.
  void interrupt() { interrupted_ = true; }
  // Something comes at each look, and it looks again by itself soon: notices would only cost the
  // program time. After the step that makes it false it is to be called once more, with notices.
  bool is_deaf() const { return deaf_; }
  // Lets go of the file.
  void close();

  const database::DatabaseName& name() const { return name_; }
  const std::string& path() const { return path_; }
  TailStatus status() const;

 private:
  enum class Ready { kNo, kYes };
  Result<> advance();
  Result<Ready> open();
  Result<std::unique_ptr<SourceFile>> open_source();
  Result<> note_source();
  Result<> compare();
  Result<ByteView> compared_page(PageNo page);
  Result<bool> is_other_content(database::Snapshot& copy);
  Result<> send_all();
  Result<> send_difference(database::Snapshot& copy);
  Result<> begin_anew(const Position& position, bool other_content);
  Result<> take_changes();
  Result<WalChanges> read_written(const ReadWal& wal, const WalPlace& to);
  Result<> check_continued(const WalPlace& to, const WalChanges& written) const;
  Result<std::unique_ptr<ChangeSet>> read_changes(SourceFile& next);
  Result<> add_growth(ChangeSet& changes, SourceFile& next, PageNo& from, PageNo before);
  Result<> send(ChangeSet& changes);
  bool is_written_over();
  bool is_settled();
  bool is_robbed() const;
  Result<> check_not_robbed() const;
  void note_stamp();
  Result<> check_compared() const;
  Result<> bring_in(SourceFile& source, int mode);
  Result<> look_after_wal();
  Result<> restart_wal();
  Result<> empty_wal();
  Result<> give_way();
  void stand_aside();
  void note_restart(std::uint32_t frames);
  void do_not_stand_aside(SteadyClock::duration cost);
  Result<> open_spare();
  Deadline next_look(bool something_changed, bool took);
  void pace_looks(Deadline now);
  Deadline quiet_from() const;
  void let_go(bool other_file);
  void set_state(TailState state, const std::string& error = {});
  std::string memory_path() const;
  ChangeSet::Options spool() const;

  database::Store& store_;
  const database::DatabaseName name_;
  const std::string path_;
  const FileTailOptions options_;
  std::atomic<bool> interrupted_{false};

  // --- of step()
  std::unique_ptr<SourceFile> held_;   // reads the state that the database has …
  std::unique_ptr<SourceFile> spare_;  // … and reads the next one, for a moment
  std::optional<FileStamp> stamp_;     // of the file when all of the -wal was in it, up to
  WalPlace stamp_place_;
  bool written_over_ = false;          // by something that is not SQLite, and not compared yet
  std::optional<FileStamp> settling_;  // of a file that was written over, since then the same
  Deadline settles_at_{};
  std::optional<FileStamp> compared_at_;  // while pages are compared: nobody may write to the file
  bool same_ = false;                     // the database has what held_ sees, and stands here:
  Position position_;
  PageNo page_count_ = 0;
  FileIdentity open_file_;
  std::string open_path_;               // where that is: path_ may be a link
  FilesBeside open_beside_;             // what SQLite has open beside it
  FileIdentity remembered_;             // the file whose history the database has
  bool made_ = false;                   // the database is there
  bool dropped_ = false;                // somebody dropped it
  std::uint32_t checkpointed_at_ = 0;   // frames, when that was tried
  std::uint32_t restart_tried_at_ = 0;  // the same
  int empty_tries_ = 0;                 // since something changed
  int checkpoints_seen_ = 0;            // in a row, of the program
  Deadline changed_at_{};               // when something was last taken
  bool commit_may_come_ = false;        // something was written that is not visible yet
  int idle_looks_ = 0;                  // since something changed, that found nothing
  int failures_in_a_row_ = 0;
  std::string told_;  // the last failure in the log, until it is over
  Deadline not_before_{};
  std::chrono::microseconds pace_{0};  // between steps, while each finds something
  Deadline took_at_{};
  bool deaf_ = false;
  int busy_looks_ = 0;          // in a row, that found something; below 0: deaf, and nothing
  std::uint32_t advance_ = 0;   // frames that the last look found
  std::uint32_t aside_at_ = 0;  // frames of the -wal, then the program's checkpoint is near
  Deadline aside_from_{};       // not before, after something was missed …
  SteadyClock::duration aside_pause_{};  // … for so long

  mutable std::mutex mutex_;
  TailStatus status_;  // guarded by mutex_
};

}  // namespace offprint::tail
