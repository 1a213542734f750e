#pragma once

#include <cstdint>
#include <string>
#include <string_view>

// How it is with a database that follows a program's own file.
namespace offprint::tail {

enum class TailState {
  kWaiting,    // there is no file, or it is empty
  kComparing,  // reads all pages
  kFollowing,
  kFailed,  // the error says why; it is tried again
};

// "waiting", "comparing", "following", "failed".
std::string_view state_name(TailState state);

struct TailStatus {
  std::string name;  // of the database
  std::string file;
  TailState state = TailState::kWaiting;
  std::string error;                 // empty: none
  std::int64_t behind_since_ms = 0;  // Unix time; 0: it has all that was seen
  std::uint64_t transactions = 0;    // since the start, as all that follow
  std::uint64_t comparisons = 0;
  std::uint64_t failures = 0;
  std::uint64_t restarts = 0;   // of the -wal, for which writers waited
  std::uint64_t lineages = 0;   // new ones: the file was another one
  std::uint64_t wal_bytes = 0;  // of the -wal, when it was last looked at
};

}  // namespace offprint::tail
