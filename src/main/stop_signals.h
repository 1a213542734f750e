#pragma once

#include <csignal>

namespace offprint {

// SIGINT and SIGTERM call `on_signal` (async-signal-safe); a second one ends the process at once,
// as if nobody handled it. Writing to a closed pipe is an error, no signal.
inline void handle_stop_signals(void (*on_signal)(int)) {
  struct sigaction action{};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace offprint
