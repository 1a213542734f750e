#include "database/row_export.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "database/sql_dump_plan.h"
#include "database/user_connection.h"

namespace offprint::database {
namespace {

// Statements of one piece end when its time is over.
class PieceTime {
 public:
  PieceTime(UserConnection& connection, std::chrono::milliseconds time_max)
      : connection_(connection) {
    connection.clear_timed_out();
    connection.set_deadline(SteadyClock::now() + time_max);
  }
  ~PieceTime() { connection_.set_deadline(Deadline::max()); }
  PieceTime(const PieceTime&) = delete;
  PieceTime& operator=(const PieceTime&) = delete;

 private:
  UserConnection& connection_;
};

class RowExport final : public TextExport {
 public:
  RowExport(std::shared_ptr<SqlSnapshot> snapshot, RowExportOptions options,
            const DatabaseLimits& limits, std::unique_ptr<RowFormat> format)
      : snapshot_(std::move(snapshot)),
        options_(std::move(options)),
        rows_max_(options_.query.empty() ? 0 : limits.rows_max),
        format_(std::move(format)) {
    if (limits.statement_ms_max != 0) {
      options_.piece_time_max =
          std::min(options_.piece_time_max, std::chrono::milliseconds(limits.statement_ms_max));
    }
  }
  // Not while the snapshot's time limit resets what is still open.
  ~RowExport() override {
    (void)snapshot_->with_user([this](UserConnection&) -> Result<> {
      rows_.reset();
      return {};
    });
  }

  // Up to the first row, so that most errors come before the first byte.
  Result<> start() {
    return snapshot_->with_user([this](UserConnection& connection) -> Result<> {
      PieceTime time(connection, options_.piece_time_max);
      if (options_.query.empty()) {
        OFFPRINT_TRY(prepare_table(connection));
      } else {
        OFFPRINT_TRY(prepare(connection, options_.query));
      }
      OFFPRINT_TRY(check_query());
      OFFPRINT_TRY(format_->begin(rows(), begun_));
      return step(connection);
    });
  }

  Bookmark bookmark() const override { return snapshot_->bookmark(); }

  Result<bool> next(std::string& to, std::size_t bytes) override {
    std::size_t enough = to.size() + bytes;
    to += std::exchange(begun_, {});
    OFFPRINT_TRY(snapshot_->with_user([&](UserConnection& connection) -> Result<> {
      PieceTime time(connection, options_.piece_time_max);
      while (row_is_there_ && to.size() < enough) {
        OFFPRINT_TRY(format_->row(rows(), to));
        OFFPRINT_TRY(step(connection));
      }
      return {};
    }));
    return row_is_there_;
  }

 private:
  sqlite::Statement& rows() { return (*rows_)->statement; }

  Result<> prepare(UserConnection& connection, const std::string& sql) {
    rows_.reset();
    OFFPRINT_TRY_ASSIGN(auto lease, connection.prepare(sql, nullptr, options_.rights.get()));
    rows_.emplace(std::move(lease));
    return {};
  }

  Result<> check_query() {
    PreparedStatement& prepared = *rows_->operator->();
    bool reads = prepared.kind == StatementKind::kPlain && prepared.read_only &&
                 !prepared.sets_pragma && !prepared.sets_defer_foreign_keys &&
                 !prepared.sets_foreign_keys && rows().column_count() > 0;
    if (!reads) return fail(Code::kInvalid, "an export takes a statement that reads: SELECT …");
    return bind_arguments(rows(), SqlStatement());
  }

  Result<> prepare_table(UserConnection& connection) {
    const std::string& table = options_.table;
    std::string source = "main." + quoted(table, '"');
    // Rights first: who may not read the table learns nothing of it.
    Result<> readable = prepare(connection, "SELECT * FROM " + source);
    if (!readable && readable.error().code() != Code::kSql) return readable;
    if (sqlite3_strnicmp(table.c_str(), "sqlite_", 7) == 0) {
      return fail(Code::kInvalid,
                  fmt::format("'{}' is SQLite's own; export it with query=SELECT …", table));
    }
    OFFPRINT_TRY_ASSIGN(auto list,
                        connection.prepare_internal(
                            "SELECT type FROM pragma_table_list(?1) WHERE schema = 'main'"));
    list.bind_text(1, table);
    OFFPRINT_TRY_ASSIGN(bool found, list.step());
    if (!found) return fail(Code::kNotFound, fmt::format("there is no table '{}'", table));
    if (!readable) return readable;
    std::string type(list.column_text(0));
    if (type == "shadow") {
      return fail(Code::kInvalid,
                  fmt::format("'{}' is a part of a virtual table; export that one", table));
    }
    OFFPRINT_TRY_ASSIGN(std::string columns, column_list(connection));
    // In the order of the table, not of an index that happens to hold the columns.
    std::string_view hint = type == "table" ? " NOT INDEXED" : "";
    return prepare(connection, fmt::format("SELECT {} FROM {}{}", columns, source, hint));
  }

  Result<std::string> column_list(UserConnection& connection) {
    OFFPRINT_TRY_ASSIGN(
        auto columns, connection.prepare_internal("SELECT name FROM pragma_table_xinfo(?1, 'main') "
                                                  "WHERE hidden = 0 ORDER BY cid"));
    columns.bind_text(1, options_.table);
    std::string list;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool row, columns.step());
      if (!row) return list;
      if (!list.empty()) list += ',';
      list += quoted(columns.column_text(0), '"');
    }
  }

  Result<> step(UserConnection& connection) {
    int code = sqlite3_step(rows().handle());
    row_is_there_ = code == SQLITE_ROW;
    if (!row_is_there_ && code != SQLITE_DONE)
      return fail(connection.error(sqlite3_extended_errcode(connection.handle())));
    if ((*rows_)->is_changed())
      return fail(Code::kForbidden, "the schema changed while the statement was checked");
    if (row_is_there_ && ++row_count_ > rows_max_ && rows_max_ != 0) {
      return fail(Code::kTooLarge,
                  fmt::format("ROWS_LIMIT: the result has more than {} rows, the database's limit",
                              rows_max_));
    }
    return {};
  }

  const std::shared_ptr<SqlSnapshot> snapshot_;
  RowExportOptions options_;
  const std::uint64_t rows_max_;  // 0: any number
  const std::unique_ptr<RowFormat> format_;
  std::optional<UserConnection::Lease> rows_;  // goes before snapshot_ does
  std::string begun_;                          // what comes before the first row
  bool row_is_there_ = false;
  std::uint64_t row_count_ = 0;
};

}  // namespace

Result<std::unique_ptr<TextExport>> export_rows(Store& store, const DatabaseName& name,
                                                RowExportOptions options,
                                                std::unique_ptr<RowFormat> format) {
  OFFPRINT_TRY_ASSIGN(DatabaseInfo info, store.info(name));
  OFFPRINT_TRY_ASSIGN(auto snapshot, store.sql_snapshot(name));
  auto text = std::make_unique<RowExport>(std::move(snapshot), std::move(options), info.limits,
                                          std::move(format));
  OFFPRINT_TRY(text->start());
  return text;
}

}  // namespace offprint::database
