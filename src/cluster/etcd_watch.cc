#include "cluster/etcd_watch.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "base/log.h"

namespace offprint::cluster {
namespace {

using std::chrono::milliseconds;

constexpr int kReopenMs = 200;
constexpr std::size_t kLineMax = 16 << 20;
constexpr int kMissedMax = 2;

}  // namespace

EtcdWatch::EtcdWatch(Parts parts, std::string prefix, Lister list, Coordinator::WatchCall call)
    : loop_(parts.loop),
      session_(parts.session),
      options_(parts.options),
      prefix_(std::move(prefix)),
      list_(std::move(list)),
      call_(std::move(call)) {}

void EtcdWatch::start() {
  open();
  poll_often();
}

void EtcdWatch::poll_often() {
  poll();
  loop_.at(SteadyClock::now() + milliseconds(options_.watch_poll_ms), [this] { poll_often(); });
}

void EtcdWatch::open() {
  if (session_.has_ended()) return;
  line_.clear();
  missed_ = 0;
  EtcdSession::Stream stream;
  stream.path = kEtcdWatch;
  stream.body = etcd_watch_request(prefix_);
  stream.on_data = [this](std::string_view bytes) { take(bytes); };
  stream.on_end = [this](const Error& error) {
    log::debug("the watch of {} ended: {}", prefix_, error.message());
    stream_ = 0;
    reopen_later();
  };
  stream_ = session_.stream(std::move(stream));
}

void EtcdWatch::reopen_later() {
  loop_.at(SteadyClock::now() + milliseconds(kReopenMs), [this] {
    if (stream_ == 0) open();
  });
}

// Within libcurl: only posts.
void EtcdWatch::take(std::string_view bytes) {
  line_ += bytes;
  std::size_t end;
  while ((end = line_.find('\n')) != std::string::npos) {
    loop_.post([this, line = line_.substr(0, end)] { take_line(line); });
    line_.erase(0, end + 1);
  }
  if (line_.size() > kLineMax) line_.clear();  // no watch of ours; the polls go on
}

void EtcdWatch::take_line(std::string_view text) {
  if (session_.has_ended()) return;
  auto line = parse_etcd_watch(text);
  if (!line || line->ended) {
    log::debug("the watch of {}: {}", prefix_, line ? *line->ended : line.error().message());
    session_.stop_stream(std::exchange(stream_, 0), true);
    return reopen_later();
  }
  if (line->created) poll();  // what changed while there was no watch
  for (const RegisterHint& hint : line->hints) tell(hint);
}

void EtcdWatch::poll() {
  if (polling_) return;
  polling_ = true;
  list_(prefix_, [this](Result<std::vector<RegisterEntry>> entries) {
    if (session_.has_ended()) return;
    polling_ = false;
    bool found = entries && compare(*entries);
    missed_ = found ? missed_ + 1 : 0;
    if (missed_ >= kMissedMax && stream_ != 0) {
      session_.stop_stream(std::exchange(stream_, 0), true);
      open();
    }
  });
}

bool EtcdWatch::compare(const std::vector<RegisterEntry>& entries) {
  bool found = false;
  std::set<std::string> present;
  for (const RegisterEntry& each : entries) {
    present.insert(each.key);
    found |= tell({each.key, each.value, each.version});
  }
  std::vector<std::string> gone;
  for (const auto& [key, version] : known_) {
    if (!present.contains(key)) gone.push_back(key);
  }
  for (const std::string& key : gone) found |= tell({key, std::nullopt, known_[key]});
  return found;
}

bool EtcdWatch::tell(const RegisterHint& hint) {
  auto it = known_.find(hint.key);
  if (hint.value) {
    if (it != known_.end() && it->second >= hint.version) return false;
    known_[hint.key] = hint.version;
  } else {
    if (it == known_.end() || it->second > hint.version) return false;
    known_.erase(it);
  }
  call_(hint);
  return true;
}

}  // namespace offprint::cluster
