#include "cluster/etcd_http.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace offprint::cluster {
namespace {

constexpr std::size_t kAnswerMax = 16 << 20;
constexpr long kConnectionsMax = 16;
constexpr int kWaitMaxMs = 60'000;

long ms_until(Deadline deadline) {
  auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now()).count();
  return static_cast<long>(std::clamp<std::int64_t>(left, 1, 24 * 3600 * 1000));
}

}  // namespace

struct EtcdHttp::Active {
  EtcdExchange exchange;
  Done done;
  EtcdAnswer answer;
  std::size_t read = 0;  // bytes of the body that libcurl has taken
  replica::EasyHandle easy;
  replica::CurlList headers;
  bool too_long = false;
  char error[CURL_ERROR_SIZE] = {};
};

EtcdHttp::EtcdHttp(EtcdTls tls, CURLM* multi) : tls_(std::move(tls)), multi_(multi) {
  curl_multi_setopt(multi_.get(), CURLMOPT_MAXCONNECTS, kConnectionsMax);
}

EtcdHttp::~EtcdHttp() {
  for (auto& [id, active] : active_) curl_multi_remove_handle(multi_.get(), active->easy.get());
}

Result<std::unique_ptr<EtcdHttp>> EtcdHttp::create(EtcdTls tls) {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (initialized != CURLE_OK) return fail(Code::kInternal, curl_easy_strerror(initialized));
  CURLM* multi = curl_multi_init();
  if (multi == nullptr) return fail(Code::kInternal, "curl_multi_init");
  return std::unique_ptr<EtcdHttp>(new EtcdHttp(std::move(tls), multi));
}

std::size_t EtcdHttp::on_body(char* data, std::size_t size, std::size_t count, void* self) {
  auto* active = static_cast<Active*>(self);
  std::string_view bytes(data, size * count);
  if (active->exchange.on_data) {
    active->exchange.on_data(bytes);
    return bytes.size();
  }
  if (active->answer.body.size() + bytes.size() > kAnswerMax) {
    active->too_long = true;
    return 0;
  }
  active->answer.body += bytes;
  return bytes.size();
}

std::size_t EtcdHttp::on_read(char* to, std::size_t size, std::size_t count, void* self) {
  auto* active = static_cast<Active*>(self);
  active->answer.may_be_sent = true;
  const std::string& body = active->exchange.body;
  std::size_t part = std::min(size * count, body.size() - active->read);
  std::memcpy(to, body.data() + active->read, part);
  active->read += part;
  return part;
}

void EtcdHttp::set_options(Active& active) {
  const EtcdExchange& exchange = active.exchange;
  CURL* easy = active.easy.get();
  auto add = [&](const std::string& header) {
    active.headers.reset(curl_slist_append(active.headers.release(), header.c_str()));
  };
  add("Content-Type: application/json");
  add("Expect:");  // no round trip before the body
  if (!exchange.token.empty()) add("Authorization: " + exchange.token);
  curl_easy_setopt(easy, CURLOPT_URL, exchange.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, active.headers.get());
  curl_easy_setopt(easy, CURLOPT_PROXY, "");
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(exchange.connect_timeout_ms));
  if (exchange.deadline) curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, ms_until(*exchange.deadline));
  if (exchange.at_most_once) curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, active.error);
  curl_easy_setopt(easy, CURLOPT_POST, 1L);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                   static_cast<curl_off_t>(exchange.body.size()));
  curl_easy_setopt(easy, CURLOPT_READFUNCTION, &EtcdHttp::on_read);
  curl_easy_setopt(easy, CURLOPT_READDATA, &active);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &EtcdHttp::on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &active);
  if (!tls_.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, tls_.ca_file.c_str());
  if (!tls_.certificate_file.empty())
    curl_easy_setopt(easy, CURLOPT_SSLCERT, tls_.certificate_file.c_str());
  if (!tls_.key_file.empty()) curl_easy_setopt(easy, CURLOPT_SSLKEY, tls_.key_file.c_str());
}

EtcdHttp::Id EtcdHttp::start(EtcdExchange exchange, Done done) {
  Id id = ++next_;
  auto active = std::make_unique<Active>();
  active->exchange = std::move(exchange);
  active->done = std::move(done);
  active->easy.reset(curl_easy_init());
  if (active->easy == nullptr) throw std::bad_alloc();
  set_options(*active);
  curl_multi_add_handle(multi_.get(), active->easy.get());
  active_.emplace(id, std::move(active));
  return id;
}

bool EtcdHttp::stop(Id id) {
  auto it = active_.find(id);
  if (it == active_.end()) return false;
  bool sent = it->second->answer.may_be_sent;
  curl_multi_remove_handle(multi_.get(), it->second->easy.get());
  active_.erase(it);
  return sent;
}

// Calls `done` of what is over. Whether anything was.
bool EtcdHttp::finish_all() {
  std::vector<std::pair<CURL*, CURLcode>> over;
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
    if (message->msg == CURLMSG_DONE) over.emplace_back(message->easy_handle, message->data.result);
  }
  for (const auto& [handle, code] : over) {
    CURL* easy = handle;
    auto it = std::find_if(active_.begin(), active_.end(),
                           [easy](const auto& each) { return each.second->easy.get() == easy; });
    if (it == active_.end()) continue;  // stopped by one of those before
    std::unique_ptr<Active> active = std::move(it->second);
    active_.erase(it);
    curl_multi_remove_handle(multi_.get(), easy);
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    active->answer.status = static_cast<int>(status);
    if (active->too_long) {
      active->answer.failure = "the answer is longer than any register's";
    } else if (code != CURLE_OK) {
      active->answer.failure = active->error[0] != 0 ? active->error : curl_easy_strerror(code);
    }
    active->done(std::move(active->answer));
  }
  return !over.empty();
}

void EtcdHttp::wait(std::optional<Deadline> until) {
  int running = 0;
  curl_multi_perform(multi_.get(), &running);
  if (finish_all()) return;
  int timeout_ms = kWaitMaxMs;
  if (until) timeout_ms = static_cast<int>(std::min<long>(kWaitMaxMs, ms_until(*until)));
  curl_multi_poll(multi_.get(), nullptr, 0, timeout_ms, nullptr);
  curl_multi_perform(multi_.get(), &running);
  finish_all();
}

void EtcdHttp::wake() { curl_multi_wakeup(multi_.get()); }

}  // namespace offprint::cluster
