#include "cluster/link.h"

#include <fmt/format.h>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace offprint::cluster {

namespace asio = boost::asio;
using asio::ip::tcp;

Result<Upstream> parse_upstream(const std::string& url) {
  Error no_url(Code::kInvalid, fmt::format("not the URL of a node: {} (http://HOST:PORT)", url));
  Upstream upstream;
  std::string_view rest = url;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
    upstream.tls = true;
  } else {
    return fail(no_url);
  }
  std::size_t slash = rest.find('/');
  std::string_view authority = rest.substr(0, slash);
  if (slash != std::string_view::npos) upstream.base = rest.substr(slash);
  while (upstream.base.ends_with('/')) upstream.base.pop_back();
  std::size_t bracket = authority.find(']');
  std::size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  std::string_view host = authority.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  upstream.host = host;
  upstream.port = colon == std::string_view::npos ? (upstream.tls ? "443" : "80")
                                                  : std::string(authority.substr(colon + 1));
  if (upstream.host.empty() || upstream.port.empty() ||
      upstream.host.find_first_of("@?# \r\n") != std::string::npos) {
    return fail(no_url);
  }
  return upstream;
}

Link::Link(asio::io_context& io, asio::ssl::context* context) {
  if (context == nullptr) {
    plain_ = std::make_unique<PlainStream>(io);
  } else {
    tls_ = std::make_unique<TlsStream>(io, *context);
  }
}

asio::awaitable<void> Link::connect(const Upstream& upstream, int timeout_ms,
                                    std::string& failure) {
  boost::system::error_code error;
  auto token = asio::redirect_error(asio::use_awaitable, error);
  tcp::resolver resolver(bottom().get_executor());
  tcp::resolver::results_type addresses =
      co_await resolver.async_resolve(upstream.host, upstream.port, token);
  if (!error) {
    bottom().expires_after(std::chrono::milliseconds(timeout_ms));
    co_await bottom().async_connect(addresses, token);
  }
  if (!error) bottom().socket().set_option(tcp::no_delay(true), error);
  if (!error && tls_) {
    SSL_set_tlsext_host_name(tls_->native_handle(), upstream.host.c_str());
    tls_->set_verify_callback(asio::ssl::host_name_verification(upstream.host));
    co_await tls_->async_handshake(asio::ssl::stream_base::client, token);
  }
  if (error) failure = error.message();
}

bool Link::is_quiet() {
  char byte = 0;
  ssize_t got = ::recv(bottom().socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

}  // namespace offprint::cluster
