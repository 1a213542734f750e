#include "archive/s3_store.h"

#include <algorithm>
#include <atomic>
#include <charconv>

#include <fmt/format.h>

#include "archive/s3_download.h"
#include "archive/s3_upload.h"
#include "archive/s3_xml.h"
#include "base/clock.h"
#include "base/log.h"

namespace offprint::archive {
namespace {

constexpr const char* kTimestamp = "x-amz-meta-litestream-timestamp";  // RFC 3339
constexpr std::size_t kListBytesMax = 16 << 20;
constexpr std::size_t kRemovedAtOnce = 1000;

std::optional<std::uint64_t> parse_size(const std::string& text) {
  std::uint64_t size = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return size;
}

class S3Store final : public ObjectStore {
 public:
  explicit S3Store(std::unique_ptr<S3Client> client) : client_(std::move(client)) {}

  const std::string& url() const override { return client_->settings().url; }
  std::string level_prefix(int level) const override { return fmt::format("{:04x}/", level); }

  Result<ObjectInfo> put(const std::string& key, ltx::ByteSource& from,
                         const PutOptions& options) override;
  Result<std::unique_ptr<ltx::ByteSource>> get(const std::string& key,
                                               std::uint64_t offset) override {
    return open_s3_download(*client_, full(key), offset);
  }
  Result<ObjectInfo> info(const std::string& key) override;
  Result<std::vector<ObjectInfo>> list(const std::string& prefix) override;
  Result<> remove(const std::vector<std::string>& keys) override;
  void cancel() override { client_->transport().cancel(); }

 private:
  std::string full(const std::string& key) const { return client_->settings().prefix + key; }
  S3Request request(const char* method, std::string full_key) const {
    S3Request made;
    made.method = method;
    made.key = std::move(full_key);
    return made;
  }
  Result<std::string> put_small(const std::string& key, const Bytes& content, const Pairs& metadata,
                                const PutOptions& options);
  Result<std::string> put_unconditionally(const S3Request& conditional, const std::string& key,
                                          const PutOptions& options);
  // Answers the token of the next page, empty after the last one.
  Result<std::string> list_page(const std::string& prefix, const std::string& token,
                                std::vector<ObjectInfo>& found);
  Result<> remove_one(const std::string& key);
  Result<> remove_batch(std::span<const std::string> keys);

  const std::unique_ptr<S3Client> client_;
  std::atomic<bool> no_conditions_{false};  // the service has said so
  std::atomic<bool> no_batches_{false};
};

Result<ObjectInfo> S3Store::put(const std::string& key, ltx::ByteSource& from,
                                const PutOptions& options) {
  std::int64_t timestamp_ms = options.timestamp_ms != 0 ? options.timestamp_ms : unix_time_ms();
  Pairs metadata = {{kTimestamp, format_rfc3339(timestamp_ms)}};
  Bytes content;
  OFFPRINT_TRY_ASSIGN(bool large, fill(content, kSmallObjectMax + 1, from));
  if (!large) {
    OFFPRINT_TRY_ASSIGN(std::string etag, put_small(key, content, metadata, options));
    return ObjectInfo{key, content.size(), timestamp_ms, std::move(etag)};
  }
  if (options.if_absent || !options.if_version.empty()) {
    return fail(Code::kTooLarge,
                fmt::format("{}/{}: more than {} bytes cannot be put on a condition", url(), key,
                            kSmallObjectMax));
  }
  OFFPRINT_TRY_ASSIGN(S3Uploaded uploaded,
                      upload_in_parts(*client_, full(key), metadata, std::move(content), from));
  return ObjectInfo{key, uploaded.size, timestamp_ms, std::move(uploaded.etag)};
}

Result<std::string> S3Store::put_small(const std::string& key, const Bytes& content,
                                       const Pairs& metadata, const PutOptions& options) {
  S3Request put = request("PUT", full(key));
  put.headers = metadata;
  put.body = content;
  bool conditional = options.if_absent || !options.if_version.empty();
  std::string mark;
  if (conditional) {
    put.headers.push_back(new_put_mark());
    mark = put.headers.back().second;
    if (no_conditions_) return put_unconditionally(put, key, options);
    if (options.if_absent) put.headers.emplace_back("if-none-match", "*");
    if (!options.if_version.empty()) put.headers.emplace_back("if-match", options.if_version);
  }
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_->call(put));
  if (answer.ok()) {
    std::string etag = answer.http.header("etag");
    if (!etag.empty()) return etag;
    OFFPRINT_TRY_ASSIGN(ObjectInfo there, info(key));
    return there.version;
  }
  Error error = client_->error_of(put, answer);
  if (!conditional) return fail(std::move(error));
  if (answer.status == 501) {
    if (!no_conditions_.exchange(true)) {
      log::warn("{}: the service knows no conditional writes: two writers at once may both win",
                url());
    }
    return put_unconditionally(put, key, options);
  }
  // What stands in the way may be what a try before this one has put.
  if (answer.tries > 1 && error.code() == Code::kConflict) {
    OFFPRINT_TRY_ASSIGN(std::string etag, etag_of_put(*client_, full(key), mark));
    if (!etag.empty()) return etag;
  }
  // To be of a version, it must be there.
  if (!options.if_version.empty() && error.code() == Code::kNotFound &&
      answer.code != "NoSuchBucket") {
    return fail(Error(Code::kConflict, error.message()));
  }
  return fail(std::move(error));
}

Result<std::string> S3Store::put_unconditionally(const S3Request& conditional,
                                                 const std::string& key,
                                                 const PutOptions& options) {
  Result<ObjectInfo> there = info(key);
  if (!there && there.error().code() != Code::kNotFound) return fail(there.error());
  if (options.if_absent && there)
    return fail(Code::kConflict, fmt::format("{}/{}: is there already", url(), key));
  if (!options.if_version.empty() && (!there || there->version != options.if_version))
    return fail(Code::kConflict, fmt::format("{}/{}: changed by somebody else", url(), key));
  S3Request put = conditional;
  std::erase_if(put.headers, [](const auto& header) { return header.first.starts_with("if-"); });
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_->call(put));
  if (!answer.ok()) return fail(client_->error_of(put, answer));
  return answer.http.header("etag");
}

Result<ObjectInfo> S3Store::info(const std::string& key) {
  S3Request head = request("HEAD", full(key));
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_->call(head));
  if (!answer.ok()) return fail(client_->error_of(head, answer));
  auto size = parse_size(answer.http.header("content-length"));
  if (!size) return fail(Code::kCorrupt, fmt::format("HEAD {}/{}: no size", url(), key));
  auto timestamp_ms = parse_rfc3339(answer.http.header(kTimestamp));
  return ObjectInfo{
      key, *size, timestamp_ms ? *timestamp_ms : http_date_ms(answer.http.header("last-modified")),
      answer.http.header("etag")};
}

Result<std::string> S3Store::list_page(const std::string& prefix, const std::string& token,
                                       std::vector<ObjectInfo>& found) {
  S3Request get = request("GET", "");
  get.query = {{"list-type", "2"},
               {"encoding-type", "url"},
               {"max-keys", std::to_string(client_->options().list_page)},
               {"prefix", full(prefix)}};
  if (!token.empty()) get.query.emplace_back("continuation-token", token);
  get.answer_max = kListBytesMax;
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_->call(get));
  if (!answer.ok()) return fail(client_->error_of(get, answer));
  auto wrong = [&](std::string_view what) {
    return fail(Code::kCorrupt, fmt::format("list {}/{}: {}", url(), prefix, what));
  };
  auto xml = parse_xml(as_text(answer.http.body));
  if (!xml) return wrong(xml.error().message());
  if (xml->name != "ListBucketResult") return wrong("the answer is no list");
  bool encoded = xml->text_of("EncodingType") == "url";
  for (const XmlElement& each : xml->children) {
    if (each.name != "Contents") continue;
    std::string key = each.text_of("Key");
    if (encoded) key = uri_decode(key, true);
    auto size = parse_size(each.text_of("Size"));
    if (!size || !key.starts_with(full(prefix))) return wrong("an object that was not asked for");
    found.push_back({key.substr(client_->settings().prefix.size()), *size, 0, ""});
  }
  if (xml->text_of("IsTruncated") != "true") return "";
  std::string next = xml->text_of("NextContinuationToken");
  if (next.empty() || next == token) return wrong("it has more pages and does not say which");
  return next;
}

Result<std::vector<ObjectInfo>> S3Store::list(const std::string& prefix) {
  std::vector<ObjectInfo> found;
  std::string token;
  do {
    OFFPRINT_TRY_ASSIGN(token, list_page(prefix, token, found));
  } while (!token.empty());
  std::sort(found.begin(), found.end(),
            [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
  return found;
}

Result<> S3Store::remove_one(const std::string& key) {
  S3Request remove = request("DELETE", full(key));
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_->call(remove));
  if (answer.ok() || (answer.status == 404 && answer.code != "NoSuchBucket")) return {};
  return fail(client_->error_of(remove, answer));
}

Result<> S3Store::remove_batch(std::span<const std::string> keys) {
  std::string list = "<Delete><Quiet>true</Quiet>";
  for (const std::string& key : keys)
    list += "<Object><Key>" + xml_escape(full(key)) + "</Key></Object>";
  list += "</Delete>";
  S3Request post = request("POST", "");
  post.query.emplace_back("delete", "");
  post.body = as_bytes(list);
  std::string md5 = md5_base64(post.body);
  if (md5.empty()) {
    post.headers.emplace_back("x-amz-checksum-sha256", base64(sha256(post.body)));
  } else {
    post.headers.emplace_back("content-md5", md5);
  }
  post.answer_max = kListBytesMax;
  OFFPRINT_TRY_ASSIGN(S3Answer answer, client_->call(post));
  if (answer.ok()) {
    OFFPRINT_TRY_ASSIGN(XmlElement xml, parse_xml(as_text(answer.http.body)));
    // What could not be removed says why when it is removed alone.
    for (const XmlElement& each : xml.children) {
      std::string key = each.text_of("Key");
      if (each.name == "Error" && key.starts_with(client_->settings().prefix))
        OFFPRINT_TRY(remove_one(key.substr(client_->settings().prefix.size())));
    }
    return {};
  }
  Error error = client_->error_of(post, answer);
  if (error.code() != Code::kUnavailable) return fail(std::move(error));
  no_batches_ = true;
  for (const std::string& key : keys) OFFPRINT_TRY(remove_one(key));
  return {};
}

Result<> S3Store::remove(const std::vector<std::string>& keys) {
  std::span<const std::string> left(keys);
  while (!left.empty()) {
    auto batch = left.first(no_batches_ ? 1 : std::min(left.size(), kRemovedAtOnce));
    left = left.subspan(batch.size());
    if (batch.size() == 1) {
      OFFPRINT_TRY(remove_one(batch.front()));
    } else {
      OFFPRINT_TRY(remove_batch(batch));
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ObjectStore>> open_s3_store(std::string_view url,
                                                   const S3Environment& environment,
                                                   const S3Options& options) {
  OFFPRINT_TRY_ASSIGN(S3Settings settings, read_s3_settings(url, environment));
  OFFPRINT_TRY_ASSIGN(auto client, S3Client::create(std::move(settings), environment, options));
  return std::make_unique<S3Store>(std::move(client));
}

}  // namespace offprint::archive
