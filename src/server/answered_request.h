#pragma once

#include <optional>
#include <string>

#include "database/name.h"
#include "database/request.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// What makes a request happen once: its Idempotency-Key, and what it asks for. Nothing: it has
// none. kInvalid: it is no key. After the body was parsed. docs/protocol/http.md, "Once only".
Result<std::optional<database::RequestKey>> request_key(const HttpRequest& request);

// A request over HTTP whose SQL runs in the store, and that has one answer. With a key the answer
// is made while its transaction is open, and is part of it.
class AnsweredRequest : public database::Request {
 public:
  void done(database::Outcome outcome) final;
  std::optional<std::string> answer_to_keep(const database::Outcome& outcome) final;
  void recall(Result<database::KeptOutcome> before) final;

 protected:
  AnsweredRequest(Service& service, const database::DatabaseName& name, Responder responder)
      : service_(service), name_(name), responder_(std::move(responder)) {}
  // The answer to a request that ended so, in its protocol's words. Called once after each run at
  // most, and once more when a commit fails.
  virtual Response make_answer(database::Outcome outcome) = 0;

  Service& service_;
  const database::DatabaseName name_;
  Responder responder_;

 private:
  std::optional<Response> made_;  // what it is answered if it is committed
  std::optional<Error> refusal_;  // what it is answered instead
};

}  // namespace offprint::server
