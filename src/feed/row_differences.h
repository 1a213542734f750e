#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "feed/state_walk.h"
#include "feed/transaction.h"
#include "sqlite/connection.h"
#include "sqlite/page_database.h"

namespace offprint::feed {

// SQL of ours on one of the two states of a walk. Thread: as the walk.
class StateQueries {
 public:
  using Pages = std::function<Result<ByteView>(PageNo)>;
  explicit StateQueries(Pages pages) : pages_(std::move(pages)) {}

  // The state is another one. An error is one of opening it.
  Result<> changed(std::uint32_t page_size, std::uint32_t page_count);
  bool is_empty() const { return page_count_ == 0; }
  // The rows of a statement, which is kept compiled.
  using Visit = std::function<Result<>(Row)>;
  Result<> rows(const std::string& sql, const Row& arguments, const Visit& visit);

 private:
  Result<sqlite::Statement*> statement(const std::string& sql);

  const Pages pages_;
  std::uint32_t page_size_ = 0, page_count_ = 0;
  std::unique_ptr<sqlite::PageDatabase> database_;
  std::optional<sqlite::Connection> connection_;  // ends before database_
  std::map<std::string, sqlite::Statement> statements_;
};

// Which rows of all tables a transaction changed. Not told of: tables of SQLite's own, virtual
// tables with those behind them, and what an instance of a publication keeps about itself. Thread:
// as the walk, which must outlive it.
class RowDifferences {
 public:
  // Changes of more bytes than that are not gathered. `is_instance`: of a publication.
  RowDifferences(StateWalk& walk, std::size_t bytes_max, bool is_instance);

  // Reads where the pages of all tables are, in the state that the walk stands at.
  Result<> start();
  // Into `to`: what differs between the two states of a step. After an error start() is needed.
  Result<> compare(Transaction& to);

 private:
  using Shape = std::shared_ptr<const TableShape>;
  struct Table {
    Shape shape;
    publication::TreeMap map;
  };
  using Tables = std::map<std::string, Table>;
  struct Versions {
    std::optional<std::pair<Row, std::int64_t>> before, after;  // with its rowid
  };
  using ByKey = std::map<std::string, Versions>;

  using Shapes = std::map<std::string, Shape>;
  Result<Shapes> read_shapes(StateQueries& state);
  Result<Shape> read_shape(StateQueries& state, const Row& table);
  Result<Tables> read_tables(bool at_after);
  Result<Table> read_table(const Shape& shape, bool at_after);
  Result<bool> is_schema_changed();
  Result<> compare_rows(Transaction& to);
  Result<> compare_schemas(Transaction& to);
  Result<> compare_table(Transaction& to, Table& table);
  Result<> compare_whole(Transaction& to, const Shape& before, const Shape& after);
  Result<> fetch(const TableShape& shape, const publication::TouchedRows& touched, ByKey& rows);
  Result<> take(const TableShape& shape, Row row, bool is_after, const char* prefix, ByKey& rows);
  void add_changes(Transaction& to, const Shape& before, const Shape& after, ByKey rows);

  StateWalk& walk_;
  const std::size_t bytes_max_;
  const bool is_instance_;
  StateQueries before_, after_;
  Tables tables_;  // of the state that the walk stands at
  bool is_utf8_ = true;
  std::size_t bytes_ = 0;  // gathered in this step
};

}  // namespace offprint::feed
