#include "main/sql_client.h"

#include <cstdlib>
#include <limits>

#include <fmt/format.h>
#include <simdjson.h>

#include "replica/database_url.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

namespace dom = simdjson::dom;

Result<sqlite::Value> parse_value(dom::element element) {
  std::string type = json_text(element, "type");
  if (type == "null") return sqlite::Value();
  if (type == "integer") {
    return sqlite::Value(
        static_cast<std::int64_t>(std::strtoll(json_text(element, "value").c_str(), nullptr, 10)));
  }
  if (type == "text") return sqlite::Value(json_text(element, "value"));
  if (type == "float") {
    double value = std::numeric_limits<double>::quiet_NaN();  // stands as null
    if (element["value"].get(value) == simdjson::SUCCESS) return sqlite::Value(value);
    return sqlite::Value();
  }
  Bytes bytes;
  if (type == "blob" && server::decode_base64(json_text(element, "base64"), bytes))
    return sqlite::Value(std::move(bytes));
  return fail(Code::kInvalid, "the server sent a value of unknown type '" + type + "'");
}

Result<ResultSet> parse_result(dom::element element) {
  ResultSet result;
  dom::array columns, rows;
  if (element["cols"].get(columns) != simdjson::SUCCESS ||
      element["rows"].get(rows) != simdjson::SUCCESS) {
    return fail(Code::kInvalid, "the server's answer is not a result");
  }
  for (dom::element column : columns) result.columns.push_back(json_text(column, "name"));
  for (dom::element row : rows) {
    dom::array values;
    if (row.get(values) != simdjson::SUCCESS || values.size() != result.columns.size()) {
      return fail(Code::kInvalid, "the server sent a row of another length than its columns");
    }
    std::vector<sqlite::Value>& to = result.rows.emplace_back();
    for (dom::element value : values) {
      OFFPRINT_TRY_ASSIGN(auto parsed, parse_value(value));
      to.push_back(std::move(parsed));
    }
  }
  result.changes = std::strtoll(json_text(element, "affected_row_count").c_str(), nullptr, 10);
  return result;
}

Error parse_error(dom::element error) {
  std::string message = json_text(error, "message");
  return Error(Code::kSql, message.empty() ? "the server refused the statement" : message);
}

std::string batch_request(const std::vector<std::string>& statements) {
  std::string body = R"([{"type":"batch","batch":{"steps":[)";
  for (std::size_t i = 0; i < statements.size(); ++i) {
    body += i == 0 ? "{" : ",{";
    if (i > 0) body += fmt::format(R"("condition":{{"type":"ok","step":{}}},)", i - 1);
    body += R"("stmt":{"sql":)";
    server::append_json_string(body, statements[i]);
    body += "}}";
  }
  body += "]}}]";
  return body;
}

// results[0] of a pipeline's answer: {"type":"ok","response":{"type":"batch","result":{…}}}
Result<> parse_batch(dom::element root, SqlClient::Progress& progress) {
  dom::element first, result;
  dom::array results, step_results, step_errors;
  bool is_pipeline = root["results"].get(results) == simdjson::SUCCESS &&
                     results.at(0).get(first) == simdjson::SUCCESS;
  if (is_pipeline && json_text(first, "type") == "error") {
    dom::element error;
    if (first["error"].get(error) == simdjson::SUCCESS) return fail(parse_error(error));
  }
  if (!is_pipeline || first["response"]["result"].get(result) != simdjson::SUCCESS ||
      result["step_results"].get(step_results) != simdjson::SUCCESS ||
      result["step_errors"].get(step_errors) != simdjson::SUCCESS) {
    return fail(Code::kInvalid, "this is no server of SQL over HTTP (Hrana)");
  }
  for (dom::element step : step_results) {
    if (step.is_null()) break;
    OFFPRINT_TRY_ASSIGN(auto set, parse_result(step));
    progress.results.push_back(std::move(set));
  }
  dom::element error;
  if (step_errors.at(progress.results.size()).get(error) == simdjson::SUCCESS && !error.is_null()) {
    progress.failure = parse_error(error);
  }
  return {};
}

}  // namespace

Result<HttpAnswer> SqlClient::send(const std::string& requests) {
  std::string body = "{\"baton\":";
  if (baton_.empty()) {
    body += "null";
  } else {
    server::append_json_string(body, baton_);
  }
  body += ",\"requests\":" + requests + "}";
  HttpCall call;
  call.method = "POST";
  call.url = replica::address_below(url_, "/v2/pipeline");
  call.body = std::move(body);
  baton_.clear();  // holds for one request
  return remote_.request(call);
}

SqlClient::~SqlClient() {
  if (!baton_.empty()) (void)send(R"([{"type":"close"}])");
}

SqlClient::Progress SqlClient::run(const std::vector<std::string>& statements) {
  Progress progress;
  Result<HttpAnswer> answer = send(batch_request(statements));
  if (!answer) {
    progress.failure = std::move(answer).error();
    return progress;
  }
  server::JsonReader reader;
  Result<dom::element> root = reader.parse(answer->body);
  Result<> parsed = root ? parse_batch(*root, progress) : Result<>(fail(root.error()));
  if (root) baton_ = json_text(*root, "baton");
  if (!parsed) progress.failure = std::move(parsed).error();
  if (!progress.failure && progress.results.size() != statements.size()) {
    progress.failure = Error(Code::kInternal, "the server left out statements");
  }
  return progress;
}

}  // namespace offprint
