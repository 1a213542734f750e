#include "feed/live_query.h"

#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "publication/sql_tokens.h"

namespace offprint::feed {
namespace {

using publication::append_exactly;

// A query that took longer than this waits for kRestFactor times as long before its next run.
constexpr std::chrono::microseconds kQuick{2'000};
constexpr int kRestFactor = 4;

// Names of what tells of more than pages do: sizes, settings.
bool names_odd_things(std::string_view sql) {
  const std::string lower = publication::folded(sql);
  return std::ranges::any_of(std::array{"pragma", "dbpage", "dbstat"},
                             [&](const char* word) { return lower.contains(word); });
}

Result<std::vector<std::size_t>> key_places(const std::vector<std::string>& key,
                                            const std::vector<std::string>& columns) {
  std::vector<std::size_t> places;
  for (const std::string& name : key) {
    auto place = std::ranges::find(columns, name);
    if (place == columns.end()) {
      return fail(Code::kInvalid,
                  fmt::format("LIVE_KEY: the result has no column '{}' for the key", name));
    }
    places.push_back(static_cast<std::size_t>(place - columns.begin()));
  }
  return places;
}

Row key_of(const LiveResult& result, const Row& row) {
  if (result.key.empty()) return row;
  Row key;
  for (std::size_t place : result.key) key.push_back(row[place]);
  return key;
}

// What two have who may do the same, each with a token, or a permission for one instance, of his
// own.
std::string text_of(const database::SqlRights* rights) {
  if (rights == nullptr) return "*";
  auto words = [](database::Verbs verbs) {
    return fmt::format("{}", fmt::join(verbs.names(), ","));
  };
  std::string text = words(rights->everywhere) + '/' + words(rights->other_tables);
  for (const auto& [table, verbs] : rights->tables)
    text += fmt::format("/{}:{}={}", table.size(), table, words(verbs));
  return text;
}

}  // namespace

std::string text_of(const LiveRequest& request) {
  std::string text = fmt::format("{}:{};{};", request.statement.sql.size(), request.statement.sql,
                                 text_of(request.rights.get()));
  for (const sqlite::Value& value : request.statement.args) append_exactly(text, value);
  for (const auto& named : request.statement.named_args) {
    append_exactly(text, sqlite::Value(named.name));
    append_exactly(text, named.value);
  }
  text += '/';
  for (const std::string& column : request.key) append_exactly(text, sqlite::Value(column));
  return text;
}

LiveDifference difference(const LiveResult& from, const LiveResult& to) {
  LiveDifference result;
  const bool replaces = from.columns != to.columns;
  for (const auto& [key, row] : from.by_key) {
    if (replaces || !to.by_key.contains(key)) result.removed.push_back(key_of(from, *row));
  }
  for (const auto& [key, row] : to.by_key) {
    auto old = from.by_key.find(key);
    if (replaces || old == from.by_key.end() ||
        (old->second != row && !publication::is_same(*old->second, *row)))
      result.put.push_back(row);
  }
  return result;
}

// ------------------------------------------------------------------------------------------------
// LiveConnection

LiveConnection::~LiveConnection() { connection_.reset(); }

Result<> LiveConnection::changed(std::uint32_t page_size, std::uint32_t page_count,
                                 bool has_new_schema) {
  page_count_ = page_count;
  if (has_new_schema || page_size != page_size_) {
    ++generation_;
    odd_views_.reset();
    if (connection_ == nullptr || page_size != page_size_) {
      page_size_ = page_size;
      return {};  // opened when it is needed
    }
  }
  if (database_) database_->changed(page_count);
  return {};
}

Result<> LiveConnection::open() {
  if (connection_ && database_) return {};
  sqlite::PageDatabase::Content content;
  content.page_size = page_size_;
  content.page_count = page_count_;
  content.changes = true;
  content.read = [this](PageNo page) {
    if (records_) read_.insert(page);
    return pages_(page);
  };
  connection_.reset();
  database_ = std::make_unique<sqlite::PageDatabase>(std::move(content));
  database::UserConnection::Options options;
  options.vfs = database_->vfs();
  options.reads_only = true;
  OFFPRINT_TRY_ASSIGN(connection_, database::UserConnection::open(database_->path(), options));
  return {};
}

Result<bool> LiveConnection::has_odd_views() {
  if (odd_views_) return *odd_views_;
  bool odd = false;
  OFFPRINT_TRY_ASSIGN(auto views, connection_->prepare_internal(
                                      "SELECT sql FROM main.sqlite_schema WHERE type='view'"));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool found, views.step());
    if (!found) break;
    odd = odd || names_odd_things(views.column_text(0));
  }
  odd_views_ = odd;
  return odd;
}

Result<> LiveConnection::prepare(const LiveRequest& request, Kept& kept) {
  if (kept) return {};
  OFFPRINT_TRY_ASSIGN(auto lease,
                      connection_->prepare(request.statement.sql, nullptr, request.rights.get()));
  if (!lease->read_only || lease->kind != database::StatementKind::kPlain || lease->sets_pragma ||
      lease->statement.column_count() == 0)
    return fail(Code::kInvalid, "LIVE_QUERY: only a query that reads can be live");
  OFFPRINT_TRY(database::bind_arguments(lease->statement, request.statement));
  kept.emplace(std::move(lease));
  return {};
}

Result<> LiveConnection::gather(const LiveRequest& request, sqlite::Statement& statement,
                                LiveResult& result) {
  for (int i = 0; i < statement.column_count(); ++i)
    result.columns.emplace_back(sqlite3_column_name(statement.handle(), i));
  OFFPRINT_TRY_ASSIGN(result.key, key_places(request.key, result.columns));
  std::map<std::string, std::size_t> copies;
  std::size_t bytes = 0;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool found, statement.step());
    if (!found) return {};
    auto row = std::make_shared<Row>();
    for (int i = 0; i < statement.column_count(); ++i)
      row->push_back(publication::value_of(statement, i));
    std::string key;
    for (const sqlite::Value& value : key_of(result, *row)) append_exactly(key, value);
    bytes += 2 * key.size() + 64 * row->size();
    for (const sqlite::Value& value : *row) {
      if (const auto* text = std::get_if<std::string>(&value)) bytes += text->size();
      if (const auto* blob = std::get_if<Bytes>(&value)) bytes += blob->size();
    }
    if (bytes > kBytesMax || result.in_order.size() >= kRowsMax) {
      return fail(Code::kTooLarge,
                  fmt::format("LIVE_TOO_LARGE: a live result has {} rows and {} MiB at most",
                              kRowsMax, kBytesMax >> 20));
    }
    if (request.key.empty()) {
      key += fmt::format("#{}", copies[key]++);
    } else if (result.by_key.contains(key)) {
      return fail(Code::kInvalid, "LIVE_KEY: two rows of the result have the same key");
    }
    result.by_key.emplace(std::move(key), row);
    result.in_order.push_back(std::move(row));
  }
}

Result<LiveConnection::Run> LiveConnection::run(const LiveRequest& request, Kept& kept) {
  Run run;
  run.result = std::make_shared<LiveResult>();
  if (page_count_ == 0) return fail(Code::kInvalid, "LIVE_QUERY: the database has no tables yet");
  OFFPRINT_TRY(open());
  database_->changed(page_count_);  // nothing is in the cache: each page that counts is read
  connection_->set_deadline(SteadyClock::now() + kTimeMax);
  connection_->clear_timed_out();
  auto done = [&]() -> Result<> {
    // What compiling reads tells of the schema alone.
    OFFPRINT_TRY(prepare(request, kept));
    OFFPRINT_TRY_ASSIGN(bool odd_views, has_odd_views());
    run.reads_everything = odd_views || names_odd_things(request.statement.sql);
    database_->changed(page_count_);
    read_.clear();
    records_ = true;
    sqlite::Statement& statement = (*kept)->statement;
    auto gathered = gather(request, statement, *run.result);
    records_ = false;
    statement.reset();
    return gathered;
  }();
  connection_->set_deadline(Deadline::max());
  if (!done) {
    kept.reset();
    if (connection_->timed_out()) {
      return fail(Code::kTimeout,
                  fmt::format("LIVE_TOO_SLOW: a live query takes {} ms at most", kTimeMax.count()));
    }
    return fail(std::move(done).error());
  }
  read_.erase(1);
  if (read_.size() > kReadMax)
    run.reads_everything = true;
  else
    run.read.assign(read_.begin(), read_.end());
  return run;
}

// ------------------------------------------------------------------------------------------------
// LiveQuery

LiveQuery::Current LiveQuery::current() const {
  std::lock_guard lock(shared_->mutex);
  Current current = current_;
  if (!is_dirty_) current.valid_to = shared_->position;
  return current;
}

void LiveQuery::set(std::shared_ptr<const LiveResult> result) {
  std::unique_lock lock(shared_->mutex);
  is_dirty_ = false;
  const auto& old = current_.result;
  const bool is_same = old && old->columns == result->columns && difference(*old, *result).empty();
  if (!is_same) current_.result = std::move(result);
  lock.unlock();
  if (!is_same) listeners_.call();
}

void LiveQuery::fail_with(Error error) {
  {
    std::lock_guard lock(shared_->mutex);
    current_.result = nullptr;
    current_.error = std::move(error);
  }
  listeners_.call();
}

// ------------------------------------------------------------------------------------------------
// LiveQueries

Result<> LiveQueries::add(const std::shared_ptr<LiveQuery>& query, const State& state) {
  OFFPRINT_TRY(connection_.changed(state.page_size, state.page_count, false));
  {
    std::lock_guard lock(shared_->mutex);
    shared_->position = state.at;
  }
  queries_.push_back(query);
  run(*query, state);
  if (auto failed = query->current().error) return fail(*std::move(failed));
  return {};
}

void LiveQueries::unlink(LiveQuery& query) {
  for (PageNo page : query.read_) {
    auto readers = readers_.find(page);
    if (readers == readers_.end()) continue;
    readers->second.erase(&query);
    if (readers->second.empty()) readers_.erase(readers);
  }
  query.read_.clear();
  wide_.erase(&query);
  dirty_.erase(&query);
}

void LiveQueries::mark_dirty(LiveQuery& query) {
  if (!dirty_.insert(&query).second) return;
  query.is_dirty_ = true;
  query.current_.valid_to = shared_->position;
}

void LiveQueries::run(LiveQuery& query, const State& state) {
  unlink(query);
  runs_.fetch_add(1, std::memory_order_relaxed);
  if (query.generation_ != connection_.generation()) query.kept_.reset();
  query.generation_ = connection_.generation();
  const auto began = SteadyClock::now();
  auto run = connection_.run(query.request_, query.kept_);
  const auto took = SteadyClock::now() - began;
  query.not_before_ = took > kQuick ? SteadyClock::now() + took * kRestFactor : Deadline{};
  if (!run) {
    query.fail_with(std::move(run).error());
    return;
  }
  query.read_ = std::move(run->read);
  for (PageNo page : query.read_) readers_[page].insert(&query);
  if (run->reads_everything) wide_.insert(&query);
  run->result->at = state.at;
  query.set(std::move(run->result));
}

void LiveQueries::note(const publication::PageSet& written, bool has_new_schema, bool affects_all,
                       const State& state) {
  if (auto changed = connection_.changed(state.page_size, state.page_count, has_new_schema);
      !changed)
    return end(changed.error());
  {
    std::lock_guard lock(shared_->mutex);
    if (has_new_schema || affects_all) {
      for (const auto& query : queries_) mark_dirty(*query);
    } else {
      for (LiveQuery* query : wide_) mark_dirty(*query);
      for (PageNo page : written) {
        auto readers = readers_.find(page);
        if (readers == readers_.end()) continue;
        for (LiveQuery* query : readers->second) mark_dirty(*query);
      }
    }
    shared_->position = state.at;
  }
  run_due(state);
}

std::optional<Deadline> LiveQueries::run_due(const State& state) {
  const Deadline now = SteadyClock::now();
  std::optional<Deadline> next;
  const std::vector<LiveQuery*> dirty(dirty_.begin(), dirty_.end());
  for (LiveQuery* query : dirty) {
    if (query->current().error) {
      dirty_.erase(query);
    } else if (query->not_before_ <= now) {
      run(*query, state);
    } else {
      next = next ? std::min(*next, query->not_before_) : query->not_before_;
    }
  }
  return next;
}

void LiveQueries::forget_unused() {
  std::erase_if(queries_, [this](const std::shared_ptr<LiveQuery>& query) {
    if (query.use_count() > 1 && !query->current().error) return false;
    unlink(*query);
    query->kept_.reset();
    return true;
  });
}

void LiveQueries::end(const Error& error) {
  for (const auto& query : queries_) {
    unlink(*query);
    query->kept_.reset();
    if (!query->current().error) query->fail_with(error);
  }
  queries_.clear();
}

}  // namespace offprint::feed
