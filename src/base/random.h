#pragma once

#include <cstdint>
#include <span>

namespace offprint {

// Fills `to` from the system's generator (getrandom): ids and secrets.
void fill_random(std::span<std::uint8_t> to);

}  // namespace offprint
