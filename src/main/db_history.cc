// offprint db history, restore, fork, snapshot.
#include <cstdio>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "main/db_command.h"
#include "main/progress.h"
#include "main/result_writer.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

constexpr const char* kMomentHelp =
    "a moment: a bookmark, a time such as 2026-01-02T03:04:05Z, or tag:NAME";

// {"at":"…","name":"…"}, without the fields that are empty.
std::string body_of(std::initializer_list<std::pair<const char*, const std::string&>> fields) {
  std::string body = "{";
  for (const auto& [name, value] : fields) {
    if (value.empty()) continue;
    body += fmt::format("{}\"{}\":", body.size() > 1 ? "," : "", name);
    server::append_json_string(body, value);
  }
  return body + "}";
}

Result<HttpAnswer> post(const DbOptions& options, const std::string& action, std::string body) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, options.name));
  Remote remote(options.remote);
  HttpCall call;
  call.method = "POST";
  call.url = url + "/history/" + action;
  call.body = std::move(body);
  return remote.request(call);
}

Result<std::string> field_of(std::string answer, const char* name) {
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer));
  return json_text(root, name);
}

ResultFormat format_here() {
  return is_terminal(stdout) ? ResultFormat::kTable : ResultFormat::kPlain;
}

std::string joined(simdjson::dom::element list) {
  std::string text;
  simdjson::dom::array names;
  if (list.get(names) != simdjson::SUCCESS) return text;
  for (simdjson::dom::element name : names)
    text += (text.empty() ? "" : " ") + std::string(name.get_string().value_unsafe());
  return text;
}

Result<> list_tags(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, options.name));
  Remote remote(options.remote);
  HttpCall call;
  call.url = url + "/history/tags";
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  ResultSet table;
  table.columns = {"tag", "created", "size", "bookmark"};
  simdjson::dom::array tags;
  if (root["tags"].get(tags) != simdjson::SUCCESS)
    return fail(Code::kInvalid, url + " does not answer as an Offprint server");
  for (simdjson::dom::element tag : tags) {
    auto size = std::strtoull(json_text(tag, "size_bytes").c_str(), nullptr, 10);
    table.rows.push_back({json_text(tag, "tag"), json_text(tag, "created_at").substr(0, 19),
                          size_text(size), json_text(tag, "bookmark")});
  }
  std::fputs(format_result(table, format_here()).c_str(), stdout);
  return {};
}

// An archive may have a transaction only together with those since another one.
std::string text_of_place(simdjson::dom::element each) {
  if (json_text(each, "archived").empty()) return "log";
  const std::string first = json_text(each, "first_txid");
  if (first == json_text(each, "txid")) return "archive";
  return fmt::format("archive, with those from {}", first);
}

}  // namespace

Result<> show_history(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, options.name));
  Remote remote(options.remote);
  HttpCall call;
  call.url =
      fmt::format("{}/history?limit={}&details={}", url, options.limit, options.details ? 1 : 0);
  if (options.before != 0) call.url += fmt::format("&before={}", options.before);
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  simdjson::dom::array list;
  if (root["transactions"].get(list) != simdjson::SUCCESS)
    return fail(Code::kInvalid, url + " does not answer as an Offprint server");
  ResultSet table;
  table.columns = {"txid", "time", "bytes"};
  if (options.details) table.columns.insert(table.columns.end(), {"pages", "tables"});
  table.columns.insert(table.columns.end(), {"bookmark", "kept in"});
  for (simdjson::dom::element each : list) {
    std::vector<sqlite::Value> row = {json_text(each, "txid"), json_text(each, "time"),
                                      json_text(each, "bytes")};
    if (options.details) {
      simdjson::dom::element tables;
      std::string names = each["tables"].get(tables) == simdjson::SUCCESS ? joined(tables) : "";
      if (json_text(each, "schema_changed") == "true")
        names = names.empty() ? "(schema)" : "(schema) " + names;
      if (std::string missing = json_text(each, "details_missing"); !missing.empty())
        names = fmt::format("(not known: {})", missing);
      row.insert(row.end(), {json_text(each, "pages"), names});
    }
    row.emplace_back(json_text(each, "bookmark"));
    row.emplace_back(text_of_place(each));
    table.rows.push_back(std::move(row));
  }
  std::fputs(format_result(table, format_here()).c_str(), stdout);
  if (std::string failed = json_text(root, "archive_error"); !failed.empty())
    std::fprintf(stderr, "what only the archive has is left out: %s\n", failed.c_str());
  if (std::string next = json_text(root, "next"); !next.empty())
    std::fprintf(stderr, "for older ones: --before %s\n", next.c_str());
  return {};
}

Result<> restore_database(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto answer,
                      post(options, "restore", body_of({{"at", options.at}, {"to", options.to}})));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  if (!options.to.empty()) {
    std::printf("%s is what %s was\n", options.to.c_str(), options.name.c_str());
    return {};
  }
  OFFPRINT_TRY_ASSIGN(std::string bookmark, field_of(answer.body, "bookmark"));
  OFFPRINT_TRY_ASSIGN(std::string previous, field_of(answer.body, "previous_bookmark"));
  std::printf(
      "%s is what it was; its bookmark is %s now\nto undo this: offprint db restore %s --at %s\n",
      options.name.c_str(), bookmark.c_str(), options.name.c_str(), previous.c_str());
  return {};
}

Result<> fork_database(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto answer,
                      post(options, "fork", body_of({{"name", options.to}, {"at", options.at}})));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
  } else {
    std::printf("forked %s as %s\n", options.name.c_str(), options.to.c_str());
  }
  return {};
}

Result<> snapshot_database(const DbOptions& options) {
  if (!options.drop_tag.empty()) {
    OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, options.name));
    Remote remote(options.remote);
    HttpCall call;
    call.method = "DELETE";
    call.url = url + "/history/tags/" + url_encoded(options.drop_tag);
    OFFPRINT_TRY(remote.request(call));
    std::printf("dropped tag %s of %s\n", options.drop_tag.c_str(), options.name.c_str());
    return {};
  }
  if (options.tag.empty()) return list_tags(options);
  OFFPRINT_TRY_ASSIGN(auto answer,
                      post(options, "tags", body_of({{"tag", options.tag}, {"at", options.at}})));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  OFFPRINT_TRY_ASSIGN(std::string bookmark, field_of(answer.body, "bookmark"));
  std::printf("tag %s of %s is %s\n", options.tag.c_str(), options.name.c_str(), bookmark.c_str());
  return {};
}

void add_history_options(CLI::App& sub, std::string_view action, DbOptions& options) {
  if (action == "fork") sub.add_option("NEW", options.to, "the fork's name")->required();
  if (action == "restore") {
    sub.add_option("--at", options.at, kMomentHelp)->required();
    sub.add_option("--to", options.to, "restore into a new database of this name instead");
  }
  if (action == "fork" || action == "snapshot") sub.add_option("--at", options.at, kMomentHelp);
  if (action == "export") sub.add_option("--at", options.remote.at, kMomentHelp);
  if (action == "snapshot") {
    CLI::Option* tag =
        sub.add_option("--tag", options.tag, "the state's name; without it: the tags");
    sub.add_option("--drop", options.drop_tag, "drop this tag")->excludes(tag);
  }
  if (action == "history") {
    sub.add_option("--limit", options.limit, "at most so many")
        ->check(CLI::Range(1, 10'000))
        ->capture_default_str();
    sub.add_option("--before", options.before, "only those before this transaction (txid)");
    sub.add_flag("--details", options.details, "with the pages and tables that each one touched");
  }
}

}  // namespace offprint
