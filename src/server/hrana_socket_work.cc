#include "server/hrana_socket_work.h"

#include "server/json_writer.h"

namespace offprint::server::hrana {
namespace {

class SocketRequest final : public database::Request {
 public:
  SocketRequest(Service& service, ClientMessage message, std::shared_ptr<SocketMailbox> mailbox)
      : service_(service), message_(std::move(message)), mailbox_(std::move(mailbox)) {
    if (message_.kind == ClientMessage::Kind::kOpenCursor)
      cursor_ = std::make_shared<CursorEntries>(service);
  }

  void run(database::Session& session) override {
    answer_.clear();
    failure_.reset();
    if (cursor_) return cursor_->run(message_.request.steps, session);
    answer_.text = response_head(message_.request_id);
    Result<> done =
        append_response(answer_, message_.request, &session, service_.options.response_bytes_max);
    if (!done) failure_ = std::move(done).error();
  }

  void done(database::Outcome outcome) override {
    FinishedWork work;
    work.stream_id = message_.stream_id;
    work.bytes = message_.bytes;
    work.cursor_id = message_.cursor_id;
    if (outcome.state != database::Outcome::State::kCommitted) {
      if (outcome.held) service_.store.release(outcome.held);
      failure_ = outcome.error.value_or(Error(Code::kInternal, "rejected"));
    } else {
      work.held = std::move(outcome.held);
    }
    if (failure_) {
      work.message = response_error(message_.request_id, *failure_);
    } else if (cursor_) {
      cursor_->finish(outcome.bookmark.txid);
      work.cursor = std::move(cursor_);
      work.message = response_head(message_.request_id) + R"({"type":"open_cursor"})";
      work.message += kResponseTail;
    } else {
      answer_.set_replication_index(outcome.bookmark.txid);
      answer_.text += kResponseTail;
      work.message = std::move(answer_.text);
    }
    mailbox_->post(std::move(work));
  }

  bool likely_read_only() const override { return message_.request.looks_read_only(); }
  bool keep_transaction() const override { return true; }

 private:
  Service& service_;
  const ClientMessage message_;
  const std::shared_ptr<SocketMailbox> mailbox_;
  AnswerText answer_;
  std::shared_ptr<CursorEntries> cursor_;
  std::optional<Error> failure_;
};

}  // namespace

void SocketMailbox::open(std::shared_ptr<Client> client) {
  std::lock_guard lock(mutex_);
  client_ = std::move(client);
}

void SocketMailbox::close() {
  for (FinishedWork& work : take()) {
    if (work.held) service_.store.release(work.held);
  }
  std::shared_ptr<Client> client;  // may end here
  std::vector<FinishedWork> late;
  {
    std::lock_guard lock(mutex_);
    client.swap(client_);
    late.swap(finished_);
  }
  for (FinishedWork& work : late) {
    if (work.held) service_.store.release(work.held);
  }
}

void SocketMailbox::post(FinishedWork work) {
  std::shared_ptr<database::HeldTransaction> held = work.held;
  std::shared_ptr<Client> client;
  {
    std::lock_guard lock(mutex_);
    client = client_;
    if (client) finished_.push_back(std::move(work));
  }
  if (client) return client->wake();
  if (held) service_.store.release(held);
}

std::vector<FinishedWork> SocketMailbox::take() {
  std::lock_guard lock(mutex_);
  return std::exchange(finished_, {});
}

std::string response_head(std::int32_t request_id) {
  std::string text = R"({"type":"response_ok","request_id":)";
  append_integer(text, request_id);
  text += ",\"response\":";
  return text;
}

std::string response_error(std::int32_t request_id, const Error& error) {
  std::string text = R"({"type":"response_error","request_id":)";
  append_integer(text, request_id);
  text += ",\"error\":";
  append_hrana_error(text, error);
  text += '}';
  return text;
}

std::unique_ptr<database::Request> socket_request(Service& service, ClientMessage message,
                                                  std::shared_ptr<SocketMailbox> mailbox) {
  return std::make_unique<SocketRequest>(service, std::move(message), std::move(mailbox));
}

}  // namespace offprint::server::hrana
