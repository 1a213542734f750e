#include "cluster/guardian_call.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/peer_call.h"

namespace offprint::cluster {
namespace {

constexpr std::uint32_t kGroup = 0;

// Shared by the calls, one of which may go on when nobody waits any more.
struct Calls {
  std::mutex mutex;
  std::condition_variable ended;
  std::size_t under_way = 0;
  std::size_t heard = 0;
};

Result<> tell(const DeathNotice& notice, const std::string& address, Deadline until,
              std::chrono::milliseconds time) {
  PeerCall::Options caller;
  caller.address = address;
  caller.cluster = notice.cluster;
  caller.node = notice.node;
  caller.member = notice.words.member;
  caller.is_guardian = true;
  caller.secret = notice.secret;
  caller.step_max = time;
  caller.cancelled = [until] { return SteadyClock::now() >= until; };
  OFFPRINT_TRY_ASSIGN(auto call, PeerCall::open(std::move(caller)));
  Bytes frame;
  append_message(frame, {kGroup, Release{notice.words.member, notice.words.epoch}, {}});
  OFFPRINT_TRY(call->send(frame));
  // Who has heard it ends the connection.
  auto end = call->next(time);
  if (end) return fail(Code::kInvalid, address + " does not take a guardian's word");
  if (end.error().code() != Code::kIo) return fail(end.error());
  return {};
}

}  // namespace

std::size_t tell_of_death(const DeathNotice& notice, std::chrono::milliseconds time) {
  const Deadline until = SteadyClock::now() + time;
  auto calls = std::make_shared<Calls>();
  calls->under_way = notice.words.peers.size();
  for (const std::string& address : notice.words.peers) {
    std::thread([calls, notice, address, until, time] {
      auto told = tell(notice, address, until, time);
      if (!told) log::warn("guardian: {}", told.error().message());
      std::lock_guard lock(calls->mutex);
      calls->heard += told ? 1 : 0;
      --calls->under_way;
      calls->ended.notify_one();
    }).detach();
  }
  std::unique_lock lock(calls->mutex);
  calls->ended.wait_until(lock, until, [&] { return calls->under_way == 0; });
  return calls->heard;
}

}  // namespace offprint::cluster
