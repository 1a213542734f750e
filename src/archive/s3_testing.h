#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "archive/s3_signature.h"
#include "archive/s3_upload.h"

// A small S3 service on a loopback port, for tests: what it stores is in memory, and a test may
// answer requests itself and break connections.
namespace offprint::archive {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = std::filesystem::temp_directory_path().string() + "/offprint-s3-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct FakeRequest {
  std::string method, path;  // decoded
  std::map<std::string, std::string> query, headers;
  std::string body;
  int number = 0;  // from 1 on
  bool has(const std::string& name) const { return query.contains(name); }
  std::string header(const std::string& name) const {
    auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

struct FakeReply {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::size_t cut_after = SIZE_MAX;  // bytes of the body; then the connection is reset
  bool no_length = false;            // the end of the connection is the end of the body

  static FakeReply error(int status, const std::string& code) {
    return {status, {}, "<Error><Code>" + code + "</Code><Message>said so</Message></Error>"};
  }
};

class FakeS3 {
 public:
  // Answers in place of the service, or nothing to let it.
  using Hook = std::function<std::optional<FakeReply>(const FakeRequest&)>;

  FakeS3() {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    accepter_ = std::thread([this] { accept_all(); });
  }
  ~FakeS3() {
    ::shutdown(listener_, SHUT_RDWR);
    accepter_.join();
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      for (int socket : sockets_) ::shutdown(socket, SHUT_RDWR);
    }
    changed_.notify_all();
    for (std::thread& each : connections_) each.join();
    ::close(listener_);
  }
  FakeS3(const FakeS3&) = delete;
  FakeS3& operator=(const FakeS3&) = delete;

  std::string endpoint() const { return fmt::format("http://127.0.0.1:{}", port_); }
  void set_hook(Hook hook) {
    std::lock_guard lock(mutex_);
    hook_ = std::move(hook);
  }
  // Of a hook: does not return before the test is over.
  void hold() {
    std::unique_lock lock(mutex_);
    ++held_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return stopping_; });
  }
  void wait_for_held() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return held_ > 0; });
  }
  std::vector<FakeRequest> requests() {
    std::lock_guard lock(mutex_);
    return requests_;
  }
  int count(const std::string& method) {
    int count = 0;
    for (const FakeRequest& each : requests()) count += each.method == method ? 1 : 0;
    return count;
  }
  int connections() {
    std::lock_guard lock(mutex_);
    return static_cast<int>(connections_.size());
  }
  struct Object {
    std::string content, etag;
    std::map<std::string, std::string> metadata;
  };
  // By path, the bucket first.
  std::map<std::string, Object> objects() {
    std::lock_guard lock(mutex_);
    return objects_;
  }
  void add(const std::string& path, const std::string& content) {
    std::lock_guard lock(mutex_);
    objects_[path] = {content, "\"" + sha256_hex(as_bytes(content)).substr(0, 32) + "\"", {}};
  }
  // What the service itself does.
  FakeReply serve(const FakeRequest& request) {
    std::lock_guard lock(mutex_);
    if (request.method == "PUT" || request.method == "POST") return serve_write(request);
    if (request.method == "DELETE") {
      if (request.has("uploadId")) {
        parts_.clear();
      } else {
        objects_.erase(request.path);
      }
      return {204, {}, ""};
    }
    if (request.has("list-type")) return serve_list(request);
    return serve_read(request);
  }
  std::size_t parts_left() {
    std::lock_guard lock(mutex_);
    return parts_.size();
  }

 private:
  void accept_all() {
    for (;;) {
      int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) return;
      std::lock_guard lock(mutex_);
      sockets_.push_back(socket);
      connections_.emplace_back([this, socket] {
        converse(socket);
        std::lock_guard own(mutex_);
        std::erase(sockets_, socket);
        ::close(socket);
      });
    }
  }

  static bool read_more(int socket, std::string& buffer) {
    char piece[65536];
    ssize_t got = ::recv(socket, piece, sizeof piece, 0);
    if (got <= 0) return false;
    buffer.append(piece, static_cast<std::size_t>(got));
    return true;
  }
  static bool send_all(int socket, std::string_view text) {
    while (!text.empty()) {
      ssize_t sent = ::send(socket, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  static FakeRequest parse_head(std::string_view head) {
    FakeRequest request;
    std::string line(head.substr(0, head.find("\r\n")));
    request.method = line.substr(0, line.find(' '));
    std::string target = line.substr(request.method.size() + 1);
    target.resize(target.find(' '));
    std::size_t mark = std::min(target.find('?'), target.size());
    request.path = uri_decode(target.substr(0, mark), false);
    for (std::size_t at = mark; at < target.size();) {
      std::size_t end = std::min(target.find('&', at + 1), target.size());
      std::string pair = target.substr(at + 1, end - at - 1);
      std::size_t equals = std::min(pair.find('='), pair.size());
      request.query[pair.substr(0, equals)] =
          uri_decode(pair.substr(std::min(equals + 1, pair.size())), false);
      at = end;
    }
    for (std::size_t at = head.find("\r\n"); at != std::string_view::npos;) {
      std::size_t end = head.find("\r\n", at + 2);
      std::string_view field = head.substr(at + 2, end - at - 2);
      std::size_t colon = field.find(": ");
      if (colon != std::string_view::npos) {
        std::string name(field.substr(0, colon));
        for (char& c : name) c = static_cast<char>(std::tolower(c));
        request.headers[name] = field.substr(colon + 2);
      }
      at = end;
    }
    return request;
  }

  void converse(int socket) {
    std::string buffer;
    for (;;) {
      while (buffer.find("\r\n\r\n") == std::string::npos) {
        if (!read_more(socket, buffer)) return;
      }
      std::size_t end = buffer.find("\r\n\r\n");
      FakeRequest request = parse_head(std::string_view(buffer).substr(0, end));
      std::string length = request.header("content-length");
      std::size_t size = length.empty() ? 0 : std::stoull(length);
      while (buffer.size() < end + 4 + size) {
        if (!read_more(socket, buffer)) return;
      }
      request.body = buffer.substr(end + 4, size);
      buffer.erase(0, end + 4 + size);
      Hook hook;
      {
        std::lock_guard lock(mutex_);
        request.number = static_cast<int>(requests_.size()) + 1;
        requests_.push_back(request);
        hook = hook_;
      }
      std::optional<FakeReply> reply;
      if (hook) reply = hook(request);
      if (!answer(socket, request, reply ? *reply : serve(request))) return;
    }
  }
  static bool answer(int socket, const FakeRequest& request, const FakeReply& reply) {
    std::string text = fmt::format("HTTP/1.1 {} X\r\n", reply.status);
    for (const auto& [name, value] : reply.headers) text += name + ": " + value + "\r\n";
    bool own_length = request.method == "HEAD";
    if (!reply.no_length && !own_length)
      text += fmt::format("Content-Length: {}\r\n", reply.body.size());
    text += "\r\n";
    if (!own_length) text += reply.body.substr(0, reply.cut_after);
    if (!send_all(socket, text)) return false;
    return !reply.no_length && reply.cut_after >= reply.body.size();
  }

  FakeReply serve_write(const FakeRequest& request) {
    if (request.has("delete")) {
      for (std::size_t at = 0; (at = request.body.find("<Key>", at)) != std::string::npos; ++at) {
        std::string key = request.body.substr(at + 5, request.body.find("</Key>", at) - at - 5);
        objects_.erase(request.path + "/" + key);
      }
      return {200, {}, "<DeleteResult/>"};
    }
    std::string etag = "\"" + sha256_hex(as_bytes(request.body)).substr(0, 32) + "\"";
    if (request.has("partNumber")) {
      parts_[std::stoi(request.query.at("partNumber"))] = request.body;
      return {200, {{"ETag", etag}}, ""};
    }
    if (request.has("uploads")) {
      upload_metadata_ = metadata_of(request);
      return {200, {}, "<R><UploadId>the/id</UploadId></R>"};
    }
    if (request.has("uploadId")) {
      std::string whole;
      for (const auto& [number, part] : parts_) whole += part;
      parts_.clear();
      objects_[request.path] = {whole, "\"whole-2\"", upload_metadata_};
      return {200, {}, "<R><ETag>&quot;whole-2&quot;</ETag></R>"};
    }
    auto it = objects_.find(request.path);
    if ((request.header("if-none-match") == "*" && it != objects_.end()) ||
        (!request.header("if-match").empty() && it != objects_.end() &&
         it->second.etag != request.header("if-match"))) {
      return FakeReply::error(412, "PreconditionFailed");
    }
    if (!request.header("if-match").empty() && it == objects_.end())
      return FakeReply::error(404, "NoSuchKey");
    objects_[request.path] = {request.body, etag, metadata_of(request)};
    return {200, {{"ETag", etag}}, ""};
  }
  static std::map<std::string, std::string> metadata_of(const FakeRequest& request) {
    std::map<std::string, std::string> metadata;
    for (const auto& [name, value] : request.headers) {
      if (name.starts_with("x-amz-meta-")) metadata[name] = value;
    }
    return metadata;
  }
  FakeReply serve_read(const FakeRequest& request) {
    auto it = objects_.find(request.path);
    if (it == objects_.end()) return FakeReply::error(404, "NoSuchKey");
    const Object& object = it->second;
    FakeReply reply{200, {{"ETag", object.etag}}, object.content};
    if (request.method == "HEAD") {
      for (const auto& header : object.metadata) reply.headers.push_back(header);
      reply.headers.emplace_back("Content-Length", std::to_string(object.content.size()));
      return reply;
    }
    std::string match = request.header("if-match"), range = request.header("range");
    if (!match.empty() && match != object.etag) return FakeReply::error(412, "PreconditionFailed");
    if (range.empty()) return reply;
    std::size_t first = std::stoull(range.substr(6)),
                last = std::stoull(range.substr(range.find('-') + 1));
    if (first >= object.content.size()) return FakeReply::error(416, "InvalidRange");
    last = std::min(last, object.content.size() - 1);
    reply.status = 206;
    reply.body = object.content.substr(first, last - first + 1);
    reply.headers.emplace_back("Content-Range",
                               fmt::format("bytes {}-{}/{}", first, last, object.content.size()));
    return reply;
  }
  FakeReply serve_list(const FakeRequest& request) {
    std::string prefix = request.path + "/" + request.query.at("prefix"), body;
    std::string after =
        request.has("continuation-token") ? request.query.at("continuation-token") : "";
    std::size_t left = std::stoull(request.query.at("max-keys"));
    bool truncated = false;
    std::string last;
    for (const auto& [path, object] : objects_) {
      if (!path.starts_with(prefix) || path <= after) continue;
      truncated = left == 0;
      if (truncated) break;
      --left;
      last = path;
      body += fmt::format("<Contents><Key>{}</Key><Size>{}</Size></Contents>",
                          uri_encode(path.substr(request.path.size() + 1), true),
                          object.content.size());
    }
    if (truncated) {
      body += "<IsTruncated>true</IsTruncated><NextContinuationToken>" + xml_escape(last) +
              "</NextContinuationToken>";
    }
    return {
        200,
        {},
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><EncodingType>url</EncodingType>" +
            body + "</ListBucketResult>"};
  }

  int listener_ = -1;
  int port_ = 0;
  std::thread accepter_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  int held_ = 0;
  Hook hook_;
  std::vector<int> sockets_;
  std::list<std::thread> connections_;
  std::vector<FakeRequest> requests_;
  std::map<std::string, Object> objects_;
  std::map<int, std::string> parts_;
  std::map<std::string, std::string> upload_metadata_;
};

}  // namespace offprint::archive
