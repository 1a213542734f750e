#include "server/http_parser.h"

#include <gtest/gtest.h>

namespace offprint::server {
namespace {

using State = HttpParser::State;
constexpr std::size_t kHeadLimit = 1024;

struct Parsed {
  State state;
  int status;
  std::string target, body;
  std::size_t used;
};

// Feeds `text` in pieces of `step` bytes the way a connection does: what was not used is fed again
// with more behind it.
Parsed parse(std::string_view text, std::size_t step, std::uint64_t body_limit = 1000) {
  HttpParser parser(kHeadLimit);
  std::string pending;
  std::size_t fed = 0;
  std::size_t used = 0;
  bool head_seen = false;
  while (parser.state() == State::kHead || parser.state() == State::kBody) {
    std::size_t taken = parser.feed(pending);
    used += taken;
    pending.erase(0, taken);
    if (!head_seen && (parser.state() == State::kBody || parser.state() == State::kDone)) {
      head_seen = true;
      parser.set_body_limit(body_limit);
      continue;
    }
    if (taken > 0) continue;
    if (fed == text.size()) break;
    std::size_t size = std::min(step, text.size() - fed);
    pending.append(text.substr(fed, size));
    fed += size;
  }
  Parsed result{parser.state(), parser.error_status(), {}, {}, used};
  if (parser.state() == State::kDone) {
    result.target = parser.request().target;
    result.body = parser.body();
  }
  return result;
}

TEST(HttpParser, SameResultHoweverItIsSplit) {
  const std::string simple = "GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string with_length = "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
  const std::string chunked =
      "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\n";
  const std::string empty =
      "POST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
  for (std::size_t step = 1; step <= 120; ++step) {
    Parsed one = parse(simple + "GET ", step);
    EXPECT_EQ(one.state, State::kDone);
    EXPECT_EQ(one.target, "/a?b=c");
    EXPECT_EQ(one.used, simple.size());
    Parsed two = parse(with_length + "GET ", step);
    EXPECT_EQ(two.body, "hello");
    EXPECT_EQ(two.used, with_length.size());
    Parsed three = parse(chunked + "GET ", step);
    EXPECT_EQ(three.body, "abcdefg");
    EXPECT_EQ(three.used, chunked.size());
    Parsed four = parse(empty + "GET ", step);
    EXPECT_EQ(four.body, "");
    EXPECT_EQ(four.used, empty.size());
  }
}

TEST(HttpParser, EveryPrefixIsIncomplete) {
  const std::string text = "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
  for (std::size_t size = 0; size < text.size(); ++size) {
    Parsed parsed = parse(text.substr(0, size), 7);
    EXPECT_TRUE(parsed.state == State::kHead || parsed.state == State::kBody) << size;
  }
}

TEST(HttpParser, RefusesWhatCouldBeReadInTwoWays) {
  const char* requests[] = {
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: "
      "chunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: "
      "5\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
      "identity\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
      "chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\nControl: a\x01b\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n",
      "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET nopath HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET /a\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
      "\x16\x03\x01\x02\r\n\r\n",
  };
  for (const char* request : requests) {
    for (std::size_t step : {1u, 5u, 1000u}) {
      Parsed parsed = parse(request, step);
      EXPECT_EQ(parsed.state, State::kRefused) << request;
      EXPECT_EQ(parsed.status, 400) << request;
    }
  }
}

TEST(HttpParser, OtherRefusals) {
  EXPECT_EQ(parse("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 100).status, 505);
  EXPECT_EQ(parse("POST / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 100).status, 417);
  std::string large =
      "GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(kHeadLimit, 'a') + "\r\n\r\n";
  for (std::size_t step : {1u, 100u, 5000u}) EXPECT_EQ(parse(large, step).status, 431) << step;
  EXPECT_EQ(parse(std::string(5000, 'a'), 100).status, 431);
  EXPECT_EQ(parse("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 10).status, 413);
  EXPECT_EQ(parse("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", 10).status, 0);
  std::string chunk = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 3; ++i) chunk += "190\r\n" + std::string(400, 'b') + "\r\n";
  EXPECT_EQ(parse(chunk + "0\r\n\r\n", 64).status, 413);
}

TEST(HttpParser, AbsoluteFormAndOldVersions) {
  EXPECT_EQ(parse("GET http://h:1/a?b HTTP/1.1\r\nHost: h:1\r\n\r\n", 9).target, "/a?b");
  EXPECT_EQ(parse("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", 9).target, "/");
  EXPECT_EQ(parse("GET /old HTTP/1.0\r\n\r\n", 9).target, "/old");
}

TEST(HttpParser, FieldsAndNextRequest) {
  HttpParser parser(kHeadLimit);
  parser.feed("GET /1 HTTP/1.1\r\nhOST: x\r\nX-Two:  spaced \r\nConnection: close\r\n\r\n");
  ASSERT_EQ(parser.state(), State::kDone);
  EXPECT_EQ(parser.request().header("x-two"), "spaced");
  EXPECT_EQ(parser.request().header("absent"), "");
  EXPECT_FALSE(parser.request().keep_alive);
  parser.reset();
  parser.feed("HEAD /2 HTTP/1.1\r\nHost: y\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n");
  ASSERT_EQ(parser.state(), State::kBody);
  EXPECT_EQ(parser.request().method, Method::kHead);
  EXPECT_EQ(parser.request().target, "/2");
  EXPECT_EQ(parser.request().header("X-Two"), "");
  EXPECT_TRUE(parser.request().keep_alive);
  EXPECT_TRUE(parser.request().expects_continue);
}

}  // namespace
}  // namespace offprint::server
