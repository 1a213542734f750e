#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cluster/etcd_session.h"
#include "tests/process.h"

namespace offprint::testing {

// Stock etcd members on loopback ports, in a temporary folder. Thread: the test's main one.
// The program: OFFPRINT_ETCD.
class EtcdCluster {
 public:
  enum class Security { kNone, kTls };

  explicit EtcdCluster(int members, Security security = Security::kNone);
  ~EtcdCluster();

  void start(int member);  // again
  void kill(int member);   // -9
  void pause(int member);
  void resume(int member);
  void wipe(int member);  // which was killed
  // Waits until a coordinator can read, at most thirty seconds.
  void wait_ready();
  // Of all members; with `user` when it is not empty.
  cluster::EtcdOptions options(const std::string& user = "",
                               const std::string& password = "") const;
  cluster::EtcdTls tls() const;
  // POSTs JSON to a member's gateway with the command-line curl; the answer's body.
  std::string post(const std::string& path, const std::string& body, const std::string& token = "");
  std::string client_url(int member) const;

 private:
  struct Member {
    int client_port = 0;
    int peer_port = 0;
    std::string data;
    std::unique_ptr<Process> process;
  };
  void make_certificates();

  const Security security_;
  TemporaryFolder folder_;
  std::vector<Member> members_;
};

}  // namespace offprint::testing
