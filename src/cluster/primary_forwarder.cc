#include "cluster/primary_forwarder.h"

#include <algorithm>
#include <utility>

#include <boost/algorithm/string/predicate.hpp>

#include "base/clock.h"

namespace offprint::cluster {
namespace {

constexpr std::chrono::milliseconds kLookEvery{3};
constexpr int kServiceUnavailable = 503;
constexpr int kInternalError = 500;

// It was refused by a node that is not primary: nothing was done.
bool asks_for_another(const Result<ForwardedAnswer>& answer) {
  if (!answer) return answer.error().code() == Code::kUnavailable;
  return answer->status == kServiceUnavailable &&
         answer->body.find("NOT_PRIMARY") != std::string::npos;
}

bool is_unknown(const Result<ForwardedAnswer>& answer) {
  if (!answer) return answer.error().code() == Code::kUnknown;
  return answer->status == kInternalError && answer->body.find("UNKNOWN") != std::string::npos;
}

// It happens once, however often it is sent.
bool has_key(const ForwardedRequest& request) {
  return std::ranges::any_of(request.headers, [](const auto& header) {
    return boost::algorithm::iequals(header.first, "Idempotency-Key");
  });
}

}  // namespace

struct PrimaryForwarder::Waiting {
  ForwardedRequest request;
  std::function<void(Result<ForwardedAnswer>)> done;
  Deadline until;
  bool may_have_happened = false;

  void answer(Result<ForwardedAnswer> answer) {
    if (may_have_happened && asks_for_another(answer)) {
      answer = fail(Code::kUnknown,
                    "no node became primary in time: what was sent may or may not have happened");
    }
    done(std::move(answer));
  }
};

PrimaryForwarder::PrimaryForwarder(ForwarderOptions options, Find find, int wait_ms)
    : options_(std::move(options)), find_(std::move(find)), wait_ms_(wait_ms) {
  thread_ = std::thread([this] { work(); });
}

PrimaryForwarder::~PrimaryForwarder() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

Result<Forwarder*> PrimaryForwarder::way() {
  auto url = find_();
  if (!url) return fail(Code::kUnavailable, "no node is primary at the moment; try again");
  std::lock_guard lock(mutex_);
  std::unique_ptr<Forwarder>& way = ways_[*url];
  if (!way) {
    ForwarderOptions options = options_;
    options.url = *url;
    OFFPRINT_TRY_ASSIGN(way, Forwarder::create(options));
  }
  return way.get();
}

void PrimaryForwarder::send(ForwardedRequest request,
                            std::function<void(Result<ForwardedAnswer>)> done) {
  attempt(
      std::make_shared<Waiting>(Waiting{std::move(request), std::move(done),
                                        SteadyClock::now() + std::chrono::milliseconds(wait_ms_)}));
}

void PrimaryForwarder::attempt(std::shared_ptr<Waiting> waiting) {
  auto found = way();
  if (!found) return later(std::move(waiting));
  ForwardedRequest request = waiting->request;
  (*found)->send(std::move(request), [this, waiting](Result<ForwardedAnswer> answer) {
    const bool once_more = is_unknown(answer) && has_key(waiting->request);
    waiting->may_have_happened |= once_more;
    const bool is_over = SteadyClock::now() >= waiting->until;
    if (!is_over && (once_more || asks_for_another(answer))) return later(waiting);
    waiting->answer(std::move(answer));
  });
}

void PrimaryForwarder::later(std::shared_ptr<Waiting> waiting) {
  {
    std::lock_guard lock(mutex_);
    if (!stopping_) {
      waiting_.push_back(std::move(waiting));
      return wake_.notify_one();
    }
  }
  waiting->answer(fail(Code::kUnavailable, "this node is shutting down"));
}

// Tries all that wait again and again.
void PrimaryForwarder::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    wake_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    wake_.wait_for(lock, kLookEvery, [&] { return stopping_; });
    const auto all = std::exchange(waiting_, {});
    const bool ends = stopping_;
    lock.unlock();
    for (const auto& waiting : all) {
      if (ends || SteadyClock::now() >= waiting->until) {
        waiting->answer(
            fail(Code::kUnavailable, ends ? "this node is shutting down"
                                          : "no node became primary in time; try again"));
      } else {
        attempt(waiting);
      }
    }
    lock.lock();
  }
}

void PrimaryForwarder::open_tunnel(ForwardedRequest request,
                                   std::function<void(Result<OpenedTunnel>)> done) {
  auto found = way();
  if (!found) return done(fail(found.error()));
  (*found)->open_tunnel(std::move(request), std::move(done));
}

}  // namespace offprint::cluster
