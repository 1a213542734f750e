#include "database/publication_list.h"

#include <map>
#include <tuple>

#include <fmt/format.h>

#include "database/transaction_request.h"

namespace offprint::database {
namespace {

constexpr const char* kColumns =
    "name, version, definition, created_at_ms, hash, state, sunset_ms, size_bytes_max, "
    "rows_per_minute_max";

// Of a row that begins with these.
StoredPublication publication_of(const sqlite::Statement& row) {
  StoredPublication publication;
  publication.name = row.column_text(0);
  publication.version = static_cast<std::uint32_t>(row.column_int(1));
  publication.definition = row.column_text(2);
  publication.created_at_ms = row.column_int(3);
  publication.hash = row.column_text(4);
  publication.state = static_cast<StoredPublication::State>(row.column_int(5));
  publication.sunset_ms = row.column_int(6);
  publication.size_bytes_max = static_cast<std::uint64_t>(row.column_int(7));
  publication.rows_per_minute_max = static_cast<std::uint64_t>(row.column_int(8));
  return publication;
}

sqlite::Value number(std::uint64_t value) { return static_cast<std::int64_t>(value); }

// Which consumer a row is of.
using Place = std::tuple<std::uint64_t, std::string, std::uint32_t, std::string>;
constexpr const char* kPlace = "database_id, publication, version, consumer";

Place place_of(const sqlite::Statement& row) {
  return {static_cast<std::uint64_t>(row.column_int(0)), std::string(row.column_text(1)),
          static_cast<std::uint32_t>(row.column_int(2)), std::string(row.column_text(3))};
}

Result<> remove_one(Session& session, const std::vector<sqlite::Value>& place) {
  for (const char* table : {"consumers", "consumer_queries", "consumer_reads"}) {
    OFFPRINT_TRY(execute(session,
                         fmt::format("DELETE FROM {} WHERE database_id=? AND publication=? AND "
                                     "version=? AND consumer=?",
                                     table),
                         place));
  }
  return {};
}

}  // namespace

Result<std::vector<std::pair<std::uint64_t, StoredPublication>>> PublicationList::all() {
  std::vector<std::pair<std::uint64_t, StoredPublication>> found;
  OFFPRINT_TRY(read_([&](Session& session) -> Result<> {
    found.clear();
    OFFPRINT_TRY(execute(session,
                         fmt::format("SELECT {}, database_id FROM publications ORDER BY "
                                     "database_id, name, version",
                                     kColumns),
                         {}, [&](const sqlite::Statement& row) {
                           found.emplace_back(static_cast<std::uint64_t>(row.column_int(9)),
                                              publication_of(row));
                         }));
    return {};
  }));
  return found;
}

Result<std::vector<StoredPublication>> PublicationList::of(std::uint64_t id) {
  std::vector<StoredPublication> found;
  OFFPRINT_TRY(read_([&](Session& session) -> Result<> {
    found.clear();
    OFFPRINT_TRY(execute(
        session,
        fmt::format("SELECT {} FROM publications WHERE database_id = ? ORDER BY name, version",
                    kColumns),
        {number(id)}, [&](const sqlite::Statement& row) { found.push_back(publication_of(row)); }));
    return {};
  }));
  return found;
}

Result<> PublicationList::add(std::uint64_t id, const StoredPublication& publication) {
  auto added = run_([&](Session& session) -> Result<> {
    OFFPRINT_TRY(
        execute(session,
                fmt::format("INSERT INTO publications(database_id, {}) VALUES(?, ?, ?, ?, "
                            "?, ?, ?, ?, ?, ?)",
                            kColumns),
                {number(id), publication.name, std::int64_t{publication.version},
                 publication.definition, publication.created_at_ms, publication.hash,
                 static_cast<std::int64_t>(publication.state), publication.sunset_ms,
                 number(publication.size_bytes_max), number(publication.rows_per_minute_max)}));
    return {};
  });
  if (!added && added.error().sqlite_code() == SQLITE_CONSTRAINT_PRIMARYKEY) {
    return fail(Code::kConflict, fmt::format("publication {}@v{} exists already", publication.name,
                                             publication.version));
  }
  return added;
}

Result<> PublicationList::update(std::uint64_t id, const StoredPublication& publication) {
  return run_([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(
        session,
        "UPDATE publications SET definition=?, hash=?, state=?, sunset_ms=?, size_bytes_max=?, "
        "rows_per_minute_max=? WHERE database_id=? AND name=? AND version=?",
        {publication.definition, publication.hash, static_cast<std::int64_t>(publication.state),
         publication.sunset_ms, number(publication.size_bytes_max),
         number(publication.rows_per_minute_max), number(id), publication.name,
         std::int64_t{publication.version}}));
    return {};
  });
}

Result<> PublicationList::remove(std::uint64_t id, const std::string& name, std::uint32_t version) {
  return run_([&](Session& session) -> Result<> {
    OFFPRINT_TRY(execute(session,
                         "DELETE FROM publications WHERE database_id=? AND name=? AND version=?",
                         {number(id), name, std::int64_t{version}}));
    for (const char* table : {"consumers", "consumer_queries", "consumer_reads"}) {
      OFFPRINT_TRY(execute(
          session,
          fmt::format("DELETE FROM {} WHERE database_id=? AND publication=? AND version=?", table),
          {number(id), name, std::int64_t{version}}));
    }
    return {};
  });
}

Result<std::vector<std::pair<std::uint64_t, StoredConsumer>>> PublicationList::read_consumers(
    std::uint64_t id) {
  std::map<Place, StoredConsumer> found;
  OFFPRINT_TRY(read_([&](Session& session) -> Result<> {
    found.clear();
    const std::vector<sqlite::Value> wanted = {number(id)};
    auto read = [&](const char* columns, const char* table, const char* order, const auto& take) {
      return execute(session,
                     fmt::format("SELECT {}, {} FROM {} WHERE ?1 IN (0, database_id) ORDER BY {}{}",
                                 kPlace, columns, table, kPlace, order),
                     wanted, take);
    };
    OFFPRINT_TRY(read("registered_at_ms", "consumers", "", [&](const sqlite::Statement& row) {
      const Place place = place_of(row);
      found[place] = {std::get<1>(place), std::get<2>(place), std::get<3>(place),
                      row.column_int(4)};
    }));
    OFFPRINT_TRY(
        read("name, sql", "consumer_queries", ", number", [&](const sqlite::Statement& row) {
          found[place_of(row)].queries.push_back(
              {std::string(row.column_text(4)), std::string(row.column_text(5))});
        }));
    OFFPRINT_TRY(read(
        "table_name, column_name", "consumer_reads", ", 5, 6", [&](const sqlite::Statement& row) {
          found[place_of(row)].reads.emplace_back(row.column_text(4), row.column_text(5));
        }));
    return {};
  }));
  std::vector<std::pair<std::uint64_t, StoredConsumer>> list;
  for (auto& [place, consumer] : found) list.emplace_back(std::get<0>(place), std::move(consumer));
  return list;
}

Result<std::vector<std::pair<std::uint64_t, StoredConsumer>>> PublicationList::all_consumers() {
  return read_consumers(0);
}

Result<std::vector<StoredConsumer>> PublicationList::consumers(std::uint64_t id) {
  OFFPRINT_TRY_ASSIGN(auto found, read_consumers(id));
  std::vector<StoredConsumer> list;
  for (auto& [database, consumer] : found) list.push_back(std::move(consumer));
  return list;
}

Result<> PublicationList::put_consumer(std::uint64_t id, const StoredConsumer& consumer) {
  return run_([&](Session& session) -> Result<> {
    const std::vector<sqlite::Value> place = {number(id), consumer.publication,
                                              std::int64_t{consumer.version}, consumer.name};
    OFFPRINT_TRY(remove_one(session, place));
    auto insert = [&](const char* table, std::vector<sqlite::Value> more) {
      std::vector<sqlite::Value> values = place;
      std::string marks = "?, ?, ?, ?";
      for (sqlite::Value& value : more) {
        values.push_back(std::move(value));
        marks += ", ?";
      }
      return execute(session, fmt::format("INSERT INTO {} VALUES({})", table, marks),
                     std::move(values));
    };
    OFFPRINT_TRY(insert("consumers", {consumer.registered_at_ms}));
    std::int64_t count = 0;
    for (const StoredConsumer::Query& query : consumer.queries)
      OFFPRINT_TRY(insert("consumer_queries", {++count, query.name, query.sql}));
    for (const auto& [table, column] : consumer.reads)
      OFFPRINT_TRY(insert("consumer_reads", {table, column}));
    return {};
  });
}

Result<> PublicationList::remove_consumer(std::uint64_t id, const std::string& publication,
                                          std::uint32_t version, const std::string& consumer) {
  bool is_there = false;
  OFFPRINT_TRY(run_([&](Session& session) -> Result<> {
    const std::vector<sqlite::Value> place = {number(id), publication, std::int64_t{version},
                                              consumer};
    is_there = false;
    OFFPRINT_TRY(execute(session,
                         "SELECT 1 FROM consumers WHERE database_id=? AND publication=? AND "
                         "version=? AND consumer=?",
                         place, [&](const auto&) { is_there = true; }));
    return remove_one(session, place);
  }));
  if (is_there) return {};
  return fail(Code::kNotFound,
              fmt::format("{}@v{} has no consumer '{}'", publication, version, consumer));
}

Result<> PublicationList::remove_database(Session& session, std::uint64_t id) {
  for (const char* table : {"publications", "consumers", "consumer_queries", "consumer_reads"}) {
    OFFPRINT_TRY(
        execute(session, fmt::format("DELETE FROM {} WHERE database_id = ?", table), {number(id)}));
  }
  return {};
}

}  // namespace offprint::database
