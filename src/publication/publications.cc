#include "publication/publications.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "publication/arguments.h"

namespace offprint::publication {
namespace {

using database::DatabaseName;
using database::StoredPublication;

constexpr std::chrono::microseconds kApart{1'000};
constexpr std::chrono::seconds kLeadsWithin{2};  // who writes the databases
constexpr int kNice = 5;
constexpr std::uint64_t kCatalog = 0;  // the database that no source has the id of
// Of one source.
constexpr std::size_t kWaitingMax = 1'000, kWaitingBytesMax = 16 << 20;

// Of the calling thread, for good: where the processor is scarce, writers and readers go first.
void go_last() {
  thread_local bool is_last = false;
  if (std::exchange(is_last, true)) return;
  const auto self = static_cast<id_t>(::gettid());
  (void)::setpriority(PRIO_PROCESS, self, ::getpriority(PRIO_PROCESS, self) + kNice);
}

// What is refused with other sources' schemas is looked at part by part.
std::vector<StoredPublication> of_one_source(std::vector<StoredPublication> publications) {
  std::erase_if(publications, [](const StoredPublication& each) {
    auto definition = parse_definition(each.definition);
    return definition && !definition->sources.empty();
  });
  return publications;
}

Result<PublicationInfo> info_of(StoredPublication stored) {
  PublicationInfo info;
  OFFPRINT_TRY_ASSIGN(info.definition, parse_definition(stored.definition));
  info.stored = std::move(stored);
  return info;
}

}  // namespace

Result<PublicationName> PublicationName::parse(std::string_view text) {
  PublicationName name;
  const std::size_t at = text.find('@');
  name.name = text.substr(0, at);
  if (at != std::string_view::npos) {
    std::string_view version = text.substr(at + 1);
    std::uint32_t number = 0;
    const char* end = version.data() + version.size();
    if (version.starts_with('v') && version.size() > 1) {
      auto [last, error] = std::from_chars(version.data() + 1, end, number);
      if (error == std::errc() && last == end) name.version = number;
    }
    if (!name.version || *name.version == 0) {
      return fail(Code::kInvalid,
                  fmt::format("'{}' is no version of a publication: write {}@v1", text, name.name));
    }
  }
  return name;
}

std::string PublicationInfo::address() const {
  return fmt::format("{}@v{}", stored.name, stored.version);
}

Publications::Publications(database::Store& store, const Options& options)
    : store_(store), options_(options), pool_(options.threads), requests_(options.request_threads) {
  guard_->forget();
  store_.set_schema_guard(guard_);
  if (options_.leads) lead();
  commits_ =
      store_.subscribe_commits([this](const std::string& name, journal::Lsn) { note(name); });
  plan_sweep();
}

void Publications::lead() {
  remove_orphans();
  load_guard();
  {
    std::lock_guard lock(mutex_);
    leads_ = true;
  }
  begins_to_lead_.notify_all();
}

void Publications::follow() {
  std::map<std::string, Source> sources;  // ends without the lock
  std::lock_guard lock(mutex_);
  if (!std::exchange(leads_, false)) return;
  guard_->forget();
  for (const auto& [name, source] : sources_) {
    if (source.materialiser) source.materialiser->cancel();
  }
  sources.swap(sources_);
  unused_.clear();
}

void Publications::load_guard() {
  std::map<std::uint64_t, std::vector<StoredPublication>> by_source;
  std::map<std::uint64_t, std::vector<database::StoredConsumer>> consumers;
  if (auto all = store_.all_publications()) {
    for (auto& [id, publication] : *all) by_source[id].push_back(std::move(publication));
  }
  if (auto all = store_.all_consumers()) {
    for (auto& [id, consumer] : *all) consumers[id].push_back(std::move(consumer));
  }
  for (auto& [id, publications] : by_source) {
    auto info = store_.info(id);
    auto name = info ? DatabaseName::parse(info->name) : Result<DatabaseName>(fail(info.error()));
    auto parts = name ? parts_of(*name, publications, consumers[id])
                      : Result<std::vector<GuardedPart>>(fail(name.error()));
    if (!parts) log::warn("publications: {}", parts.error().message());
    guard_->set(id, of_one_source(std::move(publications)), std::move(consumers[id]),
                parts ? *std::move(parts) : std::vector<GuardedPart>());
  }
  guard_->knows();
}

void Publications::stop() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;  // the store may be gone
  }
  begins_to_lead_.notify_all();
  commits_ = nullptr;
  store_.set_schema_guard(nullptr);
  timers_.stop();
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, source] : sources_) {
      if (source.materialiser) source.materialiser->cancel();
    }
  }
  requests_.drain();
  pool_.drain();
  std::lock_guard lock(mutex_);
  sources_.clear();
}

void Publications::plan_sweep() {
  timers_.at(SteadyClock::now() + options_.sweep_every, [this] {
    pool_.post(kCatalog, [this] {
      {
        std::lock_guard lock(mutex_);
        if (stopping_) return;
        if (!leads_) return plan_sweep();
        std::erase_if(sources_, [&](const auto& source) {
          return !source.second.busy && !store_.info(source.second.id);
        });
      }
      remove_orphans();
      let_go_of_unused();
      drop_unused();
      plan_mending();
      plan_sweep();
    });
  });
}

// Of databases that were dropped.
void Publications::remove_orphans() {
  std::string after;
  // Those of one source stand together; to look for it takes a look at all databases.
  std::optional<std::uint64_t> last;
  bool is_there = false;
  for (;;) {
    auto instances = store_.list("@", after, 1'000, "");
    for (const database::DatabaseInfo& info : instances) {
      after = info.name;
      std::uint64_t source = 0;
      std::from_chars(info.name.data() + 1, info.name.data() + info.name.size(), source, 16);
      if (source != last) is_there = store_.info(source).has_value();
      last = source;
      if (is_there) continue;
      auto name = DatabaseName::stored(info.name);
      if (auto dropped = name ? store_.drop(*name) : Result<>(); !dropped)
        log::warn("{}: {}", info.name, dropped.error().message());
    }
    if (instances.size() < 1'000) return;
  }
}

void Publications::note(const std::string& name) {
  std::lock_guard lock(mutex_);
  auto source = sources_.find(name);
  if (source == sources_.end() || stopping_) return;
  source->second.again = true;
  if (std::exchange(source->second.busy, true)) return;
  post_work(name, source->second);
}

// The first commit after a pause is worked on at once; of a source that commits without one several
// are taken together, for each step writes to the disk that its writers wait for. With mutex_.
void Publications::post_work(const std::string& name, const Source& source) {
  auto post = [this, name, id = source.id] { pool_.post(id, [this, name] { work(name); }); };
  if (SteadyClock::now() >= source.next_at) return post();
  timers_.at(source.next_at, std::move(post));
}

// One step; the next comes behind other sources' work.
void Publications::work(const std::string& name) {
  go_last();
  std::shared_ptr<Materialiser> materialiser;
  {
    std::lock_guard lock(mutex_);
    auto source = sources_.find(name);
    if (source == sources_.end()) return;
    if (stopping_) {
      source->second.busy = false;
      return;
    }
    source->second.again = false;
    source->second.next_at = SteadyClock::now() + kApart;
    materialiser = source->second.materialiser;
  }
  auto done = materialiser->advance();
  if (!done && done.error().code() == Code::kNotFound) {  // it was dropped
    {
      std::lock_guard lock(mutex_);
      sources_.erase(name);
    }
    return remove_orphans();
  }
  if (!done) log::warn("publications of '{}': {}", name, done.error().message());
  {
    std::lock_guard lock(mutex_);
    auto source = sources_.find(name);
    if (source == sources_.end()) return;
    if (source->second.again && !stopping_) return post_work(name, source->second);
    source->second.busy = false;
  }
  plan_rest(name);
}

void Publications::plan_rest(const std::string& name) {
  std::lock_guard lock(mutex_);
  auto source = sources_.find(name);
  if (source == sources_.end() || stopping_) return;
  if (std::exchange(source->second.rest_planned, true)) return;
  timers_.at(SteadyClock::now() + options_.rest_after, [this, name, id = source->second.id] {
    pool_.post(id, [this, name] { rest(name); });
  });
}

void Publications::rest(const std::string& name) {
  std::shared_ptr<Materialiser> materialiser;
  {
    std::lock_guard lock(mutex_);
    auto source = sources_.find(name);
    if (source == sources_.end() || stopping_) return;
    source->second.rest_planned = false;
    materialiser = source->second.materialiser;
  }
  if (!materialiser->rest()) plan_rest(name);
}

Result<> Publications::post(const DatabaseName& source, std::size_t size_bytes,
                            std::function<void()> work) {
  auto info = store_.info(source);
  const std::uint64_t id = info ? info->id : kCatalog;  // of what is not there nothing takes long
  {
    std::lock_guard lock(mutex_);
    Waiting& waiting = waiting_[id];
    const bool is_too_much =
        waiting.count >= kWaitingMax ||
        (waiting.count > 0 && waiting.size_bytes + size_bytes > kWaitingBytesMax);
    if (is_too_much) {
      return fail(Code::kUnavailable,
                  fmt::format("PUBLICATION_BUSY: much waits for what '{}' publishes; ask again "
                              "later",
                              source.text()));
    }
    ++waiting.count;
    waiting.size_bytes += size_bytes;
  }
  requests_.post(id, [this, id, size_bytes, work = std::move(work)] {
    {
      std::lock_guard lock(mutex_);
      auto waiting = waiting_.find(id);
      waiting->second.size_bytes -= size_bytes;
      if (--waiting->second.count == 0) waiting_.erase(waiting);
    }
    work();
  });
  return {};
}

Result<std::shared_ptr<Materialiser>> Publications::materialiser_of(const DatabaseName& source) {
  OFFPRINT_TRY_ASSIGN(auto info, store_.info(source));
  std::unique_lock lock(mutex_);
  begins_to_lead_.wait_for(lock, kLeadsWithin, [&] { return leads_ || stopping_; });
  if (stopping_) return fail(Code::kUnavailable, "the server is stopping");
  if (!leads_) return fail(Code::kNotPrimary, "NOT_PRIMARY: the primary keeps what is published");
  Source& found = sources_[source.text()];
  if (!found.materialiser || found.id != info.id) {
    Materialiser::Options options;
    options.quota = options_.quota;
    options.stopped = [this, name = source.text()](const DatabaseName& instance) {
      note_stop(name, instance);
    };
    found.materialiser =
        std::make_shared<Materialiser>(store_, source, info.id, std::move(options));
    found.id = info.id;
    found.open.clear();
    found.uses.clear();
  }
  return found.materialiser;
}

Result<PublicationInfo> Publications::check(const DatabaseName& source, const std::string& text) {
  OFFPRINT_TRY_ASSIGN(auto known, store_.publications(source));
  StoredPublication stored;
  stored.definition = text;
  stored.created_at_ms = unix_time_ms();
  OFFPRINT_TRY_ASSIGN(auto info, info_of(stored));
  if (info.is_gathered()) {
    OFFPRINT_TRY_ASSIGN(stored.definition, with_parts(text, reader_of(source)));
    OFFPRINT_TRY_ASSIGN(info, info_of(std::move(stored)));
  }
  OFFPRINT_TRY(
      with_schema(source, info, [&](auto& connection, const Definition& definition) -> Result<> {
        OFFPRINT_TRY_ASSIGN(Plan plan, make_plan(connection, definition, Unkeyed::kRefuse));
        std::vector<std::vector<std::string>> columns;
        for (const ItemPlan& item : plan.items) columns.push_back(item.columns);
        info.stored.definition = with_columns(info.stored.definition, info.definition, columns);
        info.stored.hash = plan.hash;
        return {};
      }));
  OFFPRINT_TRY_ASSIGN(info.definition, parse_definition(info.stored.definition));
  OFFPRINT_TRY(check_parameters(info.definition));
  info.stored.name = info.definition.name;
  info.stored.version = 1;
  for (const StoredPublication& each : known) {
    if (each.name != info.stored.name) continue;
    const bool is_draft = each.state == State::kDraft;
    info.is_there = !is_draft && each.is_live() && each.definition == info.stored.definition;
    info.stored.version = is_draft || info.is_there ? each.version : each.version + 1;
  }
  return info;
}

Result<std::vector<InstanceEstimate>> Publications::estimate(
    const DatabaseName& source, const PublicationInfo& info,
    const std::vector<std::pair<std::string, std::string>>& parameters) {
  std::vector<std::vector<Argument>> arguments;
  if (!parameters.empty()) {
    OFFPRINT_TRY_ASSIGN(auto given, arguments_of(info.definition, parameters));
    arguments.push_back(std::move(given));
  }
  if (info.is_gathered()) return std::vector<InstanceEstimate>();  // nothing is gathered yet
  OFFPRINT_TRY_ASSIGN(auto state, SourceState::newest(store_, source));
  Plan plan;
  OFFPRINT_TRY(state->with([&](sqlite::Connection& connection) -> Result<> {
    OFFPRINT_TRY_ASSIGN(plan, make_plan(connection, info.definition));
    return {};
  }));
  return estimate_instances(*state, plan, arguments);
}

Result<PublicationInfo> Publications::create(const DatabaseName& source, const std::string& text,
                                             State state) {
  OFFPRINT_TRY_ASSIGN(auto info, check(source, text));
  if (info.is_there) return fail(Code::kConflict, fmt::format("{} says just that", info.address()));
  info.stored.state = state;
  auto draft = find(source, {info.stored.name, info.stored.version});
  if (draft) {  // it takes its place
    OFFPRINT_TRY(store_.update_publication(source, info.stored));
    OFFPRINT_TRY(end_instances(source, *draft));
  } else {
    OFFPRINT_TRY(store_.add_publication(source, info.stored));
  }
  forget_open(source);
  OFFPRINT_TRY(guard(source));
  return info;
}

Result<PublicationInfo> Publications::set_state(const DatabaseName& source,
                                                const PublicationName& name, State state,
                                                std::int64_t sunset_ms) {
  OFFPRINT_TRY_ASSIGN(auto info, find(source, name));
  const State before = info.stored.state;
  const bool is_allowed = before != State::kRetired && state != State::kDraft &&
                          (before != State::kDraft || state != State::kDeprecated);
  if (!is_allowed) {
    return fail(Code::kConflict,
                fmt::format("{}@v{} cannot become that: drafts are published, published ones "
                            "deprecated, and a retired one remains so",
                            info.stored.name, info.stored.version));
  }
  info.stored.state = state;
  info.stored.sunset_ms = state == State::kDeprecated ? sunset_ms : 0;
  OFFPRINT_TRY(store_.update_publication(source, info.stored));
  if (state == State::kRetired) OFFPRINT_TRY(end_instances(source, info));
  forget_open(source);
  OFFPRINT_TRY(guard(source));
  return info;
}

// From now on changes of the source's schema are checked against what it publishes now.
Result<> Publications::guard(const DatabaseName& source) {
  OFFPRINT_TRY_ASSIGN(auto info, store_.info(source));
  OFFPRINT_TRY_ASSIGN(auto stored, store_.publications(source));
  OFFPRINT_TRY_ASSIGN(auto consumers, store_.consumers(source));
  OFFPRINT_TRY_ASSIGN(auto parts, parts_of(source, stored, consumers));
  guard_->set(info.id, of_one_source(std::move(stored)), std::move(consumers), std::move(parts));
  return {};
}

Result<> Publications::end_instances(const DatabaseName& source, const PublicationInfo& info) {
  if (info.is_gathered()) return end_gathered(source, info);
  OFFPRINT_TRY_ASSIGN(auto materialiser, materialiser_of(source));
  return materialiser->drop(info.stored.name, info.stored.version);
}

Result<std::vector<PublicationInfo>> Publications::list(const DatabaseName& source) {
  OFFPRINT_TRY_ASSIGN(auto stored, store_.publications(source));
  std::vector<PublicationInfo> infos;
  for (StoredPublication& each : stored) {
    OFFPRINT_TRY_ASSIGN(auto info, info_of(std::move(each)));
    infos.push_back(std::move(info));
  }
  OFFPRINT_TRY(complete(source, infos));
  return infos;
}

Result<PublicationInfo> Publications::find(const DatabaseName& source,
                                           const PublicationName& name) {
  OFFPRINT_TRY_ASSIGN(auto stored, store_.publications(source));
  std::optional<StoredPublication> found;
  for (StoredPublication& each : stored) {
    const bool is_meant = name.version ? each.version == *name.version : each.is_live();
    if (each.name == name.name && is_meant) found = std::move(each);
  }
  if (!found) {
    return fail(Code::kNotFound,
                fmt::format("database '{}' has no publication {}{}", source.text(), name.name,
                            name.version ? fmt::format("@v{}", *name.version) : ""));
  }
  return info_of(*std::move(found));
}

Result<> Publications::drop(const DatabaseName& source, const PublicationName& name) {
  OFFPRINT_TRY_ASSIGN(auto stored, store_.publications(source));
  std::erase_if(stored, [&](const StoredPublication& each) {
    return each.name != name.name || (name.version && each.version != *name.version);
  });
  if (stored.empty()) return fail(find(source, name).error());
  for (const StoredPublication& each : stored) {
    OFFPRINT_TRY_ASSIGN(auto info, info_of(each));
    OFFPRINT_TRY(store_.remove_publication(source, each.name, each.version));
    OFFPRINT_TRY(end_instances(source, info));
    forget_open(source);
  }
  return guard(source);
}

Result<std::string> Publications::address_of(
    const DatabaseName& source, const PublicationName& name,
    const std::vector<std::pair<std::string, std::string>>& parameters) {
  OFFPRINT_TRY_ASSIGN(auto info, find(source, name));
  OFFPRINT_TRY_ASSIGN(auto arguments, arguments_of(info.definition, parameters));
  return fmt::format("{}/pub/{}{}{}", source.text(), info.address(), arguments.empty() ? "" : "?",
                     canonical(arguments));
}

Result<> Publications::rebuild(const DatabaseName& source) {
  OFFPRINT_TRY_ASSIGN(auto materialiser, materialiser_of(source));
  OFFPRINT_TRY(materialiser->rebuild());
  return rebuild_gathered(source);
}

namespace {

constexpr std::size_t kOpenMax = 100'000;

std::string asked_text(const PublicationName& name,
                       const std::vector<std::pair<std::string, std::string>>& parameters) {
  std::string text = fmt::format("{}@{}", name.name, name.version.value_or(0));
  for (const auto& [key, value] : parameters)
    text += fmt::format("\n{}:{}={}:{}", key.size(), key, value.size(), value);
  return text;
}

}  // namespace

std::optional<DatabaseName> Publications::find_open(
    const DatabaseName& source, const PublicationName& name,
    const std::vector<std::pair<std::string, std::string>>& parameters) {
  std::optional<DatabaseName> found;
  const std::string asked = asked_text(name, parameters);
  std::lock_guard lock(mutex_);
  each_keeper(source, [&](Source& keeper) {
    auto open = keeper.open.find(asked);
    if (open == keeper.open.end()) return false;
    auto use = keeper.uses.find(open->second.text());
    if (use == keeper.uses.end()) return true;
    use->second->note();
    found = open->second;
    return true;
  });
  return found;
}

void Publications::forget_open(const DatabaseName& source) {
  std::lock_guard lock(mutex_);
  each_keeper(source, [](Source& keeper) {
    keeper.open.clear();
    return false;
  });
}

// While it waited for its turn it may have been dropped, or another made in its place.
Result<> Publications::check_is_stored(const DatabaseName& source,
                                       const StoredPublication& publication) {
  OFFPRINT_TRY_ASSIGN(auto stored, store_.publications(source));
  for (const StoredPublication& each : stored) {
    if (each.name == publication.name && each.version == publication.version &&
        each.hash == publication.hash && each.definition == publication.definition) {
      return {};
    }
  }
  return fail(Code::kBusy, fmt::format("{}@v{} was changed just now; ask again", publication.name,
                                       publication.version));
}

Result<DatabaseName> Publications::open(
    const DatabaseName& source, const PublicationName& name,
    const std::vector<std::pair<std::string, std::string>>& parameters) {
  OFFPRINT_TRY_ASSIGN(auto info, find(source, name));
  if (info.stored.state == State::kRetired)
    return fail(Code::kNotFound,
                fmt::format("PUBLICATION_RETIRED: {} is kept no more", info.address()));
  InstanceRequest request;
  OFFPRINT_TRY_ASSIGN(request.arguments, arguments_of(info.definition, parameters));
  request.publication = info.stored;
  request.check = [this, source, stored = info.stored] { return check_is_stored(source, stored); };
  DatabaseName keeper = source;
  if (info.is_gathered()) {
    OFFPRINT_TRY_ASSIGN(keeper, gather(source, info, request));
  }
  return open_at(keeper, request, asked_text(name, parameters));
}

// `asked`: the words by which it is found again; empty: by none.
Result<DatabaseName> Publications::open_at(const DatabaseName& keeper,
                                           const InstanceRequest& request,
                                           const std::string& asked) {
  OFFPRINT_TRY_ASSIGN(auto materialiser, materialiser_of(keeper));
  OFFPRINT_TRY_ASSIGN(auto instance, materialiser->open(request));
  const bool is_kept = materialiser->keeps(instance);  // else whoever asks looks again
  // Between these it may be let go, as nobody is known to use it; then it is opened again.
  {
    std::lock_guard lock(mutex_);
    auto found = sources_.find(keeper.text());
    if (found != sources_.end() && found->second.materialiser == materialiser) {
      auto& open = found->second.open;
      if (open.size() >= kOpenMax) open.clear();
      if (is_kept && !asked.empty()) open.insert_or_assign(asked, instance);
      auto& use = found->second.uses[instance.text()];
      const bool is_over = use && use->is_over();
      if (!use || is_over) use = std::make_shared<Use>();
      use->note();
      unused_.erase(instance.text());
    }
  }
  note(keeper.text());  // what was committed while it was filled
  return instance;
}

}  // namespace offprint::publication
