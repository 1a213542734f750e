#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cluster/link.h"

namespace offprint::cluster {

// A connection to another node that goes on with another protocol: bytes in, bytes out. What is not
// taken from it holds up the other side. Thread: any.
class Tunnel {
 public:
  // Closes the connection.
  virtual ~Tunnel() = default;
  // Once, first. `changed` is called, on the forwarder's thread and quickly, when there is
  // something to take, when what was given has left, and at the end; not after the destructor.
  virtual void start(std::function<void()> changed) = 0;
  virtual void send(std::string_view bytes) = 0;
  // Bytes that have not left yet.
  virtual std::size_t unsent() const = 0;
  // Appends what has come. False: that was all, the other side has closed.
  virtual bool take(std::string& to) = 0;
};

// Over a link whose protocol has been changed; what its buffer holds comes first. `ended` is called
// once, on the thread of `io`, when the link is not used any more.
std::unique_ptr<Tunnel> make_tunnel(boost::asio::io_context& io, std::shared_ptr<Link> link,
                                    std::function<void()> ended);

}  // namespace offprint::cluster
