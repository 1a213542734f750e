#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace offprint::sqlite {

// A database that is no file: SQLite reads its pages from a function. It never changes, unless it
// is told so. Connections are opened with vfs() and path(), and end before this does. Thread: one
// at a time, with its connections.
class PageDatabase {
 public:
  struct Content {
    std::uint32_t page_size = 0;
    std::uint32_t page_count = 0;
    // The image of a page, from 1; valid until the next call.
    std::function<Result<ByteView>(std::uint32_t page)> read;
    bool changes = false;  // changed() may be called
  };
  struct State;  // private
  explicit PageDatabase(Content content);
  ~PageDatabase();
  PageDatabase(const PageDatabase&) = delete;
  PageDatabase& operator=(const PageDatabase&) = delete;

  // It is another state from now on: connections, which must not be in a transaction, have nothing
  // of its pages in their caches any more, so that each page they need is asked of `read` again.
  void changed(std::uint32_t page_count);

  const char* vfs() const;
  const char* path() const { return "pages"; }

 private:
  struct Vfs;
  std::unique_ptr<Vfs> vfs_;
};

}  // namespace offprint::sqlite
