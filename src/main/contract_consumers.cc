#include "main/contract_consumers.h"

#include <cstdio>
#include <filesystem>
#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/file_system.h"
#include "main/commands.h"
#include "main/progress.h"
#include "main/result_writer.h"
#include "publication/sql_tokens.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

constexpr std::uint64_t kQueryBytesMax = 1 << 20;

struct ConsumerOptions {
  RemoteOptions remote;
  std::string database, publication, consumer;
  std::vector<std::string> files;
  bool json = false;
};

Result<HttpAnswer> ask(const ConsumerOptions& options, const char* method, const std::string& rest,
                       std::string body = {}) {
  OFFPRINT_TRY_ASSIGN(std::string url, publications_url(options.remote, options.database));
  Remote remote(options.remote);
  HttpCall call;
  call.method = method;
  call.url = url + rest;
  call.body = std::move(body);
  return remote.request(call);
}

std::string path_of(const ConsumerOptions& options) {
  return fmt::format("/{}/consumers/{}", url_encoded(options.publication),
                     url_encoded(options.consumer));
}

Result<> register_consumer(const ConsumerOptions& options) {
  std::string body = "{\"queries\":[";
  for (const std::string& file : options.files) {
    OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(FileSystem::real(), file, kQueryBytesMax));
    if (body.back() == '}') body += ',';
    body += "{\"name\":";
    server::append_json_string(body, std::filesystem::path(file).filename().string());
    body += ",\"sql\":";
    server::append_json_string(body, as_text(bytes));
    body += '}';
  }
  OFFPRINT_TRY_ASSIGN(auto answer, ask(options, "PUT", path_of(options), body + "]}"));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  std::printf("%s reads of %s: %s\n", options.consumer.c_str(), options.publication.c_str(),
              reads_text(root).c_str());
  return {};
}

Result<> unregister_consumer(const ConsumerOptions& options) {
  OFFPRINT_TRY(ask(options, "DELETE", path_of(options)));
  std::printf("%s reads %s no more\n", options.consumer.c_str(), options.publication.c_str());
  return {};
}

Result<> list_consumers(const ConsumerOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto answer, ask(options, "GET", ""));
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  simdjson::dom::array publications;
  if (root["publications"].get(publications) != simdjson::SUCCESS)
    return fail(Code::kInvalid, "the server does not answer as an Offprint server");
  ResultSet table;
  table.columns = {"consumer", "publication", "registered", "reads"};
  for (simdjson::dom::element publication : publications) {
    simdjson::dom::array consumers;
    if (publication["consumers"].get(consumers) != simdjson::SUCCESS) continue;
    for (simdjson::dom::element each : consumers) {
      if (options.json) {
        std::printf("%s\n", simdjson::minify(each).c_str());
        continue;
      }
      table.rows.push_back({json_text(each, "name"), json_text(each, "publication"),
                            json_text(each, "registered_at").substr(0, 19), reads_text(each)});
    }
  }
  if (options.json) return {};
  const auto format = is_terminal(stdout) ? ResultFormat::kTable : ResultFormat::kPlain;
  std::fputs(format_result(table, format).c_str(), stdout);
  return {};
}

// {"orders":["id"]} of a field.
template <class Visit>
void each_table(simdjson::dom::element object, const char* field, Visit visit) {
  simdjson::dom::object tables;
  if (object[field].get(tables) != simdjson::SUCCESS) return;
  for (const auto& [table, list] : tables) {
    simdjson::dom::array columns;
    if (list.get(columns) != simdjson::SUCCESS) continue;
    std::vector<std::string> names;
    for (simdjson::dom::element column : columns) {
      std::string_view name;
      if (column.get(name) == simdjson::SUCCESS) names.emplace_back(name);
    }
    visit(std::string(table), names);
  }
}

struct Action {
  const char* name;
  const char* help;
  Result<> (*run)(const ConsumerOptions&);
};

constexpr Action kActions[] = {
    {"register", "say who reads a version of a publication, and by which queries",
     register_consumer},
    {"list", "who is registered, and what they read", list_consumers},
    {"unregister", "a consumer reads it no more", unregister_consumer},
};

}  // namespace

void add_contract_consumers(CLI::App& contract, int& exit_code) {
  auto options = std::make_shared<ConsumerOptions>();
  for (const Action& action : kActions) {
    CLI::App* sub = contract.add_subcommand(action.name, action.help);
    add_server_option(*sub, options->remote);
    add_token_option(*sub, options->remote);
    sub->add_flag("--json", options->json, "the server's answer as it is");
    sub->add_option("DB", options->database, "name or URL of the database")->required();
    const std::string_view name = action.name;
    if (name != "list") {
      sub->add_option("PUBLICATION", options->publication, "a version, such as shop@v2")
          ->required();
      sub->add_option("--consumer", options->consumer, "its name")->required();
    }
    if (name == "register")
      sub->add_option("FILE", options->files, "its queries: scripts of SELECTs")->required();
    sub->callback([options, &exit_code, run = action.run] {
      auto done = run(*options);
      exit_code = done ? kExitDone : report(done.error());
    });
  }
}

Result<std::string> publications_url(const RemoteOptions& remote, const std::string& database) {
  OFFPRINT_TRY_ASSIGN(std::string url, database_url(remote, database));
  const std::size_t at = url.find("/db/");
  return url.substr(0, at) + "/v1/databases/" + url.substr(at + 4) + "/publications";
}

std::string reads_text(simdjson::dom::element consumer) {
  std::string text;
  each_table(consumer, "reads", [&](const std::string& table, const auto& columns) {
    text += (text.empty() ? "" : ", ") + table;
    for (std::size_t i = 0; i < columns.size(); ++i) text += (i == 0 ? "(" : ", ") + columns[i];
    if (!columns.empty()) text += ")";
  });
  return text.empty() ? "nothing" : text;
}

Result<std::vector<publication::Contract>> registered_contracts(const RemoteOptions& remote,
                                                                const std::string& database) {
  ConsumerOptions options;
  options.remote = remote;
  options.database = database;
  OFFPRINT_TRY_ASSIGN(auto answer, ask(options, "GET", ""));
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  simdjson::dom::array publications;
  if (root["publications"].get(publications) != simdjson::SUCCESS)
    return fail(Code::kInvalid, "the server does not answer as an Offprint server");
  std::vector<publication::Contract> contracts;
  for (simdjson::dom::element publication : publications) {
    simdjson::dom::array consumers;
    if (publication["consumers"].get(consumers) != simdjson::SUCCESS) continue;
    for (simdjson::dom::element each : consumers) {
      publication::Contract contract;
      contract.file = "consumer";
      contract.name = json_text(each, "name") + " of " + json_text(publication, "name");
      contract.version = std::strtoll(json_text(publication, "version").c_str(), nullptr, 10);
      contract.status = json_text(publication, "state");
      each_table(each, "source_reads", [&](const std::string& table, const auto& columns) {
        auto& reads = contract.reads[publication::folded(table)].emplace();
        for (const std::string& column : columns) reads.insert(publication::folded(column));
      });
      contracts.push_back(std::move(contract));
    }
  }
  return contracts;
}

}  // namespace offprint
