#pragma once

#include <functional>
#include <memory>
#include <string>

#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// Appends a piece (256 KiB or so) to `to`; false: that was all. Thread: a helper, one at a time;
// may wait for a disk.
using PieceSource = std::function<Result<bool>(std::string& to)>;

inline constexpr std::size_t kPieceBytes = 256 << 10;

// A body read ahead of the client by at most one piece; each piece is a helper thread's job of its
// own, so a slow client occupies none; it
// gives way to writes. A source that fails cuts the connection.
std::unique_ptr<BodyStream> make_piece_stream(Service& service, PieceSource source);

}  // namespace offprint::server
