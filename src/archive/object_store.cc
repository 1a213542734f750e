#include "archive/object_store.h"

#include <fmt/format.h>

#include "archive/file_store.h"
#include "archive/s3_store.h"

namespace offprint::archive {

Result<std::unique_ptr<ObjectStore>> open_object_store(std::string_view url, FileSystem& files) {
  constexpr std::string_view kFile = "file://";
  if (url.starts_with(kFile)) {
    std::string folder(url.substr(kFile.size()));
    while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
    if (!folder.starts_with('/') || folder.size() < 2) {
      return fail(Code::kInvalid,
                  fmt::format("'{}': a folder is file:///with/its/whole/path", url));
    }
    return open_file_store(folder, files);
  }
  if (url.starts_with("s3://")) return open_s3_store(url);
  return fail(Code::kInvalid,
              fmt::format("'{}': an archive is file:///FOLDER or s3://BUCKET/PREFIX", url));
}

Result<Bytes> read_object(ObjectStore& store, const std::string& key, std::uint64_t limit) {
  OFFPRINT_TRY_ASSIGN(auto source, store.get(key));
  Bytes content;
  for (;;) {
    std::size_t had = content.size();
    content.resize(had + (64 << 10));
    OFFPRINT_TRY_ASSIGN(std::size_t got, source->read(std::span(content).subspan(had)));
    content.resize(had + got);
    if (got == 0) return content;
    if (content.size() > limit)
      return fail(Code::kTooLarge, fmt::format("{}/{}: larger than expected", store.url(), key));
  }
}

}  // namespace offprint::archive
