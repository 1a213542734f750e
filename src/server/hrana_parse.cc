#include "server/hrana_parse.h"

#include <algorithm>
#include <charconv>

#include "server/hrana.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint::server::hrana {
namespace {

namespace dom = simdjson::dom;
using Kind = StreamRequest::Kind;

std::unexpected<Error> invalid(std::string message) {
  return fail(Code::kInvalid, std::move(message));
}

Result<dom::object> as_object(dom::element element, std::string_view what) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS)
    return invalid(std::string(what) + " must be an object");
  return object;
}

Result<sqlite::Value> parse_integer(dom::object object) {
  auto value = json_field(object, "value");
  std::int64_t number = 0;
  if (value && value->get(number) == simdjson::SUCCESS) return sqlite::Value(number);
  std::string_view text;
  if (!value || value->get(text) != simdjson::SUCCESS)
    return invalid("an integer's 'value' must be a decimal string");
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return invalid("an integer's 'value' must be a decimal string of 64 bits");
  }
  return sqlite::Value(number);
}

Result<sqlite::Value> parse_value(dom::element element) {
  OFFPRINT_TRY_ASSIGN(dom::object object, as_object(element, "a value"));
  OFFPRINT_TRY_ASSIGN(auto type, json_string_field(object, "type"));
  if (!type) return invalid("a value has no 'type'");
  if (*type == "null") return sqlite::Value();
  if (*type == "integer") return parse_integer(object);
  if (*type == "float") {
    auto value = json_field(object, "value");
    if (!value)
      return sqlite::Value();  // how infinities and NaN travel; SQLite binds NaN as NULL, too
    double number = 0;
    if (value->get(number) != simdjson::SUCCESS)
      return invalid("a float's 'value' must be a number");
    return sqlite::Value(number);
  }
  if (*type == "text") {
    OFFPRINT_TRY_ASSIGN(auto value, json_string_field(object, "value"));
    if (!value) return invalid("a text has no 'value'");
    return sqlite::Value(std::string(*value));
  }
  if (*type == "blob") {
    OFFPRINT_TRY_ASSIGN(auto text, json_string_field(object, "base64"));
    Bytes bytes;
    if (!text || !decode_base64(*text, bytes)) return invalid("a blob's 'base64' is not base64");
    return sqlite::Value(std::move(bytes));
  }
  return invalid("unknown type of value '" + std::string(*type) + "'");
}

Result<SqlSource> parse_source(dom::object object) {
  OFFPRINT_TRY_ASSIGN(auto sql, json_string_field(object, "sql"));
  OFFPRINT_TRY_ASSIGN(auto id, json_integer_field(object, "sql_id"));
  if (sql && id) return invalid("'sql' and 'sql_id' are given both");
  if (!sql && !id) return invalid("neither 'sql' nor 'sql_id' is given");
  SqlSource source;
  if (sql) source.sql = *sql;
  source.stored_id = id;
  return source;
}

// A number, or a decimal string of one; absent and null are 0.
Result<std::uint64_t> parse_replication_index(dom::object object) {
  auto value = json_field(object, "replication_index");
  if (!value) return std::uint64_t{0};
  std::uint64_t index = 0;
  if (value->get(index) == simdjson::SUCCESS) return index;
  std::string_view text;
  if (value->get(text) == simdjson::SUCCESS) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
    if (!text.empty() && error == std::errc() && end == text.data() + text.size()) return index;
  }
  return invalid("a 'replication_index' must be a whole number");
}

Result<Statement> parse_statement(dom::element element) {
  OFFPRINT_TRY_ASSIGN(dom::object object, as_object(element, "a statement"));
  Statement statement;
  OFFPRINT_TRY_ASSIGN(statement.source, parse_source(object));
  OFFPRINT_TRY_ASSIGN(auto args, json_array_field(object, "args"));
  if (args) {
    for (dom::element arg : *args) {
      OFFPRINT_TRY_ASSIGN(auto value, parse_value(arg));
      statement.statement.args.push_back(std::move(value));
    }
  }
  OFFPRINT_TRY_ASSIGN(auto named, json_array_field(object, "named_args"));
  if (named) {
    for (dom::element arg : *named) {
      OFFPRINT_TRY_ASSIGN(dom::object pair, as_object(arg, "a named argument"));
      OFFPRINT_TRY_ASSIGN(auto name, json_string_field(pair, "name"));
      auto value = json_field(pair, "value");
      if (!name || !value) return invalid("a named argument needs 'name' and 'value'");
      OFFPRINT_TRY_ASSIGN(auto parsed, parse_value(*value));
      statement.statement.named_args.push_back({std::string(*name), std::move(parsed)});
    }
  }
  OFFPRINT_TRY_ASSIGN(auto want_rows, json_bool_field(object, "want_rows"));
  statement.want_rows = want_rows.value_or(true);
  OFFPRINT_TRY_ASSIGN(statement.replication_index, parse_replication_index(object));
  return statement;
}

// `index`: of the step that the condition belongs to; it may only look at earlier ones.
Result<Condition> parse_condition(dom::element element, std::size_t index) {
  OFFPRINT_TRY_ASSIGN(dom::object object, as_object(element, "a condition"));
  OFFPRINT_TRY_ASSIGN(auto type, json_string_field(object, "type"));
  Condition condition;
  if (type == "ok" || type == "error") {
    condition.kind = type == "ok" ? Condition::Kind::kOk : Condition::Kind::kError;
    OFFPRINT_TRY_ASSIGN(auto step, json_integer_field(object, "step"));
    if (!step || *step < 0 || static_cast<std::uint64_t>(*step) >= index) {
      return invalid("a condition may refer to earlier steps only");
    }
    condition.step = static_cast<std::size_t>(*step);
  } else if (type == "not") {
    condition.kind = Condition::Kind::kNot;
    auto child = json_field(object, "cond");
    if (!child) return invalid("a 'not' condition needs 'cond'");
    OFFPRINT_TRY_ASSIGN(auto parsed, parse_condition(*child, index));
    condition.children.push_back(std::move(parsed));
  } else if (type == "and" || type == "or") {
    condition.kind = type == "and" ? Condition::Kind::kAnd : Condition::Kind::kOr;
    OFFPRINT_TRY_ASSIGN(auto children, json_array_field(object, "conds"));
    if (!children) return invalid("an 'and' or 'or' condition needs 'conds'");
    for (dom::element child : *children) {
      OFFPRINT_TRY_ASSIGN(auto parsed, parse_condition(child, index));
      condition.children.push_back(std::move(parsed));
    }
  } else if (type == "is_autocommit") {
    condition.kind = Condition::Kind::kIsAutocommit;
  } else {
    return invalid("unknown type of condition");
  }
  return condition;
}

Result<> parse_execute(dom::object object, StreamRequest& to) {
  to.kind = Kind::kExecute;
  auto statement = json_field(object, "stmt");
  if (!statement) return invalid("an execute request needs 'stmt'");
  OFFPRINT_TRY_ASSIGN(to.statement, parse_statement(*statement));
  OFFPRINT_TRY_ASSIGN(to.replication_index, parse_replication_index(object));
  to.replication_index = std::max(to.replication_index, to.statement.replication_index);
  return {};
}

Result<> fill_in(SqlSource& source, const StoredSql& stored, std::string& to) {
  if (source.stored_id) {
    auto found = stored.find(*source.stored_id);
    if (found == stored.end()) {
      return invalid("no SQL text is stored under " + std::to_string(*source.stored_id));
    }
    to = found->second;
  } else if (&to != &source.sql) {
    to = std::move(source.sql);
  }
  return {};
}

Result<> store(StreamRequest& request, StoredSql& stored) {
  if (stored.contains(request.sql_id)) {
    return invalid("an SQL text is stored already under " + std::to_string(request.sql_id));
  }
  if (request.source.sql.size() > kStoredTextBytesMax) {
    request.error =
        Error(Code::kTooLarge, "SQL_STORE_TOO_LARGE: the SQL text is too long to be stored");
  } else if (stored.size() >= kStoredTextsMax) {
    request.error =
        Error(Code::kTooLarge, "SQL_STORE_TOO_MANY: too many SQL texts are stored on this stream");
  } else {
    stored.emplace(request.sql_id, std::move(request.source.sql));
  }
  return {};
}

}  // namespace

Result<> parse_batch(dom::object request, StreamRequest& to) {
  to.kind = Kind::kBatch;
  OFFPRINT_TRY_ASSIGN(auto batch, json_object_field(request, "batch"));
  if (!batch) return invalid("a batch request needs 'batch'");
  OFFPRINT_TRY_ASSIGN(to.replication_index, parse_replication_index(*batch));
  OFFPRINT_TRY_ASSIGN(auto items, json_array_field(*batch, "steps"));
  if (!items) return invalid("a batch needs 'steps'");
  for (dom::element item : *items) {
    OFFPRINT_TRY_ASSIGN(dom::object object, as_object(item, "a step"));
    Step step;
    if (auto condition = json_field(object, "condition")) {
      OFFPRINT_TRY_ASSIGN(step.condition, parse_condition(*condition, to.steps.size()));
    }
    auto statement = json_field(object, "stmt");
    if (!statement) return invalid("a step needs 'stmt'");
    OFFPRINT_TRY_ASSIGN(step.statement, parse_statement(*statement));
    to.replication_index = std::max(to.replication_index, step.statement.replication_index);
    to.steps.push_back(std::move(step));
  }
  return {};
}

Result<StreamRequest> parse_request(dom::object object) {
  OFFPRINT_TRY_ASSIGN(auto type, json_string_field(object, "type"));
  StreamRequest request;
  if (type == "execute") {
    OFFPRINT_TRY(parse_execute(object, request));
  } else if (type == "batch") {
    OFFPRINT_TRY(parse_batch(object, request));
  } else if (type == "sequence" || type == "describe") {
    request.kind = type == "sequence" ? Kind::kSequence : Kind::kDescribe;
    OFFPRINT_TRY_ASSIGN(request.source, parse_source(object));
    OFFPRINT_TRY_ASSIGN(request.replication_index, parse_replication_index(object));
  } else if (type == "store_sql" || type == "close_sql") {
    request.kind = type == "store_sql" ? Kind::kStoreSql : Kind::kCloseSql;
    OFFPRINT_TRY_ASSIGN(auto id, json_integer_field(object, "sql_id"));
    if (!id) return invalid("'sql_id' is missing");
    request.sql_id = *id;
    OFFPRINT_TRY_ASSIGN(auto sql, json_string_field(object, "sql"));
    if (request.kind == Kind::kStoreSql && !sql) return invalid("a store_sql request needs 'sql'");
    if (sql) request.source.sql = *sql;
  } else if (type == "close") {
    request.kind = Kind::kClose;
  } else if (type == "get_autocommit") {
    request.kind = Kind::kGetAutocommit;
  } else {
    return invalid(type ? "unknown type of request '" + std::string(*type) + "'"
                        : "a request has no 'type'");
  }
  return request;
}

bool StreamRequest::runs_sql() const {
  return kind == Kind::kExecute || kind == Kind::kBatch || kind == Kind::kSequence ||
         kind == Kind::kDescribe;
}

bool StreamRequest::looks_read_only() const {
  if (kind == Kind::kExecute) return database::looks_read_only(statement.statement.sql);
  if (kind == Kind::kSequence) return database::looks_read_only(source.sql);
  return std::all_of(steps.begin(), steps.end(), [](const Step& step) {
    return database::looks_read_only(step.statement.statement.sql);
  });
}

bool Pipeline::runs_sql() const {
  return std::any_of(requests.begin(), requests.end(),
                     [](const StreamRequest& request) { return request.runs_sql(); });
}

bool Pipeline::looks_read_only() const {
  return std::all_of(requests.begin(), requests.end(),
                     [](const StreamRequest& request) { return request.looks_read_only(); });
}

std::uint64_t Pipeline::replication_index() const {
  std::uint64_t index = 0;
  for (const StreamRequest& request : requests) index = std::max(index, request.replication_index);
  return index;
}

Result<Pipeline> parse_pipeline(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(dom::element root, reader.parse(body));
  OFFPRINT_TRY_ASSIGN(dom::object body_object, as_object(root, "the body"));
  Pipeline pipeline;
  OFFPRINT_TRY_ASSIGN(auto baton, json_string_field(body_object, "baton"));
  if (baton) pipeline.baton = std::string(*baton);
  OFFPRINT_TRY_ASSIGN(auto requests, json_array_field(body_object, "requests"));
  if (!requests) return invalid("'requests' is missing");
  for (dom::element element : *requests) {
    if (pipeline.closes()) return invalid("'close' must be the last request");
    OFFPRINT_TRY_ASSIGN(dom::object object, as_object(element, "a request"));
    OFFPRINT_TRY_ASSIGN(auto request, parse_request(object));
    pipeline.requests.push_back(std::move(request));
  }
  return pipeline;
}

Result<Pipeline> parse_cursor(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(dom::element root, reader.parse(body));
  OFFPRINT_TRY_ASSIGN(dom::object object, as_object(root, "the body"));
  Pipeline pipeline;
  OFFPRINT_TRY_ASSIGN(auto baton, json_string_field(object, "baton"));
  if (baton) pipeline.baton = std::string(*baton);
  OFFPRINT_TRY(parse_batch(object, pipeline.requests.emplace_back()));
  return pipeline;
}

Result<Pipeline> parse_single(std::string& body, StreamRequest::Kind kind) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(dom::element root, reader.parse(body));
  OFFPRINT_TRY_ASSIGN(dom::object object, as_object(root, "the body"));
  Pipeline pipeline;
  StreamRequest& request = pipeline.requests.emplace_back();
  OFFPRINT_TRY(kind == Kind::kBatch ? parse_batch(object, request)
                                    : parse_execute(object, request));
  return pipeline;
}

Result<> resolve(StreamRequest& request, StoredSql& stored) {
  switch (request.kind) {
    case Kind::kExecute:
      return fill_in(request.statement.source, stored, request.statement.statement.sql);
    case Kind::kBatch:
      for (Step& step : request.steps) {
        OFFPRINT_TRY(fill_in(step.statement.source, stored, step.statement.statement.sql));
      }
      return {};
    case Kind::kSequence:
    case Kind::kDescribe:
      return fill_in(request.source, stored, request.source.sql);
    case Kind::kStoreSql:
      return store(request, stored);
    case Kind::kCloseSql:
      stored.erase(request.sql_id);
      return {};
    case Kind::kClose:
    case Kind::kGetAutocommit:
      return {};
  }
  return {};
}

Result<> resolve(Pipeline& pipeline, StoredSql& stored) {
  for (StreamRequest& request : pipeline.requests) OFFPRINT_TRY(resolve(request, stored));
  return {};
}

}  // namespace offprint::server::hrana
