#pragma once

#include <map>
#include <optional>

#include "database/store.h"
#include "ltx/codec.h"

namespace offprint::archive {

// Consecutive transactions of one database as one: the newest image of each page, in memory.
// Thread: one.
class PageMerge {
 public:
  // Reads a transaction's LTX file, which must follow on those before. After an error it is
  // useless.
  Result<> add(const database::LogEntry& entry, ltx::ByteSource& payload);

  bool empty() const { return !header_; }
  std::size_t bytes() const { return bytes_; }  // of its pages
  // Of the file to be written: no checksums (ltx/codec.h), the last transaction's time, and its
  // checksum as node id.
  const ltx::Header& header() const { return *header_; }
  Result<> write(ltx::ByteSink& to) const;

 private:
  std::optional<ltx::Header> header_;
  std::map<PageNo, Bytes> pages_;
  std::size_t bytes_ = 0;
};

}  // namespace offprint::archive
