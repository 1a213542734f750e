// offprint publish: what a database publishes.
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/file_system.h"
#include "main/commands.h"
#include "main/contract_consumers.h"
#include "main/progress.h"
#include "main/remote.h"
#include "main/result_writer.h"
#include "main/schema_source.h"
#include "publication/first_definition.h"
#include "publication/schema_scratch.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

constexpr std::uint64_t kDefinitionBytesMax = 1 << 20;

struct PublishOptions {
  RemoteOptions remote;
  std::string database, publication, file, sunset, name, output;
  std::vector<std::string> tables, values;
  std::optional<std::uint64_t> size_bytes_max, rows_per_minute_max;
  bool json = false, draft = false;
};

Result<HttpAnswer> ask(const PublishOptions& options, const char* method, const std::string& rest,
                       std::string body = {}) {
  OFFPRINT_TRY_ASSIGN(std::string url, publications_url(options.remote, options.database));
  Remote remote(options.remote);
  HttpCall call;
  call.method = method;
  call.url = url + rest;
  call.body = std::move(body);
  return remote.request(call);
}

Result<std::string> read_definition(const PublishOptions& options) {
  OFFPRINT_TRY_ASSIGN(Bytes bytes,
                      read_file(FileSystem::real(), options.file, kDefinitionBytesMax));
  std::string body = "{\"definition\":";
  server::append_json_string(body, as_text(bytes));
  if (options.values.empty()) return body + "}";
  body += ",\"values\":{";
  for (const std::string& each : options.values) {
    const std::size_t sign = each.find('=');
    if (sign == std::string::npos)
      return fail(Code::kInvalid, fmt::format("'{}' is not NAME=VALUE", each));
    if (body.back() == '"') body += ',';
    server::append_json_string(body, each.substr(0, sign));
    body += ':';
    server::append_json_string(body, each.substr(sign + 1));
  }
  return body + "}}";
}

// What instances would be, and whether the server would keep them.
void print_estimates(simdjson::dom::element root) {
  simdjson::dom::array list;
  if (root["estimates"].get(list) != simdjson::SUCCESS) return;
  const std::uint64_t most =
      std::strtoull(json_text(root, "instance_bytes_max").c_str(), nullptr, 10);
  for (simdjson::dom::element each : list) {
    const std::string parameters = json_text(each, "parameters");
    const std::uint64_t bytes = std::strtoull(json_text(each, "bytes").c_str(), nullptr, 10);
    std::printf("  an instance%s%s: %s rows, about %s bytes%s\n",
                parameters.empty() ? "" : " with ", parameters.c_str(),
                json_text(each, "rows").c_str(), json_text(each, "bytes").c_str(),
                most != 0 && bytes > most ? ": more than the server keeps" : "");
  }
}

Result<> send_definition(const PublishOptions& options, bool only_check) {
  OFFPRINT_TRY_ASSIGN(std::string body, read_definition(options));
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
  const bool is_there = root["is_there"].error() == simdjson::SUCCESS;
  std::printf("%s %s@v%s: %s\n",
              is_there     ? "is published already as"
              : only_check ? "fits as"
                           : "published",
              json_text(root, "name").c_str(), json_text(root, "version").c_str(),
              json_text(root, "address").c_str());
  print_estimates(root);
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
    const bool is_broken = !json_text(each, "broken").empty();
    const bool is_slow = each["read_whole"].error() == simdjson::SUCCESS;
    table.rows.push_back(
        {json_text(each, "name") + "@v" + json_text(each, "version"),
         json_text(each, "state") + (is_broken ? ", broken" : "") + (is_slow ? ", slow" : ""),
         json_text(each, "created_at").substr(0, 19), json_text(each, "address")});
  }
  const auto format = is_terminal(stdout) ? ResultFormat::kTable : ResultFormat::kPlain;
  std::fputs(format_result(table, format).c_str(), stdout);
  return {};
}

// As comments behind the text: it can still be published.
void print_readers(simdjson::dom::element publication) {
  if (const std::string broken = json_text(publication, "broken"); !broken.empty())
    std::printf("-- broken: %s\n", broken.c_str());
  simdjson::dom::array list;
  if (publication["read_whole"].get(list) == simdjson::SUCCESS) {
    for (std::string_view item : list)
      std::printf("-- slow, read as a whole with each change: %.*s\n",
                  static_cast<int>(item.size()), item.data());
  }
  if (publication["consumers"].get(list) == simdjson::SUCCESS) {
    for (simdjson::dom::element each : list)
      std::printf("-- consumer %s reads %s\n", json_text(each, "name").c_str(),
                  reads_text(each).c_str());
  }
  if (publication["instances"].get(list) != simdjson::SUCCESS) return;
  for (simdjson::dom::element instance : list) {
    simdjson::dom::array followers;
    if (instance["followers"].get(followers) != simdjson::SUCCESS) continue;
    for (simdjson::dom::element each : followers) {
      const std::string subject = json_text(each, "subject");
      std::printf(
          "-- %s %s by %s%s%s, last seen %s, at %s\n", json_text(instance, "address").c_str(),
          json_text(each, "connected") == "true" ? "followed" : "was followed", subject.c_str(),
          subject.empty() ? "" : " from ", json_text(each, "address").c_str(),
          json_text(each, "last_seen").c_str(), json_text(each, "position").c_str());
    }
  }
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
  print_readers(root);
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
    server::JsonReader reader;
    OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
    simdjson::dom::array list;
    if (std::string_view(state) != "published" &&
        root["consumers"].get(list) == simdjson::SUCCESS) {
      for (simdjson::dom::element each : list)
        std::printf("registered as reading it: %s (%s)\n", json_text(each, "name").c_str(),
                    reads_text(each).c_str());
    }
  }
  return {};
}

Result<> set_quota(const PublishOptions& options) {
  std::string body;
  if (options.size_bytes_max) body += fmt::format("\"size_bytes_max\":{}", *options.size_bytes_max);
  if (options.rows_per_minute_max) {
    body += fmt::format("{}\"rows_per_minute_max\":{}", body.empty() ? "" : ",",
                        *options.rows_per_minute_max);
  }
  if (body.empty())
    return fail(Code::kInvalid, "say what: --size-bytes-max, --rows-per-minute-max");
  OFFPRINT_TRY_ASSIGN(
      auto answer, ask(options, "PATCH", "/" + url_encoded(options.publication), "{" + body + "}"));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  std::printf(
      "each instance of %s: at most %s bytes, %s changed rows a minute (0: as the server "
      "says)\n",
      options.publication.c_str(), json_text(root, "size_bytes_max").c_str(),
      json_text(root, "rows_per_minute_max").c_str());
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

// A first text, of a schema wherever it is.
Result<> write_first(const PublishOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto script, read_schema_at(options.remote, options.database));
  OFFPRINT_TRY_ASSIGN(auto scratch, publication::ScratchDatabase::create(script));
  publication::FirstDefinitionOptions first{options.name, options.tables};
  if (first.name.empty()) first.name = publication::publication_name_of(options.database);
  OFFPRINT_TRY_ASSIGN(std::string text, publication::first_definition(scratch->db(), first));
  if (options.output.empty()) {
    std::fputs(text.c_str(), stdout);
    return {};
  }
  if (std::filesystem::exists(options.output))
    return fail(Code::kConflict, fmt::format("{} exists: it is left as it is", options.output));
  OFFPRINT_TRY(write_file_atomically(FileSystem::real(), options.output, as_bytes(text)));
  std::fprintf(stderr, "wrote %s: look through it, then offprint publish check\n",
               options.output.c_str());
  return {};
}

struct Action {
  const char* name;
  const char* help;
  Result<> (*run)(const PublishOptions&);
};

constexpr Action kActions[] = {
    {"init", "write a first text that publishes the tables of a database as they are", write_first},
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
    {"limit", "say what each instance of a version may use; 0: as the server says", set_quota},
    {"drop", "end a publication, or one version: its copies are gone for those who follow them",
     drop_publication},
    {"rebuild", "compare what is kept with what is published, and mend it", rebuild_instances},
};

void add_init_options(CLI::App& init, PublishOptions& options) {
  init.add_option("DB", options.database,
                  "name or URL of the database, an SQLite file, or a script (.sql)")
      ->required();
  init.add_option("--table", options.tables, "this table alone; again for more");
  init.add_option("--name", options.name, "of the publication; otherwise as the database");
  init.add_option("--output,-o", options.output, "a new file; otherwise the text is printed");
}

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
    const std::string_view name = action.name;
    if (name == "init") {
      add_init_options(*sub, *options);
    } else {
      sub->add_flag("--json", options->json, "the server's answer as it is");
      sub->add_option("DB", options->database, "name or URL of the database")->required();
    }
    if (name == "create" || name == "check")
      sub->add_option("FILE", options->file, "text: CREATE PUBLICATION …")->required();
    const bool names_one = name == "show" || name == "drop" || name == "release" ||
                           name == "deprecate" || name == "retire" || name == "limit";
    if (names_one)
      sub->add_option("PUBLICATION", options->publication, "such as shop or shop@v2")->required();
    if (name == "check") {
      sub->add_option("--with", options->values,
                      "NAME=VALUE of a parameter: what that instance would be; again for more");
    }
    if (name == "create")
      sub->add_flag("--draft", options->draft, "it may still change; nobody gets it unasked");
    if (name == "limit") {
      sub->add_option("--size-bytes-max", options->size_bytes_max, "of its file");
      sub->add_option("--rows-per-minute-max", options->rows_per_minute_max, "that change in it");
    }
    if (name == "deprecate")
      sub->add_option("--sunset", options->sunset, "until when it is kept, such as 2030-01-31");
    sub->callback([options, &exit_code, run = action.run] {
      auto done = run(*options);
      exit_code = done ? kExitDone : report(done.error());
    });
  }
}

}  // namespace offprint
