#include "server/instance_relay.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "publication/digest.h"
#include "server/errors.h"
#include "server/forwarding.h"
#include "server/instance_use.h"
#include "server/json_reader.h"

namespace offprint::server {
namespace {

using database::DatabaseName;

// What the copies' names begin with: of no database of this node.
constexpr std::uint64_t kOfNoDatabase = 0;
constexpr std::size_t kDigestSize = 24;
constexpr std::size_t kKnownMax = 100'000;
constexpr std::size_t kSourcesMax = 64;
constexpr std::chrono::seconds kNewestVersionCounts{1};
constexpr int kAskTries = 3;

// "orders/pub/shop@v2/pages?tenant=7"
std::string with_action(const std::string& target, std::string_view action) {
  const std::size_t at = std::min(target.find('?'), target.size());
  return fmt::format("/db/{}/{}{}", target.substr(0, at), action, target.substr(at));
}

// Of the copy: the same as long as the address is.
DatabaseName copy_name(const std::string& address) {
  return DatabaseName::instance(kOfNoDatabase,
                                "relayed-" + publication::digest(address).substr(0, kDigestSize));
}

}  // namespace

// An instance that is kept up.
struct InstanceRelay::Entry {
  explicit Entry(std::string of) : address(std::move(of)), name(copy_name(address)) {}
  const std::string address;
  const DatabaseName name;
  bool is_fresh = false;  // it had all that the primary had, since it is kept up
  std::shared_ptr<InstanceUse> use = std::make_shared<InstanceUse>();
  struct Waiting {
    Deadline until;
    Done done;
  };
  std::vector<Waiting> waiting;
  std::deque<std::pair<TxId, Bookmark>> sources;  // states of the source, by transaction
};

Result<std::unique_ptr<InstanceRelay>> InstanceRelay::create(Service& service,
                                                             replica::NodeFollowerOptions follow,
                                                             const Options& options) {
  auto relay = std::unique_ptr<InstanceRelay>(new InstanceRelay(service, follow.token, options));
  for (const auto& info : service.store.list(DatabaseName::instance_prefix(kOfNoDatabase), "",
                                             std::numeric_limits<std::size_t>::max()))
    relay->unused_.emplace(info.name, SteadyClock::now());
  OFFPRINT_TRY_ASSIGN(relay->follower_,
                      replica::InstanceFollower::create(std::move(follow), service.store, *relay));
  return relay;
}

void InstanceRelay::start() {
  follower_->start();
  plan_sweep();
}

void InstanceRelay::stop() {
  std::vector<Done> waiting;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    for (auto& [key, all] : asking_) std::ranges::move(all, std::back_inserter(waiting));
    asking_.clear();
    for (auto& [name, entry] : entries_)
      std::ranges::move(take_waiting(*entry), std::back_inserter(waiting));
  }
  timers_.stop();
  if (follower_) follower_->stop();
  for (const Done& done : waiting) done(unavailable("the server is stopping"));
}

// --- who asks ----------------------------------------------------------------------------------

std::optional<DatabaseName> InstanceRelay::find_open(const InstanceAddress& instance) {
  std::lock_guard lock(mutex_);
  auto known = known_.find(instance_text(instance));
  if (known == known_.end()) return std::nullopt;
  const bool counts = known->second.is_for_good ||
                      SteadyClock::now() < known->second.asked_at + kNewestVersionCounts;
  if (!counts) return std::nullopt;
  auto entry = entries_.find(copy_name(known->second.address).text());
  if (entry == entries_.end() || !entry->second->is_fresh) return std::nullopt;
  entry->second->use->last = SteadyClock::now();
  return entry->second->name;
}

void InstanceRelay::open(const InstanceAddress& instance, std::size_t size_bytes, Done then) {
  if (!waiting_.enter(size_bytes)) return then(much_waits());
  Done done = [this, size_bytes, then = std::move(then)](Opened opened) {
    waiting_.leave(size_bytes);
    then(std::move(opened));
  };
  const std::string key = instance_text(instance);
  {
    std::unique_lock lock(mutex_);
    if (stopping_) {
      lock.unlock();
      return done(unavailable("the server is stopping"));
    }
    auto known = known_.find(key);
    if (known != known_.end() && known->second.is_for_good) {
      const std::string address = known->second.address;
      lock.unlock();
      return keep(address, std::move(done));
    }
    auto& asking = asking_[key];
    asking.push_back(std::move(done));
    if (asking.size() > 1) return;  // all get one answer
  }
  ask_primary(key, instance.publication.version.has_value(), kAskTries);
}

// Which instance is meant, and whether there is one.
void InstanceRelay::ask_primary(const std::string& key, bool is_for_good, int tries) {
  cluster::ForwardedRequest request;
  request.method = "GET";
  request.target = with_action(key, kInstanceAddress);
  request.headers = {{std::string(kForwardedBy), service_.options.node_name}};
  if (!token_.empty()) request.headers.emplace_back("Authorization", "Bearer " + token_);
  service_.forwarder->send(
      std::move(request), [=, this](Result<cluster::ForwardedAnswer> answered) {
        // A kept connection may be of a primary that is there no more; asking changes nothing.
        const bool is_cut = !answered && answered.error().code() == Code::kUnknown;
        if (is_cut && tries > 1) return ask_primary(key, is_for_good, tries - 1);
        take_address(key, is_for_good, std::move(answered));
      });
}

void InstanceRelay::take_address(const std::string& key, bool is_for_good,
                                 Result<cluster::ForwardedAnswer> answered) {
  std::string address;
  if (answered && answered->status == 200) {
    JsonReader reader;
    auto body = reader.parse_object(answered->body);
    auto text = body ? json_string_field(*body, "address") : fail(body.error());
    if (text && *text) address = **text;
  }
  std::vector<Done> asking;
  {
    std::lock_guard lock(mutex_);
    asking = std::exchange(asking_[key], {});
    asking_.erase(key);
    if (!address.empty()) {
      if (known_.size() >= kKnownMax) known_.clear();
      known_.insert_or_assign(key, Known{address, SteadyClock::now(), is_for_good});
    } else if (auto known = known_.find(key); known != known_.end() && !answered) {
      address = known->second.address;  // as long as nobody says otherwise
    }
  }
  for (Done& done : asking) {
    if (!address.empty()) {
      keep(address, std::move(done));
      continue;
    }
    Response refusal = answered ? answer_of(*answered) : unavailable(answered.error().message());
    // That node is older than this one.
    if (answered && answered->status == 200)
      refusal = unavailable("the primary cannot be followed");
    this->answer(std::move(done), std::move(refusal));
  }
}

// On a helper's thread: what follows on it may take long.
void InstanceRelay::answer(Done done, Opened opened) {
  auto shared = std::make_shared<Opened>(std::move(opened));
  service_.store.post_blocking([done = std::move(done), shared] { done(std::move(*shared)); });
}

void InstanceRelay::keep(const std::string& address, Done done) {
  std::shared_ptr<Entry> entry;
  {
    std::unique_lock lock(mutex_);
    bool is_new = false;
    const std::string name = copy_name(address).text();
    auto found = entries_.find(name);
    if (found != entries_.end()) {
      entry = found->second;
    } else if (!stopping_ && entries_.size() < options_.instances_max) {
      entry = std::make_shared<Entry>(address);
      entries_.emplace(name, entry);
      unused_.erase(name);
      is_new = true;
    }
    if (entry && !entry->is_fresh && !stopping_) {
      const Deadline until =
          SteadyClock::now() + std::chrono::milliseconds(service_.options.request_timeout_ms);
      entry->waiting.push_back({until, std::move(done)});
      timers_.at(until, [this, name, until] { expire(name, until); });
      lock.unlock();
      if (is_new) follower_->follow_anew();
      return;
    }
    if (entry) entry->use->last = SteadyClock::now();
  }
  if (!entry)
    return answer(std::move(done), unavailable("this node relays as many instances as it may"));
  answer(std::move(done), entry->name);
}

std::vector<InstanceRelay::Done> InstanceRelay::take_waiting(Entry& entry) {
  std::vector<Done> waiting;
  for (auto& each : std::exchange(entry.waiting, {})) waiting.push_back(std::move(each.done));
  return waiting;
}

void InstanceRelay::expire(const std::string& name, Deadline at) {
  std::vector<Done> late;
  {
    std::lock_guard lock(mutex_);
    auto entry = entries_.find(name);
    if (entry == entries_.end()) return;
    std::erase_if(entry->second->waiting, [&](auto& each) {
      if (each.until > at) return false;
      late.push_back(std::move(each.done));
      return true;
    });
  }
  for (Done& done : late)
    answer(std::move(done), unavailable("the primary did not send it in time"));
}

std::unique_ptr<InstanceHost::Lease> InstanceRelay::lease(const InstanceAddress&,
                                                          const DatabaseName& name) {
  std::lock_guard lock(mutex_);
  auto entry = entries_.find(name.text());
  return std::make_unique<UseLease>(entry != entries_.end() ? entry->second->use
                                                            : InstanceUse::over());
}

Result<std::string> InstanceRelay::address_of(const InstanceAddress&, const DatabaseName& name) {
  std::lock_guard lock(mutex_);
  auto entry = entries_.find(name.text());
  if (entry == entries_.end()) return fail(Code::kUnavailable, "it was let go just now");
  return entry->second->address;
}

std::size_t InstanceRelay::count() {
  std::lock_guard lock(mutex_);
  return entries_.size();
}

std::optional<Bookmark> InstanceRelay::source_of(const DatabaseName& name) {
  auto position = service_.store.position(name);
  if (!position) return std::nullopt;
  std::lock_guard lock(mutex_);
  auto entry = entries_.find(name.text());
  if (entry == entries_.end()) return std::nullopt;
  std::optional<Bookmark> source;
  for (const auto& [at, state] : entry->second->sources) {
    if (at == position->txid) source = state;
  }
  return source;
}

// --- what is followed --------------------------------------------------------------------------

std::string InstanceRelay::request(database::Store& store, const std::set<std::string>& repairing) {
  std::vector<std::shared_ptr<Entry>> entries;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, entry] : entries_) {
      if (!repairing.contains(name) && !dropping_.contains(name)) entries.push_back(entry);
    }
  }
  std::string body;
  for (const auto& entry : entries) {
    auto position = store.position(entry->name);
    std::string text = entry->address;
    if (position && position->txid.value > 0) text += "#" + position->bookmark().text();
    body += (body.empty() ? "pub=" : "&pub=") + publication::encoded(text);
  }
  return body;
}

Result<DatabaseName> InstanceRelay::name_of(const std::string& told) { return copy_name(told); }

std::string InstanceRelay::path_of(const DatabaseName& name) {
  std::lock_guard lock(mutex_);
  auto entry = entries_.find(name.text());
  return entry == entries_.end() ? "/db/" : with_action(entry->second->address, "pages");
}

void InstanceRelay::is_fresh(const DatabaseName& name) {
  std::vector<Done> waiting;
  {
    std::lock_guard lock(mutex_);
    auto entry = entries_.find(name.text());
    if (entry == entries_.end()) return;
    entry->second->is_fresh = true;
    waiting = take_waiting(*entry->second);
  }
  for (Done& done : waiting) answer(std::move(done), name);
}

void InstanceRelay::has_source(const DatabaseName& name, TxId at, const Bookmark& source) {
  std::lock_guard lock(mutex_);
  auto entry = entries_.find(name.text());
  if (entry == entries_.end()) return;
  auto& sources = entry->second->sources;
  while (!sources.empty() && sources.back().first >= at) sources.pop_back();
  sources.emplace_back(at, source);
  if (sources.size() > kSourcesMax) sources.pop_front();
}

// Whoever asks for it gets what the primary says of it then.
void InstanceRelay::has_ended(const DatabaseName& name, bool is_gone, const std::string& why) {
  std::vector<Done> waiting;
  {
    std::lock_guard lock(mutex_);
    auto found = entries_.find(name.text());
    if (found == entries_.end()) return;
    Entry& entry = *found->second;
    std::erase_if(known_, [&](const auto& each) { return each.second.address == entry.address; });
    entry.use->goes_on = false;
    waiting = take_waiting(entry);
    entries_.erase(found);
    if (!is_gone) unused_.emplace(name.text(), SteadyClock::now());
  }
  for (Done& done : waiting) answer(std::move(done), unavailable(why));
}

// --- what nobody uses --------------------------------------------------------------------------

void InstanceRelay::plan_sweep() {
  timers_.at(SteadyClock::now() + options_.sweep_every, [this] {
    sweep();
    plan_sweep();
  });
}

void InstanceRelay::sweep() {
  const Deadline now = SteadyClock::now();
  bool some = false;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    std::set<std::string> let_go;
    for (auto each = entries_.begin(); each != entries_.end();) {
      Entry& entry = *each->second;
      const bool is_used = !entry.waiting.empty() || entry.use->is_used(now, options_.rest_after);
      if (is_used) {
        ++each;
        continue;
      }
      let_go.insert(entry.address);
      entry.use->goes_on = false;
      unused_.emplace(each->first, now);
      each = entries_.erase(each);
      some = true;
    }
    std::erase_if(known_, [&](const auto& each) { return let_go.contains(each.second.address); });
    for (const auto& [name, since] : unused_) {
      if (since + options_.drop_after <= now) dropping_.insert(name);
    }
    for (const std::string& name : dropping_) unused_.erase(name);
  }
  if (some) follower_->follow_anew();
  drop_unused();
}

// Whoever asks for one meanwhile waits until it is gone, and gets it anew.
void InstanceRelay::drop_unused() {
  std::set<std::string> dropping;
  {
    std::lock_guard lock(mutex_);
    dropping = dropping_;
  }
  if (dropping.empty()) return;
  service_.store.post_blocking([this, dropping] {
    for (const std::string& text : dropping) {
      auto name = DatabaseName::stored(text);
      auto dropped = name ? service_.store.drop(*name) : Result<>();
      if (!dropped && dropped.error().code() != Code::kNotFound)
        log::warn("{}: {}", text, dropped.error().message());
    }
    {
      std::lock_guard lock(mutex_);
      for (const std::string& text : dropping) dropping_.erase(text);
    }
    follower_->follow_anew();
  });
}

}  // namespace offprint::server
