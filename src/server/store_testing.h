#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "database/store.h"
#include "server/client_streams.h"
#include "server/http_parser.h"
#include "server/http_testing.h"
#include "server/router.h"
#include "server/service.h"

// A store in a folder of its own with all routes over it, for tests: no sockets.
namespace offprint::server::testing {

class RoutesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "offprint-routes-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
    open();
  }
  void TearDown() override {
    close();
    std::filesystem::remove_all(directory);
  }

  void open() {
    options.directory = directory + "/data";
    options.journal.segment_size = 4 << 20;
    auto opened = database::Store::open(options);
    ASSERT_TRUE(opened) << opened.error().message();
    store = *std::move(opened);
    auto key = load_stream_key(FileSystem::real(), directory + "/stream.key");
    ASSERT_TRUE(key);
    streams = std::make_unique<ClientStreams>(*key, ClientStreams::Options{});
    service_options.spool_directory = directory;
    service = std::make_unique<Service>(*store, *streams, service_options);
    router = std::make_unique<Router>(*service);
  }
  void close() {
    if (service) service->jobs.stop();
    if (service) service->feeds.stop();
    store.reset();
    router.reset();
    service.reset();
    streams.reset();
  }
  void create(const std::string& name) {
    auto created = store->create(*database::DatabaseName::parse(name), {});
    ASSERT_TRUE(created) << created.error().message();
  }

  // Sends a request through parser and router. `fields`: further header fields, each ending in CR
  // LF.
  std::shared_ptr<FakeClient> send(const std::string& method, const std::string& target,
                                   const std::string& body = {}, const std::string& fields = {}) {
    HttpParser parser(64 << 10);
    std::string text = method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + fields +
                       "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    std::size_t used = parser.feed(text);
    EXPECT_NE(parser.state(), HttpParser::State::kRefused) << parser.error_text();
    BodyPlan plan = router->plan_body(parser.request());
    if (plan.refusal) {
      auto refused = std::make_shared<FakeClient>();
      refused->respond(*std::move(plan.refusal));
      return refused;
    }
    parser.request().access = plan.access;
    while (used < text.size()) used += parser.feed(std::string_view(text).substr(used));
    EXPECT_EQ(parser.state(), HttpParser::State::kDone);
    auto client = std::make_shared<FakeClient>();
    if (plan.receiver && !parser.body().empty()) {
      plan.receiver->receive(std::move(parser.body()), client);
      client->wait_for_wake();
    } else {
      parser.request().body = std::move(parser.body());
    }
    router->handle(parser.request(), plan.receiver, Responder(client));
    return client;
  }
  Response ask(const std::string& method, const std::string& target, const std::string& body = {},
               const std::string& fields = {}) {
    return send(method, target, body, fields)->wait();
  }
  // The body of a POST that must be answered with `status`.
  std::string post(const std::string& target, const std::string& body, int status = 200,
                   const std::string& fields = {}) {
    Response response = ask("POST", target, body, fields);
    EXPECT_EQ(response.status, status) << response.body;
    return response.body;
  }

  std::string directory;
  database::StoreOptions options;
  ServiceOptions service_options;
  std::unique_ptr<database::Store> store;
  std::unique_ptr<ClientStreams> streams;
  std::unique_ptr<Service> service;
  std::unique_ptr<Router> router;
};

// The whole of a streamed answer.
inline std::string read_all(Response& response, const std::shared_ptr<FakeClient>& client) {
  std::string text = response.body;
  if (!response.stream) return text;
  response.stream->start(client);
  for (;;) {
    auto state = response.stream->fill(text);
    if (state == BodyStream::State::kEnd) return text;
    if (state == BodyStream::State::kFailed) return text + "(cut off)";
    if (state == BodyStream::State::kWait) client->wait_for_wake_or(std::chrono::seconds(20));
  }
}

// The text between two others; "" when they are not there.
inline std::string between(const std::string& text, const std::string& before,
                           const std::string& after) {
  std::size_t from = text.find(before);
  if (from == std::string::npos) return {};
  from += before.size();
  return text.substr(from, text.find(after, from) - from);
}

// Without what differs from run to run: times and estimates.
inline std::string stable(std::string text) {
  for (const char* name : {"\"query_duration_ms\":", "\"rows_read\":", "\"rows_written\":"}) {
    for (std::size_t at = 0; (at = text.find(name, at)) != std::string::npos;) {
      at += std::string_view(name).size();
      text.replace(at, text.find_first_of(",}", at) - at, "#");
    }
  }
  return text;
}

}  // namespace offprint::server::testing
