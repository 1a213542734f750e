#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// A text that is written once and then read once, of any size: what is beyond a megabyte waits in a
// file that has no name, so a result takes little memory however slowly its client reads it.
// Thread: one at a time. All spools of a service together are bounded by its spool_bytes_max.
class Spool {
 public:
  explicit Spool(Service& service) : service_(service) {}
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // The end of the text, to be appended to. After each appended piece, take_over() puts it into the
  // file if it has grown; never on an I/O thread, where it may stay in memory. kTooLarge
  // RESPONSE_TOO_LARGE, kFull, kIo.
  std::string& tail() { return tail_; }
  Result<> take_over();
  // Empty again, for another try.
  void clear();

  std::uint64_t size() const { return stored_ + tail_.size(); }
  // Reading waits for the disk.
  bool has_file() const { return file_ >= 0; }
  // Appends up to `size_max` bytes from `offset` on to `to`; 0 at the end.
  Result<std::size_t> read(std::uint64_t offset, std::size_t size_max, std::string& to) const;

 private:
  Result<> open_file();
  void close_file();

  Service& service_;
  std::string tail_;
  int file_ = -1;
  std::uint64_t stored_ = 0;  // bytes in the file
};

// Sends `head` and a spool's text as the body of an answer, read by helpers where it is in a file.
std::unique_ptr<BodyStream> spooled_body(Service& service, std::string head,
                                         std::shared_ptr<Spool> spool);

}  // namespace offprint::server
