#include "publication/source_state.h"

#include <bit>

#include <fmt/format.h>

#include "sqlite/moment_watch.h"
#include "sqlite/page_database.h"

namespace offprint::publication {
namespace {

constexpr std::size_t kStatementsMax = 1'000;
constexpr std::chrono::minutes kLongest{5};  // of a statement
constexpr int kStepsBetweenLooks = 100'000;  // of SQLite's machine: about a millisecond

// Of a parameter that the statement may not have.
Result<> bind_named(sqlite::Statement& statement, const std::string& name,
                    const sqlite::Value& value) {
  const int index = sqlite3_bind_parameter_index(statement.handle(), name.c_str());
  return index > 0 ? statement.bind_value(index, value) : Result<>();
}

// A state made of pages, for SQL.
class PastState final : public database::SqlSnapshot {
 public:
  static Result<std::shared_ptr<PastState>> open(std::unique_ptr<database::Snapshot> snapshot) {
    auto state = std::make_shared<PastState>(std::move(snapshot));
    OFFPRINT_TRY_ASSIGN(state->connection_,
                        sqlite::Connection::open(state->pages_.path(),
                                                 {.read_only = true, .vfs = state->pages_.vfs()}));
    return state;
  }
  explicit PastState(std::unique_ptr<database::Snapshot> snapshot)
      : snapshot_(std::move(snapshot)),
        pages_({snapshot_->page_size(), snapshot_->page_count(),
                [this](std::uint32_t page) { return snapshot_->page(page); }}) {}
  Bookmark bookmark() const override { return snapshot_->position().bookmark(); }
  Result<> with(const std::function<Result<>(sqlite::Connection&)>& work) override {
    return work(*connection_);
  }
  Result<> with_user(const std::function<Result<>(database::UserConnection&)>&) override {
    return fail(Code::kInternal, "an earlier state takes no SQL of users");
  }
  Result<> renew() override { return fail(Code::kBehind, "an earlier state stays what it is"); }

 private:
  std::unique_ptr<database::Snapshot> snapshot_;
  sqlite::PageDatabase pages_;
  std::optional<sqlite::Connection> connection_;
};

}  // namespace

Result<std::unique_ptr<SourceState>> SourceState::at(database::Store& store,
                                                     const database::DatabaseName& name,
                                                     const Bookmark& bookmark,
                                                     const std::atomic<bool>* cancelled) {
  OFFPRINT_TRY_ASSIGN(auto snapshot, store.snapshot_at(name, bookmark));
  OFFPRINT_TRY_ASSIGN(auto past, PastState::open(std::move(snapshot)));
  auto state = std::unique_ptr<SourceState>(new SourceState(std::move(past)));
  state->cancelled_ = cancelled;
  return state;
}

Result<std::unique_ptr<SourceState>> SourceState::newest(database::Store& store,
                                                         const database::DatabaseName& name,
                                                         const std::atomic<bool>* cancelled) {
  OFFPRINT_TRY_ASSIGN(auto snapshot, store.sql_snapshot(name));
  auto state = std::unique_ptr<SourceState>(new SourceState(std::move(snapshot)));
  state->cancelled_ = cancelled;
  return state;
}

bool SourceState::is_over() const {
  return (cancelled_ != nullptr && *cancelled_) || SteadyClock::now() > until_;
}

SourceState::~SourceState() {
  // Where nobody else uses the connection.
  (void)snapshot_->with([this](sqlite::Connection&) -> Result<> {
    statements_.clear();
    return {};
  });
}

Result<sqlite::Statement*> SourceState::statement(sqlite::Connection& connection,
                                                  const std::string& sql) {
  auto found = statements_.find(sql);
  if (found == statements_.end()) {
    if (statements_.size() >= kStatementsMax) statements_.clear();
    OFFPRINT_TRY_ASSIGN(auto compiled, connection.prepare(sql, SQLITE_PREPARE_PERSISTENT));
    found = statements_.emplace(sql, std::move(compiled)).first;
  }
  found->second.reset();
  return &found->second;
}

Result<ByteView> SourceState::page(PageNo page) {
  OFFPRINT_TRY(with([&](sqlite::Connection& connection) -> Result<> {
    OFFPRINT_TRY_ASSIGN(auto* select,
                        statement(connection, "SELECT data FROM sqlite_dbpage WHERE pgno=?1"));
    select->bind(1, std::int64_t{page});
    OFFPRINT_TRY_ASSIGN(bool found, select->step());
    if (!found) return fail(Code::kNotFound, "no such page");
    ByteView image = select->column_blob(0);
    page_.assign(image.begin(), image.end());
    select->reset();
    return {};
  }));
  return ByteView(page_);
}

Result<> SourceState::rows(const std::string& sql, std::span<const sqlite::Value> key,
                           std::span<const Argument> arguments, const Visit& visit) {
  return with([&](sqlite::Connection& connection) -> Result<> {
    OFFPRINT_TRY_ASSIGN(auto* select, statement(connection, sql));
    for (std::size_t i = 0; i < key.size(); ++i)
      OFFPRINT_TRY(bind_named(*select, fmt::format("@{}", i + 1), key[i]));
    for (const Argument& argument : arguments)
      OFFPRINT_TRY(bind_named(*select, ":" + argument.name, argument.value));
    until_ = SteadyClock::now() + kLongest;
    sqlite3_progress_handler(
        connection.handle(), kStepsBetweenLooks,
        [](void* self) { return static_cast<int>(static_cast<SourceState*>(self)->is_over()); },
        this);
    auto done = step_all(*select, visit);
    sqlite3_progress_handler(connection.handle(), 0, nullptr, nullptr);
    select->reset();
    return done;
  });
}

Result<> SourceState::step_all(sqlite::Statement& statement, const Visit& visit) {
  auto step = [&]() -> Result<bool> {
    const sqlite::MomentWatch watch;
    auto found = statement.step();
    if (!watch.was_asked() && !watch.was_asked_zone()) return found;
    return fail(Code::kInvalid, fmt::format("PUBLICATION_MOMENT: what is published {}",
                                            watch.was_asked() ? kDependsOnMoment : kDependsOnZone));
  };
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool found, step());
    if (!found) return {};
    OFFPRINT_TRY(visit(row_of(statement)));
  }
}

}  // namespace offprint::publication
