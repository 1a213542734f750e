#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "archive/s3_signature.h"
#include "base/file_system.h"
#include "base/result.h"

namespace offprint::archive {

// Where settings come from beside the URL: variables, and the files that they name.
struct S3Environment {
  std::function<std::string(const char*)> variable;  // empty: not set
  FileSystem* files = nullptr;

  // The process's own.
  static S3Environment real();
};

// What "s3://bucket/prefix?endpoint=…&region=…&path_style=1&profile=…&ca_file=…" and the
// environment say, as docs/guides/archive.md has them. Holds no secret.
struct S3Settings {
  std::string url;  // "s3://bucket/prefix", for messages
  std::string bucket;
  std::string prefix;  // empty or with a '/' at its end
  std::string scheme = "https";
  std::string host;  // lower case, with the port where it is not the scheme's own; empty: AWS's
  std::string base_path;  // of the endpoint: empty or "/path"
  std::string region;
  std::string profile;
  bool explicit_profile = false;  // by the URL: it goes before keys of the environment
  bool path_style = false;
  std::string ca_file;

  // "bucket.host" or the host alone.
  std::string request_host(std::string_view in_region) const;
  // Of an object, or of the bucket for an empty key; not encoded.
  std::string request_path(std::string_view key) const;
};

// kInvalid: which part of the URL, variable or file is wrong.
Result<S3Settings> read_s3_settings(std::string_view url, const S3Environment& environment);

// Anew from their place each time. kInvalid: there are none, and where they were looked for.
Result<S3Credentials> read_s3_credentials(const S3Settings& settings,
                                          const S3Environment& environment);

}  // namespace offprint::archive
