#include <fstream>

#include "tests/interop/etcd/cluster_servers.h"

// Clusters whose clients show tokens over https, and whose nodes know a secret.
namespace offprint::testing {
namespace {

class ClusterSecurity : public ClusterServers {
 protected:
  void SetUp() override {
    ClusterServers::SetUp();
    run({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", folder_ / "tls.key", "-out", folder_ / "tls.crt", "-days", "2",
         "-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1"});
    run({program(), "token", "keygen", folder_ / "key"});
    admin_ = token({"--db", "*", "--admin", "--read", "--write", "--schema"});
    write_secret("secret", "the secret of all the nodes");
    for (int n = 0; n < 3; ++n) make_node(n, options("secret"));
  }
  static std::string run(const std::vector<std::string>& arguments) {
    Finished done = run_program(arguments);
    EXPECT_EQ(done.exit_code, 0) << done.err;
    return done.out;
  }
  void write_secret(const std::string& file, const std::string& secret) {
    std::ofstream(folder_ / file) << secret << "\n";
  }
  std::vector<std::string> options(const std::string& secret) {
    return {"--auth-keys",      folder_ / "key.pub", "--tls-cert",   folder_ / "tls.crt",
            "--tls-key",        folder_ / "tls.key", "--cluster-ca", folder_ / "tls.crt",
            "--cluster-secret", folder_ / secret};
  }
  std::string token(std::vector<std::string> rights) {
    rights.insert(rights.begin(), {program(), "token", "create", "--key", folder_ / "key"});
    const std::string out = run(rights);
    return out.substr(0, out.find('\n'));
  }
  // A command of a client of that node.
  Finished client(std::size_t node, const std::string& by, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), program());
    return run_program(
        arguments, {{"OFFPRINT_SERVER", fmt::format("https://127.0.0.1:{}", nodes_[node]->port())},
                    {"OFFPRINT_CA", folder_ / "tls.crt"},
                    {"OFFPRINT_TOKEN", by}});
  }

  TemporaryFolder folder_;
  std::string admin_;
};

TEST_F(ClusterSecurity, TokensCountOnAllNodesAndSoDoRevocations) {
  for (auto& node : nodes_) ASSERT_TRUE(node->start());
  ASSERT_EQ(client(0, admin_, {"db", "create", "shop"}).exit_code, 0);
  for (std::size_t n : {1U, 2U, 0U}) {  // passed on to the primary
    Finished made = client(n, admin_, {"sql", "shop", fmt::format("CREATE TABLE t{}(x)", n)});
    EXPECT_EQ(made.exit_code, 0) << n << made.err;
  }
  const std::string reader = token({"--db", "shop", "--read", "--id", "r-1"});
  for (std::size_t n : {0U, 1U, 2U}) {
    EXPECT_TRUE(within(10s, [&] {
      return client(n, reader, {"sql", "shop", "SELECT count(*) FROM t2"}).out == "0\n";
    })) << n;
    EXPECT_EQ(client(n, reader, {"sql", "shop", "INSERT INTO t2 VALUES(1)"}).exit_code, 1) << n;
    EXPECT_NE(client(n, "", {"sql", "shop", "SELECT 1"}).exit_code, 0) << n;
  }
  // Asked of a node that is not primary.
  Finished revoked = client(2, admin_, {"token", "revoke", reader});
  EXPECT_EQ(revoked.exit_code, 0) << revoked.err;
  for (std::size_t n : {0U, 1U, 2U}) {
    EXPECT_TRUE(within(10s, [&] {
      return client(n, reader, {"sql", "shop", "SELECT 1"}).exit_code == 4;
    })) << n;
  }
  // Whoever takes over knows it.
  nodes_[0]->kill();
  Finished after;
  EXPECT_TRUE(within(20s, [&] {
    after = client(1, admin_, {"sql", "shop", "INSERT INTO t2 VALUES(1)"});
    return after.exit_code == 0;
  })) << after.err;
  EXPECT_EQ(client(1, reader, {"sql", "shop", "SELECT 1"}).exit_code, 4);
  EXPECT_EQ(client(2, reader, {"sql", "shop", "SELECT 1"}).exit_code, 4);
}

TEST_F(ClusterSecurity, WhoDoesNotKnowTheSecretGetsNothing) {
  ASSERT_TRUE(nodes_[0]->start());
  ASSERT_EQ(client(0, admin_, {"db", "create", "shop"}).exit_code, 0);
  write_secret("wrong", "another secret than theirs");
  make_node(1, options("wrong"));
  nodes_[1]->begin_start();
  EXPECT_TRUE(within(20s, [&] {
    return nodes_[0]->log().find("does not know the cluster's secret") != std::string::npos;
  })) << nodes_[0]->log();
  EXPECT_TRUE(within(20s, [&] { return nodes_[1]->log().find("trying on") != std::string::npos; }))
      << nodes_[1]->log();
  EXPECT_EQ(nodes_[1]->log().find("is filled"), std::string::npos);
  make_node(1, options("secret"));
  ASSERT_TRUE(nodes_[1]->start());
  EXPECT_EQ(client(1, admin_, {"sql", "shop", "CREATE TABLE t(x)"}).exit_code, 0);
}

}  // namespace
}  // namespace offprint::testing
