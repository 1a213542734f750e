#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"
#include "ltx/codec.h"

// Where archives are: a folder, or a bucket of an S3 service.
namespace offprint::archive {

struct ObjectInfo {
  std::string key;
  std::uint64_t size = 0;
  std::int64_t timestamp_ms = 0;  // as it was put; 0: not known from a list, ask info()
  std::string version;            // changes with the content (S3: the ETag); empty in lists
};

struct PutOptions {
  // Litestream restores by it: the modification time of a file, metadata of an S3 object.
  std::int64_t timestamp_ms = 0;  // 0: now
  // kConflict when the object is there, or is not of this version. For objects up to
  // kSmallObjectMax.
  bool if_absent = false;
  std::string if_version;
};

inline constexpr std::size_t kSmallObjectMax = 8 << 20;

// Objects by key: segments of [A-Za-z0-9._@~-], with '/' between them, below the place that the URL
// names. An object is there as a whole or not at all, and durable when put() returns; objects are
// never changed, but may be replaced. Thread: any. All calls block; temporary failures are tried
// again within them, with growing pauses. Errors: kNotFound no such object or bucket; kConflict a
// condition does not hold; kUnauthorized and kForbidden the credentials; kFull no space;
// kUnavailable the service does not answer, or cancel() was called; kIo; kCorrupt what came is not
// what was promised. Each says which object and what was tried.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // The URL without secrets, for messages.
  virtual const std::string& url() const = 0;
  // Where Litestream looks for the files of a level in a store of this kind: "ltx/0/" or "0000/".
  virtual std::string level_prefix(int level) const = 0;

  // Everything that `from` has. Large ones go in parts: memory is a few parts, whatever the size.
  // Answers the object's info, with its version.
  virtual Result<ObjectInfo> put(const std::string& key, ltx::ByteSource& from,
                                 const PutOptions& options = {}) = 0;
  // From `offset` on. A connection that breaks is begun again where it stopped, on the same version
  // of the object. The store must outlive what it answers.
  virtual Result<std::unique_ptr<ltx::ByteSource>> get(const std::string& key,
                                                       std::uint64_t offset = 0) = 0;
  virtual Result<ObjectInfo> info(const std::string& key) = 0;
  // All objects whose keys begin with `prefix`, by key.
  virtual Result<std::vector<ObjectInfo>> list(const std::string& prefix) = 0;
  // Absent ones are no error.
  virtual Result<> remove(const std::vector<std::string>& keys) = 0;

  // Calls that run and calls to come answer kUnavailable soon.
  virtual void cancel() = 0;
};

// "file:///abs/folder" or "s3://bucket/prefix", as docs/guides/archive.md has them; the folder is
// made when something is put. `files` is for folders. kInvalid: no such URL, with the reason.
Result<std::unique_ptr<ObjectStore>> open_object_store(std::string_view url,
                                                       FileSystem& files = FileSystem::real());

// The content of a small object. kTooLarge beyond `limit`.
Result<Bytes> read_object(ObjectStore& store, const std::string& key, std::uint64_t limit);

}  // namespace offprint::archive
