#include "database/archive_wait.h"

#include <future>
#include <utility>

#include <fmt/format.h>

namespace offprint::database {
namespace {

// Somebody waits for the archive or the end of the time, whichever comes first.
class Waiting {
 public:
  explicit Waiting(AnswersInWaiting::Reached reached) : reached_(std::move(reached)) {}

  void end(const Result<>& archived) {
    AnswersInWaiting::Reached reached;
    {
      std::lock_guard lock(mutex_);
      reached.swap(reached_);
    }
    if (!reached) return;
    if (archived) return reached({});
    reached(fail(Code::kUnknown,
                 fmt::format("committed on this server, but not in the archive: {}; it stands, "
                             "unless this server is lost before the archive has it",
                             archived.error().message())));
  }

 private:
  std::mutex mutex_;
  AnswersInWaiting::Reached reached_;  // guarded by mutex_; empty: it was called
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

void AnswersInWaiting::when_there(const std::string& name, const Bookmark& at, Reached reached) {
  ArchiveWait wait;
  {
    std::lock_guard lock(mutex_);
    wait = wait_;
  }
  auto waiting = std::make_shared<Waiting>(std::move(reached));
  if (!wait.wait)
    return waiting->end(fail(Code::kUnavailable, "this server has none (--archive) now"));
  wait.wait(name, at, [waiting](const Result<>& archived) { waiting->end(archived); });
  timers_.at(SteadyClock::now() + wait.at_most, [waiting, at_most = wait.at_most] {
    waiting->end(
        fail(Code::kTimeout, fmt::format("it did not take it within {} ms", at_most.count())));
  });
}

void AnswersInWaiting::hold(const std::string& name, const Bookmark& at,
                            std::vector<Answer> answers) {
  auto held = std::make_shared<std::vector<Answer>>(std::move(answers));
  when_there(name, at, [held](const Result<>& reached) {
    for (Answer& answer : *held) {
      if (reached) continue;
      answer.outcome.state = Outcome::State::kUnknown;
      answer.outcome.error = reached.error();
    }
    give(*held);
  });
}

Result<> AnswersInWaiting::wait(const std::string& name, const Bookmark& at) {
  auto promise = std::make_shared<std::promise<Result<>>>();
  auto reached = promise->get_future();
  when_there(name, at, [promise](const Result<>& archived) { promise->set_value(archived); });
  return reached.get();
}

}  // namespace offprint::database
