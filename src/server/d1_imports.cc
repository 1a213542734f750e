#include "server/d1_imports.h"

#include <algorithm>
#include <utility>

namespace offprint::server::d1 {

Import::Status Import::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

bool Import::finished() const {
  std::lock_guard lock(mutex_);
  return status_.state == State::kComplete || status_.state == State::kFailed;
}

void Import::progress(std::uint64_t bytes_done, std::uint64_t bytes_total, std::uint64_t queries) {
  std::lock_guard lock(mutex_);
  status_.bytes_done = bytes_done;
  status_.bytes_total = bytes_total;
  status_.queries = queries;
}

void Import::tell(std::shared_ptr<Client> client) {
  {
    std::lock_guard lock(mutex_);
    bool is_over = status_.state == State::kComplete || status_.state == State::kFailed;
    if (!is_over) return waiting_.push_back(std::move(client));
  }
  client->wake();
}

void Import::begin() {
  std::lock_guard lock(mutex_);
  status_.state = State::kRunning;
}

void Import::finish(Result<ImportResult> result) {
  std::vector<std::shared_ptr<Client>> waiting;
  upload.reset();
  {
    std::lock_guard lock(mutex_);
    waiting.swap(waiting_);
    if (result) {
      status_.state = State::kComplete;
      status_.result = *std::move(result);
    } else {
      status_.state = State::kFailed;
      status_.error = std::move(result).error();
    }
  }
  for (const auto& client : waiting) client->wake();
}

// Running ones stay, whatever their age.
void Imports::forget_old() {
  auto now = SteadyClock::now();
  std::erase_if(imports_, [&](const auto& import) {
    return import->touched_ + kKeptFor < now && import->status().state != Import::State::kRunning;
  });
}

Result<> Imports::add(std::shared_ptr<Import> import) {
  std::lock_guard lock(mutex_);
  forget_old();
  std::erase_if(imports_, [&](const auto& other) {
    return other->database == import->database && other->etag == import->etag &&
           other->status().state == Import::State::kUploaded;
  });
  // Of those that finished only the answer to a late question is lost.
  for (auto at = imports_.begin(); at != imports_.end() && imports_.size() >= kKeptMax;)
    at = (*at)->finished() ? imports_.erase(at) : std::next(at);
  if (imports_.size() >= kKeptMax)
    return fail(Code::kBusy, "too many uploads wait for their import here; try again later");
  imports_.push_back(std::move(import));
  return {};
}

std::shared_ptr<Import> Imports::unfinished(std::uint64_t database, std::string_view etag) {
  std::lock_guard lock(mutex_);
  forget_old();
  for (auto at = imports_.rbegin(); at != imports_.rend(); ++at) {
    if ((*at)->database == database && (*at)->etag == etag && !(*at)->finished()) return *at;
  }
  return nullptr;
}

std::shared_ptr<Import> Imports::begun_at(std::uint64_t database, std::string_view bookmark) {
  std::lock_guard lock(mutex_);
  for (auto at = imports_.rbegin(); at != imports_.rend(); ++at) {
    bool begun = (*at)->status().state != Import::State::kUploaded;
    if (begun && (*at)->database == database && (*at)->at_bookmark == bookmark) return *at;
  }
  return nullptr;
}

Result<bool> Imports::begin(const std::shared_ptr<Import>& import, const std::string& bookmark) {
  std::lock_guard lock(mutex_);
  if (import->status().state != Import::State::kUploaded) return false;
  for (const auto& other : imports_) {
    if (other->database == import->database && other->status().state == Import::State::kRunning) {
      return fail(Code::kBusy, "another import of this database is running");
    }
  }
  import->touched_ = SteadyClock::now();
  import->at_bookmark = bookmark;
  import->begin();
  return true;
}

void Imports::finish(const std::shared_ptr<Import>& import, Result<ImportResult> result) {
  {
    std::lock_guard lock(mutex_);
    import->touched_ = SteadyClock::now();
  }
  import->finish(std::move(result));
}

}  // namespace offprint::server::d1
