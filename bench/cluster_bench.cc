// A cluster of three nodes: what an acknowledged write costs, beside a node alone and stock etcd.
// Usage: cluster_bench [FOLDER] [SECONDS]
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/figures.h"
#include "bench/processes.h"

namespace {

using namespace offprint;
using namespace offprint::bench;

constexpr int kMembers = 3;

// Of a program that `make test-interop` installs, or that a variable names; empty: it is not here.
std::string installed(const char* variable, const char* name) {
  if (const char* named = std::getenv(variable)) return named;
  const std::string path = std::string("build/tools/bin/") + name;
  return std::filesystem::exists(path) ? path : "";
}

int free_port() {
  const int probe = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(probe, reinterpret_cast<sockaddr*>(&address), size) != 0) {
    std::perror("a port of 127.0.0.1");
    std::exit(1);
  }
  ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(probe);
  return ntohs(address.sin_port);
}

std::string local(int port, const char* scheme = "http://") {
  return fmt::format("{}127.0.0.1:{}", scheme, port);
}

// As many members, each with a folder of its own.
class Etcd {
 public:
  Etcd(const std::string& etcd, const std::string& folder) {
    std::vector<int> peers;
    std::string all;
    for (int m = 0; m < kMembers; ++m) {
      clients_.push_back(free_port());
      peers.push_back(free_port());
      all += fmt::format("{}m{}={}", m == 0 ? "" : ",", m, local(peers.back()));
    }
    for (std::size_t m = 0; m < kMembers; ++m) {
      const std::string name = fmt::format("m{}", m);
      members_.push_back(std::make_unique<Child>(
          std::vector<std::string>{
              etcd, "--name", name, "--data-dir", folder + "/" + name, "--listen-client-urls",
              local(clients_[m]), "--advertise-client-urls", local(clients_[m]),
              "--listen-peer-urls", local(peers[m]), "--initial-advertise-peer-urls",
              local(peers[m]), "--initial-cluster", all, "--log-level", "error"},
          folder + "/" + name + ".log"));
    }
  }
  std::string url() const { return local(clients_[0]); }
  std::string addresses() const {
    std::string text;
    for (int port : clients_) text += (text.empty() ? "" : ",") + local(port, "");
    return text;
  }

 private:
  std::vector<int> clients_;
  std::vector<std::unique_ptr<Child>> members_;
};

void wait_in_sync(Http& node) {
  for (int tries = 0; tries < 600; ++tries) {
    const std::string text = node.get("/v1/cluster");
    const std::size_t at = text.find("\"in_sync\":[");
    const std::string list = text.substr(at, text.find(']', at) - at);
    if (std::count(list.begin(), list.end(), ',') == kMembers - 1) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  fmt::print(stderr, "the nodes did not come in sync\n");
  std::exit(1);
}

void show(const char* name, const Measured& measured) {
  fmt::print("{:<34} {:>8.0f}/s  p50 {:>7.2f} ms  p99 {:>7.2f} ms", name, measured.rate,
             measured.p50_us / 1000, measured.p99_us / 1000);
  if (measured.cpu_us > 0) fmt::print("  CPU of the primary {:.1f} us", measured.cpu_us);
  fmt::print("\n");
}

Measured puts(const std::string& load, const Etcd& etcd, int clients, double seconds,
              const std::string& folder) {
  const std::string log = folder + "/puts";
  run({load, etcd.addresses(), std::to_string(clients), std::to_string(seconds)}, log);
  double rate = 0, p50 = 0, p99 = 0;
  std::sscanf(read_all(log).c_str(), "%lf %lf %lf", &rate, &p50, &p99);
  return {rate, p50 * 1000, p99 * 1000, 0};
}

}  // namespace

int main(int argc, char** argv) {
  const std::string etcd = installed("ETCD", "etcd");
  const std::string put = installed("ETCD_LOAD", "etcd_load");
  if (etcd.empty()) {
    fmt::print("cluster_bench: left out, there is no etcd (ETCD, or `make test-interop`)\n");
    return 0;
  }
  const std::string folder = std::filesystem::absolute(argc > 1 ? argv[1] : "cluster-bench");
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const double seconds = argc > 2 ? std::atof(argv[2]) : 5;
  const Etcd members(etcd, folder);
  fmt::print(
      "one row, or one key of 100 bytes, acknowledged; 3 nodes and 3 members on this "
      "machine\n");
  Measured alone_one{}, alone_all{};
  {
    Server alone(folder, "alone");
    alone_one = load(alone.url(), "insert", 1, seconds);
    alone_all = load(alone.url(), "insert", 64, seconds);
    show("a node alone, 1 client", alone_one);
    show("a node alone, 64 clients", alone_all);
  }
  Measured put_all{};
  if (put.empty()) {
    fmt::print("etcd's puts are left out: ETCD_LOAD names no program\n");
  } else {
    show("etcd, 1 client", puts(put, members, 1, seconds, folder));
    show("etcd, 64 clients", put_all = puts(put, members, 64, seconds, folder));
  }
  std::vector<std::unique_ptr<Server>> nodes;
  for (int n = 0; n < kMembers; ++n) {
    nodes.push_back(std::make_unique<Server>(
        folder, fmt::format("n{}", n),
        std::vector<std::string>{"--cluster", "bench", "--node", fmt::format("n{}", n),
                                 "--peer-listen", local(free_port(), ""), "--etcd", members.url()},
        local(free_port(), "")));
  }
  Http& first = nodes.front()->http();
  wait_in_sync(first);
  const std::string& url = nodes.front()->url();  // the primary, which began the cluster
  const Measured one = load(url, "insert", 1, seconds);
  const Measured all = load(url, "insert", 64, seconds);
  const Measured many = load(url, "insert", 64, seconds, {"--databases", "64"});
  show("3 nodes in sync, 1 client", one);
  show("3 nodes in sync, 64 clients", all);
  show("3 nodes in sync, 64 in 64 databases", many);
  fmt::print("1 client: {:.2f} x the p50 of a node alone; 64 clients: {:.2f} x its rate",
             one.p50_us / alone_one.p50_us, all.rate / alone_all.rate);
  if (put_all.rate > 0) fmt::print(", {:.2f} x etcd's", all.rate / put_all.rate);
  fmt::print("\n");
  return 0;
}
