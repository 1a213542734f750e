#include "cluster/fill_source.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "database/hosted_database.h"
#include "database/state.h"

namespace offprint::cluster {
namespace {

constexpr std::size_t kWaitingMax = 16;
constexpr std::size_t kListedAtOnce = 1000;
constexpr std::chrono::milliseconds kLookEvery{200};
constexpr std::chrono::seconds kTakesNothingMax{30};
// So long a filled node has to take the log.
constexpr std::chrono::minutes kKeepLogFor{10};

// Also the states that tags name.
std::vector<std::uint64_t> listed(database::Store& store) {
  std::vector<std::uint64_t> ids;
  for (const std::string& prefix : {std::string(), std::string(1, database::kStateNames)}) {
    std::string after;
    for (bool is_more = true; is_more;) {
      const auto some = store.list(prefix, after, kListedAtOnce);
      for (const database::DatabaseInfo& each : some) ids.push_back(each.id);
      is_more = some.size() == kListedAtOnce;
      if (is_more) after = some.back().name;
    }
  }
  return ids;
}

}  // namespace

FillSource::FillSource(ClusteredStore& cluster, database::Store& store)
    : cluster_(cluster), store_(store), thread_([this] { work(); }) {}

FillSource::~FillSource() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void FillSource::fill(std::shared_ptr<FillSink> sink) {
  {
    std::lock_guard lock(mutex_);
    if (waiting_.size() >= kWaitingMax) return;  // it asks again
    waiting_.push_back(std::move(sink));
  }
  wake_.notify_all();
}

void FillSource::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    wake_.wait_for(lock, std::chrono::seconds(1), [&] { return stopping_ || !waiting_.empty(); });
    std::shared_ptr<FillSink> sink;
    if (!stopping_ && !waiting_.empty()) {
      sink = std::move(waiting_.front());
      waiting_.pop_front();
    }
    lock.unlock();
    let_go(false);
    if (sink) {
      auto done = fill_now(*sink);
      if (done) {
        log::info("node {} has all databases now", sink->node());
      } else {
        log::warn("filling node {}: {}", sink->node(), done.error().message());
        (void)sink->put(FillRefusal{done.error().message()}, kLookEvery);
      }
    }
    lock.lock();
  }
  lock.unlock();
  let_go(true);
}

void FillSource::let_go(bool all) {
  if (kept_.empty()) return;
  const GroupRecord record = cluster_.log().status(0).record;
  std::erase_if(kept_, [&](const Kept& each) {
    const bool has_log =
        std::ranges::find(record.in_sync, each.node, &RecordMember::node) != record.in_sync.end();
    const bool goes = all || has_log || each.until < SteadyClock::now();
    if (goes) cluster_.log().let_go(each.held);
    return goes;
  });
}

Result<> FillSource::put(FillSink& sink, const FillFrame& frame) {
  const Deadline until = SteadyClock::now() + kTakesNothingMax;
  for (;;) {
    switch (sink.put(frame, kLookEvery)) {
      case FillSink::Put::kDone:
        return {};
      case FillSink::Put::kGone:
        return fail(Code::kIo, "it has gone");
      case FillSink::Put::kFull:
        break;
    }
    if (SteadyClock::now() >= until) return fail(Code::kTimeout, "it takes nothing any more");
    std::lock_guard lock(mutex_);
    if (stopping_) return fail(Code::kUnavailable, "this node is shutting down");
  }
}

Result<> FillSource::fill_now(FillSink& sink) {
  OFFPRINT_TRY_ASSIGN(ReplicatedLog::Held held, cluster_.hold());
  kept_.push_back({held, sink.node(), Deadline::max()});
  const std::size_t kept = kept_.size() - 1;
  log::info("node {} is being filled from record {} on", sink.node(), held.lsn.value);
  Result<> done = [&]() -> Result<> {
    OFFPRINT_TRY(put(sink, FillBegin{held.lsn, held.epoch, held.term}));
    std::vector<std::uint64_t> ids = listed(store_);
    std::erase(ids, std::uint64_t{0});
    std::vector<std::uint64_t> sent;
    for (std::uint64_t id : ids) {
      auto snapshot = store_.snapshot(id);
      if (!snapshot && snapshot.error().code() == Code::kNotFound) continue;  // dropped meanwhile
      if (!snapshot)
        return fail(snapshot.error().code(),
                    fmt::format("database {}: {}", id, snapshot.error().message()));
      if ((*snapshot)->page_count() == 0) continue;  // never written
      OFFPRINT_TRY(send_database(sink, **snapshot, id));
      sent.push_back(id);
    }
    // Last: what it lists was there before it, or comes by the log.
    OFFPRINT_TRY_ASSIGN(auto catalog, store_.snapshot(0));
    if (catalog->page_count() != 0) {
      OFFPRINT_TRY(send_database(sink, *catalog, 0));
      sent.push_back(0);
    }
    return put(sink, FillEnd{std::move(sent)});
  }();
  kept_[kept].until = SteadyClock::now() + (done ? kKeepLogFor : std::chrono::minutes(0));
  return done;
}

Result<> FillSource::send_database(FillSink& sink, database::Snapshot& snapshot, std::uint64_t id) {
  database::DatabaseState state;
  state.position = snapshot.position();
  state.page_size = snapshot.page_size();
  state.page_count = snapshot.page_count();
  if (auto info = store_.info(id)) state.timestamp_ms = info->written_at_ms;
  const std::size_t at_once = std::max<std::size_t>(kPeerBodyTarget / state.page_size, 1);
  FillPages pages;
  for (PageNo page = 1; page <= state.page_count; ++page) {
    OFFPRINT_TRY_ASSIGN(ByteView image, snapshot.page(page));
    if (page == 1) {
      std::copy_n(image.begin(), state.header.size(), state.header.begin());
      OFFPRINT_TRY(put(sink, FillDatabase{id, state.encode()}));
    }
    append(pages.images, image);
    if (page % at_once != 0 && page != state.page_count) continue;
    OFFPRINT_TRY(put(sink, pages));
    pages.images.clear();
  }
  return {};
}

}  // namespace offprint::cluster
