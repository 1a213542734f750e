#include "archive/s3_transport.h"

#include <algorithm>

#include <curl/curl.h>
#include <fmt/format.h>

#include "base/clock.h"
#include "replica/curl_handles.h"

namespace offprint::archive {
namespace {

constexpr std::size_t kIdleMax = 8;
constexpr std::size_t kHeadersMax = 100;
constexpr long kBufferSize = 256 << 10;

// Failures that another try cannot mend.
bool is_lasting(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_NOT_BUILT_IN:
    case CURLE_WRITE_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
      return true;
    default:
      return false;
  }
}

}  // namespace

// A connection that is kept, and the exchange on it. Only wake() may come from another thread.
class HttpTransport::Line {
 public:
  Line() : multi_(curl_multi_init()), easy_(curl_easy_init()) {}

  bool is_usable() const { return multi_ != nullptr && easy_ != nullptr; }
  void wake() { curl_multi_wakeup(multi_.get()); }
  HttpAnswer perform(const HttpRequest& request, const Options& options,
                     const std::atomic<bool>& cancelled);

 private:
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self);
  static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* self);
  void set_options(const HttpRequest& request, const Options& options);
  CURLcode run(const std::atomic<bool>& cancelled, const std::atomic<bool>* stop);

  replica::MultiHandle multi_;
  replica::EasyHandle easy_;
  replica::CurlList headers_;
  HttpAnswer answer_;
  std::size_t answer_max_ = 0;
  char error_[CURL_ERROR_SIZE] = {};
};

std::string HttpAnswer::header(const std::string& name) const {
  auto it = headers.find(name);
  return it == headers.end() ? "" : it->second;
}

std::size_t HttpTransport::Line::on_body(char* data, std::size_t size, std::size_t count,
                                         void* self) {
  auto* line = static_cast<Line*>(self);
  if (line->answer_.body.size() + size * count > line->answer_max_) return 0;
  append(line->answer_.body, {reinterpret_cast<const std::uint8_t*>(data), size * count});
  return size * count;
}

std::size_t HttpTransport::Line::on_header(char* data, std::size_t size, std::size_t count,
                                           void* self) {
  HttpAnswer& answer = static_cast<Line*>(self)->answer_;
  std::string_view text(data, size * count);
  while (!text.empty() && (text.back() == '\r' || text.back() == '\n')) text.remove_suffix(1);
  if (text.starts_with("HTTP/")) answer.headers.clear();  // those before were of a 100
  std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || answer.headers.size() >= kHeadersMax) return size * count;
  std::string name(text.substr(0, colon));
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  text.remove_prefix(colon + 1);
  while (text.starts_with(' ')) text.remove_prefix(1);
  answer.headers[name] = std::string(text);
  return size * count;
}

void HttpTransport::Line::set_options(const HttpRequest& request, const Options& options) {
  CURL* easy = easy_.get();
  curl_easy_reset(easy);  // keeps connections
  curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.connect_timeout_ms));
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(request.stall_seconds));
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kBufferSize);
  curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, kBufferSize);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Line::on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Line::on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, this);
  if (!options.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, options.ca_file.c_str());
  if (options.no_proxy) curl_easy_setopt(easy, CURLOPT_PROXY, "");
  headers_.reset();
  auto add = [&](const char* text) { headers_.reset(curl_slist_append(headers_.release(), text)); };
  for (const std::string& header : request.headers) add(header.c_str());
  if (request.method == "HEAD") {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  } else if (request.method == "PUT" || request.method == "POST") {
    add("Expect:");  // no round trip before the body
    add("Content-Type: application/octet-stream");
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(request.body.size()));
    curl_easy_setopt(
        easy, CURLOPT_POSTFIELDS,
        request.body.empty() ? "" : reinterpret_cast<const char*>(request.body.data()));
  }
  if (request.method != "HEAD")
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_.get());
}

CURLcode HttpTransport::Line::run(const std::atomic<bool>& cancelled,
                                  const std::atomic<bool>* stop) {
  for (;;) {
    if (cancelled || (stop != nullptr && *stop)) return CURLE_ABORTED_BY_CALLBACK;
    int running = 0;
    if (curl_multi_perform(multi_.get(), &running) != CURLM_OK) return CURLE_FAILED_INIT;
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg == CURLMSG_DONE) return message->data.result;
    }
    if (running == 0) return CURLE_FAILED_INIT;
    curl_multi_poll(multi_.get(), nullptr, 0, stop != nullptr ? kStopMs : 1000, nullptr);
  }
}

HttpAnswer HttpTransport::Line::perform(const HttpRequest& request, const Options& options,
                                        const std::atomic<bool>& cancelled) {
  answer_ = {};
  answer_max_ = request.answer_max;
  error_[0] = 0;
  set_options(request, options);
  CURLcode code = CURLE_FAILED_INIT;
  if (curl_multi_add_handle(multi_.get(), easy_.get()) == CURLM_OK) {
    code = run(cancelled, request.stop);
    long status = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
    answer_.status = static_cast<int>(status);
    curl_multi_remove_handle(multi_.get(), easy_.get());
  }
  if (code != CURLE_OK) {
    answer_.failure = error_[0] != 0 ? error_ : curl_easy_strerror(code);
    answer_.may_repeat = !is_lasting(code);
    if (code == CURLE_WRITE_ERROR) answer_.failure = "the answer is longer than expected";
    if (cancelled) answer_.failure = "cancelled";
  }
  return std::move(answer_);
}

HttpTransport::HttpTransport(Options options) : options_(std::move(options)) {}
HttpTransport::~HttpTransport() = default;

Result<std::unique_ptr<HttpTransport>> HttpTransport::create(Options options) {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (initialized != CURLE_OK) return fail(Code::kInternal, curl_easy_strerror(initialized));
  return std::unique_ptr<HttpTransport>(new HttpTransport(std::move(options)));
}

std::unique_ptr<HttpTransport::Line> HttpTransport::take() {
  std::lock_guard lock(mutex_);
  std::unique_ptr<Line> line;
  if (idle_.empty()) {
    line = std::make_unique<Line>();
  } else {
    line = std::move(idle_.back());  // the one used last: its connection is the freshest
    idle_.pop_back();
  }
  busy_.push_back(line.get());
  return line;
}

void HttpTransport::give_back(std::unique_ptr<Line> line) {
  std::lock_guard lock(mutex_);
  std::erase(busy_, line.get());
  if (line->is_usable() && idle_.size() < kIdleMax) idle_.push_back(std::move(line));
}

HttpAnswer HttpTransport::perform(const HttpRequest& request) {
  std::unique_ptr<Line> line = take();
  HttpAnswer answer;
  if (line->is_usable()) {
    answer = line->perform(request, options_, cancelled_);
  } else {
    answer.failure = "curl has no memory for another connection";
  }
  give_back(std::move(line));
  return answer;
}

void HttpTransport::cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  for (Line* line : busy_) {
    if (line->is_usable()) line->wake();
  }
  cancel_signal_.notify_all();
}

bool HttpTransport::pause(int ms, const std::atomic<bool>* stop) {
  Deadline deadline = SteadyClock::now() + std::chrono::milliseconds(ms);
  std::unique_lock lock(mutex_);
  while (SteadyClock::now() < deadline) {
    if (cancelled_ || (stop != nullptr && *stop)) return false;
    auto until = std::min(deadline, SteadyClock::now() + std::chrono::milliseconds(kStopMs));
    cancel_signal_.wait_until(lock, until);
  }
  return !cancelled_;
}

}  // namespace offprint::archive
