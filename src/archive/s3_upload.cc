#include "archive/s3_upload.h"

#include <algorithm>
#include <array>
#include <deque>
#include <future>

#include <fmt/format.h>

#include "archive/s3_xml.h"
#include "base/random.h"

namespace offprint::archive {
namespace {

constexpr int kPartsMax = 10'000;  // S3's limit
// Parts of one size as long as that goes, since some services take no others; the last ones are
// larger so that an object of 500 GiB has room.
constexpr int kEvenParts = 8'000;
constexpr std::size_t kLargeFactor = 16;
constexpr std::size_t kPieceBytes = 1 << 20;
// S3 puts the parts together before it answers.
constexpr int kCompleteStallSeconds = 300;

class PartsUpload {
 public:
  PartsUpload(S3Client& client, const std::string& key, const Pairs& metadata)
      : client_(client), key_(key), metadata_(metadata), mark_(new_put_mark()) {}

  Result<S3Uploaded> run(Bytes head, ltx::ByteSource& from);

 private:
  Result<> begin();
  Result<> send_all(Bytes head, ltx::ByteSource& from);
  Result<std::string> send(int number, const Bytes& part);
  Result<> collect();  // the oldest part under way
  Result<std::string> complete();
  void abort();
  S3Request request(const char* method) const {
    S3Request made;
    made.method = method;
    made.key = key_;
    if (!id_.empty()) made.query.emplace_back("uploadId", id_);
    return made;
  }

  S3Client& client_;
  const std::string& key_;
  const Pairs& metadata_;
  const std::pair<std::string, std::string> mark_;
  std::string id_;
  std::uint64_t size_ = 0;
  std::vector<std::string> etags_;
  std::deque<std::future<Result<std::string>>> under_way_;
};

Result<> PartsUpload::begin() {
  S3Request post = request("POST");
  post.query.emplace_back("uploads", "");
  post.headers = metadata_;
  post.headers.push_back(mark_);
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_.call(post));
  if (!answer.ok()) return fail(client_.error_of(post, answer));
  OFFPRINT_TRY_ASSIGN(XmlElement xml, parse_xml(as_text(answer.http.body)));
  id_ = xml.text_of("UploadId");
  if (id_.empty()) return fail(Code::kCorrupt, "an upload in parts without an UploadId");
  return {};
}

Result<std::string> PartsUpload::send(int number, const Bytes& part) {
  S3Request put = request("PUT");
  put.query.emplace_back("partNumber", std::to_string(number));
  put.body = part;
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_.call(put));
  if (!answer.ok()) return fail(client_.error_of(put, answer));
  std::string etag = answer.http.header("etag");
  if (etag.empty()) return fail(Code::kCorrupt, "a part without an ETag");
  return etag;
}

Result<> PartsUpload::collect() {
  Result<std::string> etag = under_way_.front().get();
  under_way_.pop_front();
  if (!etag) return fail(etag.error());
  etags_.push_back(*std::move(etag));
  return {};
}

Result<> PartsUpload::send_all(Bytes head, ltx::ByteSource& from) {
  Bytes part = std::move(head);
  for (int number = 1;; ++number) {
    std::size_t wanted = client_.options().part_bytes;
    if (number > kEvenParts) wanted *= kLargeFactor;
    OFFPRINT_TRY_ASSIGN(bool full, fill(part, wanted, from));
    if (part.empty() && number > 1) break;
    if (number > kPartsMax) {
      return fail(Code::kTooLarge, fmt::format("s3://{}/{}: more than {} parts",
                                               client_.settings().bucket, key_, kPartsMax));
    }
    size_ += part.size();
    while (under_way_.size() >= client_.options().parts) OFFPRINT_TRY(collect());
    under_way_.push_back(std::async(std::launch::async, [this, number, sent = std::move(part)]() {
      return send(number, sent);
    }));
    part = {};
    if (!full) break;
  }
  while (!under_way_.empty()) OFFPRINT_TRY(collect());
  return {};
}

Result<std::string> PartsUpload::complete() {
  std::string list = "<CompleteMultipartUpload>";
  for (std::size_t i = 0; i < etags_.size(); ++i) {
    list += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", i + 1,
                        xml_escape(etags_[i]));
  }
  list += "</CompleteMultipartUpload>";
  S3Request post = request("POST");
  post.body = as_bytes(list);
  post.can_fail_late = true;
  post.stall_seconds = kCompleteStallSeconds;
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_.call(post));
  if (answer.ok()) {
    auto xml = parse_xml(as_text(answer.http.body));
    std::string etag = xml ? xml->text_of("ETag") : "";
    if (!etag.empty()) return etag;
  }
  // The try before has done it, and its answer was lost.
  if (answer.ok() || (answer.status == 404 && answer.tries > 1)) {
    OFFPRINT_TRY_ASSIGN(std::string etag, etag_of_put(client_, key_, mark_.second));
    if (!etag.empty()) return etag;
  }
  return fail(client_.error_of(post, answer));
}

void PartsUpload::abort() {
  while (!under_way_.empty()) (void)collect();
  if (id_.empty() || client_.transport().cancelled()) return;
  bool again = false;
  (void)client_.try_once(request("DELETE"), again);
}

Result<S3Uploaded> PartsUpload::run(Bytes head, ltx::ByteSource& from) {
  auto steps = [&]() -> Result<S3Uploaded> {
    OFFPRINT_TRY(begin());
    OFFPRINT_TRY(send_all(std::move(head), from));
    OFFPRINT_TRY_ASSIGN(std::string etag, complete());
    return S3Uploaded{size_, std::move(etag)};
  };
  Result<S3Uploaded> done = steps();
  if (!done) abort();
  return done;
}

}  // namespace

std::pair<std::string, std::string> new_put_mark() {
  std::array<std::uint8_t, 16> id{};
  fill_random(id);
  return {kPutMark, to_hex(id)};
}

Result<std::string> etag_of_put(S3Client& client, const std::string& key, const std::string& mark) {
  S3Request head;
  head.method = "HEAD";
  head.key = key;
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client.call(head));
  if (!answer.ok() || answer.http.header(kPutMark) != mark) return "";
  return answer.http.header("etag");
}

Result<S3Uploaded> upload_in_parts(S3Client& client, const std::string& key, const Pairs& metadata,
                                   Bytes head, ltx::ByteSource& from) {
  return PartsUpload(client, key, metadata).run(std::move(head), from);
}

Result<bool> fill(Bytes& to, std::size_t size, ltx::ByteSource& from) {
  while (to.size() < size) {
    std::size_t had = to.size();
    to.resize(had + std::min(kPieceBytes, size - had));
    auto got = from.read(std::span(to).subspan(had));
    if (!got) return fail(got.error());
    to.resize(had + *got);
    if (*got == 0) return false;
  }
  return true;
}

std::string xml_escape(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace offprint::archive
