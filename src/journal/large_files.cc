#include "journal/large_files.h"

#include <algorithm>

#include "base/crc32c.h"
#include "base/random.h"

namespace offprint::journal {
namespace {

// Reads a large payload's file, checking its size and, when the last byte was read, its checksum.
class LargeSource final : public ltx::ByteSource {
 public:
  LargeSource(std::unique_ptr<File> file, std::string path, const LargeReference& reference)
      : file_(std::move(file)),
        path_(std::move(path)),
        size_(reference.size),
        expected_crc_(reference.crc) {}

  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    std::size_t wanted = std::min<std::uint64_t>(to.size(), size_ - at_);
    if (wanted == 0) return std::size_t{0};
    OFFPRINT_TRY_ASSIGN(std::size_t got, file_->read_at(at_, to.first(wanted)));
    if (got < wanted) return fail(Code::kCorrupt, path_ + ": shorter than its journal record says");
    crc_ = crc32c(to.first(got), crc_);
    at_ += got;
    if (at_ == size_ && crc_ != expected_crc_) {
      return fail(Code::kCorrupt, path_ + ": does not match the checksum in its journal record");
    }
    return got;
  }

 private:
  std::unique_ptr<File> file_;
  std::string path_;
  std::uint64_t size_;
  std::uint32_t expected_crc_;
  std::uint64_t at_ = 0;
  std::uint32_t crc_ = 0;
};

}  // namespace

class LargeFiles::Writer final : public LargePayload {
 public:
  Writer(std::shared_ptr<LargeFiles> owner, std::unique_ptr<File> file, std::string name)
      : owner_(std::move(owner)), file_(std::move(file)) {
    reference_.name = std::move(name);
  }

  ~Writer() override {
    {
      std::lock_guard lock(owner_->mutex_);
      bool unclaimed = owner_->finished_.erase(reference_.name) > 0;
      if (finished_ && !unclaimed) return;  // a record has it
    }
    file_.reset();
    // What cannot be removed now goes at the next start.
    auto removed = owner_->remove(reference_.name);
    static_cast<void>(removed);
  }

  Result<> write(ByteView bytes) override {
    if (finished_) return fail(Code::kInvalid, "a large payload that is finished takes no more");
    auto written = file_->write_at(reference_.size, bytes);
    if (!written) return report(written.error());
    reference_.crc = crc32c(bytes, reference_.crc);
    reference_.size += bytes.size();
    return {};
  }

  Result<> finish() override {
    if (finished_) return {};
    auto durable = make_durable();
    if (!durable) return report(durable.error());
    finished_ = true;
    std::lock_guard lock(owner_->mutex_);
    file_.reset();
    owner_->finished_[reference_.name] = reference_;
    return {};
  }

  Result<> sync() override {
    std::shared_ptr<File> file;
    {
      std::lock_guard lock(owner_->mutex_);
      file = file_;
    }
    if (!file) return {};  // it is finished
    auto durable = file->sync();
    return durable ? durable : report(durable.error());
  }

  const std::string& file() const override { return reference_.name; }
  std::uint64_t size() const override { return reference_.size; }

 private:
  Result<> make_durable() {
    OFFPRINT_TRY(file_->sync());
    return owner_->files_.sync_directory(owner_->directory_);
  }
  // A full disk hurts only this payload; any other failure says that the disk cannot be trusted.
  std::unexpected<Error> report(const Error& error) {
    if (error.code() != Code::kFull) owner_->failed_(error);
    return fail(error);
  }

  std::shared_ptr<LargeFiles> owner_;
  std::shared_ptr<File> file_;  // reset with the owner's mutex
  LargeReference reference_;
  bool finished_ = false;
};

LargeFiles::LargeFiles(FileSystem& files, std::string directory,
                       std::function<void(const Error&)> failed)
    : files_(files), directory_(std::move(directory)), failed_(std::move(failed)) {}

Result<std::unique_ptr<LargePayload>> LargeFiles::create() {
  std::uint8_t id[16];
  fill_random(id);
  std::string name = to_hex(id);
  OFFPRINT_TRY_ASSIGN(auto file, files_.open(path_of(name), FileSystem::Mode::kCreateNew));
  return std::make_unique<Writer>(shared_from_this(), std::move(file), std::move(name));
}

Result<LargeReference> LargeFiles::claim(const std::string& name, std::uint64_t size) {
  std::lock_guard lock(mutex_);
  auto found = finished_.find(name);
  if (found == finished_.end() || found->second.size != size) {
    return fail(Code::kInvalid, "journal: " + name + " is no finished large payload of that size");
  }
  LargeReference reference = std::move(found->second);
  finished_.erase(found);
  return reference;
}

Result<std::unique_ptr<ltx::ByteSource>> LargeFiles::open_finished(const std::string& name) {
  LargeReference reference;
  {
    std::lock_guard lock(mutex_);
    auto found = finished_.find(name);
    if (found == finished_.end())
      return fail(Code::kInvalid, "journal: " + name + " is no finished large payload");
    reference = found->second;
  }
  return open(reference);
}

void LargeFiles::unclaim(const LargeReference& reference) {
  std::lock_guard lock(mutex_);
  finished_[reference.name] = reference;
}

Result<> LargeFiles::check(const LargeReference& reference) {
  std::string path = path_of(reference.name);
  OFFPRINT_TRY_ASSIGN(bool there, files_.exists(path));
  if (!there) return fail(Code::kCorrupt, path + " is missing, though a journal record names it");
  OFFPRINT_TRY_ASSIGN(auto file, files_.open(path, FileSystem::Mode::kRead));
  OFFPRINT_TRY_ASSIGN(std::uint64_t size, file->size());
  if (size != reference.size)
    return fail(Code::kCorrupt, path + ": not of the size that its journal record says");
  return {};
}

Result<std::unique_ptr<ltx::ByteSource>> LargeFiles::open(const LargeReference& reference) {
  std::string path = path_of(reference.name);
  OFFPRINT_TRY_ASSIGN(auto file, files_.open(path, FileSystem::Mode::kRead));
  return std::make_unique<LargeSource>(std::move(file), std::move(path), reference);
}

Result<> LargeFiles::remove(const std::string& name) { return files_.remove(path_of(name)); }

Result<> LargeFiles::sweep(const std::set<std::string>& named) {
  OFFPRINT_TRY_ASSIGN(auto names, files_.list(directory_));
  for (const std::string& name : names) {
    if (!named.contains(name)) OFFPRINT_TRY(remove(name));
  }
  return {};
}

Result<std::size_t> OwnedSource::read(std::span<std::uint8_t> to) {
  std::size_t size = std::min(to.size(), content_.size() - at_);
  std::copy_n(content_.begin() + static_cast<std::ptrdiff_t>(at_), size, to.begin());
  at_ += size;
  return size;
}

}  // namespace offprint::journal
