#include "database/archive_wait.h"

#include <utility>

#include <fmt/format.h>

namespace offprint::database {
namespace {

// Answers that wait, for the archive or the end of their time, whichever comes first.
class Waiting {
 public:
  explicit Waiting(std::vector<Answer> answers) : answers_(std::move(answers)) {}

  void end(const Result<>& reached) {
    std::vector<Answer> answers;
    {
      std::lock_guard lock(mutex_);
      answers.swap(answers_);
    }
    for (Answer& answer : answers) {
      if (reached) continue;
      answer.outcome.state = Outcome::State::kUnknown;
      answer.outcome.error =
          Error(Code::kUnknown,
                fmt::format("committed on this server, but not in the archive: {}; it stands, "
                            "unless this server is lost before the archive has it",
                            reached.error().message()));
    }
    give(answers);
  }

 private:
  std::mutex mutex_;
  std::vector<Answer> answers_;  // guarded by mutex_
};

}  // namespace

void give(std::vector<Answer>& answers) {
  for (Answer& answer : answers) {
    answer.request->done(std::move(answer.outcome));
    answer.request.reset();
  }
}

void AnswersInWaiting::set(ArchiveWait wait) {
  std::lock_guard lock(mutex_);
  wait_ = std::move(wait);
}

bool AnswersInWaiting::is_wanted(DatabaseLimits::Durability durability) {
  if (durability != DatabaseLimits::Durability::kServers)
    return durability == DatabaseLimits::Durability::kArchive;
  std::lock_guard lock(mutex_);
  return wait_.by_default;
}

void AnswersInWaiting::hold(const std::string& name, const Bookmark& at,
                            std::vector<Answer> answers) {
  ArchiveWait wait;
  {
    std::lock_guard lock(mutex_);
    wait = wait_;
  }
  auto waiting = std::make_shared<Waiting>(std::move(answers));
  if (!wait.wait)
    return waiting->end(fail(Code::kUnavailable, "this server has none (--archive) now"));
  wait.wait(name, at, [waiting](const Result<>& reached) { waiting->end(reached); });
  timers_.at(SteadyClock::now() + wait.at_most, [waiting, at_most = wait.at_most] {
    waiting->end(
        fail(Code::kTimeout, fmt::format("it did not take it within {} ms", at_most.count())));
  });
}

}  // namespace offprint::database
