#include "server/jobs.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/random.h"
#include "server/errors.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

using State = Jobs::Status::State;

std::string_view state_name(State state) {
  switch (state) {
    case State::kWaiting:
      return "waiting";
    case State::kRunning:
      return "running";
    case State::kDone:
      return "done";
    case State::kFailed:
      return "failed";
    case State::kCancelled:
      return "cancelled";
  }
  return "";
}

bool has_ended(const Jobs::Status& status) {
  return status.state != State::kWaiting && status.state != State::kRunning;
}

}  // namespace

Jobs::Status Jobs::Job::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

bool Jobs::Job::update(const std::function<void(Status&)>& change) {
  std::lock_guard lock(mutex_);
  change(status_);
  return !cancelled_;
}

Result<std::string> Jobs::start(Status about, Work work, Ended ended) {
  std::array<std::uint8_t, 16> id{};
  fill_random(id);
  about.id = to_hex(id);
  about.started_at_ms = unix_time_ms();
  auto job = std::make_shared<Job>(about);
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return fail(Code::kUnavailable, "the server is stopping");
    std::size_t waiting = 0;
    std::size_t ended_ones = 0;
    for (const auto& each : jobs_) {
      Status status = each->status();
      waiting += status.state == State::kWaiting ? 1 : 0;
      ended_ones += has_ended(status) ? 1 : 0;
    }
    if (waiting >= kWaitingMax) return fail(Code::kBusy, "too many jobs are waiting");
    if (ended_ones >= kKeptMax) {
      auto oldest = std::find_if(jobs_.rbegin(), jobs_.rend(),
                                 [](const auto& each) { return has_ended(each->status()); });
      jobs_.erase(std::next(oldest).base());
    }
    jobs_.push_front(job);
  }
  threads_.post(
      [job, work = std::move(work), ended = std::move(ended)] { run(*job, work, ended); });
  return about.id;
}

void Jobs::run(Job& job, const Work& work, const Ended& ended) {
  Result<> worked = fail(Code::kConflict, "JOB_CANCELLED: it was cancelled before it began");
  if (job.update([](Status& status) { status.state = State::kRunning; })) worked = work(job);
  job.update([&](Status& status) {
    if (worked) {
      status.state = State::kDone;
      status.bytes_done = status.bytes_total;
      return;
    }
    status.error = worked.error();
    bool cancelled = job.cancelled() && worked.error().message().starts_with("JOB_CANCELLED");
    status.state = cancelled ? State::kCancelled : State::kFailed;
  });
  if (ended) ended(job.status());
}

std::vector<Jobs::Status> Jobs::list() {
  std::lock_guard lock(mutex_);
  std::vector<Status> list;
  for (const auto& job : jobs_) list.push_back(job->status());
  return list;
}

std::optional<Jobs::Status> Jobs::find(const std::string& id) {
  std::lock_guard lock(mutex_);
  for (const auto& job : jobs_) {
    if (Status status = job->status(); status.id == id) return status;
  }
  return std::nullopt;
}

bool Jobs::cancel(const std::string& id) {
  std::lock_guard lock(mutex_);
  for (const auto& job : jobs_) {
    if (job->status().id != id) continue;
    job->cancel();
    return true;
  }
  return false;
}

void Jobs::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& job : jobs_) job->cancel();
  }
  threads_.drain();
}

std::string job_json(const Jobs::Status& status) {
  std::string text;
  auto add_text = [&](std::string_view name, std::string_view value) {
    text += name;
    append_json_string(text, value);
  };
  auto add_number = [&](std::string_view name, std::uint64_t value) {
    text += name;
    append_unsigned(text, value);
  };
  add_text("{\"id\":", status.id);
  add_text(",\"kind\":", status.kind);
  add_text(",\"database\":", status.database);
  add_text(",\"state\":", state_name(status.state));
  add_number(",\"bytes_done\":", status.bytes_done);
  add_number(",\"bytes_total\":", status.bytes_total);
  add_number(",\"statements\":", status.statements);
  add_number(",\"rows\":", status.rows);
  add_text(",\"started_at\":", format_rfc3339(status.started_at_ms));
  if (status.broken_references > 0) add_number(",\"broken_references\":", status.broken_references);
  if (!status.bookmark.empty()) add_text(",\"bookmark\":", status.bookmark);
  if (status.error) {
    ErrorText error = error_text(*status.error);
    add_text(",\"error\":{\"code\":", error.code);
    add_text(",\"extended_code\":", error.extended_code);
    add_text(",\"message\":", error.message);
    text += '}';
  }
  text += '}';
  return text;
}

}  // namespace offprint::server
