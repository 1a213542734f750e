#pragma once

#include <optional>

#include "journal/journal.h"

namespace offprint::database {

// Decides what the databases' transactions are: a record that was committed is there for good. That
// is the node's journal, or in a cluster the log that its nodes have in common.
// Thread: any.
class CommitLog {
 public:
  virtual ~CommitLog() = default;

  struct Appended {
    journal::Location location;  // in this node's journal
    // Of a common log.
    journal::Lsn number;
    Epoch term;
    std::uint64_t command = 0;
  };
  // Takes a place for a transaction that was made upon all that was decided before. `term`: that
  // of Store::lead(). After an error nothing has happened. kIo: the journal failed; kNotPrimary:
  // `term` has ended, another node decides.
  virtual Result<Appended> append(journal::Draft draft, Epoch term) = 0;
  // Blocks until it is committed. kIo: the journal failed, nobody knows what became of it.
  // kUnknown: this node does not decide any more; the record comes through Store::take_decided(),
  // or never.
  virtual Result<> wait(const Appended& appended) = 0;
  // Whether nobody can have decided anything, before this call, that this node did not know when it
  // read as the primary of `term`: what it read is the newest state.
  virtual bool knows_newest(Epoch term) {
    (void)term;
    return true;
  }
};

// How a store takes part in the log that the nodes of a cluster have in common.
class CommonLog {
 public:
  virtual ~CommonLog() = default;
  // Of every record, while the journal is opened.
  virtual void visit(const journal::Record& record) = 0;
  // The journal is open. It must not be used after stop(), the answer until then.
  virtual Result<CommitLog*> start(journal::Journal& journal) = 0;
  virtual void stop() = 0;
  // Where the journal's first record is that is not decided yet, or not taken by the store.
  virtual std::optional<journal::Lsn> needed_from() = 0;
  // Records before it are removed next.
  virtual void forget_before(journal::Lsn lsn) = 0;
};

// A single node's.
class JournalLog final : public CommitLog {
 public:
  explicit JournalLog(journal::Journal& journal) : journal_(journal) {}
  Result<Appended> append(journal::Draft draft, Epoch) override {
    OFFPRINT_TRY_ASSIGN(journal::Location location, journal_.append(std::move(draft)));
    return Appended{location, {}, {}, 0};
  }
  Result<> wait(const Appended& appended) override {
    auto durable = journal_.wait_durable(appended.location);
    if (durable || durable.error().code() == Code::kIo) return durable;
    return fail(Code::kIo, durable.error().message());
  }

 private:
  journal::Journal& journal_;
};

}  // namespace offprint::database
