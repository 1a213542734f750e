#include "server/d1_query.h"

#include <algorithm>
#include <array>

#include "database/session.h"
#include "database/sql_text.h"
#include "server/answered_request.h"
#include "server/d1_rows.h"
#include "server/errors.h"
#include "server/json_reader.h"
#include "server/json_scalar.h"
#include "server/json_writer.h"

namespace offprint::server::d1 {
namespace {

namespace dom = simdjson::dom;

constexpr std::size_t kQueriesMax = 100'000;

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(),
                     [&](std::string_view one) { return equal_ignoring_case(word, one); });
}

Result<sqlite::Value> parse_blob(dom::array list) {
  Bytes bytes;
  for (dom::element element : list) {
    std::uint64_t byte = 0;
    if (element.get(byte) != simdjson::SUCCESS || byte > 255) {
      return fail(Code::kInvalid,
                  "ARGS_INVALID: an array stands for a blob: numbers from 0 to 255");
    }
    bytes.push_back(static_cast<std::uint8_t>(byte));
  }
  return sqlite::Value(std::move(bytes));
}

Result<sqlite::Value> parse_param(dom::element element) {
  if (auto scalar = json_scalar(element)) return *std::move(scalar);
  dom::array array;
  if (element.get(array) == simdjson::SUCCESS) return parse_blob(array);
  return fail(Code::kInvalid,
              "ARGS_INVALID: a parameter is a number, a string, true, false, null or an array of "
              "bytes");
}

Result<database::SqlStatement> parse_query(dom::element element) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS)
    return fail(Code::kInvalid, "a query is {\"sql\":\"…\",\"params\":[…]}");
  OFFPRINT_TRY_ASSIGN(auto sql, json_string_field(object, "sql"));
  if (!sql) return fail(Code::kInvalid, "'sql' is missing");
  database::SqlStatement query;
  query.sql = *sql;
  OFFPRINT_TRY_ASSIGN(auto params, json_array_field(object, "params"));
  if (!params) return query;
  for (dom::element param : *params) {
    OFFPRINT_TRY_ASSIGN(auto value, parse_param(param));
    query.args.push_back(std::move(value));
  }
  return query;
}

Result<QueryList> parse_array(dom::array array) {
  QueryList list;
  list.is_array = true;
  for (dom::element element : array) {
    OFFPRINT_TRY_ASSIGN(auto query, parse_query(element));
    if (list.queries.size() == kQueriesMax)
      return fail(Code::kTooLarge, "a batch has at most 100000 queries");
    list.queries.push_back(std::move(query));
  }
  return list;
}

Result<QueryList> parse_one(dom::element element) {
  QueryList list;
  OFFPRINT_TRY_ASSIGN(auto query, parse_query(element));
  list.queries.push_back(std::move(query));
  return list;
}

// False is a guess: a semicolon inside of a literal.
bool is_one_statement(std::string_view sql) {
  std::size_t semicolon = sql.find(';');
  return semicolon == std::string_view::npos ||
         database::skip_blanks(sql.substr(semicolon)).empty();
}

// A request is one transaction already: what would begin or end one is refused.
Result<> check_control(std::string_view sql) {
  std::string_view word = database::first_word(sql);
  if (!is_one_of(word, {"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"})) return {};
  return fail(Code::kSql,
              std::string(word) +
                  " is not available over D1's interface: each request, a batch too, is one "
                  "transaction already. Interactive transactions work over libSQL's protocol "
                  "(Hrana) at the address /db/NAME/ of the same database",
              SQLITE_ERROR);
}

bool changed_database(std::string_view sql, const database::StatementResult& result) {
  if (result.read_only) return false;
  if (result.changes > 0) return true;
  // A schema changes without a row that counts.
  return !is_one_of(database::first_word(sql), {"INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"});
}

void add(QueryResult& to, const database::StatementResult& result, bool changed) {
  to.changes += result.changes;
  to.last_row_id = result.last_insert_rowid;
  to.rows_read += result.rows_read;
  to.rows_written += result.rows_written;
  to.changed_db = to.changed_db || changed;
}

double milliseconds_since(Deadline start) {
  return std::chrono::duration<double, std::milli>(SteadyClock::now() - start).count();
}

class D1Request final : public AnsweredRequest {
 public:
  D1Request(Service& service, const database::DatabaseName& name, QueryList list,
            const RunOptions& options, std::function<Response(Answer)> make_response,
            Responder responder)
      : AnsweredRequest(service, name, std::move(responder)),
        list_(std::move(list)),
        options_(options),
        make_response_(std::move(make_response)) {
    for (const auto& query : list_.queries) {
      read_only_ &= database::looks_read_only(query.sql);
      if (!is_one_statement(query.sql)) in_transaction_ = true;
    }
    if (list_.queries.size() > 1) in_transaction_ = true;
  }

  void run(database::Session& session) override {
    answer_ = {};
    size_left_ = service_.options.response_bytes_max;
    if (in_transaction_) {
      run_transaction(session);
    } else if (!list_.queries.empty()) {
      note(run_query(session, list_.queries.front()));
    }
  }

  bool likely_read_only() const override { return read_only_; }

 private:
  Response make_answer(database::Outcome outcome) override {
    if (outcome.state != database::Outcome::State::kCommitted)
      answer_.error = outcome.error.value_or(Error(Code::kInternal, "rejected"));
    if (answer_.error) answer_.results.clear();
    answer_.bookmark = outcome.bookmark;
    bool for_primary = answer_.error && only_primary_knows(*answer_.error);
    Response response = make_response_(std::move(answer_));
    response.for_primary = for_primary;
    response.headers += answer_headers(service_, name_, outcome.bookmark);
    if (outcome.bookmark.lineage != Lineage()) {
      response.headers += kSessionToken;
      response.headers += ": " + outcome.bookmark.text() + "\r\n";
    }
    return response;
  }

  void note(Result<> result) {
    if (!result && !answer_.error) answer_.error = std::move(result).error();
  }

  void run_transaction(database::Session& session) {
    note(control(session, "BEGIN"));
    for (const auto& query : list_.queries) {
      if (answer_.error || session.lost()) break;
      note(run_query(session, query));
    }
    if (!answer_.error && !session.lost()) note(control(session, "COMMIT"));
    if (answer_.error && !session.lost() && !session.autocommit())
      note(control(session, "ROLLBACK"));
  }

  static Result<> control(database::Session& session, const char* sql) {
    database::SqlStatement statement;
    statement.sql = sql;
    database::DropRows rows;
    OFFPRINT_TRY(session.execute(statement, rows));
    return {};
  }

  Result<> run_query(database::Session& session, const database::SqlStatement& query) {
    // A line of exec() may be blank.
    if (list_.is_array && database::skip_blanks(query.sql).empty()) {
      QueryResult nothing;
      D1Rows(nothing.rows, options_.rows, size_left_).close();
      return keep(std::move(nothing));
    }
    if (!is_one_statement(query.sql)) return run_script(session, query);
    OFFPRINT_TRY(check_control(query.sql));
    QueryResult result;
    auto start = SteadyClock::now();
    D1Rows rows(result.rows, options_.rows, size_left_);
    OFFPRINT_TRY_ASSIGN(auto did, session.execute(query, rows));
    rows.close();
    result.duration_ms = milliseconds_since(start);
    add(result, did, changed_database(query.sql, did));
    return keep(std::move(result));
  }

  Result<> run_script(database::Session& session, const database::SqlStatement& query) {
    database::Script script{query.sql, query.args};
    QueryResult result;
    auto start = SteadyClock::now();
    bool ran = false;
    while (!session.lost() && !database::skip_blanks(script.sql).empty()) {
      if (ran && options_.result_for_each_statement) {
        OFFPRINT_TRY(keep(std::exchange(result, {})));
        start = SteadyClock::now();
      }
      ran = true;
      OFFPRINT_TRY(check_control(script.sql));
      std::string_view sql = script.sql;
      D1Rows rows(result.rows, options_.rows, size_left_);
      OFFPRINT_TRY_ASSIGN(auto did, session.execute_next(script, rows));
      rows.close();
      result.duration_ms = milliseconds_since(start);
      add(result, did, changed_database(sql, did));
    }
    if (!script.args.empty() && !session.lost()) {
      return fail(Code::kInvalid, "ARGS_INVALID: the statements have fewer parameters than the " +
                                      std::to_string(query.args.size()) + " that were given");
    }
    if (!ran) D1Rows(result.rows, options_.rows, size_left_).close();
    return keep(std::move(result));
  }

  Result<> keep(QueryResult result) {
    size_left_ -= std::min(size_left_, result.rows.size());
    answer_.results.push_back(std::move(result));
    return {};
  }

  const QueryList list_;
  const RunOptions options_;
  const std::function<Response(Answer)> make_response_;
  bool read_only_ = true;
  bool in_transaction_ = false;
  std::size_t size_left_ = 0;
  Answer answer_;
};

Result<ReadMode> session_mode(const Service& service, const database::DatabaseName& name,
                              const HttpRequest& request) {
  std::string_view token = request.header(kSessionToken);
  OFFPRINT_TRY_ASSIGN(ReadMode mode, read_mode(service, name, request));
  if (token.empty()) return mode;
  mode.primary = token == "first-primary";
  if (mode.primary || token == "first-unconstrained") return mode;  // any node
  mode.at_least = Bookmark::parse(token);
  if (mode.at_least) return mode;
  return fail(Code::kInvalid, "'" + std::string(token) +
                                  "' is neither a bookmark nor first-primary nor "
                                  "first-unconstrained");
}

void append_field(std::string& to, std::string_view name, std::int64_t value) {
  to += ",\"";
  to += name;
  to += "\":";
  append_integer(to, value);
}

}  // namespace

Result<QueryList> parse_binding_queries(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(dom::element root, reader.parse(body));
  dom::array array;
  if (root.get(array) == simdjson::SUCCESS) return parse_array(array);
  return parse_one(root);
}

Result<QueryList> parse_rest_queries(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(dom::element root, reader.parse(body));
  dom::object object;
  if (root.get(object) == simdjson::SUCCESS) {
    OFFPRINT_TRY_ASSIGN(auto batch, json_array_field(object, "batch"));
    if (batch) return parse_array(*batch);
  }
  return parse_one(root);
}

void run_queries(Service& service, const database::DatabaseName& name, const HttpRequest& request,
                 QueryList list, const RunOptions& options,
                 std::function<Response(Answer)> make_response, Responder responder) {
  Result<ReadMode> mode = session_mode(service, name, request);
  auto key = request_key(request);
  if (!mode || !key) {
    Answer refused;
    refused.error = mode ? key.error() : mode.error();
    return responder.respond(make_response(std::move(refused)));
  }
  auto work = std::make_unique<D1Request>(service, name, std::move(list), options,
                                          std::move(make_response), std::move(responder));
  work->deadline = service.deadline();
  work->key = *std::move(key);
  mode->apply(*work);
  service.store.submit(name, std::move(work));
}

std::uint64_t database_size(const Service& service, const database::DatabaseName& name) {
  Result<database::DatabaseInfo> info = service.store.info(name);
  return info ? std::uint64_t{info->page_size} * info->page_count : 0;
}

void append_meta(std::string& to, const Service& service, const database::DatabaseName& name,
                 const QueryResult& result, std::uint64_t size_after) {
  to += "{\"served_by\":";
  append_json_string(to, service.options.node_name);
  to += standing(service, name).primary ? ",\"served_by_primary\":true"
                                        : ",\"served_by_primary\":false";
  to += ",\"timings\":{\"sql_duration_ms\":";
  append_double(to, result.duration_ms);
  to += "},\"duration\":";
  append_double(to, result.duration_ms);
  append_field(to, "changes", result.changes);
  append_field(to, "last_row_id", result.last_row_id);
  to += result.changed_db ? ",\"changed_db\":true" : ",\"changed_db\":false";
  append_field(to, "size_after", static_cast<std::int64_t>(size_after));
  append_field(to, "rows_read", static_cast<std::int64_t>(result.rows_read));
  append_field(to, "rows_written", static_cast<std::int64_t>(result.rows_written));
  to += ",\"total_attempts\":1}";
}

std::string error_message(const Error& error) {
  ErrorText text = error_text(error);
  return text.message + ": " + text.code;
}

}  // namespace offprint::server::d1
