#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "database/environment.h"
#include "database/open_files.h"
#include "database/request.h"
#include "database/writer_session.h"

namespace offprint::database {

// Of a read that wants the newest state, on a node that cannot say what that is.
Error not_newest();

// An interactive transaction: the write slot (or a reader's snapshot) held for one client between
// its requests.
class HeldTransaction {
 public:
  // Guarded by the database's mutex:
  std::shared_ptr<class HostedDatabase> database;
  std::vector<std::unique_ptr<Request>> pending;
  Deadline expires;
  bool running = false;         // a request of a reader is on a helper
  std::optional<Error> ending;  // why it is to end when that request is done
  std::optional<Error> ended;   // why no further request is taken

  // Used by whoever runs it:
  std::shared_ptr<OpenFiles> files;
  std::unique_ptr<WriterSession> writer;  // holds the write slot …
  std::unique_ptr<UserConnection> reader_connection;
  std::unique_ptr<class ReaderSession> reader;  // … or a snapshot
};

// Runs the requests that wait for a database as one SQLite transaction; each gets exactly what it
// alone, in this order, would have got. Rules: docs/batching.md. Thread: the one that has the
// database's turn.
class BatchRunner {
 public:
  struct Host {
    std::function<Bookmark()> bookmark;    // of the newest visible transaction
    std::function<void()> became_visible;  // transactions were published
    std::function<void()> files_broken;    // nothing may be read from them any more
    // Gives the answers of requests whose transaction was decided.
    std::function<void(std::vector<Answer>)> answer;
    // A request's transaction stays open: its session is handed over.
    std::function<std::shared_ptr<HeldTransaction>(std::unique_ptr<WriterSession>)> hold;
  };
  BatchRunner(Environment& environment, OpenFiles& files, std::uint64_t database_id, Host host)
      : environment_(environment),
        files_(files),
        schema_check_(environment, database_id),
        host_(std::move(host)) {}

  // Answers every request, unless one of them left its transaction open: then those behind it come
  // back, untouched. After an I/O error of the files it stops too, and when an outcome is not
  // known; see OpenFiles::recorder() broken_error(), outcome_unknown().
  std::vector<std::unique_ptr<Request>> run(std::vector<std::unique_ptr<Request>> requests);

 private:
  using Requests = std::span<std::unique_ptr<Request>>;
  // Runs `requests` in one transaction. Answers how many are done (committed or rejected, all
  // answered); fewer than all when the one at that index has to run alone.
  std::size_t run_shared(Requests requests);
  // A request with a key has no other transaction than the one that its outcome is kept in.
  void run_keyed_alone(std::unique_ptr<Request>& request);
  SessionBase::Lost run_keyed(Request& request, WriterSession& session);
  // True: its transaction stays open.
  bool run_alone(std::unique_ptr<Request>& request);
  SessionBase::Lost run_one(Request& request, WriterSession& session);
  void finish_commit(Requests requests, bool wrote);
  void answer(Requests requests, const Outcome& outcome, bool wrote);
  void reject(Requests requests, const Error& error);
  void stop_if_journal_failed();

  Environment& environment_;
  OpenFiles& files_;
  const SchemaCheck schema_check_;
  Host host_;
  bool timed_out_ = false;         // the offender's own deadline passed
  std::optional<Error> why_lost_;  // why the last shared transaction was, if SQLite said so
};

}  // namespace offprint::database
