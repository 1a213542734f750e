#include "server/hrana_run.h"

#include <algorithm>

#include "base/clock.h"
#include "server/errors.h"
#include "server/json_writer.h"
#include "server/rows_json.h"

namespace offprint::server::hrana {
namespace {

using Kind = StreamRequest::Kind;

// Appends a StmtResult; on an error `to` is as it was before.
Result<> append_statement_result(AnswerText& to, const Statement& statement,
                                 database::Session& session, std::size_t size_max) {
  std::size_t start = to.text.size();
  auto started_at = SteadyClock::now();
  to.text += '{';
  HranaRows rows(to.text, size_max, statement.want_rows);
  Result<database::StatementResult> done = session.execute(statement.statement, rows);
  if (!done) {
    to.cut(start);
    return fail(std::move(done).error());
  }
  rows.close();
  append_changes(to.text, *done);
  to.text += ",\"replication_index\":";
  to.append_replication_index();
  to.text += ",\"rows_read\":";
  append_unsigned(to.text, done->rows_read);
  to.text += ",\"rows_written\":";
  append_unsigned(to.text, done->rows_written);
  to.text += ",\"query_duration_ms\":";
  append_double(to.text,
                std::chrono::duration<double, std::milli>(SteadyClock::now() - started_at).count());
  to.text += '}';
  return {};
}

void append_batch_result(AnswerText& to, const std::vector<Step>& steps, database::Session& session,
                         std::size_t size_max) {
  std::vector<StepState> states;
  std::string errors;
  states.reserve(steps.size());
  to.text += "{\"step_results\":[";
  for (const Step& step : steps) {
    if (!states.empty()) {
      to.text += ',';
      errors += ',';
    }
    if (step.condition && !holds(*step.condition, states, session)) {
      states.push_back(StepState::kSkipped);
      to.text += "null";
      errors += "null";
      continue;
    }
    Result<> done = append_statement_result(to, step.statement, session, size_max);
    if (session.lost()) return;
    if (done) {
      errors += "null";
    } else {
      to.text += "null";
      append_hrana_error(errors, done.error());
    }
    states.push_back(done ? StepState::kOk : StepState::kFailed);
  }
  to.text += "],\"step_errors\":[";
  to.text += errors;
  to.text += "],\"replication_index\":";
  to.append_replication_index();
  to.text += '}';
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

Result<> append_body(AnswerText& to, const StreamRequest& request, database::Session* session,
                     std::size_t size_max) {
  switch (request.kind) {
    case Kind::kExecute:
      to.text += "\"execute\",\"result\":";
      return append_result(to, request, *session, size_max);
    case Kind::kBatch:
      to.text += "\"batch\",\"result\":";
      return append_result(to, request, *session, size_max);
    case Kind::kSequence:
      to.text += "\"sequence\"";
      return session->execute_script(request.source.sql);
    case Kind::kDescribe: {
      to.text += "\"describe\",\"result\":";
      OFFPRINT_TRY_ASSIGN(database::Description description, session->describe(request.source.sql));
      append_description(to.text, description);
      return {};
    }
    case Kind::kStoreSql:
      to.text += "\"store_sql\"";
      return {};
    case Kind::kCloseSql:
      to.text += "\"close_sql\"";
      return {};
    case Kind::kClose:
      to.text += "\"close\"";
      return {};
    case Kind::kGetAutocommit:
      to.text += session == nullptr || session->autocommit()
                     ? "\"get_autocommit\",\"is_autocommit\":true"
                     : "\"get_autocommit\",\"is_autocommit\":false";
      return {};
  }
  return {};
}

void append_results(const Pipeline& pipeline, database::Session* session, AnswerText& to,
                    std::size_t size_max) {
  to.text += '[';
  bool first = true;
  for (const StreamRequest& request : pipeline.requests) {
    if (!first) to.text += ',';
    first = false;
    std::size_t start = to.text.size();
    to.text += R"({"type":"ok","response":)";
    Result<> done = append_response(to, request, session, size_max);
    if (session != nullptr && session->lost()) return;
    if (done) {
      to.text += '}';
    } else {
      to.cut(start);
      to.text += R"({"type":"error","error":)";
      append_hrana_error(to.text, done.error());
      to.text += '}';
    }
  }
  to.text += ']';
}

}  // namespace

void AnswerText::append_replication_index() {
  places_.push_back(text.size());
  text += "null";
}

void AnswerText::cut(std::size_t size) {
  text.resize(size);
  while (!places_.empty() && places_.back() >= size) places_.pop_back();
}

void AnswerText::set_replication_index(TxId txid) {
  constexpr std::size_t kNull = 4;
  std::string index = "\"";
  append_unsigned(index, txid.value);
  index += '"';
  if (places_.size() == 1) {  // nearly always, and then there is little behind it
    text.replace(places_[0], kNull, index);
  } else if (!places_.empty()) {
    std::string whole;
    whole.reserve(text.size() + places_.size() * index.size());
    std::size_t done = 0;
    for (std::size_t place : places_) {
      whole.append(text, done, place - done);
      whole += index;
      done = place + kNull;
    }
    whole.append(text, done);
    text = std::move(whole);
  }
  places_.clear();
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

Result<> append_result(AnswerText& to, const StreamRequest& request, database::Session& session,
                       std::size_t size_max) {
  if (request.kind == Kind::kExecute)
    return append_statement_result(to, request.statement, session, size_max);
  append_batch_result(to, request.steps, session, size_max);
  return {};
}

Result<> append_response(AnswerText& to, const StreamRequest& request, database::Session* session,
                         std::size_t size_max) {
  if (request.error) return fail(*request.error);
  std::size_t start = to.text.size();
  to.text += "{\"type\":";
  Result<> done = append_body(to, request, session, size_max);
  if (done) {
    to.text += '}';
  } else {
    to.cut(start);
  }
  return done;
}

void run_pipeline(const Pipeline& pipeline, database::Session& session, AnswerText& to,
                  std::size_t size_max) {
  append_results(pipeline, &session, to, size_max);
}

void answer_without_session(const Pipeline& pipeline, AnswerText& to) {
  append_results(pipeline, nullptr, to, std::string::npos);
}

void append_changes(std::string& to, const database::StatementResult& result) {
  to += ",\"affected_row_count\":";
  append_integer(to, result.changes);
  if (result.read_only) {
    to += ",\"last_insert_rowid\":null";
  } else {
    to += ",\"last_insert_rowid\":\"";
    append_integer(to, result.last_insert_rowid);
    to += '"';
  }
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
