#include "server/cluster_instances.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cluster/cluster_control.h"
#include "cluster/forwarder.h"
#include "publication/publications.h"
#include "server/errors.h"
#include "server/forwarding.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/signed_target.h"

namespace offprint::server {
namespace {

using database::DatabaseName;
using std::chrono::milliseconds;

constexpr std::string_view kInquiry = "/v1/cluster/instance";
constexpr std::int64_t kInquiryLifetimeMs = 3'600'000;  // clocks of nodes differ
constexpr std::size_t kKnownMax = 100'000;
constexpr std::size_t kAskedAtOnce = 64;
constexpr std::chrono::seconds kNewestVersionCounts{1};
constexpr milliseconds kLookEvery{100};   // at who is primary
constexpr milliseconds kTryEvery{20};     // while nobody is
constexpr milliseconds kArrivesAfter{2};  // what the primary has, at the soonest …
constexpr milliseconds kArrivesLookMax{50};
constexpr std::chrono::seconds kAskAfterFailure{1};
constexpr std::chrono::minutes kAskEveryMax{1};
constexpr int kClientErrors = 400, kServerErrors = 500;

StreamKey key_of(const Service& service) {
  return service.streams.derived_key("instances of a cluster");
}

bool is_definite(const Response& refusal) {
  return refusal.status >= kClientErrors && refusal.status < kServerErrors;
}

}  // namespace

class ClusterInstances::InstanceLease final : public UseLease {
 public:
  using Term = std::shared_ptr<const std::atomic<std::uint64_t>>;
  // `of_primary`: where this node keeps it up, for as long as it does.
  InstanceLease(std::shared_ptr<InstanceUse> use, std::unique_ptr<Lease> of_primary, Term term)
      : UseLease(std::move(use)),
        of_primary_(std::move(of_primary)),
        term_(std::move(term)),
        began_in_(*term_) {}
  bool goes_on() const override {
    if (!UseLease::goes_on()) return false;
    return !of_primary_ || *term_ != began_in_ || of_primary_->goes_on();
  }

 private:
  const std::unique_ptr<Lease> of_primary_;
  const Term term_;
  const std::uint64_t began_in_;
};

ClusterInstances::ClusterInstances(Service& service, milliseconds rest_after)
    : service_(service),
      rest_after_(rest_after),
      term_(std::make_shared<std::atomic<std::uint64_t>>(0)) {
  plan_look();
}

// What waits for the primary is answered by the forwarder, what waits for its turn by the
// publications.
void ClusterInstances::stop() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
  }
  timers_.stop();
}

bool ClusterInstances::is_stopping() {
  std::lock_guard lock(mutex_);
  return stopping_;
}

// --- who asks ----------------------------------------------------------------------------------

std::optional<DatabaseName> ClusterInstances::find_open(const InstanceAddress& instance) {
  std::optional<DatabaseName> found;
  if (!service_.has_copies()) {
    found = service_.publications->find_open(instance.source, instance.publication,
                                             instance.parameters);
    if (!found) return std::nullopt;
  }
  std::lock_guard lock(mutex_);
  if (!found) {
    auto known = known_.find(instance_text(instance));
    if (known == known_.end()) return std::nullopt;
    const bool counts = known->second.is_for_good ||
                        SteadyClock::now() < known->second.asked_at + kNewestVersionCounts;
    auto name = DatabaseName::stored(known->second.name);
    if (!counts || !name || !service_.store.position(*name)) return std::nullopt;
    found = *std::move(name);
  }
  auto entry = entries_.find(found->text());
  if (entry == entries_.end()) return std::nullopt;
  entry->second.use->last = SteadyClock::now();
  return found;
}

void ClusterInstances::open(const InstanceAddress& instance, std::size_t size_bytes,
                            std::function<void(Opened)> done) {
  if (!waiting_.enter(size_bytes)) return done(much_waits());
  auto answered = [this, size_bytes, done = std::move(done)](Opened opened) {
    waiting_.leave(size_bytes);
    done(std::move(opened));
  };
  auto opening = std::make_shared<Opening>(Opening{instance, instance_text(instance), size_bytes,
                                                   service_.deadline(), std::move(answered)});
  attempt(std::move(opening));
}

void ClusterInstances::attempt(OpeningPtr opening) {
  if (is_stopping()) return opening->done(unavailable("the server is stopping"));
  if (service_.has_copies()) return ask_primary(std::move(opening));
  open_here(std::move(opening));
}

// Who becomes primary needs a moment before it keeps instances.
void ClusterInstances::later(OpeningPtr opening) {
  if (is_stopping() || SteadyClock::now() >= opening->until)
    return refuse(std::move(opening), unavailable("no node keeps it at the moment; try again"));
  timers_.at(SteadyClock::now() + kTryEvery, [this, opening] {
    service_.store.post_blocking([this, opening] { attempt(opening); });
  });
}

void ClusterInstances::open_here(OpeningPtr opening) {
  auto work = [this, opening] {
    const InstanceAddress& instance = opening->instance;
    publication::Publications& publications = *service_.publications;
    auto name = publications.open(instance.source, instance.publication, instance.parameters);
    auto address =
        publications.address_of(instance.source, instance.publication, instance.parameters);
    const bool is_too_soon = !name && name.error().code() == Code::kNotPrimary;
    if (is_too_soon) return later(opening);
    if (!name || !address)
      return opening->done(structured_error(name ? address.error() : name.error()));
    finish(*opening, *name, *address);
  };
  auto posted = service_.publications->post(opening->instance.source, opening->size_bytes, work);
  if (!posted) opening->done(structured_error(posted.error()));
}

void ClusterInstances::ask_primary(OpeningPtr opening) {
  cluster::ForwardedRequest request;
  request.method = "GET";
  request.target = sign_target(key_of(service_),
                               std::string(kInquiry) + "?of=" + publication::encoded(opening->text),
                               unix_time_ms() + kInquiryLifetimeMs);
  request.headers = {{std::string(kForwardedBy), service_.options.node_name}};
  service_.forwarder->send(std::move(request), [=, this](Result<cluster::ForwardedAnswer> answer) {
    // A kept connection may be of a primary that is there no more; asking changes nothing.
    const bool is_cut = !answer && answer.error().code() == Code::kUnknown;
    if (is_cut) return later(opening);
    if (!answer) return refuse(opening, structured_error(answer.error()));
    if (answer->status != 200) return refuse(opening, answer_of(*std::move(answer)));
    auto told = [&]() -> Result<Told> {
      JsonReader reader;
      OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(answer->body));
      OFFPRINT_TRY_ASSIGN(auto address, json_string_field(body, "address"));
      OFFPRINT_TRY_ASSIGN(auto name_text, json_string_field(body, "database"));
      OFFPRINT_TRY_ASSIGN(auto at_text, json_string_field(body, "bookmark"));
      OFFPRINT_TRY_ASSIGN(auto name, DatabaseName::stored(name_text.value_or("")));
      auto at = Bookmark::parse(at_text.value_or(""));
      if (!at) return fail(Code::kCorrupt, "the primary's answer names no state");
      return Told{std::string(address.value_or("")), std::move(name), *at};
    }();
    if (!told) return refuse(opening, unavailable(told.error().message()));
    arrive(opening, *std::move(told), kArrivesAfter);
  });
}

// What the primary has made comes here as all that is committed does.
void ClusterInstances::arrive(OpeningPtr opening, Told told, milliseconds look_again) {
  auto position = service_.store.position(told.name);
  if (position && position->lineage == told.at.lineage && position->txid >= told.at.txid) {
    return service_.store.post_blocking(
        [this, opening, told = std::move(told)] { finish(*opening, told.name, told.address); });
  }
  if (is_stopping() || SteadyClock::now() >= opening->until)
    return refuse(std::move(opening), unavailable("it did not come here in time; try again"));
  timers_.at(SteadyClock::now() + look_again,
             [=, this] { arrive(opening, told, std::min(look_again * 2, kArrivesLookMax)); });
}

void ClusterInstances::finish(const Opening& opening, const DatabaseName& name,
                              const std::string& address) {
  const Deadline now = SteadyClock::now();
  {
    std::lock_guard lock(mutex_);
    Entry& entry = entries_[name.text()];
    if (!entry.use || !entry.use->goes_on) entry.use = std::make_shared<InstanceUse>();
    entry.use->last = now;
    entry.address = address;
    entry.ask_at = now + std::min<milliseconds>(rest_after_ / 3, kAskEveryMax);
    if (known_.size() >= kKnownMax) known_.clear();
    known_.insert_or_assign(
        opening.text, Known{name.text(), now, opening.instance.publication.version.has_value()});
  }
  opening.done(name);
}

// On a helper's thread: what follows on it may take long.
void ClusterInstances::refuse(OpeningPtr opening, Response refusal) {
  auto shared = std::make_shared<Response>(std::move(refusal));
  service_.store.post_blocking(
      [opening = std::move(opening), shared] { opening->done(std::move(*shared)); });
}

std::unique_ptr<InstanceHost::Lease> ClusterInstances::lease(const InstanceAddress& instance,
                                                             const DatabaseName& name) {
  std::shared_ptr<InstanceUse> use;
  {
    std::lock_guard lock(mutex_);
    auto entry = entries_.find(name.text());
    use = entry != entries_.end() ? entry->second.use : InstanceUse::over();
  }
  std::unique_ptr<Lease> of_primary;
  if (!service_.has_copies()) of_primary = service_.publications->lease(instance.source, name);
  return std::make_unique<InstanceLease>(std::move(use), std::move(of_primary), term_);
}

Result<std::string> ClusterInstances::address_of(const InstanceAddress&, const DatabaseName& name) {
  std::lock_guard lock(mutex_);
  auto entry = entries_.find(name.text());
  if (entry == entries_.end()) return fail(Code::kUnavailable, "it was let go just now");
  return entry->second.address;
}

// --- what is used is kept up -------------------------------------------------------------------

void ClusterInstances::plan_look() {
  timers_.at(SteadyClock::now() + kLookEvery, [this] {
    look();
    plan_look();
  });
}

void ClusterInstances::look() {
  const Deadline now = SteadyClock::now();
  const std::uint64_t epoch = service_.cluster->status().epoch.value;
  const bool is_follower = service_.has_copies();
  std::vector<std::pair<std::string, std::string>> due;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    const bool was_follower = std::exchange(seen_as_follower_, is_follower);
    const bool has_changed =
        std::exchange(seen_epoch_, epoch) != epoch || was_follower != is_follower;
    if (has_changed) ++*term_;
    for (auto each = entries_.begin(); each != entries_.end();) {
      Entry& entry = each->second;
      if (has_changed) entry.ask_at = now;
      if (!entry.use->is_used(now, rest_after_) && !entry.is_asked_for) {
        entry.use->goes_on = false;
        std::erase_if(known_, [&](const auto& known) { return known.second.name == each->first; });
        each = entries_.erase(each);
        continue;
      }
      if (entry.ask_at <= now && !entry.is_asked_for && due.size() < kAskedAtOnce) {
        entry.is_asked_for = true;
        due.emplace_back(each->first, entry.address);
      }
      ++each;
    }
  }
  for (const auto& [name, address] : due) ask_again(name, address);
}

void ClusterInstances::ask_again(const std::string& name, const std::string& address) {
  auto answered = [this, name](const Opened& opened) { note_answer(name, opened); };
  auto instance = parse_instance_text(address);
  if (!instance) return answered(structured_error(instance.error()));
  open(*instance, 0, std::move(answered));
}

void ClusterInstances::note_answer(const std::string& name, const Opened& opened) {
  std::lock_guard lock(mutex_);
  auto entry = entries_.find(name);
  if (entry == entries_.end()) return;
  entry->second.is_asked_for = false;
  const auto* refusal = std::get_if<Response>(&opened);
  const bool is_over =
      refusal != nullptr ? is_definite(*refusal) : std::get<DatabaseName>(opened).text() != name;
  if (is_over) return forget(name);
  if (refusal != nullptr) entry->second.ask_at = SteadyClock::now() + kAskAfterFailure;
}

// With mutex_. What streams from it ends; who connects again is told why.
void ClusterInstances::forget(const std::string& name) {
  auto entry = entries_.find(name);
  entry->second.use->goes_on = false;
  std::erase_if(known_, [&](const auto& known) { return known.second.name == name; });
  entries_.erase(entry);
}

void handle_cluster_instance(Service& service, InstanceHost& host, const Address& address,
                             HttpRequest& request, Responder responder) {
  if (service.cluster == nullptr ||
      !is_signed_target(key_of(service), request.target, unix_time_ms()))
    return responder.respond(structured_error(
        Error(Code::kForbidden, "SIGNATURE_REFUSED: this address is for nodes of the cluster")));
  if (service.has_copies())
    return responder.respond(structured_error(not_primary("the primary keeps instances")));
  auto instance = parse_instance_text(std::string(address.parameter("of").value_or("")));
  if (!instance) return responder.respond(structured_error(instance.error()));
  auto later = std::make_shared<Responder>(std::move(responder));
  host.open(*instance, 0,
            [&service, &host, instance = *instance, later](InstanceHost::Opened opened) {
              if (auto* refusal = std::get_if<Response>(&opened))
                return later->respond(std::move(*refusal));
              const DatabaseName& name = std::get<DatabaseName>(opened);
              auto of = host.address_of(instance, name);
              auto position = service.store.position(name);
              if (!of || !position)
                return later->respond(structured_error(of ? position.error() : of.error()));
              Response response;
              response.body = "{\"address\":";
              append_json_string(response.body, *of);
              response.body += ",\"database\":";
              append_json_string(response.body, name.text());
              response.body += ",\"bookmark\":";
              append_json_string(response.body, position->bookmark().text());
              response.body += "}\n";
              later->respond(std::move(response));
            });
}

}  // namespace offprint::server
