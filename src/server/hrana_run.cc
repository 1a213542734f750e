#include "server/hrana_run.h"

#include <algorithm>

#include "base/clock.h"
#include "server/errors.h"
#include "server/json_writer.h"
#include "server/rows_json.h"

namespace offprint::server::hrana {
namespace {

using Kind = StreamRequest::Kind;
enum class StepState { kSkipped, kOk, kFailed };

// Appends a StmtResult; on an error `to` is as it was before.
Result<> append_statement_result(std::string& to, const Statement& statement,
                                 database::Session& session, std::size_t size_max) {
  std::size_t start = to.size();
  auto started_at = SteadyClock::now();
  to += '{';
  HranaRows rows(to, size_max, statement.want_rows);
  Result<database::StatementResult> done = session.execute(statement.statement, rows);
  if (!done) {
    to.resize(start);
    return fail(std::move(done).error());
  }
  rows.close();
  to += ",\"affected_row_count\":";
  append_integer(to, done->changes);
  if (done->read_only) {
    to += ",\"last_insert_rowid\":null";
  } else {
    to += ",\"last_insert_rowid\":\"";
    append_integer(to, done->last_insert_rowid);
    to += '"';
  }
  to += ",\"replication_index\":null,\"rows_read\":";
  append_unsigned(to, done->rows_read);
  to += ",\"rows_written\":";
  append_unsigned(to, done->rows_written);
  to += ",\"query_duration_ms\":";
  append_double(to,
                std::chrono::duration<double, std::milli>(SteadyClock::now() - started_at).count());
  to += '}';
  return {};
}

bool holds(const Condition& condition, const std::vector<StepState>& steps,
           const database::Session& session) {
  switch (condition.kind) {
    case Condition::Kind::kOk:
      return steps[condition.step] == StepState::kOk;
    case Condition::Kind::kError:
      return steps[condition.step] != StepState::kOk;  // a skipped step counts as not done
    case Condition::Kind::kNot:
      return !holds(condition.children.front(), steps, session);
    case Condition::Kind::kAnd:
      return std::all_of(condition.children.begin(), condition.children.end(),
                         [&](const Condition& child) { return holds(child, steps, session); });
    case Condition::Kind::kOr:
      return std::any_of(condition.children.begin(), condition.children.end(),
                         [&](const Condition& child) { return holds(child, steps, session); });
    case Condition::Kind::kIsAutocommit:
      return session.autocommit();
  }
  return false;
}

void append_batch_result(std::string& to, const std::vector<Step>& steps,
                         database::Session& session, std::size_t size_max) {
  std::vector<StepState> states;
  std::string errors;
  states.reserve(steps.size());
  to += "{\"step_results\":[";
  for (const Step& step : steps) {
    if (!states.empty()) {
      to += ',';
      errors += ',';
    }
    if (step.condition && !holds(*step.condition, states, session)) {
      states.push_back(StepState::kSkipped);
      to += "null";
      errors += "null";
      continue;
    }
    Result<> done = append_statement_result(to, step.statement, session, size_max);
    if (session.lost()) return;
    if (done) {
      errors += "null";
    } else {
      to += "null";
      append_hrana_error(errors, done.error());
    }
    states.push_back(done ? StepState::kOk : StepState::kFailed);
  }
  to += "],\"step_errors\":[";
  to += errors;
  to += "]}";
}

void append_description(std::string& to, const database::Description& description) {
  bool first = true;
  to += "{\"params\":[";
  for (const auto& name : description.parameters) {
    to += first ? "{\"name\":" : ",{\"name\":";
    first = false;
    if (name) {
      append_json_string(to, *name);
    } else {
      to += "null";
    }
    to += '}';
  }
  to += "],\"cols\":[";
  first = true;
  for (const auto& column : description.columns) {
    to += first ? "{\"name\":" : ",{\"name\":";
    first = false;
    append_json_string(to, column.name);
    to += ",\"decltype\":";
    if (column.decltype_text) {
      append_json_string(to, *column.decltype_text);
    } else {
      to += "null";
    }
    to += '}';
  }
  to += description.is_explain ? "],\"is_explain\":true" : "],\"is_explain\":false";
  to += description.is_read_only ? ",\"is_readonly\":true}" : ",\"is_readonly\":false}";
}

// Appends the part of a response that follows its type. `session` is null when nothing of the
// pipeline runs.
Result<> append_response(std::string& to, const StreamRequest& request, database::Session* session,
                         std::size_t size_max) {
  if (request.error) return fail(*request.error);
  switch (request.kind) {
    case Kind::kExecute:
      to += "\"execute\",\"result\":";
      return append_statement_result(to, request.statement, *session, size_max);
    case Kind::kBatch:
      to += "\"batch\",\"result\":";
      append_batch_result(to, request.steps, *session, size_max);
      return {};
    case Kind::kSequence:
      to += "\"sequence\"";
      return session->execute_script(request.source.sql);
    case Kind::kDescribe: {
      to += "\"describe\",\"result\":";
      OFFPRINT_TRY_ASSIGN(database::Description description, session->describe(request.source.sql));
      append_description(to, description);
      return {};
    }
    case Kind::kStoreSql:
      to += "\"store_sql\"";
      return {};
    case Kind::kCloseSql:
      to += "\"close_sql\"";
      return {};
    case Kind::kClose:
      to += "\"close\"";
      return {};
    case Kind::kGetAutocommit:
      to += session == nullptr || session->autocommit()
                ? "\"get_autocommit\",\"is_autocommit\":true"
                : "\"get_autocommit\",\"is_autocommit\":false";
      return {};
  }
  return {};
}

void append_results(const Pipeline& pipeline, database::Session* session, std::string& to,
                    std::size_t size_max) {
  to += '[';
  bool first = true;
  for (const StreamRequest& request : pipeline.requests) {
    if (!first) to += ',';
    first = false;
    std::size_t start = to.size();
    to += R"({"type":"ok","response":{"type":)";
    Result<> done = append_response(to, request, session, size_max);
    if (session != nullptr && session->lost()) return;
    if (done) {
      to += "}}";
    } else {
      to.resize(start);
      to += R"({"type":"error","error":)";
      append_hrana_error(to, done.error());
      to += '}';
    }
  }
  to += ']';
}

}  // namespace

void run_pipeline(const Pipeline& pipeline, database::Session& session, std::string& to,
                  std::size_t size_max) {
  append_results(pipeline, &session, to, size_max);
}

void answer_without_session(const Pipeline& pipeline, std::string& to) {
  append_results(pipeline, nullptr, to, std::string::npos);
}

void append_hrana_error(std::string& to, const Error& error) {
  ErrorText text = error_text(error);
  to += "{\"message\":";
  append_json_string(to, error.sqlite_code() != 0 ? "SQLite error: " + text.message : text.message);
  to += ",\"code\":";
  append_json_string(to, text.code);
  to += ",\"extended_code\":";
  append_json_string(to, text.extended_code);
  to += '}';
}

}  // namespace offprint::server::hrana
