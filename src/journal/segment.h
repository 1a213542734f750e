#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/file_system.h"
#include "journal/format.h"

namespace offprint::journal {

// One segment's open file. Shared by the journal, which drops it when the segment is freed, and by
// whoever is just reading it. `large_files` is guarded by the journal's mutex.
struct SegmentFile {
  std::unique_ptr<File> file;
  std::string path;
  Lsn begin;
  std::uint64_t size = 0;
  std::vector<std::string> large_files;  // named by its records

  Lsn first_record() const { return Lsn{begin.value + kSegmentHeaderBlock}; }
  Lsn end() const { return Lsn{begin.value + size}; }
  bool holds(Lsn lsn) const { return begin <= lsn && lsn < end(); }
};
using SegmentPointer = std::shared_ptr<SegmentFile>;

// Makes segments, ahead of need when it may, and takes them back. A segment it hands out is named,
// headed, full of zeros or of a freed segment's old records (which carry other lsns), and all of
// that is durable: writing into it changes no metadata and cannot fail for lack of space. Thread:
// any. Lifetime: `files` must outlive it.
class SegmentSupply {
 public:
  struct Options {
    std::uint64_t segment_size;
    int spare_segments;
    bool background;
  };
  SegmentSupply(FileSystem& files, std::string directory, JournalId id, Options options);
  ~SegmentSupply();

  // The segment that begins at `begin`: the prepared one, a recycled one, or a new one. kFull: no
  // space, try later.
  Result<SegmentPointer> take(Lsn begin);
  // Lets the background prepare it. Does nothing when that is switched off.
  void want(Lsn begin);
  // Takes a segment found at open that holds nothing and is already named for its place.
  void adopt(SegmentPointer prepared);
  // Frees a segment that the journal has forgotten: kept for reuse, or unlinked when a reader still
  // has it or there are enough. Durable when it returns, so that segments vanish in order. After an
  // error the disk's state is unknown.
  Result<> release(SegmentPointer segment);
  // Of files that hold no record: prepared and spare.
  std::uint64_t idle_bytes() const;

 private:
  Result<SegmentPointer> make(Lsn begin);  // mutex_ held, as for the rest
  Result<SegmentPointer> make_new(Lsn begin);
  Result<SegmentPointer> make_from_spare(Lsn begin);
  Result<> write_zeros(File& file);
  Result<> finish(SegmentFile& segment, Lsn begin, const std::string& temporary);
  int idle_count() const;
  void run();

  FileSystem& files_;
  const std::string directory_;
  const JournalId id_;
  const Options options_;

  mutable std::mutex mutex_;
  // State below is protected by mutex_.
  SegmentPointer prepared_;
  std::deque<SegmentPointer> spares_;
  std::optional<Lsn> newest_taken_;
  std::optional<Error> failure_;  // of the background, for the next who comes
  std::uint64_t spare_number_ = 0;

  mutable std::mutex wanted_mutex_;
  std::condition_variable wanted_changed_;
  std::optional<Lsn> wanted_;  // protected by wanted_mutex_, as is stop_
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

// Files of a SegmentSupply that are no segments yet or any more: to be removed at open.
bool is_temporary_segment(std::string_view name);

}  // namespace offprint::journal
