#pragma once

#include <functional>
#include <memory>

#include "ltx/codec.h"

namespace offprint::archive {

// What `write` writes, to be read elsewhere: it runs on a thread of its own, at most 1 MiB ahead of
// the reader. Its error is the reader's. Destroyed before the end, the writer's next write fails,
// and it is waited for.
std::unique_ptr<ltx::ByteSource> make_pipe(std::function<Result<>(ltx::ByteSink&)> write);

}  // namespace offprint::archive
