// offprint publish: what a database publishes.
#include <cstdio>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/file_system.h"
#include "main/commands.h"
#include "main/progress.h"
#include "main/remote.h"
#include "main/result_writer.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

constexpr std::uint64_t kDefinitionBytesMax = 1 << 20;

struct PublishOptions {
  RemoteOptions remote;
  std::string database, publication, file, sunset;
  bool json = false, draft = false;
};

Result<std::string> api_url(const PublishOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, database_url(options.remote, options.database));
  const std::size_t at = url.find("/db/");
  return url.substr(0, at) + "/v1/databases/" + url.substr(at + 4) + "/publications";
}

Result<HttpAnswer> ask(const PublishOptions& options, const char* method, const std::string& rest,
                       std::string body = {}) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options));
  Remote remote(options.remote);
  HttpCall call;
  call.method = method;
  call.url = url + rest;
  call.body = std::move(body);
  return remote.request(call);
}

Result<std::string> read_definition(const std::string& file) {
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(FileSystem::real(), file, kDefinitionBytesMax));
  std::string body = "{\"definition\":";
  server::append_json_string(body, as_text(bytes));
  return body + "}";
}

Result<> send_definition(const PublishOptions& options, bool only_check) {
  OFFPRINT_TRY_ASSIGN(std::string body, read_definition(options.file));
  OFFPRINT_TRY_ASSIGN(auto answer, ask(options, "POST",
                                       only_check      ? "?check=1"
                                       : options.draft ? "?draft=1"
                                                       : "",
                                       std::move(body)));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  std::printf("%s %s@v%s: %s\n", only_check ? "fits as" : "published",
              json_text(root, "name").c_str(), json_text(root, "version").c_str(),
              json_text(root, "address").c_str());
  return {};
}

Result<> list_publications(const PublishOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto answer, ask(options, "GET", ""));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  simdjson::dom::array list;
  if (root["publications"].get(list) != simdjson::SUCCESS)
    return fail(Code::kInvalid, "the server does not answer as an Offprint server");
  ResultSet table;
  table.columns = {"publication", "state", "created", "address"};
  for (simdjson::dom::element each : list) {
    table.rows.push_back({json_text(each, "name") + "@v" + json_text(each, "version"),
                          json_text(each, "state"), json_text(each, "created_at").substr(0, 19),
                          json_text(each, "address")});
  }
  const auto format = is_terminal(stdout) ? ResultFormat::kTable : ResultFormat::kPlain;
  std::fputs(format_result(table, format).c_str(), stdout);
  return {};
}

Result<> show_publication(const PublishOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto answer, ask(options, "GET", "/" + url_encoded(options.publication)));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  std::printf("%s\n", json_text(root, "definition").c_str());
  return {};
}

Result<> drop_publication(const PublishOptions& options) {
  OFFPRINT_TRY(ask(options, "DELETE", "/" + url_encoded(options.publication)));
  std::printf("dropped %s\n", options.publication.c_str());
  return {};
}

Result<> set_state(const PublishOptions& options, const char* state) {
  std::string body = fmt::format("{{\"state\":\"{}\"", state);
  if (!options.sunset.empty()) {
    body += ",\"sunset\":";
    const bool is_date = options.sunset.size() == std::string_view("2030-01-01").size();
    server::append_json_string(body, options.sunset + (is_date ? "T00:00:00Z" : ""));
  }
  OFFPRINT_TRY_ASSIGN(auto answer,
                      ask(options, "PATCH", "/" + url_encoded(options.publication), body + "}"));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
  } else {
    std::printf("%s is %s\n", options.publication.c_str(), state);
  }
  return {};
}

Result<> rebuild_instances(const PublishOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto answer, ask(options, "POST", "?rebuild=1", "{}"));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
  } else {
    std::printf("compared all instances with what is published\n");
  }
  return {};
}

struct Action {
  const char* name;
  const char* help;
  Result<> (*run)(const PublishOptions&);
};

constexpr Action kActions[] = {
    {"create", "publish what FILE declares, as a new version",
     [](const PublishOptions& options) { return send_definition(options, false); }},
    {"check", "say whether FILE could be published, and do not",
     [](const PublishOptions& options) { return send_definition(options, true); }},
    {"list", "what the database publishes", list_publications},
    {"show", "the text of a publication", show_publication},
    {"release", "publish a draft: it never changes any more",
     [](const PublishOptions& options) { return set_state(options, "published"); }},
    {"deprecate", "tell that a version will be retired",
     [](const PublishOptions& options) { return set_state(options, "deprecated"); }},
    {"retire", "keep a version no more; its number is not given again",
     [](const PublishOptions& options) { return set_state(options, "retired"); }},
    {"drop", "end a publication, or one version: its copies are gone for those who follow them",
     drop_publication},
    {"rebuild", "compare what is kept with what is published, and mend it", rebuild_instances},
};

}  // namespace

void add_publish(CLI::App& app, int& exit_code) {
  CLI::App* publish =
      app.add_subcommand("publish", "parts of a database, each as a live database of its own");
  publish->require_subcommand(1);
  auto options = std::make_shared<PublishOptions>();
  for (const Action& action : kActions) {
    CLI::App* sub = publish->add_subcommand(action.name, action.help);
    add_server_option(*sub, options->remote);
    add_token_option(*sub, options->remote);
    sub->add_flag("--json", options->json, "the server's answer as it is");
    sub->add_option("DB", options->database, "name or URL of the database")->required();
    const std::string_view name = action.name;
    if (name == "create" || name == "check")
      sub->add_option("FILE", options->file, "text: CREATE PUBLICATION …")->required();
    const bool names_one = name == "show" || name == "drop" || name == "release" ||
                           name == "deprecate" || name == "retire";
    if (names_one)
      sub->add_option("PUBLICATION", options->publication, "such as shop or shop@v2")->required();
    if (name == "create")
      sub->add_flag("--draft", options->draft, "it may still change; nobody gets it unasked");
    if (name == "deprecate")
      sub->add_option("--sunset", options->sunset, "until when it is kept, such as 2030-01-31");
    sub->callback([options, &exit_code, run = action.run] {
      auto done = run(*options);
      exit_code = done ? kExitDone : report(done.error());
    });
  }
}

}  // namespace offprint
