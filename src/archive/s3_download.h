#pragma once

#include <memory>
#include <string>

#include "archive/s3_client.h"
#include "ltx/codec.h"

namespace offprint::archive {

// An object from `offset` on. Small ones come with one request; of larger ones a few ranges are
// under way at a time, in threads of the source's own: memory is those ranges and as many more, and
// a reader that takes its time keeps no connection waiting. `client` must outlive the source.
Result<std::unique_ptr<ltx::ByteSource>> open_s3_download(S3Client& client, std::string key,
                                                          std::uint64_t offset);

}  // namespace offprint::archive
