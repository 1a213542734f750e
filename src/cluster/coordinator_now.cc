#include "cluster/coordinator_now.h"

#include <future>
#include <memory>
#include <utility>

namespace offprint::cluster {

Result<std::optional<RegisterEntry>> read_now(Coordinator& coordinator, const std::string& key,
                                              std::chrono::milliseconds time) {
  auto answer = std::make_shared<std::promise<Result<std::optional<RegisterEntry>>>>();
  coordinator.read(key, SteadyClock::now() + time,
                   [answer](auto found) { answer->set_value(std::move(found)); });
  return answer->get_future().get();
}

SwapResult swap_now(Coordinator& coordinator, Swap swap, std::chrono::milliseconds time) {
  auto answer = std::make_shared<std::promise<SwapResult>>();
  coordinator.compare_and_swap(
      std::move(swap), SteadyClock::now() + time,
      [answer](SwapResult result) { answer->set_value(std::move(result)); });
  return answer->get_future().get();
}

}  // namespace offprint::cluster
