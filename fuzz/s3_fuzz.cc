// Reads arbitrary bytes as an answer of an S3 service and as the URL of an archive. What was read
// must be whole, and no setting may carry bytes that end a line of a request.
#include <cstdint>
#include <string>

#include "archive/s3_settings.h"
#include "archive/s3_xml.h"
#include "base/assert.h"

namespace {

std::size_t count(const offprint::archive::XmlElement& element) {
  OFFPRINT_ASSERT(!element.name.empty());
  std::size_t elements = 1;
  for (const auto& child : element.children) elements += count(child);
  return elements;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace offprint::archive;
  std::string text(reinterpret_cast<const char*>(data), size);
  if (auto xml = parse_xml(text)) OFFPRINT_ASSERT(count(*xml) <= text.size());
  S3Environment nothing{[](const char*) { return std::string(); }, &offprint::FileSystem::real()};
  if (auto settings = read_s3_settings(text, nothing)) {
    std::string host = settings->request_host(settings->region);
    std::string path = uri_encode(settings->request_path("key"), true);
    for (char c : host + path) OFFPRINT_ASSERT(c > ' ' && c < 127);
    OFFPRINT_ASSERT(!settings->bucket.empty() && host.find_first_of("/@?#\\") == std::string::npos);
  }
  return 0;
}
