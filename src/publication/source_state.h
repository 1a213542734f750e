#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "database/store.h"
#include "publication/row.h"
#include "sqlite/connection.h"

namespace offprint::publication {

// The value of a parameter of a publication.
struct Argument {
  std::string name;  // without the colon
  sqlite::Value value;
  bool operator==(const Argument&) const = default;
};

// Why a definition is refused, and what it computes is not taken.
inline constexpr const char* kDependsOnMoment =
    "depends on the moment: rows would change while nothing is written";
inline constexpr const char* kDependsOnZone =
    "depends on the time zone of the machine ('localtime', 'utc'): another one would have other "
    "rows";

// One state of a source, as rows and as pages, until renew(). Thread: one at a time. Blocks.
class SourceState {
 public:
  // Statements end with an error when `cancelled` (it may be null, and outlives the state) becomes
  // true, and after five minutes.
  static Result<std::unique_ptr<SourceState>> newest(database::Store& store,
                                                     const database::DatabaseName& name,
                                                     const std::atomic<bool>* cancelled = nullptr);
  // An earlier one, as far as the log leads back; renew() has no use for it. kBehind, kNotFound: it
  // does not.
  static Result<std::unique_ptr<SourceState>> at(database::Store& store,
                                                 const database::DatabaseName& name,
                                                 const Bookmark& bookmark,
                                                 const std::atomic<bool>* cancelled = nullptr);
  ~SourceState();
  SourceState(const SourceState&) = delete;
  SourceState& operator=(const SourceState&) = delete;

  Bookmark bookmark() const { return snapshot_->bookmark(); }
  // Goes on to the newest state. An error: it is of no use any more.
  Result<> renew() { return snapshot_->renew(); }
  // Valid until the next call.
  Result<ByteView> page(PageNo page);
  // The rows of a statement, which is kept compiled. kInvalid "PUBLICATION_MOMENT: …": it asks for
  // the current time. `key` are @1 and so on; arguments that
  // the statement does not have are left out.
  using Visit = std::function<Result<>(Row)>;
  Result<> rows(const std::string& sql, std::span<const sqlite::Value> key,
                std::span<const Argument> arguments, const Visit& visit);
  Result<> with(const std::function<Result<>(sqlite::Connection&)>& work) {
    return snapshot_->with(work);
  }

 private:
  explicit SourceState(std::shared_ptr<database::SqlSnapshot> snapshot)
      : snapshot_(std::move(snapshot)) {}
  bool is_over() const;
  Result<> step_all(sqlite::Statement& statement, const Visit& visit);
  Result<sqlite::Statement*> statement(sqlite::Connection& connection, const std::string& sql);

  std::shared_ptr<database::SqlSnapshot> snapshot_;
  std::map<std::string, sqlite::Statement> statements_;
  Bytes page_;
  const std::atomic<bool>* cancelled_ = nullptr;
  Deadline until_ = Deadline::max();
};

}  // namespace offprint::publication
