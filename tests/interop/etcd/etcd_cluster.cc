#include "tests/interop/etcd/etcd_cluster.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/file_system.h"
#include "cluster/coordinator_testing.h"
#include "cluster/etcd_coordinator.h"

namespace offprint::testing {
namespace {

void run(const std::vector<std::string>& arguments) {
  Finished finished = run_program(arguments);
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
}

}  // namespace

EtcdCluster::EtcdCluster(int members, Security security) : security_(security) {
  if (security_ == Security::kTls) make_certificates();
  for (int i = 0; i < members; ++i) {
    Member member;
    member.client_port = free_port();
    member.peer_port = free_port();
    member.data = folder_ / fmt::format("m{}", i);
    members_.push_back(std::move(member));
  }
  for (int i = 0; i < members; ++i) start(i);
}

EtcdCluster::~EtcdCluster() = default;

std::string EtcdCluster::client_url(int member) const {
  return fmt::format("{}://127.0.0.1:{}", security_ == Security::kTls ? "https" : "http",
                     members_[static_cast<std::size_t>(member)].client_port);
}

void EtcdCluster::start(int index) {
  const char* program = std::getenv("OFFPRINT_ETCD");
  std::string initial;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    initial +=
        fmt::format("{}m{}=http://127.0.0.1:{}", i == 0 ? "" : ",", i, members_[i].peer_port);
  }
  Member& member = members_[static_cast<std::size_t>(index)];
  std::string peer = fmt::format("http://127.0.0.1:{}", member.peer_port);
  Process::Options options;
  options.arguments = {program == nullptr ? "etcd" : program,
                       "--name",
                       fmt::format("m{}", index),
                       "--data-dir",
                       member.data,
                       "--listen-client-urls",
                       client_url(index),
                       "--advertise-client-urls",
                       client_url(index),
                       "--listen-peer-urls",
                       peer,
                       "--initial-advertise-peer-urls",
                       peer,
                       "--initial-cluster",
                       initial,
                       "--initial-cluster-state",
                       "new",
                       "--log-level",
                       "error"};
  if (security_ == Security::kTls) {
    for (const char* each :
         {"--cert-file", "server.pem", "--key-file", "server.key", "--trusted-ca-file", "ca.pem"}) {
      options.arguments.push_back(each[0] == '-' ? each : folder_ / each);
    }
    options.arguments.emplace_back("--client-cert-auth");
  }
  options.stdout_path = folder_ / "etcd.log";
  options.stderr_path = options.stdout_path;
  member.process = std::make_unique<Process>(options);
}

void EtcdCluster::kill(int member) { members_[static_cast<std::size_t>(member)].process->kill(); }
void EtcdCluster::pause(int member) {
  members_[static_cast<std::size_t>(member)].process->signal(SIGSTOP);
}
void EtcdCluster::resume(int member) {
  members_[static_cast<std::size_t>(member)].process->signal(SIGCONT);
}
void EtcdCluster::wipe(int member) {
  std::filesystem::remove_all(members_[static_cast<std::size_t>(member)].data);
}

cluster::EtcdTls EtcdCluster::tls() const {
  if (security_ == Security::kNone) return {};
  return {folder_ / "ca.pem", folder_ / "client.pem", folder_ / "client.key"};
}

cluster::EtcdOptions EtcdCluster::options(const std::string& user,
                                          const std::string& password) const {
  cluster::EtcdOptions options;
  for (std::size_t i = 0; i < members_.size(); ++i)
    options.endpoints.push_back(client_url(static_cast<int>(i)));
  options.tls = tls();
  options.user = user;
  options.password = password;
  return options;
}

void EtcdCluster::wait_ready() {
  auto made = cluster::create_etcd_coordinator(options());
  ASSERT_TRUE(made) << made.error().message();
  auto read = cluster::testing::read(**made, "/ready", 30'000);
  ASSERT_TRUE(read) << read.error().message() << "\n" << file_text(folder_ / "etcd.log");
}

std::string EtcdCluster::post(const std::string& path, const std::string& body,
                              const std::string& token) {
  std::vector<std::string> arguments = {"curl", "--silent", "--max-time", "10", "--noproxy",
                                        "*",    "-X",       "POST",       "-d", body};
  if (!token.empty()) {
    arguments.emplace_back("-H");
    arguments.push_back("Authorization: " + token);
  }
  arguments.push_back(client_url(0) + path);
  return run_program(arguments).out;
}

void EtcdCluster::make_certificates() {
  std::string extensions = folder_ / "extensions";
  ASSERT_TRUE(write_file_atomically(
      FileSystem::real(), extensions,
      as_bytes("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")));
  run({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
       "-days", "1", "-subj", "/CN=test ca", "-keyout", folder_ / "ca.key", "-out",
       folder_ / "ca.pem"});
  for (const char* name : {"server", "client"}) {
    std::string stem = folder_ / name;
    run({"openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-subj", fmt::format("/CN={}", name), "-keyout", stem + ".key", "-out", stem + ".csr"});
    run({"openssl", "x509", "-req", "-in", stem + ".csr", "-CA", folder_ / "ca.pem", "-CAkey",
         folder_ / "ca.key", "-CAcreateserial", "-days", "1", "-extfile", extensions, "-out",
         stem + ".pem"});
  }
}

}  // namespace offprint::testing
