#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/file_system.h"
#include "database/replication.h"
#include "ltx/codec.h"
#include "ltx/types.h"

namespace offprint::tail {

// One transaction in the making: pages as they become, ascending, and how the database's checksum
// moves. In memory; in a file without a name when it grows large. Thread: one.
class ChangeSet {
 public:
  struct Options {
    FileSystem* files = &FileSystem::real();
    std::string spool_path;            // used for a moment only; what is there is replaced
    std::size_t memory_max = 4 << 20;  // of its bytes
  };
  // It follows on `before`; of a database that was never written it has all pages.
  ChangeSet(Options options, const Position& before);
  ~ChangeSet();
  ChangeSet(const ChangeSet&) = delete;
  ChangeSet& operator=(const ChangeSet&) = delete;

  Result<> begin(std::uint32_t page_size, std::uint32_t page_count);
  // `old`: its image before; nothing when there was no such page. Equal images are left out.
  Result<> page(PageNo page, std::optional<ByteView> old, ByteView image);
  // A page above the new size.
  void remove(PageNo page, ByteView old);
  // The transaction; nothing when nothing changed.
  Result<std::optional<database::IncomingTransaction>> finish();
  // Where the database stands after it.
  const Position& after() const { return after_; }
  PageNo page_count() const { return page_count_; }

 private:
  class Output;
  const Position before_;
  Position after_;
  std::unique_ptr<Output> output_;
  ltx::Encoder encoder_;
  bool changed_ = false;
  PageNo lock_page_ = 0;
  PageNo page_count_ = 0;
};

}  // namespace offprint::tail
