// offprint db: the databases of a server.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "database/name.h"
#include "ltx/types.h"
#include "main/commands.h"
#include "main/database_file.h"
#include "main/db_command.h"
#include "main/progress.h"
#include "main/remote.h"
#include "main/result_writer.h"
#include "server/json_reader.h"
#include "server/json_writer.h"

namespace offprint {
namespace {

constexpr auto kJobLookEvery = std::chrono::milliseconds(100);

Error about(const DbOptions& options, const Error& error) {
  const std::string& name = options.name;
  switch (error.code()) {
    case Code::kNotFound:
      if (!options.at.empty() || !options.tag.empty() || !options.drop_tag.empty())
        return error.with_context(name);
      if (!options.table.empty()) return error.with_context(name);  // a table, perhaps
      return Error(error.code(),
                   fmt::format("there is no database '{}' at {}\n`offprint db list` shows what is "
                               "there; `offprint db create {}` makes it.",
                               name, options.remote.server, name));
    case Code::kConflict:
      return error.with_context(name);
    default:
      return error;
  }
}

Result<> create(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, ""));
  constexpr std::string_view kModes[] = {"none", "full", "incremental"};
  int auto_vacuum = 0;
  for (int i = 0; i < 3; ++i) {
    if (options.auto_vacuum == kModes[i]) auto_vacuum = i;
  }
  std::string body = fmt::format(
      R"({{"name":"{}","page_size":{},"auto_vacuum":{},"encoding":"{}","foreign_keys":{}{}}})",
      options.name, options.page_size, auto_vacuum, options.encoding, !options.no_foreign_keys,
      options.from_archive ? R"(,"from_archive":true)" : "");
  Remote remote(options.remote);
  HttpCall call;
  call.method = "POST";
  call.url = url;
  call.body = std::move(body);
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
  } else {
    OFFPRINT_TRY_ASSIGN(auto database, database_url(options.remote, options.name));
    std::printf("created %s: %s/\n", options.name.c_str(), database.c_str());
  }
  return {};
}

// All databases, page by page.
Result<> list(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, ""));
  Remote remote(options.remote);
  ResultSet table;
  table.columns = {"name", "size", "txid", "open", "created"};
  std::string after;
  do {
    HttpCall call;
    call.url = fmt::format("{}?prefix={}&after={}", url, options.prefix, after);
    OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
    after.clear();
    server::JsonReader reader;
    OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
    simdjson::dom::array databases;
    if (root["databases"].get(databases) != simdjson::SUCCESS) {
      return fail(Code::kInvalid, url + " does not answer as an Offprint server");
    }
    for (simdjson::dom::element database : databases) {
      if (options.json) {
        std::printf("%s\n", std::string(simdjson::minify(database)).c_str());
        continue;
      }
      std::optional<Bookmark> bookmark = Bookmark::parse(json_text(database, "bookmark"));
      auto size = static_cast<std::uint64_t>(std::atoll(json_text(database, "size_bytes").c_str()));
      table.rows.push_back({json_text(database, "name"), size_text(size),
                            static_cast<std::int64_t>(bookmark ? bookmark->txid.value : 0),
                            std::string(json_text(database, "open") == "true" ? "yes" : "no"),
                            json_text(database, "created_at").substr(0, 19)});
    }
    after = json_text(root, "next");
  } while (!after.empty());
  if (options.json) return {};
  if (table.rows.empty() && is_terminal(stdout)) {
    std::printf("no databases yet; `offprint db create NAME` makes one\n");
    return {};
  }
  std::fputs(format_result(table, is_terminal(stdout) ? ResultFormat::kTable : ResultFormat::kPlain)
                 .c_str(),
             stdout);
  return {};
}

Result<> info(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, options.name));
  Remote remote(options.remote);
  HttpCall call;
  call.url = url;
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  simdjson::dom::object object;
  if (root.get(object) != simdjson::SUCCESS)
    return fail(Code::kInvalid, url + " does not answer as an Offprint server");
  for (auto field : object)
    std::printf("%-13s %s\n", std::string(field.key).c_str(), json_text(root, field.key).c_str());
  return {};
}

// KEY=VALUE each; the server knows which there are.
Result<> set(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, options.name));
  std::string limits;
  for (const std::string& setting : options.settings) {
    std::size_t equals = setting.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail(Code::kInvalid, fmt::format("'{}' is not KEY=VALUE", setting));
    std::string value = setting.substr(equals + 1);
    bool is_json =
        value == "true" || value == "false" || value == "null" ||
        (!value.empty() && std::ranges::all_of(value, [](char c) { return c >= '0' && c <= '9'; }));
    limits += limits.empty() ? "" : ",";
    server::append_json_string(limits, setting.substr(0, equals));
    limits += ':';
    if (is_json) {
      limits += value;
    } else {
      server::append_json_string(limits, value);
    }
  }
  Remote remote(options.remote);
  HttpCall call;
  call.method = "PATCH";
  call.url = url;
  call.body = fmt::format(R"({{"limits":{{{}}}}})", limits);
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  std::printf("%s %s\n", options.name.c_str(), json_text(root, "limits").c_str());
  return {};
}

Result<> insights(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, options.name));
  Remote remote(options.remote);
  HttpCall call;
  call.url = url + "/insights";
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  if (options.json) {
    std::fputs(answer.body.c_str(), stdout);
    return {};
  }
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
  simdjson::dom::array list;
  if (root["statements"].get(list) != simdjson::SUCCESS)
    return fail(Code::kInvalid, url + " does not answer as an Offprint server");
  std::printf("%10s %8s %9s %9s %10s %10s  %s\n", "count", "errors", "p50 us", "p99 us",
              "rows read", "written", "statement");
  for (simdjson::dom::element each : list) {
    auto text = [&](const char* name) { return json_text(each, name); };
    std::printf("%10s %8s %9s %9s %10s %10s  %s\n", text("count").c_str(), text("errors").c_str(),
                text("p50_us").c_str(), text("p99_us").c_str(), text("rows_read").c_str(),
                text("rows_written").c_str(), text("sql").c_str());
  }
  return {};
}

// Counts of one database in one month; `first` stands in the first column.
void add_usage_row(ResultSet& table, simdjson::dom::element counts, const std::string& first) {
  auto number = [&](const char* field) {
    return static_cast<std::int64_t>(std::strtoull(json_text(counts, field).c_str(), nullptr, 10));
  };
  auto size = [&](const char* field) {
    return size_text(static_cast<std::uint64_t>(number(field)));
  };
  table.rows.push_back({first, number("queries"), number("rows_read"), number("rows_written"),
                        size("size_bytes"), size("size_bytes_max")});
}

Result<> usage(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string server, parse_url(options.remote.server));
  bool is_one = !options.name.empty();
  Remote remote(options.remote);
  ResultSet table;
  table.columns = {
      is_one ? "month" : "name", "queries", "rows read", "rows written", "size", "largest size"};
  std::string month = options.month.empty() ? "" : "&month=" + options.month;
  std::string after;
  do {
    HttpCall call;
    call.url = is_one ? fmt::format("{}/v1/databases/{}/usage", server, options.name)
                      : fmt::format("{}/v1/usage?prefix={}{}&after={}", server, options.prefix,
                                    month, after);
    OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
    if (options.json) std::fputs(answer.body.c_str(), stdout);
    server::JsonReader reader;
    OFFPRINT_TRY_ASSIGN(auto root, reader.parse(answer.body));
    simdjson::dom::array list;
    if (root[is_one ? "months" : "databases"].get(list) != simdjson::SUCCESS)
      return fail(Code::kInvalid, call.url + " does not answer as an Offprint server");
    for (simdjson::dom::element each : list) {
      std::string first = json_text(each, is_one ? "month" : "name");
      if (is_one && !options.month.empty() && first != options.month) continue;
      if (json_text(each, "dropped") == "true") first += " (dropped)";
      add_usage_row(table, each, first);
    }
    after = json_text(root, "next");
  } while (!after.empty());
  if (options.json) return {};
  std::fputs(format_result(table, is_terminal(stdout) ? ResultFormat::kTable : ResultFormat::kPlain)
                 .c_str(),
             stdout);
  return {};
}

Result<> drop(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, api_url(options, options.name));
  Remote remote(options.remote);
  HttpCall call;
  call.method = "DELETE";
  call.url = url;
  OFFPRINT_TRY(remote.request(call));
  std::printf("dropped %s\n", options.name.c_str());
  return {};
}

// Looks at a job until it has ended; its last state.
Result<std::string> wait_for_job(const DbOptions& options, Remote& remote, const std::string& url,
                                 StatusLine& line) {
  ProgressBar bar(line, "running " + options.file);
  for (std::string last;;) {
    HttpCall look;
    look.url = url;
    OFFPRINT_TRY_ASSIGN(auto answer, remote.request(look));
    server::JsonReader reader;
    std::string copy = answer.body;
    OFFPRINT_TRY_ASSIGN(auto root, reader.parse(copy));
    std::string state = json_text(root, "state");
    if (state != "waiting" && state != "running") return std::move(answer.body);
    if (options.json && answer.body != last) std::fputs(answer.body.c_str(), stdout);
    bar.update(std::strtoull(json_text(root, "bytes_done").c_str(), nullptr, 10),
               std::strtoull(json_text(root, "bytes_total").c_str(), nullptr, 10));
    last = std::move(answer.body);
    std::this_thread::sleep_for(kJobLookEvery);
  }
}

FileKind file_kind(const DbOptions& options) {
  return kind_of(options.format.empty() ? options.file : "." + options.format);
}

bool is_rows(FileKind kind) { return kind != FileKind::kDatabase && kind != FileKind::kScript; }

// The server runs the script or takes the rows, as a job.
Result<> finish_job(const DbOptions& options, Remote& remote, std::string answer,
                    StatusLine& line) {
  server::JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto accepted, reader.parse(answer));
  OFFPRINT_TRY_ASSIGN(std::string server, parse_url(options.remote.server));
  OFFPRINT_TRY_ASSIGN(
      std::string last,
      wait_for_job(options, remote, server + "/v1/jobs/" + json_text(accepted, "job"), line));
  line.clear();
  if (options.json) std::fputs(last.c_str(), stdout);
  OFFPRINT_TRY_ASSIGN(auto job, reader.parse(last));
  if (json_text(job, "state") != "done") {
    simdjson::dom::element error;
    std::string message = json_text(job, "state");
    if (job["error"].get(error) == simdjson::SUCCESS) message = json_text(error, "message");
    return fail(Code::kSql, options.file + ": " + message);
  }
  if (std::string broken = json_text(job, "broken_references"); !broken.empty()) {
    std::fprintf(stderr,
                 "offprint: note: %s rows refer by a foreign key to rows that are not there\n",
                 broken.c_str());
  }
  if (options.json) return {};
  std::string counts = json_text(job, "rows") + " rows";
  if (!is_rows(file_kind(options)))
    counts = json_text(job, "statements") + " statements, " + counts;
  std::printf("imported %s (%s) into %s\n", options.file.c_str(), counts.c_str(),
              options.name.c_str());
  return {};
}

// "format=csv&table=…": how the server is told what the file's rows are.
std::string row_parameters(const DbOptions& options, FileKind kind) {
  std::string text = kind == FileKind::kJsonLines ? "format=jsonl" : "format=csv";
  std::string delimiter =
      kind == FileKind::kTsv && options.delimiter.empty() ? "tab" : options.delimiter;
  if (!delimiter.empty()) text += "&delimiter=" + url_encoded(delimiter);
  if (options.no_header) text += "&header=0";
  if (!options.table.empty()) text += "&table=" + url_encoded(options.table);
  return text;
}

Result<std::string> import_address(const DbOptions& options, FileKind kind) {
  OFFPRINT_TRY_ASSIGN(std::string url, database_url(options.remote, options.name));
  if (kind == FileKind::kDatabase) return url + "/import";
  if (kind == FileKind::kScript) return url + "/import?format=sql&async=1";
  if (options.table.empty())
    return fail(Code::kInvalid, options.file + ": which table its rows go into says --table");
  return fmt::format("{}/import?{}&async=1&on_conflict={}{}", url, row_parameters(options, kind),
                     options.on_conflict, options.create_table ? "&create=1" : "");
}

Result<> import_file(const DbOptions& options) {
  Remote remote(options.remote);
  FileKind kind = file_kind(options);
  OFFPRINT_TRY_ASSIGN(std::string url, import_address(options, kind));
  OFFPRINT_TRY_ASSIGN(auto file, open_for_upload(options.file, kind));
  StatusLine line;
  ProgressBar bar(line, "sending " + options.file);
  HttpCall call;
  call.method = "POST";
  call.url = url;
  call.body_file = file->content.get();
  call.body_file_size = file->size;
  call.sent = [&](std::uint64_t sent) { bar.update(sent, file->size); };
  Result<HttpAnswer> answer = remote.request(call);
  line.clear();
  if (!answer) return fail(std::move(answer).error());
  if (kind != FileKind::kDatabase)
    return finish_job(options, remote, std::move(answer->body), line);
  if (options.json) {
    std::fputs(answer->body.c_str(), stdout);
  } else {
    std::printf("imported %s (%s) as %s\n", options.file.c_str(), size_text(file->size).c_str(),
                options.name.c_str());
  }
  return {};
}

Result<std::string> export_address(const DbOptions& options, FileKind kind) {
  OFFPRINT_TRY_ASSIGN(std::string url, database_url(options.remote, options.name));
  if (kind == FileKind::kDatabase) return url + "/snapshot";
  if (kind == FileKind::kScript) return url + "/dump";
  if (options.table.empty() == options.query.empty())
    return fail(Code::kInvalid, "such a file holds the rows of one --table or one --query");
  std::string query = options.query.empty() ? "" : "&query=" + url_encoded(options.query);
  return url + "/export?" + row_parameters(options, kind) + query;
}

Result<> export_file(const DbOptions& options) {
  OFFPRINT_TRY_ASSIGN(std::string url, export_address(options, file_kind(options)));
  OFFPRINT_TRY_ASSIGN(auto target, ExportTarget::create(options.file, options.force));
  Remote remote(options.remote);
  StatusLine line;
  ProgressBar bar(line, "exporting " + options.name);
  HttpCall call;
  call.url = url;
  std::uint64_t size = 0;
  call.sink = [&](ByteView piece) {
    size += piece.size();
    bar.update(size, 0);
    return target->write(piece);
  };
  OFFPRINT_TRY_ASSIGN(auto answer, remote.request(call));
  line.clear();
  if (answer.length != 0 && answer.length != size) {
    return fail(Code::kUnavailable, fmt::format("{}: the answer ended early", call.url));
  }
  OFFPRINT_TRY(target->finish());
  std::printf("exported %s (%s) to %s\n", options.name.c_str(), size_text(size).c_str(),
              options.file.c_str());
  return {};
}

int run(Result<> (*action)(const DbOptions&), const DbOptions& options) {
  if (Result<std::string> url = parse_url(options.remote.server); !url)
    return report_usage(url.error().message());
  if (!options.name.empty()) {
    if (auto name = database::DatabaseName::parse(options.name); !name)
      return report_usage(name.error().message());
  }
  if (Result<> done = action(options); !done) return report(about(options, done.error()));
  return kExitDone;
}

struct Action {
  const char* name;
  const char* help;
  Result<> (*run)(const DbOptions&);
};

void add_create_options(CLI::App& sub, DbOptions& options) {
  sub.add_option("--page-size", options.page_size, "bytes, a power of two from 512 to 65536")
      ->check(CLI::IsMember({512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}))
      ->capture_default_str();
  sub.add_option("--auto-vacuum", options.auto_vacuum, "none, full or incremental")
      ->check(CLI::IsMember({"none", "full", "incremental"}))
      ->capture_default_str();
  sub.add_option("--encoding", options.encoding, "UTF-8, UTF-16le or UTF-16be")
      ->check(CLI::IsMember({"UTF-8", "UTF-16le", "UTF-16be"}))
      ->capture_default_str();
  sub.add_flag("--from-archive", options.from_archive,
               "with the newest state that the server's archive has under this name, also "
               "Litestream's, and go on there");
  sub.add_flag("--no-foreign-keys", options.no_foreign_keys, "do not enforce foreign keys");
}

// Of import and export.
void add_file_options(CLI::App& sub, DbOptions& options, bool is_import) {
  sub.add_option("FILE", options.file,
                 "the ending says what it is: .sql, .csv, .tsv, .jsonl or .ndjson, else an SQLite "
                 "file")
      ->required();
  sub.add_option("--format", options.format, "what FILE is, whatever its ending")
      ->check(CLI::IsMember({"db", "sql", "csv", "tsv", "jsonl"}));
  sub.add_option(
      "--table", options.table,
      is_import ? "the table that the rows go into" : "the table whose rows are written");
  sub.add_flag("--no-header", options.no_header,
               "a CSV file does not begin with the columns' names");
  sub.add_option("--delimiter", options.delimiter,
                 "between the fields of a CSV file: , ; | : or tab");
  if (is_import) {
    sub.add_flag("--create", options.create_table,
                 "make the table when it is absent, with columns without a type");
    sub.add_option("--on-conflict", options.on_conflict,
                   "what becomes of a row that a constraint refuses: abort, ignore or replace")
        ->check(CLI::IsMember({"abort", "ignore", "replace"}))
        ->capture_default_str();
  } else {
    sub.add_option("--query", options.query, "the SELECT whose rows are written");
    sub.add_flag("--force", options.force, "replace FILE if it exists");
  }
}

}  // namespace

Result<std::string> api_url(const DbOptions& options, const std::string& name) {
  OFFPRINT_TRY_ASSIGN(std::string server, parse_url(options.remote.server));
  return server + "/v1/databases" + (name.empty() ? "" : "/" + name);
}

void add_db(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("db",
                                         "Databases of a server: create, list, info, set, drop, "
                                         "import, export, history, restore, fork, snapshot.");
  command->require_subcommand(1);
  constexpr Action kActions[] = {
      {"create", "makes an empty database", create},
      {"list", "all databases, with size and newest transaction", list},
      {"info", "one database: lineage, bookmark, sizes, settings", info},
      {"set", "changes settings of a database, such as rows_max=1000 or durability=archive", set},
      {"insights", "what its statements cost in the last 24 hours", insights},
      {"usage", "what it, or each database, was used for in a month (UTC)", usage},
      {"drop", "removes a database and its content; its followers end with exit code 5", drop},
      {"history", "its last transactions, newest first", show_history},
      {"restore",
       "makes it what it was at a moment: a further transaction, that can be undone in the same "
       "way",
       restore_database},
      {"fork", "makes a new database out of what it is, or was at a moment", fork_database},
      {"snapshot", "gives a state a name (a tag), which keeps it; lists and drops tags",
       snapshot_database},
      {"import",
       "fills a new database with an SQLite file (.db), runs a script (.sql) on a new or existing "
       "one, or puts rows (.csv, .tsv, .jsonl) into a table; all or nothing",
       import_file},
      {"export",
       "writes a consistent copy as an SQLite file (.db) or a script (.sql), or the rows of a "
       "table "
       "or query (.csv, .tsv, .jsonl)",
       export_file},
  };
  for (const Action& action : kActions) {
    CLI::App* sub = command->add_subcommand(action.name, action.help);
    std::string_view name = action.name;
    // Of its own: variables of the environment are read for every subcommand, also for those not
    // asked for.
    auto options = std::make_shared<DbOptions>();
    add_server_option(*sub, options->remote);
    add_token_option(*sub, options->remote);
    if (name != "list")
      sub->add_option("NAME", options->name, "such as orders or shop/orders")
          ->required(name != "usage");
    if (name != "drop" && name != "export")
      sub->add_flag("--json", options->json, "the server's answer as JSON");
    if (name == "usage") {
      sub->add_option("--month", options->month,
                      "such as 2026-11; of all databases this one unless given");
    }
    if (name == "set") {
      sub->add_option("SETTING", options->settings,
                      "KEY=VALUE: size_bytes_max, statement_ms_max, rows_max, writes_blocked, "
                      "reads_blocked, block_reason, durability (server, disk or archive), "
                      "retention_days; 0, false and null take a limit away")
          ->required();
    }
    if (name == "list" || name == "usage")
      sub->add_option("--prefix", options->prefix, "only names that start with this");
    if (name == "create") add_create_options(*sub, *options);
    if (name == "import" || name == "export") add_file_options(*sub, *options, name == "import");
    add_history_options(*sub, name, *options);
    sub->callback(
        [options, run_action = action.run, &exit_code] { exit_code = run(run_action, *options); });
  }
}

}  // namespace offprint
