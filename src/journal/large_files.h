#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "base/file_system.h"
#include "journal/format.h"

namespace offprint::journal {

// The folder `large/` of a journal: payloads that are too large for a record, each in a file of its
// own. A file is written and fsynced first, then claimed by the record that names it; what no
// record claims goes with its LargePayload, or at the next start. Thread: any. Lifetime: shared
// with every LargePayload; `files` outlives both.
class LargeFiles : public std::enable_shared_from_this<LargeFiles> {
 public:
  // `failed` hears of errors after which the disk cannot be trusted.
  LargeFiles(FileSystem& files, std::string directory, std::function<void(const Error&)> failed);

  Result<std::unique_ptr<LargePayload>> create();
  // The finished file `name` of `size` bytes now belongs to a record. kInvalid: there is no such
  // file to be claimed.
  Result<LargeReference> claim(const std::string& name, std::uint64_t size);
  // The record did not come to be after all.
  void unclaim(const LargeReference& reference);
  // kCorrupt when the file is not there or not of that size.
  Result<> check(const LargeReference& reference);
  Result<std::unique_ptr<ltx::ByteSource>> open(const LargeReference& reference);
  // One that no record has claimed. kInvalid: there is none.
  Result<std::unique_ptr<ltx::ByteSource>> open_finished(const std::string& name);
  Result<> remove(const std::string& name);
  // Removes every file that is not in `named`. For open, before anything is created.
  Result<> sweep(const std::set<std::string>& named);

 private:
  class Writer;
  std::string path_of(const std::string& name) const { return directory_ + "/" + name; }

  FileSystem& files_;
  const std::string directory_;
  const std::function<void(const Error&)> failed_;

  std::mutex mutex_;
  // State below is protected by mutex_.
  std::map<std::string, LargeReference> finished_;  // and not yet claimed
};

// A payload that was read already, as a stream.
class OwnedSource final : public ltx::ByteSource {
 public:
  explicit OwnedSource(Bytes content) : content_(std::move(content)) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override;

 private:
  Bytes content_;
  std::size_t at_ = 0;
};

}  // namespace offprint::journal
