#pragma once

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/file_system.h"
#include "database/store.h"

namespace offprint::database {

// A database file that nobody writes, as a state. Thread: one at a time.
class FileSnapshot final : public Snapshot {
 public:
  FileSnapshot(std::unique_ptr<File> file, const Position& position, std::uint32_t page_size,
               std::uint32_t page_count)
      : file_(std::move(file)), position_(position), page_count_(page_count), buffer_(page_size) {}
  Position position() const override { return position_; }
  std::uint32_t page_size() const override { return static_cast<std::uint32_t>(buffer_.size()); }
  std::uint32_t page_count() const override { return page_count_; }
  Result<ByteView> page(PageNo page) override {
    if (page == 0 || page > page_count_)
      return fail(Code::kNotFound, fmt::format("page {} does not exist", page));
    OFFPRINT_TRY_ASSIGN(std::size_t size,
                        file_->read_at(std::uint64_t{page - 1} * buffer_.size(), buffer_));
    if (size != buffer_.size()) return fail(Code::kIo, "a file that is a state became shorter");
    return ByteView(buffer_);
  }

 private:
  std::unique_ptr<File> file_;
  const Position position_;
  const std::uint32_t page_count_;
  Bytes buffer_;
};

}  // namespace offprint::database
