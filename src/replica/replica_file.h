#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/file_system.h"
#include "base/result.h"
#include "ltx/types.h"
#include "replica/database_builder.h"
#include "replica/page_input.h"
#include "replica/position_file.h"
#include "replica/stream_format.h"
#include "replica/transaction_batch.h"
#include "sqlite/page_apply.h"

namespace offprint::replica {

// A replica: FILE, an ordinary WAL-mode SQLite file that any number of stock programs read
// meanwhile, and its note FILE-offprint. Invariants:
//  1. A reader of FILE sees exactly one state of the primary, never an older one than before; also
//  after a kill.
//  2. When position() is known, FILE's content and the kept header of page 1 add up to its
//  checksum.
//  3. Readers never meet the same schema cookie with two schemas.
// Thread: one at a time. Files: FILE, FILE-wal and -shm (SQLite's), FILE-offprint, and for a while
// FILE-offprint-new (a file being built) and FILE-offprint-spool (without a name). Errors of all
// methods: kBusy: a program holds FILE (try again); kFull, kIo: nothing was changed. After an error
// from apply, or a snapshot, FILE is as it was.
class ReplicaFile {
 public:
  struct Options {
    FileSystem* files = &FileSystem::real();
    int busy_timeout_ms = 5000;
    std::string source;  // URL that is followed, without secrets, at most kSourceMax bytes; kept in
                         // the note
  };

  // Takes FILE up where it stands, or prepares for making it. kForbidden: FILE exists and was not
  // made by a follower. kBusy: another follower is at work on it, or a program holds it
  // exclusively. kInvalid: note of a newer version.
  static Result<std::unique_ptr<ReplicaFile>> open(const std::string& path, const Options& options);
  // Without close(), the position is exact as after a kill.
  ~ReplicaFile();
  ReplicaFile(const ReplicaFile&) = delete;
  ReplicaFile& operator=(const ReplicaFile&) = delete;

  const std::string& path() const { return path_; }
  // There is no FILE: a whole snapshot is needed.
  bool absent() const { return applier_ == nullptr; }
  // Where FILE stands; nothing: not known (absent, another boot, diverged): pages must be compared
  // or fetched.
  std::optional<Position> position() const;
  std::uint32_t page_size() const { return page_size_; }
  std::uint32_t page_count() const { return point_.page_count; }
  // What the note said when it was opened; empty: there was none.
  const std::string& noted_source() const { return noted_source_; }
  Lineage noted_lineage() const { return noted_lineage_; }
  // Why the position is not known, for people.
  const std::string& doubt() const { return doubt_; }
  // The primary says that FILE is not what it should be: position() is unknown until a snapshot
  // came.
  void distrust(const std::string& why);

  // Applies whole transactions as one. kConflict: FILE is not what they were made upon: position()
  // is unknown then.
  Result<> apply(TransactionBatch& batch);
  // The same for one transaction too large for memory.
  Result<> apply(Epoch epoch, LtxPages& transaction);

  // The image of a page as the primary sent it, into `to`, page_size() bytes; false: FILE has no
  // such page. Not while absent().
  Result<bool> read_page(PageNo page, std::span<std::uint8_t> to);

  // Hash of each page, as the primary would have sent it. Reads the whole file.
  Result<PageHashes> page_hashes();
  // Reads the whole file: whether its content adds up to the position's checksum. False: position()
  // is unknown then.
  Result<bool> verify();

  // A snapshot: begin, its pages in ascending order, finish. `begin.difference` needs page_hashes()
  // just before, and nothing between. When FILE cannot take it in place (absent, other page size or
  // encoding) it is replaced by a new file, and readers must open it again. kCorrupt: not what it
  // said it was; FILE stays. begin drops an unfinished one.
  Result<> begin_snapshot(const SnapshotBegin& begin);
  Result<> put_snapshot_page(PageNo page, ByteView image);
  Result<> finish_snapshot();

  // Moves applied pages from FILE-wal into FILE, when enough of them waited; after vain tries (a
  // reader holds an old snapshot) it waits longer. `idle`: nothing else to do, move what there is.
  // Busy is no error.
  Result<> checkpoint(bool idle);
  // Size of FILE-wal that could not be moved at the last try because of a reader; 0: nothing held
  // it.
  std::uint64_t pinned_bytes() const { return pinned_frames_ * std::uint64_t{page_size_}; }

  // Checkpoints and leaves a note that holds over a restart of the machine.
  Result<> close();

 private:
  // What FILE is to become.
  struct Target {
    Position position;
    std::uint32_t page_count = 0;
    bool resync = false;  // another content, not the next transaction
    bool whole = false;   // the pages given are all
    Checksum start;       // rolling checksum before, when not whole
    // The schema cookie moved in between, though the last one may be the first one again.
    bool cookie_moved = false;
  };
  struct Incoming {
    SnapshotBegin begin;
    std::optional<DatabaseBuilder> build;  // when FILE is absent
    std::optional<SpooledPages> spool;     // otherwise
  };

  ReplicaFile(std::string path, const Options& options);
  Result<> take_up();
  Result<> finish_replacement(const Note& note);
  Result<> open_applier();
  Result<> find_position(const Note& note);
  Result<> forget_clean_mark(Note note);

  Result<> commit(const Target& target, PageInput& input);
  Result<> commit_open(const Target& target, PageInput& input);
  Result<> find_probe(const Target& target, PageInput& input, Note& note);
  Result<> write_pages(const Target& target, PageInput& input, bool differs, const Note& note);
  void restore_header(std::span<std::uint8_t> page_one) const;
  void choose_cookie(const Target& target, Note& note) const;
  Note begin_note(const Target& target) const;

  Result<bool> must_replace(const Target& target, PageInput& input);
  Result<> replace(const SnapshotBegin& begin, PageInput& input);
  Result<> put_in_place(DatabaseBuilder& builder, const SnapshotBegin& begin);
  std::string new_path() const { return path_ + "-offprint-new"; }

  // Constant after construction.
  const std::string path_;
  const Options options_;

  std::unique_ptr<PositionFile> note_;
  std::unique_ptr<sqlite::PageApplier> applier_;
  std::uint32_t page_size_ = 0;
  ReplicaPoint point_;  // of FILE; when not known_, only its cookies and header count
  bool known_ = false;
  bool never_built_ = false;  // the note tells of no content: FILE was not made yet
  std::string doubt_;
  std::string noted_source_;
  Lineage noted_lineage_;
  std::optional<Checksum> scanned_;  // by page_hashes()
  std::optional<Incoming> incoming_;

  // Of the open transaction.
  std::uint32_t old_count_ =
      0;  // pages of content; physical_count_ unless FILE is an empty database
  std::uint32_t physical_count_ = 0;
  Bytes page_one_;  // as it goes into FILE, empty: not written

  std::uint64_t waiting_frames_ = 0;  // applied since the last checkpoint that moved everything
  std::uint64_t checkpoint_at_;
  std::uint64_t pinned_frames_ = 0;
};

}  // namespace offprint::replica
