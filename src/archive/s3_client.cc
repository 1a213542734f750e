#include "archive/s3_client.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include <curl/curl.h>
#include <fmt/format.h>

#include "archive/s3_xml.h"
#include "base/random.h"

namespace offprint::archive {
namespace {

constexpr std::int64_t kSkewMs = 5 * 60 * 1000;  // services refuse from 15 minutes on
constexpr int kLessonsMax = 4;                   // of one call
constexpr std::size_t kMessageMax = 300;
constexpr int kTriesMin = 3;

bool is_one_of(std::string_view code, std::initializer_list<std::string_view> codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

bool is_temporary(const S3Answer& answer) {
  if (answer.status == 501 || answer.status == 507 || answer.code == "QuotaExceeded") return false;
  if (answer.status >= 500 || answer.status == 429 || answer.status == 408) return true;
  return is_one_of(
      answer.code,
      {"SlowDown", "RequestTimeout", "InternalError", "Throttling", "ThrottlingException",
       "ServiceUnavailable", "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted"});
}

bool is_loopback(std::string_view host) {
  if (host.starts_with('[')) return host.starts_with("[::1]");
  host = host.substr(0, host.find(':'));
  return host.starts_with("127.") || host == "localhost" || host.ends_with(".localhost");
}

std::string visible(std::string text) {
  if (text.size() > kMessageMax) text.resize(kMessageMax);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  return text;
}

// The reason that a service gives in the body.
void read_reason(S3Answer& answer, bool can_fail_late) {
  if (answer.ok() && !can_fail_late) return;
  auto xml = parse_xml(as_text(answer.http.body));
  if (!xml) {
    // Nothing but the spaces that kept the connection alive: it may be carried out or not.
    if (answer.ok()) answer.status = 500;
    return;
  }
  if (xml->name != "Error") return;
  answer.code = visible(xml->text_of("Code"));
  answer.message = visible(xml->text_of("Message"));
  if (answer.ok()) answer.status = 500;
  std::string region = xml->text_of("Region");
  if (!region.empty()) answer.http.headers.emplace("x-amz-bucket-region", region);
}

Code code_of(const S3Answer& answer) {
  if (is_one_of(answer.code,
                {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
                 "TokenRefreshRequired", "RequestTimeTooSkewed", "AuthorizationHeaderMalformed",
                 "InvalidSecurity", "XAdminUserNotFound"})) {
    return Code::kUnauthorized;
  }
  if (is_one_of(answer.code, {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"}))
    return Code::kFull;
  switch (answer.status) {
    case 401:
      return Code::kUnauthorized;
    case 403:
      return Code::kForbidden;
    case 404:
      return Code::kNotFound;
    case 409:
    case 412:
      return Code::kConflict;
    case 507:
      return Code::kFull;
    default:
      return Code::kUnavailable;
  }
}

}  // namespace

std::int64_t http_date_ms(const std::string& text) {
  std::time_t seconds = curl_getdate(text.c_str(), nullptr);
  return seconds <= 0 ? 0 : std::int64_t{seconds} * 1000;
}

bool S3Patience::wait(HttpTransport& transport, const std::atomic<bool>* stop) {
  if (++failures_ == 1) {
    deadline_ = SteadyClock::now() + std::chrono::milliseconds(options_.retry_total_ms);
    bound_ms_ = options_.retry_first_ms;
  }
  std::array<std::uint8_t, 4> raw{};
  fill_random(raw);
  auto bound = static_cast<std::uint32_t>(std::max(bound_ms_, 1));
  int ms = static_cast<int>(load_be<std::uint32_t>(raw.data()) % bound) + 1;
  bool late = SteadyClock::now() + std::chrono::milliseconds(ms) > deadline_;
  if (late && failures_ >= kTriesMin) return false;
  bound_ms_ = std::min(bound_ms_ * 2, options_.retry_max_ms);
  return transport.pause(ms, stop);
}

S3Client::S3Client(S3Settings settings, S3Environment environment, S3Options options,
                   std::unique_ptr<HttpTransport> transport, S3Credentials credentials)
    : settings_(std::move(settings)),
      environment_(std::move(environment)),
      options_(options),
      transport_(std::move(transport)),
      known_{std::move(credentials), settings_.region, 0} {}

Result<std::unique_ptr<S3Client>> S3Client::create(S3Settings settings, S3Environment environment,
                                                   S3Options options) {
  OFFPRINT_TRY_ASSIGN(S3Credentials credentials, read_s3_credentials(settings, environment));
  HttpTransport::Options transport_options{settings.ca_file,
                                           is_loopback(settings.request_host(settings.region)),
                                           options.connect_timeout_ms};
  OFFPRINT_TRY_ASSIGN(auto transport, HttpTransport::create(std::move(transport_options)));
  return std::unique_ptr<S3Client>(new S3Client(std::move(settings), std::move(environment),
                                                options, std::move(transport),
                                                std::move(credentials)));
}

S3Client::Knowledge S3Client::knowledge() {
  std::lock_guard lock(mutex_);
  return known_;
}

S3Answer S3Client::send(const S3Request& request, const Knowledge& known) {
  std::string host = settings_.request_host(known.region);
  std::string time = amz_time(unix_time_ms() + known.clock_offset_ms);
  SignedContent content{request.method, settings_.request_path(request.key), request.query,
                        request.headers, sha256_hex(request.body)};
  content.headers.emplace_back("host", host);
  content.headers.emplace_back("x-amz-content-sha256", content.payload_hash);
  content.headers.emplace_back("x-amz-date", time);
  if (!known.credentials.session_token.empty())
    content.headers.emplace_back("x-amz-security-token", known.credentials.session_token);

  HttpRequest http;
  http.method = request.method;
  http.url = settings_.scheme + "://" + host + uri_encode(content.path, true);
  if (!request.query.empty()) http.url += "?" + query_text(request.query);
  for (const auto& [name, value] : content.headers) http.headers.push_back(name + ": " + value);
  http.headers.push_back("Authorization: " +
                         authorization(content, known.credentials, {known.region, "s3", time}));
  http.body = request.body;
  http.answer_max = request.answer_max;
  http.stop = request.stop;
  http.stall_seconds = std::max(request.stall_seconds, options_.stall_seconds);

  S3Answer answer;
  answer.http = transport_->perform(http);
  answer.status = answer.http.failure.empty() ? answer.http.status : 0;
  if (answer.status != 0) read_reason(answer, request.can_fail_late);
  for (const std::string& secret :
       {known.credentials.secret_key, known.credentials.session_token}) {
    if (!secret.empty() && answer.message.contains(secret)) answer.message.clear();
  }
  return answer;
}

bool S3Client::learn(const S3Answer& answer, const Knowledge& used) {
  int status = answer.status;
  if (status < 300 || status >= 500) return false;
  std::lock_guard lock(mutex_);
  // Another region: said with a redirect, or where the signature named the wrong one.
  std::string region = answer.http.header("x-amz-bucket-region");
  if ((status < 400 || status == 400) && !region.empty() && region != used.region &&
      region.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos) {
    known_.region = region;
    return true;
  }
  if (status != 400 && status != 401 && status != 403) return false;
  std::int64_t theirs = http_date_ms(answer.http.header("date"));
  std::int64_t signed_ms = unix_time_ms() + used.clock_offset_ms;
  if (theirs != 0 && std::abs(theirs - signed_ms) > kSkewMs) {
    known_.clock_offset_ms = theirs - unix_time_ms();
    return true;
  }
  // An answer to HEAD has no reason.
  bool about_keys = is_one_of(answer.code, {"ExpiredToken", "InvalidToken", "TokenRefreshRequired",
                                            "InvalidAccessKeyId", "SignatureDoesNotMatch", ""});
  if (!about_keys) return false;
  if (known_.credentials != used.credentials) return true;  // another thread has read them
  auto credentials = read_s3_credentials(settings_, environment_);
  if (!credentials || *credentials == used.credentials) return false;
  known_.credentials = *std::move(credentials);
  return true;
}

S3Answer S3Client::try_once(const S3Request& request, bool& again) {
  again = false;
  S3Answer answer;
  for (int lessons = 0; lessons <= kLessonsMax; ++lessons) {
    Knowledge known = knowledge();
    answer = send(request, known);
    if (answer.status == 0) {
      again = answer.http.may_repeat && !transport_->cancelled();
      return answer;
    }
    if (!learn(answer, known)) break;
  }
  again = is_temporary(answer);
  return answer;
}

Result<S3Answer> S3Client::call(const S3Request& request) {
  S3Patience patience(options_);
  for (int tries = 1;; ++tries) {
    bool again = false;
    S3Answer answer = try_once(request, again);
    answer.tries = tries;
    if (!again && answer.status != 0) return answer;
    if (!again || !patience.wait(*transport_, request.stop)) return fail(error_of(request, answer));
  }
}

Error S3Client::error_of(const S3Request& request, const S3Answer& answer) const {
  std::string object = "s3://" + settings_.bucket + (request.key.empty() ? "" : "/") + request.key;
  auto error = [&](Code code, std::string_view what) {
    return Error(code, fmt::format("{} {}: {}", request.method, object, what));
  };
  if (transport_->cancelled()) return error(Code::kUnavailable, "cancelled");
  if (answer.status == 0) {
    bool too_long = answer.http.failure.starts_with("the answer is longer");
    return error(too_long ? Code::kCorrupt : Code::kUnavailable, answer.http.failure);
  }
  Code code = code_of(answer);
  std::string reason = answer.code + (answer.message.empty() ? "" : ": " + answer.message);
  if (reason.empty()) {
    reason = code == Code::kNotFound    ? "no such object"
             : code == Code::kForbidden ? "the keys do not allow it"
                                        : "no reason given";
  }
  return error(code, fmt::format("{} (HTTP {})", reason, answer.status));
}

}  // namespace offprint::archive
