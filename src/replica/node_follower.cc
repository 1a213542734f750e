#include "replica/node_follower.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/log.h"
#include "base/random.h"
#include "replica/database_url.h"
#include "replica/instance_follower.h"
#include "replica/node_follower_impl.h"

namespace offprint::replica {

using database::DatabaseName;

namespace {

constexpr int kWaitMs = 200;
constexpr int kAnewWaitMs = 10;
constexpr auto kLongSession = std::chrono::seconds(10);
constexpr std::size_t kErrorBodyMax = 4096;
constexpr std::size_t kListMax = 1'000'000;

// All databases of the other node that match.
class MatchingNames final : public FollowedSet {
 public:
  explicit MatchingNames(std::vector<std::string> match) : match_(std::move(match)) {}
  std::string request(database::Store& store, const std::set<std::string>& repairing) override {
    std::string body = "snapshots=1";
    for (const std::string& pattern : match_) body += "&match=" + pattern;
    for (const auto& info : store.list("", "", kListMax)) {
      if (!DatabaseName::parse(info.name)) continue;  // an instance's, which is followed by itself
      // What is being repaired stays out: it is named so that it does not come as a new one.
      body += "&db=" + info.name;
      if (!repairing.contains(info.name)) body += "@" + info.bookmark.text();
    }
    return body;
  }
  Result<DatabaseName> name_of(const std::string& told) override {
    return DatabaseName::parse(told);
  }
  std::string path_of(const DatabaseName& name) override {
    return fmt::format("/db/{}/pages", name.text());
  }

 private:
  const std::vector<std::string> match_;
};

// A follower, and what it follows.
class MatchingFollower final : public NodeFollower {
 public:
  MatchingFollower(NodeFollowerOptions options, database::Store& store,
                   std::unique_ptr<HttpClient> http)
      : names_(options.match), follower_(std::move(options), store, names_, std::move(http)) {}
  void start() override { follower_.start(); }
  void stop() override { follower_.stop(); }
  std::int64_t age_ms(const DatabaseName& name) const override { return follower_.age_ms(name); }
  Status status() const override { return follower_.status(); }

 private:
  MatchingNames names_;
  NodeFollowerImpl follower_;
};

class InstanceFollowerImpl final : public InstanceFollower {
 public:
  InstanceFollowerImpl(NodeFollowerOptions options, database::Store& store, FollowedSet& followed,
                       std::unique_ptr<HttpClient> http)
      : follower_(std::move(options), store, followed, std::move(http)) {}
  void start() override { follower_.start(); }
  void stop() override { follower_.stop(); }
  void follow_anew() override { follower_.follow_anew(); }
  std::int64_t age_ms(const DatabaseName& name) const override { return follower_.age_ms(name); }

 private:
  NodeFollowerImpl follower_;
};

}  // namespace

NodeFollowerImpl::NodeFollowerImpl(NodeFollowerOptions options, database::Store& store,
                                   FollowedSet& followed, std::unique_ptr<HttpClient> http)
    : options_(std::move(options)),
      store_(store),
      followed_(followed),
      http_(std::move(http)),
      repairs_({.url = options_.url,
                .token = options_.token,
                .ca_file = options_.ca_file,
                .connect_timeout_ms = options_.connect_timeout_ms,
                .answer_timeout_ms = options_.answer_timeout_ms,
                .path = [this](const DatabaseName& name) { return followed_.path_of(name); }},
               options_.retry_max_ms, store, [this] { complete({.of = Completion::Of::kRepair}); }),
      stopped_(store.subscribe_stopped([this](const std::string& name) {
        complete({.of = Completion::Of::kStopped, .name = name});
      })) {}

void NodeFollowerImpl::start() {
  started_ms_ = unix_time_ms();
  thread_ = std::thread([this] { run(); });
  repairs_.start();
}

void NodeFollowerImpl::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
  }
  changed_.notify_all();
  http_->wake();
  if (thread_.joinable()) thread_.join();
  repairs_.stop();
}

// --- sessions ----------------------------------------------------------------------------------

void NodeFollowerImpl::run() {
  while (!stop_.load()) {
    connect_again_ = false;
    anew_at_.reset();
    began_at_ = SteadyClock::now();
    const std::string body = followed_.request(store_, repairs_.names());
    if (body.empty()) {
      wait_for_something();
      continue;
    }
    Result<> ended = session(body);
    http_->stop();
    settle();
    {
      std::unique_lock lock(status_mutex_);
      status_.connected = false;
      status_.databases = 0;
      if (!ended) status_.error = ended.error().message();
    }
    if (!ended && !stop_.load()) pause(ended.error());
  }
}

void NodeFollowerImpl::wait_for_something() {
  (void)take_completions();
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(kWaitMs),
                    [this] { return stop_.load() || !completed_.empty(); });
}

void NodeFollowerImpl::pause(const Error& error) {
  bool was_long = greeted_at_ != Deadline() && SteadyClock::now() - greeted_at_ > kLongSession;
  if (was_long) failures_ = 0;
  greeted_at_ = Deadline();
  auto limit = static_cast<std::uint64_t>(options_.retry_max_ms);
  std::uint64_t full =
      std::min(limit, static_cast<std::uint64_t>(options_.retry_min_ms) << std::min(failures_, 16));
  if (failures_++ == 0) log::warn("following {}: {}; trying again", options_.url, error.message());
  std::uint16_t dice = 0;
  fill_random({reinterpret_cast<std::uint8_t*>(&dice), sizeof dice});
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(full / 2 + full * dice / 65536 / 2),
                    [this] { return stop_.load(); });
}

// One stream, until it ends or fails.
Result<> NodeFollowerImpl::session(const std::string& body) {
  frames_ = FrameReader();
  feeds_.clear();
  feeds_.resize(1);
  touched_.clear();
  refusal_.clear();
  reconnect_at_.reset();
  OFFPRINT_TRY(send_request(body));
  Result<> read = read_answer();
  if (!reconnect_at_) feed_retry_ms_ = 0;
  return read;
}

Result<> NodeFollowerImpl::send_request(const std::string& body) {
  HttpClient::Request request;
  request.url = options_.url + "/v1/stream";
  request.ca_file = options_.ca_file;
  request.connect_timeout_ms = options_.connect_timeout_ms;
  request.headers = {fmt::format("{}: {}", kVersionHeader, kStreamVersion),
                     fmt::format("Accept: {}", kStreamContentType),
                     "Content-Type: application/x-www-form-urlencoded"};
  if (!options_.token.empty()) request.headers.push_back("Authorization: Bearer " + options_.token);
  request.body = Bytes(body.begin(), body.end());
  heard_at_ = SteadyClock::now();
  return http_->start(std::move(request));
}

Result<> NodeFollowerImpl::read_answer() {
  bool greeted = false;
  while (!stop_.load() && !connect_again_ && !is_to_follow_anew()) {
    if (reconnect_at_ && SteadyClock::now() >= *reconnect_at_) break;
    OFFPRINT_TRY(take_completions());
    if (waiting_bytes_ > options_.memory_max) {  // the store must catch up first
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(kWaitMs),
                        [this] { return stop_.load() || !completed_.empty(); });
      heard_at_ = SteadyClock::now();
      continue;
    }
    const int wait_ms = anew_at_ ? std::min(kWaitMs, kAnewWaitMs) : kWaitMs;
    OFFPRINT_TRY_ASSIGN(HttpClient::Event event, http_->wait(wait_ms));
    if (event == HttpClient::Event::kData) {
      heard_at_ = SteadyClock::now();
      OFFPRINT_TRY(take_received());
      greeted = http_->status() == 200;
    } else if (event == HttpClient::Event::kEnd) {
      if (http_->status() != 200) {
        return fail(Code::kUnavailable,
                    fmt::format("{} answers {}: {}", options_.url, http_->status(), refusal_));
      }
      return fail(Code::kUnavailable, "the server closed the stream");
    }
    auto silence =
        std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - heard_at_);
    if (silence.count() > (greeted ? options_.silence_max_ms : options_.answer_timeout_ms))
      return fail(Code::kUnavailable, fmt::format("nothing heard for {} ms", silence.count()));
  }
  return {};
}

// What has begun to come whole comes to its end first: else large copies would never be made where
// new ones are asked for all the time.
bool NodeFollowerImpl::is_to_follow_anew() const {
  if (!anew_at_ || SteadyClock::now() < *anew_at_) return false;
  return std::ranges::none_of(feeds_, [](const Feed& feed) { return feed.writer != nullptr; });
}

Result<> NodeFollowerImpl::take_received() {
  if (http_->status() != 200) {
    if (refusal_.size() < kErrorBodyMax) refusal_ += as_text(http_->received());
    http_->received().clear();
    return {};
  }
  {
    std::unique_lock lock(status_mutex_);
    heard_at_ms_ = unix_time_ms();
  }
  frames_.feed(http_->received());
  http_->received().clear();
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto frame, frames_.next());
    if (!frame) break;
    OFFPRINT_TRY(handle(*frame));
  }
  for (std::uint32_t number : std::exchange(touched_, {})) submit(number);
  return {};
}

// --- what is known -----------------------------------------------------------------------------

void NodeFollowerImpl::note_fresh(const DatabaseName& name, std::int64_t at_ms) {
  {
    std::unique_lock lock(status_mutex_);
    std::int64_t& fresh = fresh_at_ms_[name.text()];
    fresh = std::max(fresh, at_ms);
  }
  followed_.is_fresh(name);
}

std::int64_t NodeFollowerImpl::age_ms(const DatabaseName& name) const {
  std::int64_t at = 0;
  {
    std::shared_lock lock(status_mutex_);
    auto found = fresh_at_ms_.find(name.text());
    if (found != fresh_at_ms_.end()) at = found->second;
  }
  if (at == 0) {
    auto info = store_.info(name);
    at = info && info->written_at_ms > 0 ? info->written_at_ms : started_ms_;
    if (!info) {  // whether there is such a database was known when something was heard
      std::shared_lock lock(status_mutex_);
      at = std::max(at, heard_at_ms_);
    }
  }
  return std::max<std::int64_t>(0, unix_time_ms() - at);
}

NodeFollower::Status NodeFollowerImpl::status() const {
  std::shared_lock lock(status_mutex_);
  Status status = status_;
  status.copies += repairs_.done_count();
  status.heard_ms_ago = unix_time_ms() - (heard_at_ms_ == 0 ? started_ms_ : heard_at_ms_);
  return status;
}

Result<std::unique_ptr<NodeFollower>> NodeFollower::create(NodeFollowerOptions options,
                                                           database::Store& store) {
  OFFPRINT_TRY_ASSIGN(options.url, normalize_url(options.url));
  OFFPRINT_TRY_ASSIGN(std::unique_ptr<HttpClient> http, HttpClient::create());
  return std::make_unique<MatchingFollower>(std::move(options), store, std::move(http));
}

Result<std::unique_ptr<InstanceFollower>> InstanceFollower::create(NodeFollowerOptions options,
                                                                   database::Store& store,
                                                                   FollowedSet& followed) {
  OFFPRINT_TRY_ASSIGN(options.url, normalize_url(options.url));
  OFFPRINT_TRY_ASSIGN(std::unique_ptr<HttpClient> http, HttpClient::create());
  return std::make_unique<InstanceFollowerImpl>(std::move(options), store, followed,
                                                std::move(http));
}

}  // namespace offprint::replica
