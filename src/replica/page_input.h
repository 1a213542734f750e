#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/result.h"
#include "ltx/codec.h"
#include "ltx/types.h"

// Page images on their way into a replica: in memory, or in a spool file when there may be many.
namespace offprint::replica {

struct InputPage {
  PageNo number = 0;
  ByteView image;  // valid until the next call
};

// Pages in ascending order, readable several times. Thread: one.
class PageInput {
 public:
  virtual ~PageInput() = default;
  // Back to the first page. To be called before the first next() too.
  virtual Result<> rewind() = 0;
  virtual Result<std::optional<InputPage>> next() = 0;
};

// Pages in memory; a later image of a page replaces the earlier one.
class MemoryPages final : public PageInput {
 public:
  void put(PageNo page, Bytes image);
  void drop_above(PageNo last);
  std::size_t size_bytes() const { return size_bytes_; }
  bool empty() const { return pages_.empty(); }
  // Null: it has none. Valid until the next change.
  const Bytes* find(PageNo page) const {
    auto found = pages_.find(page);
    return found == pages_.end() ? nullptr : &found->second;
  }

  Result<> rewind() override;
  Result<std::optional<InputPage>> next() override;

 private:
  std::map<PageNo, Bytes> pages_;
  std::map<PageNo, Bytes>::const_iterator at_;
  std::size_t size_bytes_ = 0;
};

// A file without a name: it is gone when closed, whatever happens.
class Spool {
 public:
  // `path` is used for a moment only; an existing file there is replaced.
  static Result<Spool> create(FileSystem& files, const std::string& path);
  Result<> append(ByteView bytes);
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> to) {
    return file_->read_at(offset, to);
  }
  std::uint64_t size() const { return size_; }

 private:
  explicit Spool(std::unique_ptr<File> file) : file_(std::move(file)) {}
  std::unique_ptr<File> file_;
  std::uint64_t size_ = 0;
};

// The pages of one LTX file in a spool, verified: open() reads it to its end.
class LtxPages final : public PageInput {
 public:
  static Result<std::unique_ptr<LtxPages>> open(Spool spool);
  const ltx::Header& header() const { return header_; }
  const ltx::Trailer& trailer() const { return trailer_; }

  Result<> rewind() override;
  Result<std::optional<InputPage>> next() override;

 private:
  class Source final : public ltx::ByteSource {
   public:
    explicit Source(Spool& spool) : spool_(spool) {}
    Result<std::size_t> read(std::span<std::uint8_t> to) override;

   private:
    Spool& spool_;
    std::uint64_t offset_ = 0;
  };

  explicit LtxPages(Spool spool) : spool_(std::move(spool)) {}
  Spool spool_;
  std::unique_ptr<Source> source_;
  std::unique_ptr<ltx::Decoder> decoder_;
  ltx::Header header_;
  ltx::Trailer trailer_;
};

// Pages of a snapshot in a spool.
class SpooledPages final : public PageInput {
 public:
  SpooledPages(Spool spool, std::uint32_t page_size)
      : spool_(std::move(spool)), record_(4 + std::size_t{page_size}) {}
  // Ascending. kCorrupt when not.
  Result<> put(PageNo page, ByteView image);
  std::uint32_t count() const { return count_; }

  Result<> rewind() override;
  Result<std::optional<InputPage>> next() override;

 private:
  Spool spool_;
  Bytes record_;  // page number, image
  std::uint64_t offset_ = 0;
  std::uint32_t count_ = 0;
  PageNo last_ = 0;
};

}  // namespace offprint::replica
