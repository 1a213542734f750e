#include "publication/materialiser.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/log.h"
#include "publication/digest.h"
#include "publication/record.h"
#include "publication/seeded_bug.h"
#include "publication/sql_tokens.h"
#include "sqlite/btree_page.h"

namespace offprint::publication {
namespace {

// Beyond these it is quicker to compare tables as a whole, and their rows need not fit the memory.
constexpr std::size_t kPagesMax = 20'000, kTransactionsMax = 10'000, kKeysMax = 200'000;
constexpr const char* kOtherThanPublished = "the source has not what it was published with";
constexpr std::size_t kDigestSize = 24;  // of an instance's parameters, in its name

// The same text for all values that SQLite may find equal, whatever the affinity and collation of
// the column: more instances than needed may be asked, never fewer.
std::string route_text(const sqlite::Value& value) {
  auto number_text = [](double number) {
    if (number == std::floor(number) && std::abs(number) < 1e15)
      return fmt::format("{}", static_cast<std::int64_t>(number));
    return fmt::format("{}", number);
  };
  if (const auto* integer = std::get_if<std::int64_t>(&value))
    return std::abs(static_cast<double>(*integer)) < 1e15
               ? fmt::format("{}", *integer)
               : number_text(static_cast<double>(*integer));
  if (const auto* real = std::get_if<double>(&value)) return number_text(*real);
  if (const auto* bytes = std::get_if<Bytes>(&value)) return "x" + std::string(as_text(*bytes));
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) return "null";
  char* end = nullptr;
  const double number = std::strtod(text->c_str(), &end);
  std::string_view rest(end);
  rest = rest.substr(std::min(rest.find_first_not_of(" \t\r\n\f\v"), rest.size()));
  if (!text->empty() && end != text->c_str() && rest.empty()) return number_text(number);
  std::string plain = folded(*text);
  plain.erase(plain.find_last_not_of(' ') + 1);
  return "t" + plain;
}

std::string route_text(const Row& values) {
  std::string text;
  for (const sqlite::Value& value : values) {
    const std::string each = route_text(value);
    text += fmt::format("{}:{};", each.size(), each);
  }
  return text;
}

Row values_of(const std::vector<Argument>& arguments) {
  Row values;
  for (const Argument& argument : arguments) values.push_back(argument.value);
  return values;
}

// A date function would take it for the moment's.
Result<> check_moments(const Plan& plan, const std::vector<Argument>& arguments) {
  for (const Argument& argument : arguments) {
    const auto* text = std::get_if<std::string>(&argument.value);
    if (!plan.reads_dates || text == nullptr) continue;
    const std::string plain = folded(*text);
    if (plain == "now" || plain == "subsec" || plain == "subsecond") {
      return fail(Code::kInvalid, fmt::format("PUBLICATION_PARAMETER: '{}' as '{}' may be another "
                                              "moment each time",
                                              *text, argument.name));
    }
  }
  return {};
}

}  // namespace

std::string encoded(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
    if (is_plain)
      result += c;
    else
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return result;
}

std::string canonical(const std::vector<Argument>& arguments) {
  std::string text;
  for (const Argument& argument : arguments) {
    if (!text.empty()) text += '&';
    text += argument.name + "=";
    if (const auto* number = std::get_if<std::int64_t>(&argument.value))
      text += fmt::format("{}", *number);
    else if (const auto* real = std::get_if<double>(&argument.value))
      text += fmt::format("{}", *real);
    else if (const auto* plain = std::get_if<std::string>(&argument.value))
      text += encoded(*plain);
    else if (const auto* bytes = std::get_if<Bytes>(&argument.value))
      text += to_hex(*bytes);
  }
  return text;
}

void Materialiser::Routes::add(Instance& instance) {
  all.push_back(&instance);
  by_route.emplace(route_text(values_of(instance.arguments())), &instance);
}

void Materialiser::Routes::remove(Instance& instance) {
  std::erase(all, &instance);
  auto [begin, end] = by_route.equal_range(route_text(values_of(instance.arguments())));
  for (auto each = begin; each != end; ++each) {
    if (each->second != &instance) continue;
    by_route.erase(each);
    return;
  }
}

// A publication as the state has it; with an error in it when that is not what was published.
Result<Materialiser::Published*> Materialiser::plan_for(
    const database::StoredPublication& publication) {
  Published& published = published_[Key{publication.name, publication.version}];
  if (!published.plan.hash.empty() && published.error.empty()) return &published;
  OFFPRINT_TRY_ASSIGN(published.plan.definition, parse_definition(publication.definition));
  published.plan.hash = publication.hash;
  Result<Plan> plan = fail(Code::kInternal, "not made");
  OFFPRINT_TRY(state_->with([&](sqlite::Connection& source) -> Result<> {
    plan = make_plan(source, published.plan.definition);
    return {};
  }));
  const bool is_other = plan && !publication.hash.empty() && plan->hash != publication.hash;
  published.error = !plan ? plan.error().message() : is_other ? kOtherThanPublished : "";
  if (!published.error.empty()) return &published;
  published.plan = *std::move(plan);
  OFFPRINT_TRY(watch_tables(*state_));
  return &published;
}

bool Materialiser::keeps(const database::DatabaseName& instance) {
  std::lock_guard lock(told_mutex_);
  return kept_.contains(instance.text());
}

database::DatabaseName Materialiser::instance_name(const InstanceRequest& request,
                                                   const std::string& parameters) const {
  if (request.target) return *request.target;
  return database::DatabaseName::instance(
      source_id_, fmt::format("{}-{}-{}", request.publication.name, request.publication.version,
                              digest(parameters).substr(0, kDigestSize)));
}

Result<database::DatabaseName> Materialiser::open(const InstanceRequest& request) {
  const database::StoredPublication& publication = request.publication;
  std::lock_guard lock(mutex_);
  if (request.check) OFFPRINT_TRY(request.check());
  if (!state_) {
    OFFPRINT_TRY_ASSIGN(state_, next_state());
    tables_.clear();
    OFFPRINT_TRY(refill(*state_));
  }
  OFFPRINT_TRY_ASSIGN(Published * published, plan_for(publication));
  OFFPRINT_TRY(check_moments(published->plan, request.arguments));
  const std::string text = canonical(request.arguments);
  const auto name = instance_name(request, text);
  auto info = store_.info(name);
  if (!published->error.empty()) {
    // It stays what it was, for those who have it.
    if (info && info->page_count > 0) return name;
    return fail(Code::kConflict, fmt::format("PUBLICATION_BROKEN: {}@v{}: {}", publication.name,
                                             publication.version, published->error));
  }
  auto kept = published->instances.find(text);
  if (kept != published->instances.end() &&
      (kept->second->role().target_id != request.role.target_id || is_spoiled(*kept->second))) {
    end_instance(*published, kept);  // its database was made anew, or will be
    kept = published->instances.end();
  }
  if (kept != published->instances.end()) {
    Instance& instance = *kept->second;
    if (!instance.is_part()) OFFPRINT_TRY(instance.set_quota(quota_of(publication)));
    if (!instance.may_be_filled()) return fail(Code::kUnavailable, instance.stopped());
    if (!instance.is_stale()) return instance.name();
    auto filled = instance.fill(published->plan, *state_);
    note_outcome(instance);
    return filled ? Result<database::DatabaseName>(instance.name()) : fail(filled.error());
  }
  if (!info && request.target) return fail(info.error());
  InstanceRole role = request.role;
  role.source_id = source_id_;
  auto instance = std::make_unique<Instance>(
      store_, name, InstanceLabel{publication.name, publication.version, text}, std::move(role),
      request.arguments);
  auto made = make(*instance, *published, publication);
  // Whether its file is as it was left is seen when it is opened.
  if (is_spoiled(*instance)) {
    OFFPRINT_TRY(drop_spoiled(*instance));
    made = make(*instance, *published, publication);
  }
  if (!instance->stopped().empty()) options_.stopped(name);
  // What has stopped is not tried again for each who asks.
  if (!made && instance->stopped().empty()) return fail(made.error());
  published->routes.add(*instance);
  by_name_[name.text()] = {published, instance.get()};
  tell(*instance);
  published->instances.emplace(text, std::move(instance));
  return made ? Result<database::DatabaseName>(name) : fail(made.error());
}

Result<> Materialiser::drop(const std::string& publication, std::uint32_t version) {
  std::lock_guard lock(mutex_);
  if (auto found = published_.find({publication, version}); found != published_.end()) {
    for (const auto& [parameters, instance] : found->second.instances) forget(*instance);
    published_.erase(found);
  }
  const std::string prefix = database::DatabaseName::instance_prefix(source_id_) +
                             fmt::format("{}-{}-", publication, version);
  for (const auto& info : store_.list(prefix, "", std::numeric_limits<std::size_t>::max(), "")) {
    if (info.name.size() != prefix.size() + kDigestSize) continue;  // "a-1-…" of one named "a-1"
    OFFPRINT_TRY_ASSIGN(auto name, database::DatabaseName::stored(info.name));
    OFFPRINT_TRY(store_.drop(name));
  }
  return {};
}

Result<> Materialiser::rebuild() {
  std::lock_guard lock(mutex_);
  spare_ = nullptr;
  tables_.clear();
  OFFPRINT_TRY_ASSIGN(state_, next_state());
  OFFPRINT_TRY(refill(*state_));
  return make_spoiled_anew();
}

bool Materialiser::rest() {
  std::lock_guard lock(mutex_);
  if (!std::exchange(rested_, true)) return false;
  spare_ = nullptr;
  if (!state_) return true;
  auto next = next_state();
  if (!next) return true;
  // The same state, begun again: of one that was brought into the file it does not hold the -wal.
  if ((*next)->bookmark() == state_->bookmark())
    state_ = *std::move(next);
  else
    spare_ = *std::move(next);  // the next step is on its way
  return true;
}

Materialiser::Status Materialiser::status() {
  std::unique_lock lock(mutex_, std::try_to_lock);
  std::lock_guard told(told_mutex_);
  if (!lock.owns_lock()) return told_;  // something long is on its way
  told_ = status_;
  for (const auto& [key, published] : published_) {
    for (const auto& [parameters, instance] : published.instances) {
      if (!instance->is_part()) ++told_.instances;
      if (!instance->is_stale()) continue;
      ++(instance->stopped().empty() ? told_.stale : told_.stopped);
      if (!instance->error().empty()) told_.error = instance->error();
    }
    if (!published.error.empty()) told_.error = published.error;
  }
  return told_;
}

std::vector<Materialiser::Kept> Materialiser::instances() {
  std::lock_guard lock(told_mutex_);
  std::vector<Kept> kept;
  for (const auto& [name, each] : kept_) kept.push_back(each);
  return kept;
}

Result<> Materialiser::advance() {
  std::lock_guard lock(mutex_);
  auto done = advance_locked();
  status_.error = done ? "" : done.error().message();
  if (!done) {
    state_ = nullptr;
    spare_ = nullptr;
  }
  return done;
}

Result<std::unique_ptr<SourceState>> Materialiser::next_state() {
  if (!spare_ || !spare_->renew()) {
    OFFPRINT_TRY_ASSIGN(spare_, SourceState::newest(store_, source_, &cancelled_));
  }
  // The name may be another database's by now.
  OFFPRINT_TRY(check_source());
  return std::move(spare_);
}

// kNotFound: it was dropped.
Result<> Materialiser::check_source() {
  OFFPRINT_TRY_ASSIGN(auto info, store_.info(source_));
  if (info.id == source_id_) return {};
  return fail(Code::kNotFound, fmt::format("database '{}' was dropped", source_.text()));
}

Result<> Materialiser::advance_locked() {
  rested_ = false;
  if (published_.empty()) {
    state_ = nullptr;
    spare_ = nullptr;
    tables_.clear();
    return {};
  }
  OFFPRINT_TRY_ASSIGN(auto next, next_state());
  if (state_ && next->bookmark() == state_->bookmark()) {
    spare_ = std::move(next);
    fill_stale(*state_);
    return {};
  }
  auto stepped = [&]() -> Result<> {
    if (!state_) return fail(Code::kBehind, "there is no state to go on from");
    OFFPRINT_TRY_ASSIGN(bool is_same, is_same_schema(*state_, *next));
    if (!is_same) return fail(Code::kBehind, "the schema changed");
    Step all{*state_, *next, {}, {}, {}};
    OFFPRINT_TRY_ASSIGN(all.pages, pages_between(state_->bookmark(), next->bookmark()));
    OFFPRINT_TRY(step(all));
    give(all);
    return {};
  }();
  if (!stepped) {
    log::debug("publications of '{}' are compared as a whole: {}", source_.text(),
               stepped.error().message());
    tables_.clear();
    OFFPRINT_TRY(refill(*next));
  }
  spare_ = std::move(state_);
  state_ = std::move(next);
  status_.source = state_->bookmark();
  ++status_.transactions;
  fill_stale(*state_);
  return {};
}

// The pages that the transactions after one state wrote, up to another.
Result<PageSet> Materialiser::pages_between(const Bookmark& after, const Bookmark& upto) {
  if (upto.txid.value - after.txid.value > kTransactionsMax)
    return fail(Code::kBehind, "many transactions came together");
  PageSet pages;
  OFFPRINT_TRY_ASSIGN(auto entries,
                      store_.log_after(source_, after, upto.txid.value - after.txid.value));
  TxId last = after.txid;
  for (const database::LogEntry& entry : entries) {
    if (entry.txid > upto.txid) break;
    last = entry.txid;
    OFFPRINT_TRY_ASSIGN(auto payload, store_.open_payload(entry.location));
    ltx::Decoder decoder(*payload);
    OFFPRINT_TRY(decoder.begin());
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
      if (!page) break;
      pages.insert(page->number);
    }
    if (pages.size() > kPagesMax) return fail(Code::kBehind, "many pages changed together");
  }
  if (last != upto.txid) return fail(Code::kBehind, "the log does not reach the state");
  return pages;
}

// Tables that are kept row by row, or that something is made of as a whole.
Result<> Materialiser::watch_tables(SourceState& state) {
  std::map<std::string, PageNo> roots;
  OFFPRINT_TRY(
      state.rows("SELECT name, rootpage FROM main.sqlite_schema WHERE type='table' AND "
                 "rootpage > 0",
                 {}, {}, [&](Row row) -> Result<> {
                   roots[folded(std::get<std::string>(row[0]))] =
                       static_cast<PageNo>(std::get<std::int64_t>(row[1]));
                   return {};
                 }));
  OFFPRINT_TRY_ASSIGN(ByteView page_one, state.page(1));
  const std::uint32_t usable = sqlite::usable_size(page_one);
  const PageSource pages = [&](PageNo page) { return state.page(page); };
  for (const auto& [key, published] : published_) {
    for (const ItemPlan& item : published.plan.items) {
      for (const std::string& table : item.reads) {
        auto root = roots.find(table);
        if (root == roots.end() || tables_.contains(table)) continue;
        OFFPRINT_TRY_ASSIGN(auto map, TreeMap::read(pages, root->second, usable));
        tables_.emplace(table, std::move(map));
      }
    }
  }
  return {};
}

// All instances from the definitions: after a change of the schema, or when the log does not say
// what changed.
Result<> Materialiser::refill(SourceState& state) {
  ++status_.refreshes;
  for (auto& [key, published] : published_) {
    Result<Plan> plan = fail(Code::kInternal, "not made");
    OFFPRINT_TRY(state.with([&](sqlite::Connection& source) -> Result<> {
      plan = make_plan(source, published.plan.definition);
      return {};
    }));
    published.error.clear();
    if (plan && !published.plan.hash.empty() && plan->hash != published.plan.hash)
      plan = fail(Code::kConflict, kOtherThanPublished);
    if (!plan) {  // it stays what it was
      published.error = plan.error().message();
      log::warn("publication {}@v{} of '{}' stands still: {}", key.first, key.second,
                source_.text(), published.error);
      continue;
    }
    if (!plan->read_whole.empty() && published.plan.read_whole.empty()) {
      log::warn(
          "publication {}@v{} of '{}' is slow from now on: with each change all of {} is read",
          key.first, key.second, source_.text(), fmt::join(plan->read_whole, "; "));
    }
    published.plan = *std::move(plan);
    for (const auto& [parameters, instance] : published.instances) {
      if (!instance->stopped().empty()) continue;
      if (auto filled = instance->fill(published.plan, state); !filled)
        log::warn("{}: {}", instance->name().text(), filled.error().message());
      note_outcome(*instance);
    }
  }
  status_.source = state.bookmark();
  tables_.clear();
  return watch_tables(state);
}

bool Materialiser::is_touched(const Step& step, const ItemPlan& item) {
  return std::ranges::any_of(item.reads, [&](const std::string& table) {
    auto rows = step.touched.find(table);
    if (rows != step.touched.end())
      return !rows->second.rowids.empty() || !rows->second.records.empty();
    // A view's tables are told of, too; of other things than tables nothing is known.
    return !table.starts_with("sqlite_");
  });
}

// Which rows of the tables differ.
Result<> Materialiser::touch(Step& step, Trees& trees, TreeMap::Toward toward) {
  const PageSource before = [&](PageNo page) { return step.before.page(page); };
  const PageSource after = [&](PageNo page) { return step.after.page(page); };
  for (auto& [table, map] : trees) {
    OFFPRINT_TRY_ASSIGN(step.touched[table], map.advance(before, after, step.pages, toward));
  }
  return {};
}

Result<> Materialiser::find_work(Step& step, const Plan& plan, const Routes& routes) {
  for (const ItemPlan& item : plan.items) {
    if (item.is_by_row()) {
      OFFPRINT_TRY(find_rows(step, routes, item));
    } else if (is_touched(step, item)) {
      for (Instance* instance : routes.all) step.work[instance].whole.push_back(&item);
    }
  }
  return {};
}

Result<> Materialiser::step(Step& step) {
  OFFPRINT_TRY(touch(step, tables_));
  for (auto& [key, published] : published_) {
    if (!published.error.empty()) continue;
    auto found = find_work(step, published.plan, published.routes);
    if (cancelled_) return fail(Code::kUnavailable, "the server is stopping");
    if (found) continue;
    // What is wrong with one definition is no matter of the others.
    log::debug("instances of {}@v{} of '{}' are compared as a whole: {}", key.first, key.second,
               source_.text(), found.error().message());
    for (Instance* instance : published.routes.all) {
      step.work.erase(instance);
      if (!instance->stopped().empty()) continue;
      instance->lose();  // fill_stale() comes next
      note_outcome(*instance);
    }
  }
  return {};
}

// Rows of a table by which changed ones are told apart: rowids, or the key's columns.
Result<std::set<Row>> Materialiser::changed_ids(const Step& step, const RowLink& link) {
  const TouchedRows& touched = step.touched.at(link.table);
  std::set<Row> ids;  // an old and a new record may have the same key
  for (std::int64_t rowid : touched.rowids) ids.insert({sqlite::Value(rowid)});
  for (const Bytes& record : touched.records) {
    OFFPRINT_TRY_ASSIGN(Row id, record_columns(record, link.key_size));
    ids.insert(std::move(id));
  }
  return ids;
}

Result<> Materialiser::find_rows(Step& step, const Routes& routes, const ItemPlan& item) {
  std::set<Row> keys;
  for (const RowLink& link : item.links) {
    OFFPRINT_TRY_ASSIGN(auto ids, changed_ids(step, link));
    if (link.select.empty()) {
      keys.merge(ids);
      continue;
    }
    for (const Row& id : ids) {
      for (SourceState* state : {&step.before, &step.after}) {
        OFFPRINT_TRY(state->rows(link.select, id, {}, [&](Row key) -> Result<> {
          keys.insert(std::move(key));
          return {};
        }));
      }
    }
    if (keys.size() > kKeysMax) return fail(Code::kBehind, "many rows depend on what changed");
  }
  for (const Row& key : keys) OFFPRINT_TRY(find_row(step, routes, item, key));
  return {};
}

// The instances that have a published row, or are to have it.
Result<std::vector<Instance*>> Materialiser::instances_of(Step& step, const Routes& routes,
                                                          const ItemPlan& item, const Row& key) {
  std::vector<Instance*> found;
  if (item.select_routes.empty()) return routes.all;
  for (SourceState* state : {&step.before, &step.after}) {
    if (state == &step.before && has_bug(SeededBug::kFilterMoves)) continue;
    OFFPRINT_TRY(state->rows(item.select_routes, key, {}, [&](Row values) -> Result<> {
      auto [begin, end] = routes.by_route.equal_range(route_text(values));
      for (auto each = begin; each != end; ++each) {
        if (std::ranges::find(found, each->second) == found.end()) found.push_back(each->second);
      }
      return {};
    }));
  }
  return found;
}

// The row that a key identifies in a state. kInvalid: there are two.
Result<std::optional<Row>> Materialiser::row_of(SourceState& state, const ItemPlan& item,
                                                const Row& key, const Instance& instance) {
  std::optional<Row> found;
  OFFPRINT_TRY(state.rows(item.select_row, key, instance.arguments(), [&](Row row) -> Result<> {
    if (found) return fail(Code::kInvalid, not_a_key(item));
    found = std::move(row);
    return {};
  }));
  return found;
}

// What became of one row, in each instance.
Result<> Materialiser::find_row(Step& step, const Routes& routes, const ItemPlan& item,
                                const Row& key) {
  OFFPRINT_TRY_ASSIGN(auto instances, instances_of(step, routes, item, key));
  for (Instance* instance : instances) {
    if (instance->is_stale()) continue;
    RowChange change;
    change.item = &item;
    OFFPRINT_TRY_ASSIGN(change.before, row_of(step.before, item, key, *instance));
    OFFPRINT_TRY_ASSIGN(change.after, row_of(step.after, item, key, *instance));
    const bool is_unchanged = change.before.has_value() == change.after.has_value() &&
                              (!change.before || is_same(*change.before, *change.after));
    if (is_unchanged) continue;
    ++status_.rows;
    step.work[instance].changes.push_back(std::move(change));
  }
  return {};
}

void Materialiser::give(Step& step) {
  for (auto& [instance, work] : step.work) {
    if (instance->is_stale()) continue;
    if (auto given = instance->apply(work.changes, work.whole, step.after); !given)
      log::warn("{}: {}", instance->name().text(), given.error().message());
    note_outcome(*instance);
  }
}

void Materialiser::fill_stale(SourceState& state) {
  const std::set<Instance*> stale = stale_;
  for (Instance* instance : stale) {
    const Published& published = *by_name_.at(instance->name().text()).first;
    if (!published.error.empty()) continue;
    if (auto filled = instance->fill(published.plan, state); !filled)
      log::debug("{}: {}", instance->name().text(), filled.error().message());
    note_outcome(*instance);
  }
}

}  // namespace offprint::publication
