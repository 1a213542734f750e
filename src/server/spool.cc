#include "server/spool.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "server/io_loop.h"
#include "server/rows_json.h"

namespace offprint::server {
namespace {

constexpr std::size_t kInMemory = 1 << 20;
constexpr std::size_t kFilesMax = 256;     // of a service: descriptors are for databases
constexpr std::size_t kPiece = 256 << 10;  // sent at once

std::unexpected<Error> too_much_waits() {
  return fail(
      Code::kBusy,
      "RESPONSE_TOO_LARGE: too much of other results waits for its clients; repeat later or "
      "ask for less");
}

// Read by the connection's loop, or by one helper for it, never both.
class SpoolReader : public std::enable_shared_from_this<SpoolReader> {
 public:
  SpoolReader(Service& service, std::string head, std::shared_ptr<Spool> spool)
      : service_(service), spool_(std::move(spool)), head_(std::move(head)) {}

  void attach(std::shared_ptr<Client> client) { client_ = std::move(client); }

  BodyStream::State fill(std::string& to) {
    to += std::exchange(head_, {});
    if (!spool_->has_file()) {
      Result<std::size_t> size = spool_->read(offset_, kPiece, to);
      offset_ += size.value_or(0);
      return offset_ < spool_->size() ? BodyStream::State::kMore : BodyStream::State::kEnd;
    }
    std::unique_lock lock(mutex_);
    if (running_) return BodyStream::State::kWait;
    if (failed_) return BodyStream::State::kFailed;
    to += piece_;
    offset_ += piece_.size();
    piece_.clear();
    if (offset_ == spool_->size()) return BodyStream::State::kEnd;
    running_ = true;
    lock.unlock();
    service_.store.post_blocking([self = shared_from_this()] { self->read_piece(); });
    return BodyStream::State::kWait;
  }

 private:
  void read_piece() {
    Result<std::size_t> size = spool_->read(offset_, kPiece, piece_);
    if (!size) log::error("{}", size.error().message());
    {
      std::lock_guard lock(mutex_);
      running_ = false;
      failed_ = !size || *size == 0;
    }
    client_->wake();
  }

  Service& service_;
  const std::shared_ptr<Spool> spool_;
  std::shared_ptr<Client> client_;
  std::string head_;
  std::uint64_t offset_ = 0;
  std::string piece_;
  std::mutex mutex_;
  bool running_ = false;  // guarded by mutex_, and with it who has the other members
  bool failed_ = false;   // guarded by mutex_
};

class SpooledBody final : public BodyStream {
 public:
  explicit SpooledBody(std::shared_ptr<SpoolReader> reader) : reader_(std::move(reader)) {}
  void start(std::shared_ptr<Client> client) override { reader_->attach(std::move(client)); }
  State fill(std::string& to) override { return reader_->fill(to); }

 private:
  std::shared_ptr<SpoolReader> reader_;
};

}  // namespace

Spool::~Spool() { close_file(); }

void Spool::close_file() {
  if (file_ < 0) return;
  ::close(file_);
  file_ = -1;
  service_.spooled_files.fetch_sub(1, std::memory_order_relaxed);
  service_.spooled_bytes.fetch_sub(stored_, std::memory_order_relaxed);
  stored_ = 0;
}

void Spool::clear() {
  close_file();
  std::string().swap(tail_);  // an assignment would keep the memory
}

Result<> Spool::open_file() {
  if (service_.spooled_files.fetch_add(1, std::memory_order_relaxed) >= kFilesMax) {
    service_.spooled_files.fetch_sub(1, std::memory_order_relaxed);
    return too_much_waits();
  }
  std::string path = service_.options.spool_directory + "/result-XXXXXX";
  file_ = ::mkostemp(path.data(), O_CLOEXEC);
  if (file_ < 0) {
    service_.spooled_files.fetch_sub(1, std::memory_order_relaxed);
    return fail(io_error("create " + path, errno));
  }
  ::unlink(path.c_str());
  return {};
}

Result<> Spool::take_over() {
  if (tail_.size() <= kInMemory) return {};
  const ServiceOptions& options = service_.options;
  if (size() > options.cursor_bytes_max) return result_too_large(options.cursor_bytes_max);
  // What an I/O thread makes in its time slice is not much.
  if (IoLoop::is_io_thread()) {
    if (tail_.size() > options.response_bytes_max)
      return result_too_large(options.response_bytes_max);
    return {};
  }
  if (file_ < 0) {
    if (Result<> opened = open_file(); !opened) return opened;
  }
  std::uint64_t together =
      service_.spooled_bytes.fetch_add(tail_.size(), std::memory_order_relaxed) + tail_.size();
  if (together > options.spool_bytes_max) {
    service_.spooled_bytes.fetch_sub(tail_.size(), std::memory_order_relaxed);
    return too_much_waits();
  }
  std::size_t written = 0;
  while (written < tail_.size()) {
    ssize_t size = ::pwrite(file_, tail_.data() + written, tail_.size() - written,
                            static_cast<off_t>(stored_ + written));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) {
      service_.spooled_bytes.fetch_sub(tail_.size(), std::memory_order_relaxed);
      return fail(io_error("write a result beside the uploads", errno));
    }
    written += static_cast<std::size_t>(size);
  }
  stored_ += tail_.size();
  if (tail_.capacity() > 4 * kInMemory) std::string().swap(tail_);
  tail_.clear();
  return {};
}

Result<std::size_t> Spool::read(std::uint64_t offset, std::size_t size_max, std::string& to) const {
  if (offset >= stored_) {
    std::size_t from = std::min<std::size_t>(offset - stored_, tail_.size());
    std::size_t size = std::min(size_max, tail_.size() - from);
    to.append(tail_, from, size);
    return size;
  }
  std::size_t before = to.size();
  auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(size_max, stored_ - offset));
  to.resize(before + wanted);
  ssize_t size = 0;
  do {
    size = ::pread(file_, to.data() + before, wanted, static_cast<off_t>(offset));
  } while (size < 0 && errno == EINTR);
  int error = errno;
  to.resize(before + static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  if (size <= 0) return fail(io_error("read a result beside the uploads", error));
  return static_cast<std::size_t>(size);
}

std::unique_ptr<BodyStream> spooled_body(Service& service, std::string head,
                                         std::shared_ptr<Spool> spool) {
  return std::make_unique<SpooledBody>(
      std::make_shared<SpoolReader>(service, std::move(head), std::move(spool)));
}

}  // namespace offprint::server
