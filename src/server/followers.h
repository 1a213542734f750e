#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ltx/types.h"

namespace offprint::server {

// Who follows the instances of publications, and who did until lately: since the process began, the
// last few of each. Thread: any. In memory alone.
class Followers {
 public:
  struct Follower {
    std::string subject;  // of its token; empty: none was asked for, or it names nobody
    std::string address;  // its own, or that of the proxy before it; empty: not known
    std::int64_t since_ms = 0, seen_ms = 0;
    Bookmark position;  // up to where it was sent everything
    bool is_connected = true;
  };

  // A stream of one follower: it is connected until this goes, which the registry must outlive.
  class Seat {
   public:
    Seat(Followers& followers, std::string database, std::list<Follower>::iterator follower)
        : followers_(followers), database_(std::move(database)), follower_(follower) {}
    ~Seat() { followers_.leave(database_, follower_); }
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;
    void told(const Bookmark& position) { followers_.told(follower_, position); }

   private:
    Followers& followers_;
    const std::string database_;
    const std::list<Follower>::iterator follower_;
  };
  std::unique_ptr<Seat> join(const std::string& database, std::string subject, std::string address);

  // Those that are connected first, then the latest.
  std::vector<Follower> of(const std::string& database) const;
  // Connected ones.
  std::size_t count(const std::string& database) const;

 private:
  void told(std::list<Follower>::iterator follower, const Bookmark& position);
  void leave(const std::string& database, std::list<Follower>::iterator follower);

  mutable std::mutex mutex_;
  struct Known {
    std::list<Follower> connected, gone;  // the latest first
  };
  std::map<std::string, Known> known_;  // by database; guarded by mutex_
};

}  // namespace offprint::server
