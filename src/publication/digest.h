#pragma once

#include <string>
#include <string_view>

namespace offprint::publication {

// SHA-256 as 64 hexadecimal digits.
std::string digest(std::string_view text);

}  // namespace offprint::publication
