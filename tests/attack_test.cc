// A hostile client against a server that asks for tokens, and what its owner does with keys and
// certificates. What a token may do on which route stands in src/server/gate_test.cc, what SQL may
// do in src/database/rights_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <poll.h>

#include <fmt/format.h>

#include "server/http_testing.h"
#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using server::testing::TestSocket;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::uint64_t kMemoryMaxKib = 220 << 10;

class AttackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(run_program({program(), "token", "keygen", folder_ / "key"}).exit_code, 0);
    server_.set_options({"--auth-keys", folder_ / "key.pub"});
    ASSERT_TRUE(server_.start());
    admin_ = make_token({"--db", "*", "--read", "--write", "--schema", "--admin"});
    ASSERT_EQ(as(admin_, "POST", "/v1/databases", R"({"name":"a"})").status, 201);
    ASSERT_EQ(sql("CREATE TABLE t(x)").status, 200);
    ASSERT_EQ(sql("INSERT INTO t VALUES(1)").status, 200);
  }

  std::string make_token(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {program(), "token", "create", "--key", folder_ / "key"});
    Finished made = run_program(arguments);
    EXPECT_EQ(made.exit_code, 0) << made.err;
    while (made.out.ends_with('\n')) made.out.pop_back();
    return made.out;
  }
  static std::string bearer(const std::string& token) {
    return "Authorization: Bearer " + token + "\r\n";
  }
  HttpConnection::Answer as(const std::string& token, const std::string& method,
                            const std::string& path, const std::string& body = {}) {
    HttpConnection connection(server_.port());
    auto answer = connection.request(method, path, body, bearer(token));
    EXPECT_TRUE(answer) << path;
    return answer.value_or(HttpConnection::Answer());
  }
  HttpConnection::Answer sql(const std::string& text) {
    return as(admin_, "POST", "/db/a/query", sql_body(text));
  }
  // Nothing happened, and the server is well.
  void expect_unharmed() {
    EXPECT_THAT(sql("SELECT count(*) FROM t").body, HasSubstr("[[1]]"));
    EXPECT_LT(process_memory_kib(server_.pid(), "VmHWM"), kMemoryMaxKib);
    EXPECT_TRUE(std::filesystem::is_empty(server_.data() + "/uploads"));
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
  std::string admin_;
};

// Two parsers must not see different requests in the same bytes: each of these is one refused
// request, and what it hides is not run.
TEST_F(AttackTest, NoRequestHidesInAnother) {
  std::string hidden_body = R"({"sql":"DELETE FROM t"})";
  std::string hidden =
      fmt::format("POST /db/a/query HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n{}",
                  bearer(admin_), hidden_body.size(), hidden_body);
  std::string head = "POST /db/a/query HTTP/1.1\r\nHost: x\r\n" + bearer(admin_);
  std::string body = R"({"sql":"SELECT 1"})";
  std::string chunked = fmt::format("{:x}\r\n{}\r\n0\r\n\r\n", body.size(), body);
  std::string length = fmt::format("Content-Length: {}\r\n", body.size());
  for (const std::string& text : {
           head + length + "Transfer-Encoding: chunked\r\n\r\n" + chunked + hidden,
           head + "Transfer-Encoding: chunked\r\n" + length + "\r\n" + chunked + hidden,
           head + length + "Content-Length: 0\r\n\r\n" + body + hidden,
           head + "Content-Length: 0\r\n" + length + "\r\n" + body + hidden,
           head + "Content-Length: 18, 18\r\n\r\n" + body + hidden,
           head + "Content-Length: +18\r\n\r\n" + body + hidden,
           head + "Content-Length: 0x12\r\n\r\n" + body + hidden,
           head + "Content-Length: -1\r\n\r\n" + hidden,
           head + "Content-Length: 18446744073709551634\r\n\r\n" + body + hidden,
           head + "Transfer-Encoding: identity\r\n" + length + "\r\n" + body + hidden,
           head + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked + hidden,
           head + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunked + hidden,
           head + "Transfer-Encoding: xchunked\r\n\r\n" + chunked + hidden,
           head +
               "Transfer-Encoding:\x0b"
               "chunked\r\n\r\n" +
               chunked + hidden,
           head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunked +
               hidden,
           head + "Transfer-Encoding : chunked\r\n\r\n" + chunked + hidden,
           head + "Transfer-Encoding\r\n : chunked\r\n\r\n" + chunked + hidden,
           head + "Host: y\r\n" + length + "\r\n" + body + hidden,
           "POST /db/a/query HTTP/1.1\n" + bearer(admin_) + "Host: x\n" + length + "\n" + body +
               hidden,
           head + "X: a\nContent-Length: 0\r\n" + length + "\r\n" + body + hidden,
           head + "X: a\rContent-Length: 0\r\n" + length + "\r\n" + body + hidden,
           head + std::string("X: a\0b\r\n", 8) + length + "\r\n" + body + hidden,
           head + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n" + body + hidden,
           head + "Transfer-Encoding: chunked\r\n\r\n-1\r\n" + hidden,
           head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + hidden,
           "POST  /db/a/query HTTP/1.1\r\nHost: x\r\n" + bearer(admin_) + length + "\r\n" + body +
               hidden,
           "POST /db/a/query HTTP/1.1 \r\nHost: x\r\n" + bearer(admin_) + length + "\r\n" + body +
               hidden,
           " POST /db/a/query HTTP/1.1\r\nHost: x\r\n" + bearer(admin_) + length + "\r\n" + body +
               hidden,
           // Refused for its token, while its body is on the way.
           "POST /db/a/query HTTP/1.1\r\nHost: x\r\n" +
               fmt::format("Content-Length: {}\r\n\r\n", hidden.size()) + hidden,
           "POST /db/a/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + hidden,
       }) {
    TestSocket socket(server_.port());
    socket.send(text);
    socket.close_sending();
    TestSocket::Answer answer = socket.read();
    EXPECT_GE(answer.status, 400) << text.substr(0, 400);
    EXPECT_TRUE(socket.at_end()) << text.substr(0, 400);
  }
  // A field that goes on in a further line is either refused, or read as one line.
  TestSocket folded(server_.port());
  folded.send(head + "X: a\r\n Content-Length: 0\r\n" + length + "\r\n" + body);
  TestSocket::Answer answer = folded.read();
  EXPECT_TRUE(answer.status == 400 || answer.body.find("[[1]]") != std::string::npos);
  expect_unharmed();
}

TEST_F(AttackTest, FloodsEndAtTheirLimits) {
  auto status_of = [&](const std::string& text) {
    TestSocket socket(server_.port());
    socket.send(text);
    return socket.read().status;
  };
  std::string start = "GET /health HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(status_of(start + "X: " + std::string(1 << 20, 'a') + "\r\n\r\n"), 431);
  std::string many = start;
  for (int i = 0; i < 20'000; ++i) many += fmt::format("X-{}: y\r\n", i);
  EXPECT_EQ(status_of(many + "\r\n"), 431);
  EXPECT_EQ(status_of(start + "Authorization: Bearer " + std::string(1 << 20, 'a') + "\r\n\r\n"),
            431);
  EXPECT_EQ(status_of("GET /" + std::string(1 << 20, 'a') + " HTTP/1.1\r\n\r\n"), 431);
  EXPECT_EQ(status_of(start + bearer(std::string(12'000, 'a')) + "\r\n"), 200);  // not looked at

  // Bodies: told too large, or more and more of them; with a token and without.
  std::string post = "POST /db/a/query HTTP/1.1\r\nHost: x\r\n";
  std::string large = fmt::format("Content-Length: {}\r\n\r\n", 100 << 20);
  EXPECT_EQ(status_of(post + bearer(admin_) + large), 413);
  EXPECT_EQ(status_of(post + large), 401);
  std::string chunk = fmt::format("{:x}\r\n{}\r\n", 1 << 20, std::string(1 << 20, ' '));
  TestSocket endless(server_.port());
  endless.send(post + bearer(admin_) + "Transfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 70; ++i) endless.send(chunk);
  EXPECT_EQ(endless.read().status, 413);
  for (const char* target : {"/db/a/import", "/db/new/import", "/db/shop/new/import"}) {
    EXPECT_EQ(status_of(fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                                    target, std::uint64_t{1} << 40)),
              401);
  }
  EXPECT_EQ(as(admin_, "GET", "/v1/databases/new").status, 404);
  expect_unharmed();
}

TEST_F(AttackTest, JsonCannotExplode) {
  for (std::size_t depth : {200u, 100'000u, 1'000'000u}) {
    for (const char* open : {"[", "{\"a\":"}) {
      std::string text;
      for (std::size_t i = 0; i < depth; ++i) text += open;
      EXPECT_EQ(as(admin_, "POST", "/db/a/query", text).status, 400);
      EXPECT_EQ(as(admin_, "POST", "/db/a/v2/pipeline", "{\"requests\":" + text).status, 400);
      EXPECT_EQ(as(admin_, "POST", "/v1/databases", text).status, 400);
      EXPECT_EQ(as(admin_, "POST", "/v1/tokens/revoke", text).status, 400);
    }
  }
  for (const char* text : {"{\"sql\":\"SELECT 1\"", "\xff\xfe", "{\"sql\":1}", "nul", "1e9999999",
                           "{\"sql\":\"SELECT 1\",\"args\":{\"a\":{\"base64\":\"!\"}}}"}) {
    EXPECT_EQ(as(admin_, "POST", "/db/a/query", text).status, 400) << text;
  }
  expect_unharmed();
}

TEST_F(AttackTest, CompressedBodiesAreNotUnpacked) {
  // A thousandfold: 10 KiB that would become 10 MiB.
  Finished bomb =
      run_program({"python3", "-c",
                   "import gzip, sys; sys.stdout.write(gzip.compress(b' ' * (10 << 20)).hex())"});
  for (const char* encoding : {"gzip", "x-gzip", "deflate", "br", "zstd", "gzip, gzip"}) {
    TestSocket socket(server_.port());
    socket.send(
        fmt::format("POST /db/a/query HTTP/1.1\r\nHost: x\r\n{}Content-Encoding: {}\r\n"
                    "Content-Length: {}\r\n\r\n{}",
                    bearer(admin_), encoding, bomb.out.size(), bomb.out));
    EXPECT_EQ(socket.read().status, 415) << encoding;
  }
  expect_unharmed();
}

// Tokens that never were, one after the other, take neither memory nor anybody's place.
TEST_F(AttackTest, GuessedTokensAreForgotten) {
  HttpConnection guesser(server_.port());
  std::string stem = admin_.substr(0, admin_.rfind('.') + 1);
  for (int i = 0; i < 5'000; ++i) {
    auto answer =
        guesser.request("GET", "/v1/databases", {}, bearer(stem + fmt::format("{:0>86}", i)));
    ASSERT_TRUE(answer);
    ASSERT_EQ(answer->status, 401);
  }
  expect_unharmed();
  EXPECT_THAT(server_.log(), Not(HasSubstr(admin_.substr(0, 40))));  // and no log keeps them
}

TEST_F(AttackTest, AFollowerEndsWithItsToken) {
  std::string token = make_token({"--db", "a", "--subscribe", "--id", "of-the-follower"});
  FollowerProcess follower(folder_, server_.database_url("a"), folder_ / "copy.db",
                           {"--token", token});
  follower.start();
  Deadline until = in_seconds(30);
  while (follower.log().find("is a copy") == std::string::npos && SteadyClock::now() < until)
    ::poll(nullptr, 0, 20);
  ASSERT_THAT(follower.log(), HasSubstr("is a copy"));
  Finished revoked = server_.run({"token", "revoke", token, "--token", admin_});
  EXPECT_EQ(revoked.exit_code, 0) << revoked.err;
  EXPECT_THAT(revoked.out, HasSubstr("of-the-follower"));
  EXPECT_EQ(follower.process().wait(in_seconds(15)), 4) << follower.log();
  ASSERT_TRUE(server_.restart());
  EXPECT_EQ(as(token, "GET", "/db/a").status, 401);
  EXPECT_EQ(as(admin_, "GET", "/db/a").status, 200);
}

TEST_F(AttackTest, TheCommandsUseTokens) {
  for (const std::vector<std::string>& command : {std::vector<std::string>{"db", "list"},
                                                  {"db", "info", "a"},
                                                  {"db", "create", "b"},
                                                  {"db", "drop", "a"},
                                                  {"db", "export", "a", folder_ / "out.db"},
                                                  {"sql", "a", "SELECT 1"},
                                                  {"follow", "a", folder_ / "f.db", "--once"},
                                                  {"bench", "--seconds", "0.1"},
                                                  {"token", "revoke", "x"}}) {
    Finished refused = server_.run(command);
    EXPECT_EQ(refused.exit_code, 4) << command[0] << refused.out << refused.err;
    EXPECT_THAT(refused.err, HasSubstr("--token")) << command[0];
  }
  std::string all = make_token({"--db", "*", "--read", "--write", "--schema", "--admin",
                                "--subscribe", "--snapshot", "--metrics"});
  for (const std::vector<std::string>& command : {std::vector<std::string>{"db", "list"},
                                                  {"db", "info", "a"},
                                                  {"db", "create", "b"},
                                                  {"db", "export", "a", folder_ / "out.db"},
                                                  {"sql", "a", "SELECT 1"},
                                                  {"follow", "a", folder_ / "f.db", "--once"},
                                                  {"bench", "--seconds", "0.1"},
                                                  {"db", "drop", "b"}}) {
    std::vector<std::string> with_token = command;
    with_token.insert(with_token.end(), {"--token", all});
    Finished done = server_.run(with_token);
    EXPECT_EQ(done.exit_code, 0) << command[0] << done.out << done.err;
  }
}

TEST_F(AttackTest, TokensAreMadeAndShown) {
  std::string token =
      make_token({"--db", "shop/*", "--table", "orders", "--read", "--verb", "data_add",
                  "--expires", "2h", "--sub", "till-4", "--aud", "here"});
  Finished shown = run_program(
      {program(), "token", "inspect", token, "--key", folder_ / "key.pub", "--audience", "here"});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("till-4"));
  EXPECT_THAT(shown.out, HasSubstr("verified  yes"));
  EXPECT_THAT(shown.out, HasSubstr("data_read, data_add"));
  Finished piped = run_program({program(), "token", "inspect", "-", "--json"}, {}, token + "\n");
  EXPECT_THAT(piped.out, HasSubstr(R"("sub":"till-4")"));
  EXPECT_EQ(run_program({program(), "token", "inspect", token + "x", "--key", folder_ / "key.pub"})
                .exit_code,
            4);
  EXPECT_EQ(run_program({program(), "token", "keygen", folder_ / "key"}).exit_code, 1);
  EXPECT_EQ(std::filesystem::status(folder_ / "key").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--db", "a"},
                                                {"--read"},
                                                {"--db", "a*", "--read"},
                                                {"--db", "a", "--verb", "fly"},
                                                {"--db", "a", "--read", "--expires", "soon"},
                                                {"--db", "a", "--table", "t", "--admin"}}) {
    std::vector<std::string> arguments = {program(), "token", "create", "--key", folder_ / "key"};
    arguments.insert(arguments.end(), wrong.begin(), wrong.end());
    Finished refused = run_program(arguments);
    EXPECT_EQ(refused.exit_code, 1) << refused.out;
    EXPECT_EQ(refused.out, "");
  }
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"--auth-keys", folder_ / "absent"},
        {"--auth-keys", folder_ / "key"},  // the private one
        {"--audience", "here"},
        {"--tls-cert", folder_ / "key.pub"},
        {"--tls-cert", folder_ / "key.pub", "--tls-key", folder_ / "key"}}) {
    std::vector<std::string> arguments = {program(),         "serve",    "--data",
                                          folder_ / "other", "--listen", "127.0.0.1:0"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    Finished refused = run_program(arguments, {}, {}, 20);
    EXPECT_EQ(refused.exit_code, 1) << options.back() << refused.err;
  }
  Finished open = run_program(
      {program(), "serve", "--data", folder_ / "other", "--listen", "0.0.0.0:0"}, {}, {}, 20);
  EXPECT_EQ(open.exit_code, 2);
  EXPECT_THAT(open.err, HasSubstr("--auth-keys"));
}

class CertificateTest : public ::testing::Test {
 protected:
  // By the system's own tool, as an owner would.
  void make_pair(const std::string& name) {
    Finished made = run_program({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                                 "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                                 folder_ / "new.key", "-out", folder_ / "new.crt", "-days", "2",
                                 "-subj", "/CN=" + name, "-addext", "subjectAltName=IP:127.0.0.1"});
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  void install() {
    std::filesystem::rename(folder_ / "new.key", folder_ / "tls.key");
    std::filesystem::rename(folder_ / "new.crt", folder_ / "tls.crt");
  }
  bool wait_for_log(const std::string& text) {
    Deadline until = in_seconds(20);
    while (SteadyClock::now() < until) {
      if (server_.log().find(text) != std::string::npos) return true;
      ::poll(nullptr, 0, 20);
    }
    return false;
  }
  Finished client(std::vector<std::string> arguments, const std::string& ca) {
    arguments.insert(arguments.begin(), program());
    return run_program(arguments,
                       {{"OFFPRINT_SERVER", fmt::format("https://127.0.0.1:{}", server_.port())},
                        {"OFFPRINT_CA", ca}});
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

TEST_F(CertificateTest, CommandsSpeakHttpsAndCertificatesAreReplaced) {
  make_pair("first");
  install();
  server_.set_options({"--tls-cert", folder_ / "tls.crt", "--tls-key", folder_ / "tls.key"});
  ASSERT_TRUE(server_.start());
  std::filesystem::copy_file(folder_ / "tls.crt", folder_ / "ca1.crt");
  Finished made = client({"db", "create", "a"}, folder_ / "ca1.crt");
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_EQ(client({"sql", "a", "CREATE TABLE t(x)"}, folder_ / "ca1.crt").exit_code, 0);
  EXPECT_EQ(client({"sql", "a", "SELECT 41 + 1"}, folder_ / "ca1.crt").out, "42\n");
  EXPECT_EQ(client({"follow", "a", folder_ / "f.db", "--once"}, folder_ / "ca1.crt").exit_code, 0);
  Finished distrusts = client({"sql", "a", "SELECT 1"}, "/etc/ssl/certs/ca-certificates.crt");
  EXPECT_EQ(distrusts.exit_code, 3);
  EXPECT_THAT(distrusts.err, HasSubstr("certificate"));

  make_pair("second");
  std::filesystem::copy_file(folder_ / "new.crt", folder_ / "ca2.crt");
  install();
  ASSERT_TRUE(wait_for_log("a new certificate is in use")) << server_.log();
  EXPECT_EQ(client({"sql", "a", "SELECT 1"}, folder_ / "ca2.crt").exit_code, 0);
  EXPECT_EQ(client({"sql", "a", "SELECT 1"}, folder_ / "ca1.crt").exit_code, 3);

  std::ofstream(folder_ / "tls.key") << "damaged";
  ASSERT_TRUE(wait_for_log("the certificate in use is kept")) << server_.log();
  EXPECT_EQ(client({"sql", "a", "SELECT 1"}, folder_ / "ca2.crt").exit_code, 0);
  EXPECT_EQ(server_.terminate(), 0);
}

}  // namespace
}  // namespace offprint::testing
