// HTTPS: what a client gets, who is turned away, certificates that change.
#include "server/tls.h"

#include <filesystem>
#include <fstream>

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "base/clock.h"
#include "server/http_server.h"
#include "server/http_testing.h"

namespace offprint::server {
namespace {

using testing::TestSocket;

// A self-signed certificate for `name`, and its key, as PEM files.
void write_pair(const std::string& certificate_path, const std::string& key_path,
                const std::string& name) {
  EVP_PKEY* key = EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256");
  X509* certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  X509_sign(certificate, key, EVP_sha256());
  std::FILE* file = std::fopen(certificate_path.c_str(), "w");
  PEM_write_X509(file, certificate);
  std::fclose(file);
  file = std::fopen(key_path.c_str(), "w");
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

// Echoes bodies; GET /SIZE answers with that many bytes.
class EchoHandler final : public HttpHandler {
 public:
  BodyPlan plan_body(const HttpRequest&) override {
    BodyPlan plan;
    plan.limit = 64 << 20;
    return plan;
  }
  void handle(HttpRequest& request, std::shared_ptr<BodyReceiver>, Responder responder) override {
    Response response;
    response.body = request.method == Method::kPost
                        ? std::move(request.body)
                        : std::string(std::stoul(std::string(request.target.substr(1))), 'x');
    responder.respond(std::move(response));
  }
};

// A client that trusts everybody. Blocking.
class TlsClient {
 public:
  explicit TlsClient(std::uint16_t port, int max_version = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    context_ = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(context_, 0);
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    if (max_version != 0) SSL_CTX_set_max_proto_version(context_, max_version);
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, fd_);
    connected_ = SSL_connect(ssl_) == 1;
    ERR_clear_error();
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    ::close(fd_);
  }

  bool connected() const { return connected_; }
  std::string peer() const {
    X509* certificate = SSL_get1_peer_certificate(ssl_);
    char name[64] = {};
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name,
                              sizeof name);
    X509_free(certificate);
    return name;
  }
  void send(std::string_view text) {
    while (!text.empty()) {
      int sent = SSL_write(ssl_, text.data(), static_cast<int>(text.size()));
      ASSERT_GT(sent, 0);
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  // The body of one answer; empty at the end.
  std::string read() {
    std::size_t end;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!more()) return {};
    }
    std::size_t at = buffer_.find("Content-Length: ");
    std::size_t size = std::stoul(buffer_.substr(at + 16));
    buffer_.erase(0, end + 4);
    while (buffer_.size() < size && more()) continue;
    std::string body = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return body;
  }
  bool more() {
    char piece[16384];
    int size = SSL_read(ssl_, piece, sizeof piece);
    if (size <= 0) {
      clean_end_ = SSL_get_error(ssl_, size) == SSL_ERROR_ZERO_RETURN;
      return false;
    }
    buffer_.append(piece, static_cast<std::size_t>(size));
    return true;
  }
  // The server said that nothing more comes, so nobody cut the answer short.
  bool clean_end() const { return clean_end_; }

 private:
  int fd_;
  SSL_CTX* context_;
  SSL* ssl_;
  bool connected_ = false;
  bool clean_end_ = false;
  std::string buffer_;
};

class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "offprint-tls-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    write_pair(certificate(), key(), "first");
    auto loaded = TlsCredentials::load(certificate(), key());
    ASSERT_TRUE(loaded) << loaded.error().message();
    credentials_ = *loaded;
    HttpServerOptions options;
    options.address = "127.0.0.1:0";
    options.tls = credentials_;
    options.limits.head_timeout_ms = 1'500;
    server_ = std::make_unique<HttpServer>(options, handler_);
    ASSERT_TRUE(server_->start());
    port_ = static_cast<std::uint16_t>(
        std::stoi(server_->address().substr(server_->address().rfind(':') + 1)));
  }
  void TearDown() override {
    server_->stop();
    std::filesystem::remove_all(folder_);
  }
  std::string certificate() const { return folder_ + "/cert.pem"; }
  std::string key() const { return folder_ + "/key.pem"; }

  std::string folder_;
  std::shared_ptr<TlsCredentials> credentials_;
  EchoHandler handler_;
  std::unique_ptr<HttpServer> server_;
  std::uint16_t port_ = 0;
};

TEST_F(TlsTest, RequestsAndAnswersOfAllSizes) {
  for (int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(port_, version);
    ASSERT_TRUE(client.connected());
    client.send("GET /5 HTTP/1.1\r\nHost: x\r\n\r\nGET /7 HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(client.read(), "xxxxx");
    EXPECT_EQ(client.read(), "xxxxxxx");
    for (std::size_t size : {1u, 4095u, 16384u, 16385u, 70'000u, 9'000'000u}) {
      client.send("GET /" + std::to_string(size) + " HTTP/1.1\r\nHost: x\r\n\r\n");
      EXPECT_EQ(client.read().size(), size);
      std::string body(size, 'b');
      for (std::size_t i = 0; i < size; i += 97) body[i] = static_cast<char>('a' + i % 26);
      client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(size) +
                  "\r\n\r\n" + body);
      EXPECT_TRUE(client.read() == body) << size;
    }
    client.send("GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(client.read(), "xxx");
    EXPECT_FALSE(client.more());
    EXPECT_TRUE(client.clean_end());
  }
}

TEST_F(TlsTest, OldVersionsAndPlainTextAreTurnedAway) {
  for (int version : {TLS1_VERSION, TLS1_1_VERSION}) {
    TlsClient client(port_, version);
    EXPECT_FALSE(client.connected());
  }
  TestSocket plain(port_);
  plain.send("GET /5 HTTP/1.1\r\nHost: x\r\n\r\n");
  std::string heard = plain.take(1 << 20);
  EXPECT_EQ(heard.find("HTTP/1.1 200"), std::string::npos);
  TestSocket noise(port_);
  noise.send(std::string(100'000, '\x16'));
  noise.take(1 << 20);
  TlsClient client(port_);
  client.send("GET /5 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read(), "xxxxx");
}

// Says nothing, or a byte at a time: the whole handshake has one deadline.
TEST_F(TlsTest, AHandshakeThatDoesNotEndIsCut) {
  auto begun = SteadyClock::now();
  TestSocket silent(port_);
  TestSocket slow(port_);
  slow.send("\x16\x03\x01");
  EXPECT_TRUE(silent.at_end());
  for (int i = 0; i < 200 && server_->counters().connections > 0; ++i) {
    slow.send(std::string(1, '\x02'));
    ::poll(nullptr, 0, 50);
  }
  EXPECT_EQ(server_->counters().connections, 0u);
  EXPECT_LT(SteadyClock::now() - begun, std::chrono::seconds(10));
  EXPECT_GE(server_->counters().timeouts, 1u);
}

TEST_F(TlsTest, AChangedCertificateIsTaken) {
  TlsClient before(port_);
  EXPECT_EQ(before.peer(), "first");
  EXPECT_FALSE(credentials_->reload_if_changed().value());
  write_pair(certificate(), key(), "second");
  EXPECT_TRUE(credentials_->reload_if_changed().value());
  EXPECT_EQ(TlsClient(port_).peer(), "second");
  before.send("GET /5 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(before.read(), "xxxxx");
}

TEST_F(TlsTest, APairThatDoesNotFitIsNotTaken) {
  write_pair(certificate(), folder_ + "/other.pem", "third");
  Result<bool> mixed = credentials_->reload_if_changed();
  ASSERT_FALSE(mixed);
  EXPECT_NE(mixed.error().message().find("mismatch"), std::string::npos) << mixed.error().message();
  EXPECT_FALSE(credentials_->reload_if_changed().value());  // told once
  std::ofstream(certificate()) << "no certificate";
  EXPECT_FALSE(credentials_->reload_if_changed());
  std::filesystem::remove(key());
  EXPECT_FALSE(credentials_->reload_if_changed());
  EXPECT_EQ(TlsClient(port_).peer(), "first");
  write_pair(certificate(), key(), "fourth");
  EXPECT_TRUE(credentials_->reload_if_changed().value());
  EXPECT_EQ(TlsClient(port_).peer(), "fourth");
  EXPECT_FALSE(TlsCredentials::load(folder_ + "/absent.pem", key()));
}

// A client that goes away in the middle of a large answer, or of its own request.
TEST_F(TlsTest, ClientsThatVanishDoNoHarm) {
  for (int round = 0; round < 20; ++round) {
    {
      TlsClient client(port_);
      client.send("GET /9000000 HTTP/1.1\r\nHost: x\r\n\r\n");
      if (round % 2 == 0) client.more();
    }
    TlsClient half(port_);
    half.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc");
  }
  Deadline until = SteadyClock::now() + std::chrono::seconds(20);
  while (server_->counters().connections > 0 && SteadyClock::now() < until) ::poll(nullptr, 0, 10);
  EXPECT_EQ(server_->counters().connections, 0u);
  TlsClient client(port_);
  client.send("GET /5 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read(), "xxxxx");
}

}  // namespace
}  // namespace offprint::server
