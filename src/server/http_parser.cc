#include "server/http_parser.h"

#include <algorithm>
#include <optional>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>

namespace offprint::server {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

// Reserved at once for a body of known length, at most: a client's word alone must not take memory.
constexpr std::uint64_t kBodyReserveMax = 1 << 20;
constexpr std::size_t kJsonPadding = 64;
// A chunked body ends with at least "0", CRLF, CRLF. Beast must not see less than that of its last
// chunk.
constexpr std::size_t kChunkedEndSize = 5;

// Beast's idea of a body: a string that grows with what really arrives.
struct GrowingBody {
  using value_type = std::string;
  class reader {
   public:
    template <bool is_request, class Fields>
    reader(http::header<is_request, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>& length, error_code& error) {
      error = {};
      if (length)
        body_.reserve(static_cast<std::size_t>(std::min(*length, kBodyReserveMax)) + kJsonPadding);
    }
    template <class Buffers>
    std::size_t put(const Buffers& buffers, error_code& error) {
      error = {};
      std::size_t size = 0;
      for (auto at = boost::asio::buffer_sequence_begin(buffers);
           at != boost::asio::buffer_sequence_end(buffers); ++at) {
        boost::asio::const_buffer piece(*at);
        body_.append(static_cast<const char*>(piece.data()), piece.size());
        size += piece.size();
      }
      return size;
    }
    void finish(error_code& error) { error = {}; }

   private:
    value_type& body_;
  };
};

Method method_of(http::verb verb) {
  switch (verb) {
    case http::verb::get:
      return Method::kGet;
    case http::verb::head:
      return Method::kHead;
    case http::verb::post:
      return Method::kPost;
    case http::verb::put:
      return Method::kPut;
    case http::verb::patch:
      return Method::kPatch;
    case http::verb::delete_:
      return Method::kDelete;
    case http::verb::options:
      return Method::kOptions;
    default:
      return Method::kOther;
  }
}

// Origin form of a target that may be in absolute form; nothing when it is neither.
std::optional<std::string_view> origin_form(std::string_view target) {
  if (target.starts_with('/') || target == "*") return target;
  std::size_t scheme = target.find("://");
  if (scheme == std::string_view::npos || !equal_ignoring_case(target.substr(0, scheme), "http"))
    return std::nullopt;
  std::size_t path = target.find('/', scheme + 3);
  return path == std::string_view::npos ? std::string_view("/") : target.substr(path);
}

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

struct HttpParser::Beast {
  std::optional<http::request_parser<GrowingBody>> parser;
};

HttpParser::HttpParser(std::size_t head_limit)
    : beast_(std::make_unique<Beast>()), head_limit_(head_limit) {
  reset();
}

HttpParser::~HttpParser() = default;

void HttpParser::reset() {
  beast_->parser.emplace();
  beast_->parser->header_limit(static_cast<std::uint32_t>(head_limit_));
  beast_->parser->body_limit(boost::none);
  state_ = State::kHead;
  request_.headers.clear();
  request_.target = {};
  request_.body.clear();
  error_status_ = 0;
}

std::size_t HttpParser::feed(std::string_view bytes) {
  auto& parser = *beast_->parser;
  std::size_t used = 0;
  while (used < bytes.size() && (state_ == State::kHead || state_ == State::kBody)) {
    if (state_ == State::kBody && request_.chunked && bytes.size() - used < kChunkedEndSize) break;
    error_code error;
    std::size_t taken =
        parser.put(boost::asio::const_buffer(bytes.data() + used, bytes.size() - used), error);
    used += taken;
    if (error == http::error::need_more) {
      // Beast looks for the end of the head before it parses any of it; a limit of ours covers what
      // it has not read.
      if (state_ == State::kHead && bytes.size() - used > head_limit_)
        refuse(431, "the head is too large");
      break;
    }
    if (error) {
      if (error == http::error::header_limit) {
        refuse(431, "the head is too large");
      } else if (error == http::error::body_limit) {
        refuse(413, "the body is too large");
      } else if (error == http::error::bad_version) {
        refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
      } else {
        refuse(400, "bad request: " + error.message());
      }
      break;
    }
    if (state_ == State::kHead && parser.is_header_done()) {
      take_head();
      if (state_ == State::kRefused) break;
      if (parser.is_done()) state_ = State::kDone;
      return used;
    }
    if (parser.is_done()) state_ = State::kDone;
    if (taken == 0 && state_ != State::kDone) break;
  }
  return used;
}

void HttpParser::take_head() {
  auto& parser = *beast_->parser;
  auto& message = parser.get();
  state_ = State::kBody;
  request_.method = method_of(message.method());
  request_.minor_version = static_cast<int>(message.version() % 10);
  request_.keep_alive = parser.keep_alive();
  request_.chunked = parser.chunked();
  request_.expects_continue = false;
  request_.content_length.reset();
  if (auto length = parser.content_length()) request_.content_length = *length;
  int hosts = 0;
  int codings = 0;
  int lengths = 0;
  for (const auto& field : message) {
    std::string_view value = view(field.value());
    request_.headers.emplace_back(view(field.name_string()), value);
    if (field.name() == http::field::host) ++hosts;
    if (field.name() == http::field::expect) {
      if (!equal_ignoring_case(value, "100-continue"))
        return refuse(417, "only 100-continue can be expected");
      request_.expects_continue = request_.minor_version > 0;
    }
    if (field.name() == http::field::content_length &&
        (++lengths > 1 || value.find_first_not_of("0123456789") != std::string_view::npos)) {
      return refuse(400, "the length of the body is not one number");
    }
    if (field.name() == http::field::transfer_encoding) {
      ++codings;
      if (!equal_ignoring_case(value, "chunked"))
        return refuse(400, "the only transfer coding here is chunked");
    }
  }
  if (hosts > 1 || (hosts == 0 && request_.minor_version > 0))
    return refuse(400, "one Host field is needed");
  if (codings > 1 || (codings == 1 && (request_.content_length || request_.minor_version == 0))) {
    return refuse(400, "the length of the body is given in two ways");
  }
  auto target = origin_form(view(message.target()));
  if (!target) return refuse(400, "the request target is no path");
  request_.target = *target;
  parser.eager(true);
}

void HttpParser::set_body_limit(std::uint64_t limit) {
  if (request_.content_length && *request_.content_length > limit)
    return refuse(413, "the body is too large");
  if (state_ == State::kBody) beast_->parser->body_limit(limit);
}

std::string& HttpParser::body() { return beast_->parser->get().body(); }

void HttpParser::refuse(int status, std::string text) {
  state_ = State::kRefused;
  error_status_ = status;
  error_text_ = std::move(text);
}

}  // namespace offprint::server
