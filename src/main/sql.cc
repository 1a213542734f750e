// offprint sql: statements on a database of a server.
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "database/request.h"
#include "database/script_reader.h"
#include "main/commands.h"
#include "main/conversation.h"
#include "main/database_file.h"
#include "main/progress.h"
#include "main/remote.h"
#include "main/result_writer.h"
#include "main/sql_client.h"
#include "replica/replica_position.h"

namespace offprint {
namespace {

// Statements of a script that travel in one request.
constexpr std::size_t kGroupCountMax = 200;
constexpr std::size_t kGroupBytesMax = 1 << 20;
constexpr std::chrono::milliseconds kReplicaPause{1};

struct SqlOptions {
  RemoteOptions remote;
  std::string database, sql;
  std::string via;  // a replica: its source gets the statements, and it must have got them
  int wait_ms = 10'000;
  bool csv = false, json = false;
};

Error about(const SqlOptions& options, const Error& error) {
  if (error.code() != Code::kNotFound || !options.remote.at.empty()) return error;
  return Error(
      Code::kNotFound,
      fmt::format("{}\n`offprint db list` shows which databases there are; `offprint db create "
                  "NAME` makes one. Asked for: {}",
                  error.message(), options.database));
}

class Runner {
 public:
  Runner(SqlClient& client, ResultFormat format) : client_(client), format_(format) {}

  // Statements up to the first that fails; the error says its line when `with_lines`.
  Result<> run_script(std::FILE* from, bool with_lines) {
    database::ScriptReader reader(from);
    with_lines_ = with_lines;
    for (;;) {
      Result<std::optional<database::ScriptStatement>> next = reader.next();
      if (!next || !*next) {
        OFFPRINT_TRY(flush());
        return next ? Result<>() : Result<>(fail(next.error()));
      }
      database::ScriptStatement statement = **std::move(next);
      // A result can be as large as a request's answer may be: it gets one of its own.
      bool reads = database::looks_read_only(statement.sql);
      if (reads) OFFPRINT_TRY(flush());
      bytes_ += statement.sql.size();
      texts_.push_back(std::move(statement.sql));
      lines_.push_back(statement.line);
      if (reads || texts_.size() >= kGroupCountMax || bytes_ >= kGroupBytesMax)
        OFFPRINT_TRY(flush());
    }
  }

 private:
  Result<> flush() {
    if (texts_.empty()) return {};
    SqlClient::Progress progress = client_.run(texts_);
    for (const ResultSet& result : progress.results)
      std::fputs(format_result(result, format_).c_str(), stdout);
    std::fflush(stdout);
    std::uint64_t line = lines_[std::min(progress.results.size(), lines_.size() - 1)];
    texts_.clear();
    lines_.clear();
    bytes_ = 0;
    if (!progress.failure) return {};
    bool about_statement = with_lines_ && progress.failure->code() == Code::kSql;
    return fail(about_statement ? progress.failure->with_context(fmt::format("line {}", line))
                                : *progress.failure);
  }

  SqlClient& client_;
  const ResultFormat format_;
  bool with_lines_ = false;
  std::vector<std::string> texts_;
  std::vector<std::uint64_t> lines_;
  std::size_t bytes_ = 0;
};

Result<> run_text(Runner& runner, const std::string& text) {
  if (text.empty()) return {};
  FileHandle file(::fmemopen(const_cast<char*>(text.data()), text.size(), "rb"));
  return runner.run_script(file.get(), false);
}

// Until the replica has what the database has now.
Result<> wait_for_replica(const SqlOptions& options, const std::string& url) {
  Remote remote(options.remote);
  HttpCall call;
  call.url = url;
  OFFPRINT_TRY_ASSIGN(HttpAnswer answer, remote.request(call));
  simdjson::dom::parser parser;
  simdjson::dom::element info;
  if (parser.parse(answer.body).get(info) != simdjson::SUCCESS)
    return fail(Code::kUnavailable, url + " gives no bookmark");
  auto wanted = Bookmark::parse(json_text(info, "bookmark"));
  if (!wanted) return fail(Code::kUnavailable, url + " gives no bookmark");
  for (Deadline until = SteadyClock::now() + std::chrono::milliseconds(options.wait_ms);;) {
    Result<replica::ReplicaStanding> standing = replica::read_replica_position(options.via);
    if (!standing && standing.error().code() != Code::kBehind) return fail(standing.error());
    bool there = standing && standing->position.lineage == wanted->lineage &&
                 standing->position.txid >= wanted->txid;
    if (there) return {};
    if (SteadyClock::now() >= until) {
      return fail(Code::kBehind,
                  fmt::format("it is done, but {} has not got it within {} ms: is its follower "
                              "running?",
                              options.via, options.wait_ms));
    }
    std::this_thread::sleep_for(kReplicaPause);
  }
}

int run(SqlOptions& options) {
  if (!options.via.empty()) {
    if (!options.sql.empty()) return report_usage("with --via, FILE says which database it is");
    if (!options.remote.at.empty()) return report_usage("--at only reads, --via is for writing");
    Result<replica::ReplicaStanding> standing = replica::read_replica_position(options.via);
    if (!standing && standing.error().code() == Code::kNotFound)
      return report(
          Error(Code::kNotFound, options.via + " is no replica: " + standing.error().message()));
    if (!standing) return report(standing.error());
    options.sql = std::exchange(options.database, standing->source);
  }
  if (options.database.empty()) return report_usage("DATABASE is missing");
  Result<std::string> url = database_url(options.remote, options.database);
  if (!url) return report_usage(url.error().message());
  ResultFormat format = options.csv           ? ResultFormat::kCsv
                        : options.json        ? ResultFormat::kJson
                        : is_terminal(stdout) ? ResultFormat::kTable
                                              : ResultFormat::kPlain;
  SqlClient client(*url, options.remote);
  Runner runner(client, format);
  if (options.sql.empty() && is_terminal(stdin)) {
    return converse(options.database,
                    [&](const std::string& text) { return run_text(runner, text); });
  }
  Result<> done =
      options.sql.empty() ? runner.run_script(stdin, true) : run_text(runner, options.sql);
  if (done && !options.via.empty()) done = wait_for_replica(options, *url);
  return done ? kExitDone : report(about(options, done.error()));
}

}  // namespace

void add_sql(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("sql", "Runs SQL on a database; a conversation on a terminal.");
  auto options = std::make_shared<SqlOptions>();
  command->add_option("DATABASE", options->database, "a name on the server, or a database's URL");
  command->add_option("SQL", options->sql, "statements; without: those of standard input");
  command->add_option(
      "--via", options->via,
      "a followed FILE instead of DATABASE: sends the statements to its source, and "
      "returns when FILE has what they wrote");
  command->add_option("--wait-ms", options->wait_ms, "how long --via waits for FILE")
      ->capture_default_str();
  command->add_option("--at", options->remote.at,
                      "reads an earlier state: a bookmark, a time such as 2026-01-02T03:04:05Z, or "
                      "tag:NAME");
  command->add_flag("--break", options->remote.may_break,
                    "changes the schema even where it breaks a publication");
  CLI::Option* csv = command->add_flag("--csv", options->csv, "names and rows as CSV");
  command->add_flag("--json", options->json, "a JSON object for each row, one a line")
      ->excludes(csv);
  add_server_option(*command, options->remote);
  add_token_option(*command, options->remote);
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace offprint
