#pragma once

#include <cstdint>
#include <string>

#include "archive/s3_client.h"
#include "ltx/codec.h"

namespace offprint::archive {

// A header that only this put has: by it an object is known for what an earlier try has put, whose
// answer was lost.
inline constexpr const char* kPutMark = "x-amz-meta-offprint-put";
std::pair<std::string, std::string> new_put_mark();
// The ETag of the object of this mark; nothing when what is there has another, or nothing is there.
Result<std::string> etag_of_put(S3Client& client, const std::string& key, const std::string& mark);

struct S3Uploaded {
  std::uint64_t size = 0;
  std::string etag;
};

// All of `head` and then of `from`, in parts, of which S3Options::parts are under way at a time:
// memory is those and one more. `metadata` is the object's. After a failure the parts are dropped,
// if the service can still be told; a bucket's rules for unfinished uploads catch the rest.
Result<S3Uploaded> upload_in_parts(S3Client& client, const std::string& key, const Pairs& metadata,
                                   Bytes head, ltx::ByteSource& from);

// Reads until `to` has `size` bytes; answers whether it got them all.
Result<bool> fill(Bytes& to, std::size_t size, ltx::ByteSource& from);

// For texts inside XML.
std::string xml_escape(std::string_view text);

}  // namespace offprint::archive
