#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "archive/object_store.h"
#include "base/clock.h"

namespace offprint::archive {

// Another store, read slowly: so many bytes a second, of all objects together. cancel() ends reads
// through this one alone. The other store must outlive it. Thread: any.
class LimitedStore final : public ObjectStore {
 public:
  LimitedStore(ObjectStore& store, std::uint64_t bytes_per_second)
      : store_(store), bytes_per_second_(bytes_per_second) {}

  const std::string& url() const override { return store_.url(); }
  std::string level_prefix(int level) const override { return store_.level_prefix(level); }
  Result<ObjectInfo> put(const std::string& key, ltx::ByteSource& from,
                         const PutOptions& options) override {
    return store_.put(key, from, options);
  }
  Result<std::unique_ptr<ltx::ByteSource>> get(const std::string& key,
                                               std::uint64_t offset) override;
  Result<ObjectInfo> info(const std::string& key) override { return store_.info(key); }
  Result<std::vector<ObjectInfo>> list(const std::string& prefix) override;
  Result<> remove(const std::vector<std::string>& keys) override { return store_.remove(keys); }
  void cancel() override;

  // Waits until so many bytes may be read. kUnavailable: cancelled.
  Result<> wait_for(std::size_t bytes);

 private:
  ObjectStore& store_;
  const std::uint64_t bytes_per_second_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  Deadline free_at_{};
  bool cancelled_ = false;
};

}  // namespace offprint::archive
