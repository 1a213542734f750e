#include "replica/http_client.h"

#include <algorithm>
#include <atomic>

#include <curl/curl.h>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/clock.h"
#include "replica/curl_handles.h"

namespace offprint::replica {
namespace {

constexpr long kBufferSize = 256 << 10;
constexpr long kRedirectsMax = 3;

bool is_loopback(const std::string& url) {
  for (const char* host : {"://127.", "://localhost", "://[::1]"}) {
    if (url.find(host) != std::string::npos) return true;
  }
  return false;
}

class HttpClientImpl final : public HttpClient {
 public:
  explicit HttpClientImpl(CURLM* multi) : multi_(multi) {}
  ~HttpClientImpl() override { stop(); }

  Result<> start(Request request) override;
  void stop() override;
  Result<Event> wait(int timeout_ms) override;
  int status() const override { return status_; }
  std::uint64_t sent() const override { return info(CURLINFO_SIZE_UPLOAD_T); }
  std::uint64_t length() const override { return info(CURLINFO_CONTENT_LENGTH_DOWNLOAD_T); }
  Bytes& received() override { return received_; }
  void wake() override {
    woken_.store(true);
    curl_multi_wakeup(multi_.get());
  }

 private:
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self);
  static int on_seek(void* self, curl_off_t offset, int origin);
  static std::size_t on_read(char* to, std::size_t size, std::size_t count, void* self);
  void set_options();
  void set_body();
  std::uint64_t info(CURLINFO what) const;
  // Whether the request is over, and how.
  std::optional<CURLcode> outcome();

  MultiHandle multi_;
  EasyHandle easy_;
  CurlList headers_;
  Request request_;
  Bytes received_;
  int status_ = 0;
  std::atomic<bool> woken_{false};
  char error_[CURL_ERROR_SIZE] = {};
};

std::size_t HttpClientImpl::on_body(char* data, std::size_t size, std::size_t count, void* self) {
  auto* client = static_cast<HttpClientImpl*>(self);
  long status = 0;
  curl_easy_getinfo(client->easy_.get(), CURLINFO_RESPONSE_CODE, &status);
  client->status_ = static_cast<int>(status);
  append(client->received_, {reinterpret_cast<const std::uint8_t*>(data), size * count});
  return size * count;
}

void HttpClientImpl::set_options() {
  CURL* easy = easy_.get();
  curl_easy_setopt(easy, CURLOPT_URL, request_.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(easy, CURLOPT_MAXREDIRS, kRedirectsMax);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request_.connect_timeout_ms));
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kBufferSize);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &HttpClientImpl::on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
  if (!request_.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, request_.ca_file.c_str());
  if (is_loopback(request_.url)) curl_easy_setopt(easy, CURLOPT_PROXY, "");
  for (const std::string& header : request_.headers) {
    headers_.reset(curl_slist_append(headers_.release(), header.c_str()));
  }
  if (request_.body || request_.body_file != nullptr) set_body();
  if (!request_.method.empty()) {
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request_.method.c_str());
  }
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_.get());
}

void HttpClientImpl::set_body() {
  CURL* easy = easy_.get();
  curl_easy_setopt(easy, CURLOPT_POST, 1L);
  if (request_.body_file != nullptr) {
    // The server may say that another one takes it, which is asked with the same token then.
    headers_.reset(curl_slist_append(headers_.release(), "Expect: 100-continue"));
    curl_easy_setopt(easy, CURLOPT_UNRESTRICTED_AUTH, 1L);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, &HttpClientImpl::on_seek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, this);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, &HttpClientImpl::on_read);
    curl_easy_setopt(easy, CURLOPT_READDATA, this);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, kBufferSize);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(request_.body_file_size));
    return;
  }
  headers_.reset(
      curl_slist_append(headers_.release(), "Expect:"));  // no round trip before the body
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                   static_cast<curl_off_t>(request_.body->size()));
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, reinterpret_cast<const char*>(request_.body->data()));
}

std::size_t HttpClientImpl::on_read(char* to, std::size_t size, std::size_t count, void* self) {
  std::FILE* file = static_cast<HttpClientImpl*>(self)->request_.body_file;
  std::size_t got = std::fread(to, 1, size * count, file);
  return std::ferror(file) ? CURL_READFUNC_ABORT : got;
}

int HttpClientImpl::on_seek(void* self, curl_off_t offset, int origin) {
  std::FILE* file = static_cast<HttpClientImpl*>(self)->request_.body_file;
  return fseeko(file, static_cast<off_t>(offset), origin) == 0 ? CURL_SEEKFUNC_OK
                                                               : CURL_SEEKFUNC_FAIL;
}

std::uint64_t HttpClientImpl::info(CURLINFO what) const {
  curl_off_t value = -1;
  if (easy_ != nullptr) curl_easy_getinfo(easy_.get(), what, &value);
  return value > 0 ? static_cast<std::uint64_t>(value) : 0;
}

Result<> HttpClientImpl::start(Request request) {
  stop();
  request_ = std::move(request);
  easy_.reset(curl_easy_init());
  if (easy_ == nullptr) return fail(Code::kInternal, "curl_easy_init");
  set_options();
  CURLMcode code = curl_multi_add_handle(multi_.get(), easy_.get());
  if (code != CURLM_OK) return fail(Code::kInternal, curl_multi_strerror(code));
  return {};
}

void HttpClientImpl::stop() {
  if (easy_ != nullptr) curl_multi_remove_handle(multi_.get(), easy_.get());
  easy_.reset();
  headers_.reset();
  received_.clear();
  status_ = 0;
  error_[0] = 0;
}

std::optional<CURLcode> HttpClientImpl::outcome() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
    if (message->msg == CURLMSG_DONE && message->easy_handle == easy_.get())
      return message->data.result;
  }
  return std::nullopt;
}

Result<HttpClient::Event> HttpClientImpl::wait(int timeout_ms) {
  Deadline deadline = SteadyClock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    if (easy_ != nullptr) {
      int running = 0;
      CURLMcode code = curl_multi_perform(multi_.get(), &running);
      if (code != CURLM_OK) return fail(Code::kInternal, curl_multi_strerror(code));
      if (!received_.empty()) return Event::kData;
      if (std::optional<CURLcode> result = outcome()) {
        if (*result != CURLE_OK) {
          return fail(Code::kUnavailable, error_[0] != 0 ? error_ : curl_easy_strerror(*result));
        }
        long status = 0;
        curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
        status_ = static_cast<int>(status);
        return Event::kEnd;
      }
    }
    if (woken_.exchange(false)) return Event::kWoken;
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now())
                    .count();
    if (left <= 0) return Event::kIdle;
    curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(left), nullptr);
  }
}

}  // namespace

Result<std::unique_ptr<HttpClient>> HttpClient::create() {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (initialized != CURLE_OK) return fail(Code::kInternal, curl_easy_strerror(initialized));
  CURLM* multi = curl_multi_init();
  if (multi == nullptr) return fail(Code::kInternal, "curl_multi_init");
  return std::make_unique<HttpClientImpl>(multi);
}

std::string message_of(const std::string& body) {
  constexpr std::string_view kKey = "\"message\":\"";
  std::size_t begin = body.find(kKey);
  if (begin == std::string::npos) return body;
  std::string text;
  for (std::size_t i = begin + kKey.size(); i < body.size() && body[i] != '"'; ++i) {
    if (body[i] == '\\' && i + 1 < body.size()) ++i;
    text += body[i];
  }
  return text;
}

}  // namespace offprint::replica
