#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/request.h"

// Hrana (SQL over HTTP) as data: what a pipeline asks for. Wire format: docs/protocol/hrana.md.
namespace offprint::server::hrana {

// The SQL of a statement: given here, or by the id under which the stream stored it.
struct SqlSource {
  std::string sql;
  std::optional<std::int64_t> stored_id;
};

// Every `replication_index` is a txid that the database must have reached here; 0: any will do.
struct Statement {
  SqlSource source;
  database::SqlStatement statement;  // arguments; its text is filled in by resolve()
  bool want_rows = true;
  std::uint64_t replication_index = 0;
};

struct Condition {
  enum class Kind { kOk, kError, kNot, kAnd, kOr, kIsAutocommit };
  Kind kind = Kind::kOk;
  std::size_t step = 0;             // kOk, kError
  std::vector<Condition> children;  // kNot (one), kAnd, kOr
};

struct Step {
  std::optional<Condition> condition;
  Statement statement;
};

struct StreamRequest {
  enum class Kind {
    kExecute,
    kBatch,
    kSequence,
    kDescribe,
    kStoreSql,
    kCloseSql,
    kClose,
    kGetAutocommit
  };
  Kind kind = Kind::kClose;
  Statement statement;                  // kExecute
  std::vector<Step> steps;              // kBatch
  SqlSource source;                     // kSequence, kDescribe, and the text of kStoreSql
  std::int64_t sql_id = 0;              // kStoreSql, kCloseSql
  std::uint64_t replication_index = 0;  // the greatest in it
  std::optional<Error> error;           // known before anything runs: answered in place of a result

  bool runs_sql() const;
  bool looks_read_only() const;
};

struct Pipeline {
  std::optional<std::string> baton;
  std::vector<StreamRequest> requests;
  bool closes() const {
    return !requests.empty() && requests.back().kind == StreamRequest::Kind::kClose;
  }
  // Something in it needs the database.
  bool runs_sql() const;
  // Everything that runs looks like reading.
  bool looks_read_only() const;
  std::uint64_t replication_index() const;
};

// Parses a request body. kInvalid: the whole HTTP request is refused. `body` may get more capacity.
Result<Pipeline> parse_pipeline(std::string& body);
// The bodies of …/v3/cursor, {"baton","batch"}, and of Hrana 1's …/v1/execute, {"stmt"}, and
// …/v1/batch, {"batch"}: a pipeline with one request.
Result<Pipeline> parse_cursor(std::string& body);
Result<Pipeline> parse_single(std::string& body, StreamRequest::Kind kind);

// SQL texts that a stream stored, by id.
using StoredSql = std::map<std::int64_t, std::string>;
inline constexpr std::size_t kStoredTextsMax = 150;           // a stream
inline constexpr std::size_t kStoredTextBytesMax = 64 << 10;  // a text

// Carries out store_sql and close_sql on `stored`, in order, and fills in the texts of everything
// that refers to it. kInvalid (the whole HTTP request is refused): an unknown id, an id in use.
Result<> resolve(Pipeline& pipeline, StoredSql& stored);
Result<> resolve(StreamRequest& request, StoredSql& stored);

}  // namespace offprint::server::hrana
