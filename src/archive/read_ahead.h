#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "archive/object_store.h"

namespace offprint::archive {

// An object that a thread of its own fetches ahead of its reader, at most kPiecesMax pieces, so
// that many objects come at once. Thread: one reads. The store must outlive it.
class ReadAhead final : public ltx::ByteSource {
 public:
  static constexpr std::size_t kPieceBytes = 256 << 10;
  static constexpr std::size_t kPiecesMax = 4;

  // When `cancelled` becomes true, the store is cancelled too. `vanished` is set when the object is
  // not there.
  ReadAhead(ObjectStore& store, std::string key, const std::atomic<bool>* cancelled,
            std::atomic<bool>& vanished);
  ~ReadAhead() override;
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  Result<std::size_t> read(std::span<std::uint8_t> to) override;

 private:
  void fetch();
  // False when nobody wants more.
  bool offer(Bytes piece);
  Result<> wait_for_piece(std::unique_lock<std::mutex>& lock);

  ObjectStore& store_;
  const std::string key_;
  const std::atomic<bool>* const cancelled_;
  std::atomic<bool>& vanished_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<Bytes> pieces_;
  Result<> outcome_;
  bool ended_ = false;    // outcome_ counts when pieces_ is empty
  bool stopped_ = false;  // the reader is gone

  Bytes current_;  // the reader's
  std::size_t taken_ = 0;
  std::thread thread_;  // last: it uses the others
};

}  // namespace offprint::archive
