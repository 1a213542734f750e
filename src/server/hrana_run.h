#pragma once

#include <string>
#include <vector>

#include "database/session.h"
#include "server/hrana.h"

namespace offprint::server::hrana {

// The JSON of an answer while it is made. Which txid its results left or saw is known only when the
// request is done: their places are noted until then.
class AnswerText {
 public:
  std::string text;

  // Appends null, or what set_replication_index() says later.
  void append_replication_index();
  void cut(std::size_t size);
  void clear() { cut(0); }
  // Writes it as a string into all places.
  void set_replication_index(TxId txid);

 private:
  std::vector<std::size_t> places_;  // of a null each, ascending
};

// Carries out the requests of a pipeline (resolved, see hrana::resolve) and appends the JSON array
// of their results to `to`. A request that fails is an error in its place and does not stop the
// others. Returns early, with an unusable text, when session.lost(). Does not change `pipeline`, so
// that it can be run again. A result that would make `to` longer than `size_max` becomes an error
// RESPONSE_TOO_LARGE.
void run_pipeline(const Pipeline& pipeline, database::Session& session, AnswerText& to,
                  std::size_t size_max);

// The same for a pipeline that runs no SQL, where no session is needed.
void answer_without_session(const Pipeline& pipeline, AnswerText& to);

// One request of a pipeline: appends {"type":…}, its response. On an error `to` is as it was.
// `session` may be null for what runs no SQL.
Result<> append_response(AnswerText& to, const StreamRequest& request, database::Session* session,
                         std::size_t size_max);
// Only the result of an execute or a batch, as Hrana 1 over HTTP has it.
Result<> append_result(AnswerText& to, const StreamRequest& request, database::Session& session,
                       std::size_t size_max);

enum class StepState { kSkipped, kOk, kFailed };
// Whether a step with this condition runs, after `steps`.
bool holds(const Condition& condition, const std::vector<StepState>& steps,
           const database::Session& session);

// ,"affected_row_count":n,"last_insert_rowid":"n"|null
void append_changes(std::string& to, const database::StatementResult& result);

// {"message":…,"code":…,"extended_code":…}; SQLite's messages get the prefix that sqld gives them.
void append_hrana_error(std::string& to, const Error& error);

}  // namespace offprint::server::hrana
