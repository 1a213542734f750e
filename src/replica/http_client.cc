#include "replica/http_client.h"

#include <algorithm>
#include <mutex>
#include <optional>

#include <curl/curl.h>
#include <fmt/format.h>

#include "base/assert.h"

namespace offprint::replica {
namespace {

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trimmed(std::string_view text) {
  std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using HeaderList = std::unique_ptr<curl_slist, FreeList>;

}  // namespace

void HttpCancel::cancel() {
  cancelled_.store(true, std::memory_order_release);
  std::lock_guard lock(mutex_);
  if (multi_ != nullptr) curl_multi_wakeup(multi_);
}

std::string_view HttpAnswer::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (equal_ignoring_case(key, name)) return value;
  }
  return {};
}

// One request on its way.
struct HttpClient::Transfer {
  const HttpCall& call;
  CURL* easy;
  HttpAnswer answer;
  std::optional<Error> failure;
  char curl_message[CURL_ERROR_SIZE] = {};

  Transfer(const HttpCall& c, CURL* e) : call(c), easy(e) {}

  static std::size_t on_header(char* data, std::size_t, std::size_t size, void* self) {
    static_cast<Transfer*>(self)->take_header({data, size});
    return size;
  }
  static std::size_t on_body(char* data, std::size_t, std::size_t size, void* self) {
    return static_cast<Transfer*>(self)->take_body({data, size}) ? size : CURL_WRITEFUNC_ERROR;
  }
  static std::size_t on_read(char* to, std::size_t, std::size_t size, void* self) {
    std::FILE* file = static_cast<Transfer*>(self)->call.body_file;
    std::size_t got = std::fread(to, 1, size, file);
    return std::ferror(file) ? CURL_READFUNC_ABORT : got;
  }
  static int on_progress(void* self, curl_off_t, curl_off_t received, curl_off_t, curl_off_t sent) {
    const HttpCall& call = static_cast<Transfer*>(self)->call;
    if (call.progress)
      call.progress(static_cast<std::uint64_t>(sent), static_cast<std::uint64_t>(received));
    return 0;
  }

  void take_header(std::string_view line) {
    if (line.starts_with("HTTP/")) {  // also after "100 Continue"
      answer.headers.clear();
      answer.length = 0;
      return;
    }
    std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;
    answer.headers.emplace_back(line.substr(0, colon), trimmed(line.substr(colon + 1)));
  }

  bool take_body(std::string_view piece) {
    if (answer.status == 0) {
      long status = 0;
      curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
      answer.status = static_cast<int>(status);
      curl_off_t length = -1;
      curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
      if (length > 0) answer.length = static_cast<std::uint64_t>(length);
    }
    if (answer.ok() && call.sink) {
      Result<> taken = call.sink(as_bytes(piece));
      if (!taken) failure = std::move(taken).error();
      return !failure;
    }
    if (answer.body.size() + piece.size() > kBodyMax) {
      failure = Error(Code::kTooLarge, fmt::format("the answer of {} is larger than {} MiB",
                                                   call.url, kBodyMax >> 20));
      return false;
    }
    answer.body += piece;
    return true;
  }

  HeaderList set_up(const std::string& token) {
    curl_easy_reset(easy);
    auto set = [this](CURLoption option, auto value) {
      OFFPRINT_ASSERT(curl_easy_setopt(easy, option, value) == CURLE_OK);
    };
    set(CURLOPT_URL, call.url.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_ERRORBUFFER, curl_message);
    set(CURLOPT_USERAGENT, "offprint");
    set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(call.connect_timeout_ms));
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    if (call.stall_timeout_ms > 0) {
      set(CURLOPT_LOW_SPEED_LIMIT, 1L);
      set(CURLOPT_LOW_SPEED_TIME, static_cast<long>((call.stall_timeout_ms + 999) / 1000));
    }
    set(CURLOPT_HEADERFUNCTION, on_header);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_WRITEFUNCTION, on_body);
    set(CURLOPT_WRITEDATA, this);
    set(CURLOPT_BUFFERSIZE, 256L << 10);
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, on_progress);
    set(CURLOPT_XFERINFODATA, this);
    curl_slist* headers = curl_slist_append(nullptr, "Expect:");
    if (call.method == "POST" || call.method == "PUT") {
      set(CURLOPT_POST, 1L);
      if (call.body_file != nullptr) {
        set(CURLOPT_READFUNCTION, on_read);
        set(CURLOPT_READDATA, this);
        set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call.body_file_size));
        set(CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
      } else {
        set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call.body.size()));
        set(CURLOPT_POSTFIELDS, call.body.empty() ? "" : call.body.data());
      }
    } else if (call.method == "HEAD") {
      set(CURLOPT_NOBODY, 1L);
    }
    if (call.method != "GET" && call.method != "POST" && call.method != "HEAD") {
      set(CURLOPT_CUSTOMREQUEST, call.method.c_str());
    }
    if (!token.empty())
      headers = curl_slist_append(headers, ("Authorization: Bearer " + token).c_str());
    for (const std::string& header : call.headers)
      headers = curl_slist_append(headers, header.c_str());
    set(CURLOPT_HTTPHEADER, headers);
    return HeaderList(headers);
  }

  Error explain(CURLcode code) const {
    if (failure) return *failure;
    std::string_view message = curl_message[0] != '\0' ? curl_message : curl_easy_strerror(code);
    std::string text = fmt::format("{}: {}", call.url, message);
    switch (code) {
      case CURLE_OPERATION_TIMEDOUT: {
        curl_off_t sent_at = 0;
        curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &sent_at);
        return Error(sent_at == 0 ? Code::kUnavailable : Code::kTimeout, text);
      }
      case CURLE_URL_MALFORMAT:
      case CURLE_UNSUPPORTED_PROTOCOL:
        return Error(Code::kInvalid, text);
      case CURLE_ABORTED_BY_CALLBACK:
      case CURLE_READ_ERROR:
        return Error(Code::kIo, text);
      default:
        return Error(Code::kUnavailable, text);
    }
  }
};

HttpClient::HttpClient(std::string token, HttpCancel* cancel)
    : token_(std::move(token)), cancel_(cancel) {
  static std::once_flag once;
  std::call_once(once, [] { OFFPRINT_ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK); });
  multi_ = curl_multi_init();
  easy_ = curl_easy_init();
  OFFPRINT_ASSERT(multi_ != nullptr && easy_ != nullptr);
  attach(multi_);
}

HttpClient::~HttpClient() {
  attach(nullptr);
  curl_easy_cleanup(easy_);
  curl_multi_cleanup(multi_);
}

void HttpClient::attach(void* multi) {
  if (cancel_ == nullptr) return;
  std::lock_guard lock(cancel_->mutex_);
  cancel_->multi_ = multi;
}

Result<HttpAnswer> HttpClient::perform(const HttpCall& call) {
  Transfer transfer(call, easy_);
  HeaderList headers = transfer.set_up(token_);
  curl_multi_add_handle(multi_, easy_);
  CURLcode code = CURLE_OK;
  bool cancelled = false;
  for (int running = 1; running > 0;) {
    OFFPRINT_ASSERT(curl_multi_perform(multi_, &running) == CURLM_OK);
    cancelled = cancel_ != nullptr && cancel_->cancelled();
    if (running == 0 || cancelled) break;
    OFFPRINT_ASSERT(curl_multi_poll(multi_, nullptr, 0, 1000, nullptr) == CURLM_OK);
  }
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg == CURLMSG_DONE) code = message->data.result;
  }
  long status = 0;
  curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
  curl_multi_remove_handle(multi_, easy_);
  if (cancelled) return fail(Code::kTimeout, call.url + ": cancelled");
  if (code != CURLE_OK) return fail(transfer.explain(code));
  transfer.answer.status = static_cast<int>(status);
  return std::move(transfer.answer);
}

}  // namespace offprint::replica
