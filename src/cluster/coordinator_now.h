#pragma once

#include <optional>
#include <string>

#include "cluster/coordinator.h"

namespace offprint::cluster {

// The coordinator's calls for those who wait for the answer, up to `time`. Block.
Result<std::optional<RegisterEntry>> read_now(
    Coordinator& coordinator, const std::string& key,
    std::chrono::milliseconds time = std::chrono::seconds(3));
SwapResult swap_now(Coordinator& coordinator, Swap swap,
                    std::chrono::milliseconds time = std::chrono::seconds(3));

}  // namespace offprint::cluster
