// offprint cluster: what those do who look after a cluster.
#include <cstdio>
#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/file_system.h"
#include "cluster/folder_operations.h"
#include "main/commands.h"
#include "main/progress.h"
#include "main/remote.h"
#include "main/result_writer.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

struct ClusterCommand {
  RemoteOptions remote;
  std::string node, data;
  cluster::EtcdOptions etcd;
  bool json = false, force = false;
};

Result<> show(const ClusterCommand& command, std::string answer) {
  if (command.json) {
    std::fputs(answer.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer));
  simdjson::dom::array nodes;
  if (root["nodes"].get(nodes) != simdjson::SUCCESS)
    return fail(Code::kInvalid, command.remote.server + " does not answer as an Offprint server");
  ResultSet table;
  table.columns = {"node", "role", "url"};
  for (simdjson::dom::element node : nodes)
    table.rows.push_back(
        {json_text(node, "node"), json_text(node, "role"), json_text(node, "url")});
  std::fputs(format_result(table, is_terminal(stdout) ? ResultFormat::kTable : ResultFormat::kPlain)
                 .c_str(),
             stdout);
  std::string line = fmt::format("epoch {}, a commit is on {} at least", json_text(root, "epoch"),
                                 json_text(root, "min_in_sync"));
  if (json_text(root, "primary").empty()) line += "; no primary is known";
  if (json_text(root, "forced") == "true") line += "; the last failover was forced";
  std::puts(line.c_str());
  return {};
}

Result<> ask(const ClusterCommand& command, const std::string& action, std::string body) {
  OFFPRINT_TRY_ASSIGN(std::string url, parse_url(command.remote.server));
  Remote remote(command.remote);
  HttpCall call;
  call.url = url + "/v1/cluster" + action;
  if (!action.empty()) call.method = "POST";
  call.body = std::move(body);
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  return show(command, std::move(answer.body));
}

std::string body_of(const char* field, const std::string& node) {
  if (node.empty()) return "{}";
  std::string body = fmt::format("{{\"{}\":", field);
  server::append_json_string(body, node);
  return body + "}";
}

CLI::App* add_part(CLI::App& group, const char* name, const char* help,
                   const std::shared_ptr<ClusterCommand>& command) {
  CLI::App* part = group.add_subcommand(name, help);
  add_server_option(*part, command->remote);
  add_token_option(*part, command->remote);
  part->add_flag("--json", command->json, "the server's answer as it is");
  return part;
}

// With the folder of a node that is stopped.
CLI::App* add_folder_part(CLI::App& group, const char* name, const char* help,
                          const std::shared_ptr<ClusterCommand>& command) {
  CLI::App* part = group.add_subcommand(name, help);
  part->add_option("--data", command->data, "the folder of a node that does not run")->required();
  part->add_option("--etcd", command->etcd.endpoints, "URL of an etcd server; can be repeated")
      ->delimiter(',')
      ->required();
  return part;
}

}  // namespace

void add_cluster(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<ClusterCommand>();
  CLI::App* group = app.add_subcommand("cluster", "look after a cluster of nodes");
  group->require_subcommand(1);
  auto finish = [&exit_code](const Result<>& done) {
    exit_code = done ? kExitDone : report(done.error());
  };
  CLI::App* status =
      add_part(*group, "status", "its nodes, as the one that is asked sees them", command);
  status->callback([=] { finish(ask(*command, "", "")); });
  CLI::App* switchover = add_part(
      *group, "switchover", "make another node primary; clients notice a short pause", command);
  switchover->add_option("NODE", command->node, "which one; else any that is in sync");
  switchover->callback([=] { finish(ask(*command, "/switchover", body_of("to", command->node))); });
  CLI::App* remove =
      add_part(*group, "remove",
               "a node that is stopped has no copy any more, and is not waited for", command);
  remove->add_option("NODE", command->node, "its name")->required();
  remove->callback([=] { finish(ask(*command, "/remove", body_of("node", command->node))); });
  CLI::App* failover = add_folder_part(
      *group, "failover", "make a node primary whose others, which have all commits, are lost",
      command);
  failover->add_flag("--force", command->force, "what only other nodes have is lost")->required();
  failover->callback([=] {
    Result<> done = cluster::force_primary(FileSystem::real(), command->data, command->etcd);
    if (done) std::puts("it is primary when it is started");
    finish(done);
  });
  CLI::App* leave = add_folder_part(
      *group, "leave", "make the folder of a cluster's last node a single node's", command);
  leave->add_flag("--force", command->force, "also when etcd has lost what it knew of the cluster");
  leave->callback([=] {
    Result<> done =
        cluster::leave_cluster(FileSystem::real(), command->data, command->etcd, command->force);
    if (done) std::printf("%s is a single node's folder now\n", command->data.c_str());
    finish(done);
  });
}

}  // namespace offprint
