#include "server/streams.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <deque>
#include <map>
#include <mutex>
#include <set>

#include <fmt/format.h>

#include "replica/transaction_delta.h"
#include "server/access.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/revocations.h"
#include "server/stream_feed.h"

namespace offprint::server {
namespace {

using replica::kHeartbeatMs;

constexpr std::size_t kFillTarget = 256 << 10;
constexpr std::size_t kFeedsMax = 100'000;
constexpr std::size_t kNewNamesMax = 10'000;
constexpr std::size_t kOpeningMax = 100;
constexpr const char* kForbidden = "the token does not allow to follow this any longer";
constexpr int kTickSlackMs = 100;  // a tick may come a little early
constexpr int kNewDatabasesEvery =
    5;  // heartbeats between looks for databases whose number did not change

// All feeds of one connection. Worked on by the loop or by one helper, never both; notify() from
// any thread.
class FeedSet : public std::enable_shared_from_this<FeedSet> {
 public:
  enum class State { kIdle, kMore, kNeedsHelper, kEnded };

  // Of many databases: those that match any of the patterns, later ones too, and those added.
  struct Selection {
    bool multiplexed = false;
    std::vector<std::string> patterns;
    bool snapshots = false;  // what matches begins with one; else where it stands
    bool deltas = false;     // the client understands them
  };
  // An instance that is to join, and what became of it.
  struct InstanceToOpen {
    InstanceHost* host;
    std::string told_as;
    InstanceAddress address;
    FeedRequest request;
  };
  struct OpenedInstance {
    InstanceToOpen asked;
    InstanceHost::Opened opened;
  };
  // `access` may be null: everything.
  FeedSet(Service& service, std::shared_ptr<const Access> access, Selection selection)
      : service_(service),
        access_(std::move(access)),
        selection_(std::move(selection)),
        hears_revocations_(service_.revocations != nullptr && !selection_.patterns.empty() &&
                           (!access_ || access_->allows_everywhere(database::Verb::kSubscribe))) {
    if (!has_patterns()) return;
    new_names_ =
        service_.store.subscribe_names([this](const std::string& name) { note_new(name); });
  }
  ~FeedSet() {  // first: they call notify() and note_new()
    subscriptions_.clear();
    new_names_.reset();
  }

  // kNotFound. Thread: as produce().
  Result<> add(const database::DatabaseName& name, FeedRequest request) {
    return add(name, std::move(request), name.text());
  }
  Result<> add(const database::DatabaseName& name, FeedRequest request,
               const std::string& told_as) {
    auto number = static_cast<std::uint32_t>(selection_.multiplexed ? feeds_.size() + 1 : 0);
    std::size_t index = feeds_.size();
    request.deltas = selection_.deltas;
    OFFPRINT_TRY_ASSIGN(auto subscription,
                        service_.store.subscribe(name, [this, index] { notify(index); }));
    feeds_.push_back(std::make_unique<StreamFeed>(service_.store, service_.payloads, name, number,
                                                  std::move(request), service_.copy_age_ms,
                                                  service_.source_of));
    subscriptions_.push_back(std::move(subscription));
    is_active_.push_back(false);
    if (selection_.multiplexed) names_to_tell_.push_back({told_as, std::nullopt});
    known_.insert(name.text());
    ++live_;
    notify(index);
    return {};
  }

  // An instance of a publication joins as soon as it is open; it is told by that text. Thread: as
  // produce().
  void add_instance(InstanceHost& host, const std::string& told_as, FeedRequest request) {
    auto instance = parse_instance_text(told_as);
    if (!instance)
      return add_ended(told_as, {replica::EndReason::kError, instance.error().message()});
    if (!may_follow(*instance)) return add_ended(told_as, {replica::EndReason::kError, kForbidden});
    to_open_.push_back({&host, told_as, *std::move(instance), std::move(request)});
    open_next();
  }
  // So many at once: they are made, each, or come from a node that asks another.
  void open_next() {
    while (opening_ < kOpeningMax && !to_open_.empty()) {
      InstanceToOpen next = std::move(to_open_.front());
      to_open_.pop_front();
      ++opening_;
      open(std::move(next));
    }
  }
  void open(InstanceToOpen asked) {
    auto join = [weak = weak_from_this(), asked](InstanceHost::Opened opened) {
      if (auto self = weak.lock()) self->note_opened({asked, std::move(opened)});
    };
    if (auto there = asked.host->find_open(asked.address)) return join(*std::move(there));
    asked.host->open(asked.address, asked.told_as.size(), std::move(join));
  }

  // A database that was asked for and is not here, or that is refused. Thread: as produce().
  void add_ended(const std::string& told_as, replica::End end) {
    feeds_.emplace_back();
    subscriptions_.emplace_back();
    is_active_.push_back(false);
    known_.insert(told_as);
    names_to_tell_.push_back({told_as, std::move(end)});
  }
  bool has_patterns() const { return !selection_.patterns.empty(); }

  // `client` follows from now on. An instance of a publication is told who that is.
  void attach(std::shared_ptr<Client> client) {
    address_ = client->peer_address();
    if (!selection_.multiplexed && !feeds_.empty() && feeds_[0]->name().is_instance()) take_seat(0);
    std::lock_guard lock(mutex_);
    client_ = std::move(client);
  }
  void detach() {
    std::lock_guard lock(mutex_);
    client_.reset();
  }

  // Appends what there is to tell.
  State produce(Bytes& to, bool may_block) {
    if (!greeted_) {
      greeted_ = true;
      replica::append_hello(to, {replica::kStreamVersion, "offprint " + service_.options.version});
    }
    tell_names(to);  // before a heartbeat that may end some, and after it: it may find new ones
    beat_if_due(to);
    add_new();
    add_opened();
    tell_names(to);
    take_notified();
    while (!active_.empty() && to.size() < kFillTarget) {
      std::size_t index = active_.front();
      StreamFeed::State state = feeds_[index] ? feeds_[index]->produce(to, kFillTarget, may_block)
                                              : StreamFeed::State::kIdle;
      if (state == StreamFeed::State::kNeedsHelper) return State::kNeedsHelper;
      active_.pop_front();
      is_active_[index] = false;
      note_told(index);
      if (state == StreamFeed::State::kMore) activate(index);
      if (state == StreamFeed::State::kEnded) forget(index);
    }
    if (live_ == 0 && opening_ == 0 && !has_patterns()) return State::kEnded;
    return active_.empty() ? State::kIdle : State::kMore;
  }

  // Other nodes ask for tokens, too. Who may not follow everything is told nothing.
  void tell_revocations(Bytes& to) {
    if (!hears_revocations_) return;
    for (const auto& one : service_.revocations->list_after(revocations_told_)) {
      bool is_token = !one.token_id.empty();
      replica::append_revocation(
          to, {one.token_id, one.database, is_token ? one.until_s : one.not_before_s});
    }
  }

  void say_goodbye(Bytes& to) {
    for (auto& feed : feeds_) {
      if (feed) feed->append_shutdown(to);
    }
  }

  // A helper makes the next frames; wakes the client when they are there.
  void start_helper() {
    helper_running_.store(true, std::memory_order_relaxed);
    service_.store.post_blocking([self = shared_from_this()] {
      self->last_state_ = self->produce(self->made_, true);
      self->helper_running_.store(false, std::memory_order_release);
      self->wake();
    });
  }
  bool helper_is_running() const { return helper_running_.load(std::memory_order_acquire); }
  // What the last helper made, and how that ended; nothing when none ran.
  std::optional<State> take_made(Bytes& to) {
    to = std::exchange(made_, Bytes());  // its memory, too: most connections wait
    return std::exchange(last_state_, std::nullopt);
  }

 private:
  void notify(std::size_t index) {
    {
      std::lock_guard lock(mutex_);
      if (notified_flags_.size() <= index) notified_flags_.resize(index + 1);
      if (notified_flags_[index]) return;
      notified_flags_[index] = true;
      notified_.push_back(index);
    }
    wake();
  }
  void note_new(const std::string& name) {
    {
      std::lock_guard lock(mutex_);
      if (added_.size() >= kNewNamesMax) return;  // found at a heartbeat
      added_.push_back(name);
    }
    wake();
  }
  void wake() {
    std::shared_ptr<Client> client;
    {
      std::lock_guard lock(mutex_);
      client = client_;
    }
    if (client) client->wake();
  }
  void take_notified() {
    std::lock_guard lock(mutex_);
    for (std::size_t index : notified_) {
      notified_flags_[index] = false;
      activate(index);
    }
    notified_.clear();
  }
  void activate(std::size_t index) {
    if (is_active_[index]) return;
    is_active_[index] = true;
    active_.push_back(index);
  }

  void tell_names(Bytes& to) {
    for (const NameToTell& told : names_to_tell_) {
      std::uint32_t number = ++names_told_;
      replica::append_database(to, number, told.name);
      if (told.end) replica::append_end(to, number, *told.end);
    }
    names_to_tell_.clear();
  }

  void beat_if_due(Bytes& to) {
    Deadline now = SteadyClock::now();
    if (now < next_beat_) return;
    next_beat_ = now + std::chrono::milliseconds(kHeartbeatMs - kTickSlackMs);
    tell_revocations(to);  // first: the follower itself may be among those who are refused now
    for (std::size_t i = 0; i < feeds_.size(); ++i) {
      if (!feeds_[i]) continue;
      if (auto why = why_not(i); why.empty()) {
        feeds_[i]->append_heartbeat(to);
        note_told(i);
      } else {
        feeds_[i]->append_refusal(to, why);
        forget(i);
      }
    }
    if (has_patterns()) look_for_new_databases();
    if (live_ == 0) replica::append_alive(to, unix_time_ms());
  }

  bool may_follow(const database::DatabaseName& name) const {
    return !access_ || access_->allows(name, database::Verb::kSubscribe);
  }

  bool may_follow(const InstanceAddress& instance) const {
    return !access_ || access_->allows_instance(instance, database::Verb::kSubscribe);
  }
  // Why a feed goes on no more; empty: it does.
  std::string why_not(std::size_t index) const {
    auto joined = joined_.find(index);
    if (joined == joined_.end()) return may_follow(feeds_[index]->name()) ? "" : kForbidden;
    if (!may_follow(joined->second.address)) return kForbidden;
    return joined->second.lease->goes_on() ? "" : "the instance has stopped";
  }

  void note_opened(OpenedInstance opened) {
    {
      std::lock_guard lock(mutex_);
      opened_.push_back(std::move(opened));
    }
    wake();
  }
  void add_opened() {
    std::vector<OpenedInstance> opened;
    {
      std::lock_guard lock(mutex_);
      opened.swap(opened_);
    }
    for (OpenedInstance& each : opened) {
      --opening_;
      join(each.asked, std::move(each.opened));
    }
    open_next();
  }
  void join(InstanceToOpen& asked, InstanceHost::Opened opened) {
    using replica::EndReason;
    if (auto* refusal = std::get_if<Response>(&opened)) {
      const bool is_gone = refusal->status == 404;
      return add_ended(asked.told_as,
                       {is_gone ? EndReason::kDropped : EndReason::kError, refusal->body});
    }
    const auto& name = std::get<database::DatabaseName>(opened);
    auto lease = asked.host->lease(asked.address, name);
    const std::size_t index = feeds_.size();
    if (!add(name, std::move(asked.request), asked.told_as))
      return add_ended(asked.told_as, {EndReason::kDropped, "it was dropped just now"});
    joined_.emplace(index, Joined{std::move(asked.address), std::move(lease)});
    take_seat(index);
  }
  void take_seat(std::size_t index) {
    seats_[index] = service_.followers.join(feeds_[index]->name().text(),
                                            access_ ? access_->claims().subject : "", address_);
  }
  void note_told(std::size_t index) {
    auto seat = seats_.find(index);
    if (seat != seats_.end() && feeds_[index]) seat->second->told(feeds_[index]->told());
  }

  void look_for_new_databases() {
    std::uint64_t count = service_.store.metrics().databases;
    if (count == database_count_ && ++beats_since_look_ < kNewDatabasesEvery) return;
    database_count_ = count;
    beats_since_look_ = 0;
    for (const auto& info : service_.store.list("", "", kFeedsMax)) add_if_selected(info.name);
  }
  void add_new() {
    std::vector<std::string> added;
    {
      std::lock_guard lock(mutex_);
      added.swap(added_);
    }
    for (const std::string& name : added) add_if_selected(name);
  }
  void add_if_selected(const std::string& text) {
    if (known_.contains(text) || live_ >= kFeedsMax || !is_selected(text)) return;
    auto name = database::DatabaseName::parse(text);
    FeedRequest request;
    request.snapshot = selection_.snapshots;
    if (name && may_follow(*name)) (void)add(*name, request);  // dropped meanwhile: no matter
  }

  bool is_selected(std::string_view name) const {
    return std::ranges::any_of(selection_.patterns, [&](std::string_view pattern) {
      if (!pattern.ends_with('*')) return pattern == name;
      return name.starts_with(pattern.substr(0, pattern.size() - 1));
    });
  }

  void forget(std::size_t index) {
    --live_;
    if (feeds_[index]->is_dropped()) {
      known_.erase(feeds_[index]->name().text());  // a new one of that name gets a new number
      database_count_ = 0;                         // and is looked for at the next heartbeat
    }
    subscriptions_[index].reset();
    joined_.erase(index);
    seats_.erase(index);
    feeds_[index].reset();
  }

  Service& service_;
  const std::shared_ptr<const Access> access_;
  const Selection selection_;
  const bool hears_revocations_;
  bool greeted_ = false;
  std::vector<std::unique_ptr<StreamFeed>> feeds_;  // by number; null: it has ended
  struct NameToTell {
    std::string name;
    std::optional<replica::End> end;  // it is told at once
  };
  std::vector<NameToTell> names_to_tell_;  // in the order of their numbers
  std::uint32_t names_told_ = 0;
  std::set<std::string> known_;
  std::deque<std::size_t> active_;  // have something to tell, each once
  std::vector<bool> is_active_;
  std::size_t live_ = 0;
  struct Joined {
    InstanceAddress address;
    std::unique_ptr<InstanceHost::Lease> lease;
  };
  std::map<std::size_t, Joined> joined_;  // feeds of instances on a stream of many
  std::map<std::size_t, std::unique_ptr<Followers::Seat>> seats_;  // of feeds of instances
  std::string address_;                                            // of the client
  std::size_t opening_ = 0;                                        // instances that are to join …
  std::deque<InstanceToOpen> to_open_;  // … and those that wait until fewer are
  Deadline next_beat_{};
  std::uint64_t database_count_ = 0;
  int beats_since_look_ = 0;
  std::uint64_t revocations_told_ = 0;
  std::atomic<bool> helper_running_{false};
  Bytes made_;  // by the helper, until it has ended
  std::optional<State> last_state_;

  std::mutex mutex_;
  std::shared_ptr<Client> client_;      // guarded by mutex_
  std::vector<std::size_t> notified_;   // guarded by mutex_
  std::vector<bool> notified_flags_;    // guarded by mutex_
  std::vector<std::string> added_;      // guarded by mutex_
  std::vector<OpenedInstance> opened_;  // guarded by mutex_
  std::vector<std::unique_ptr<database::Subscription>> subscriptions_;
  std::unique_ptr<database::Subscription> new_names_;
};

class FollowStream final : public BodyStream {
 public:
  explicit FollowStream(std::shared_ptr<FeedSet> feeds) : feeds_(std::move(feeds)) {}
  ~FollowStream() override { feeds_->detach(); }
  void start(std::shared_ptr<Client> client) override { feeds_->attach(std::move(client)); }
  void stop() override { stopping_ = true; }
  void last_words(std::string& to) override {
    Bytes bytes;
    if (!feeds_->helper_is_running() && !feeds_->take_made(bytes)) feeds_->tell_revocations(bytes);
    to += as_text(bytes);
  }

  State fill(std::string& to) override {
    if (feeds_->helper_is_running()) return State::kWait;
    Bytes bytes;
    std::optional<FeedSet::State> made = feeds_->take_made(bytes);
    if (stopping_) feeds_->say_goodbye(bytes);
    FeedSet::State state = made.value_or(FeedSet::State::kMore);
    if (!made && !stopping_) state = feeds_->produce(bytes, false);
    to += as_text(bytes);
    if (stopping_ || state == FeedSet::State::kEnded) return State::kEnd;
    if (state == FeedSet::State::kNeedsHelper || (made && state == FeedSet::State::kMore)) {
      feeds_->start_helper();
      return State::kWait;
    }
    // After a helper's work the loop looks itself whether that was all.
    return state == FeedSet::State::kMore || made ? State::kMore : State::kWait;
  }

 private:
  std::shared_ptr<FeedSet> feeds_;
  bool stopping_ = false;
};

Result<> check_version(const HttpRequest& request, const Address& address) {
  std::string_view text = request.header(replica::kVersionHeader);
  if (text.empty()) text = address.parameter("version").value_or("1");
  unsigned version = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc() || end != text.data() + text.size() ||
      version < replica::kStreamVersion) {
    return fail(Code::kInvalid, "this server speaks version 1 of the stream");
  }
  return {};
}

// What the client does not name it is not sent; what we do not know is no matter.
bool takes_deltas(const HttpRequest& request, const Address& address) {
  std::string_view list = request.header(replica::kEncodingsHeader);
  if (list.empty()) list = address.parameter("encodings").value_or("");
  return replica::has_encoding(list, replica::kDeltaEncoding);
}

Result<Bookmark> parse_bookmark(std::string_view text) {
  auto bookmark = Bookmark::parse(text);
  if (!bookmark) return fail(Code::kInvalid, "'" + std::string(text) + "' is no bookmark");
  return *bookmark;
}

void respond_with(std::shared_ptr<FeedSet> feeds, Responder responder) {
  Response response;
  response.content_type = replica::kStreamContentType;
  response.headers = "Cache-Control: no-store\r\n";
  response.stream = std::make_unique<FollowStream>(std::move(feeds));
  responder.respond(std::move(response));
}

Result<std::shared_ptr<FeedSet>> open_stream(Service& service, const database::DatabaseName& name,
                                             const HttpRequest& request, const Address& address) {
  OFFPRINT_TRY(check_version(request, address));
  FeedRequest feed;
  if (auto from = address.parameter("from")) {
    OFFPRINT_TRY_ASSIGN(feed.from, parse_bookmark(*from));
  } else {
    feed.snapshot = true;
  }
  FeedSet::Selection selection;
  selection.deltas = takes_deltas(request, address);
  auto feeds = std::make_shared<FeedSet>(service, request.access, std::move(selection));
  OFFPRINT_TRY(feeds->add(name, std::move(feed)));
  return feeds;
}

Result<std::shared_ptr<FeedSet>> open_pages(Service& service, const database::DatabaseName& name,
                                            const HttpRequest& request, const Address& address) {
  OFFPRINT_TRY(check_version(request, address));
  FeedRequest feed;
  auto hashes = replica::parse_page_hashes(as_bytes(request.body));
  // What a client sends is its mistake, not damage of ours.
  if (!hashes) return fail(Code::kInvalid, hashes.error().message());
  feed.hashes = *std::move(hashes);
  auto feeds = std::make_shared<FeedSet>(service, request.access, FeedSet::Selection{});
  OFFPRINT_TRY(feeds->add(name, std::move(feed)));
  return feeds;
}

// NAME or NAME@BOOKMARK
Result<> add_named(FeedSet& feeds, const Access& access, std::string_view text) {
  std::string_view name_text = text.substr(0, text.find('@'));
  OFFPRINT_TRY_ASSIGN(auto name, database::DatabaseName::parse(name_text));
  if (!access.allows(name, database::Verb::kSubscribe)) {
    std::string why =
        "TOKEN_FORBIDS: the token does not allow subscribe on database '" + name.text() + "'";
    if (!feeds.has_patterns()) return fail(Code::kForbidden, std::move(why));
    feeds.add_ended(name.text(), {replica::EndReason::kError, std::move(why)});  // others go on
    return {};
  }
  FeedRequest feed;
  if (name_text.size() < text.size()) {
    OFFPRINT_TRY_ASSIGN(feed.from, parse_bookmark(text.substr(name_text.size() + 1)));
  }
  Result<> added = feeds.add(name, std::move(feed));
  if (!added && added.error().code() == Code::kNotFound) {
    feeds.add_ended(name.text(), {replica::EndReason::kDropped, "there is no such database"});
    return {};
  }
  return added;
}

// ADDRESS or ADDRESS#BOOKMARK, such as orders/pub/shop@v2?tenant=7
Result<> add_instance(FeedSet& feeds, InstanceHost& instances, const std::string& text) {
  FeedRequest feed;
  const std::size_t end = text.find('#');
  if (end != std::string::npos) {
    OFFPRINT_TRY_ASSIGN(feed.from, parse_bookmark(text.substr(end + 1)));
  }
  feed.snapshot = !feed.from;
  feeds.add_instance(instances, text.substr(0, end), std::move(feed));
  return {};
}

Result<std::shared_ptr<FeedSet>> open_node_stream(Service& service, InstanceHost& instances,
                                                  const HttpRequest& request,
                                                  const Address& address) {
  OFFPRINT_TRY(check_version(request, address));
  std::vector<std::pair<std::string, std::string>> parameters = address.parameters;
  if (request.method == Method::kPost && !request.body.empty()) {
    std::string_view text = request.body;
    while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
    OFFPRINT_TRY_ASSIGN(auto more, parse_parameters(text, kFeedsMax));
    parameters.insert(parameters.end(), more.begin(), more.end());
  }
  FeedSet::Selection selection;
  selection.multiplexed = true;
  selection.deltas = takes_deltas(request, address);
  bool some = false;
  for (const auto& [key, value] : parameters) {
    some |= key == "db" || key == "pub";
    selection.snapshots |= key == "snapshots" && value == "1";
    if (key == "match") selection.patterns.push_back(value);
  }
  if (!some && selection.patterns.empty()) selection.patterns = {"*"};
  auto feeds = std::make_shared<FeedSet>(service, request.access, std::move(selection));
  for (const auto& [key, value] : parameters) {
    if (key == "db") OFFPRINT_TRY(add_named(*feeds, access_of(service, request), value));
    if (key == "pub") OFFPRINT_TRY(add_instance(*feeds, instances, value));
  }
  return feeds;
}

void respond_or_refuse(Result<std::shared_ptr<FeedSet>> feeds, Responder responder) {
  if (!feeds) return responder.respond(structured_error(feeds.error()));
  respond_with(*std::move(feeds), std::move(responder));
}

}  // namespace

void handle_stream(Service& service, const database::DatabaseName& name, const HttpRequest& request,
                   const Address& address, Responder responder) {
  respond_or_refuse(open_stream(service, name, request, address), std::move(responder));
}

void handle_pages(Service& service, const database::DatabaseName& name, HttpRequest& request,
                  const Address& address, Responder responder) {
  respond_or_refuse(open_pages(service, name, request, address), std::move(responder));
}

void handle_node_stream(Service& service, InstanceHost& instances, HttpRequest& request,
                        const Address& address, Responder responder) {
  respond_or_refuse(open_node_stream(service, instances, request, address), std::move(responder));
}

}  // namespace offprint::server
