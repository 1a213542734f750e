#include "server/d1_import.h"

#include <filesystem>

#include <openssl/evp.h>

#include "base/assert.h"
#include "base/clock.h"
#include "database/sql_import.h"
#include "server/d1_databases.h"
#include "server/d1_envelope.h"
#include "server/d1_imports.h"
#include "server/d1_query.h"
#include "server/jobs.h"
#include "server/json_reader.h"
#include "server/json_writer.h"
#include "server/signed_target.h"
#include "server/upload.h"

namespace offprint::server::d1 {
namespace {

constexpr std::int64_t kLinkLifetimeMs = 3'600'000;
constexpr std::chrono::milliseconds kWaitMax{900};  // of a question for an import that runs

StreamKey key_of(const Service& service) { return service.streams.derived_key("d1 import"); }

// An upload and the MD5 of what came.
class HashedUpload final : public BodyReceiver {
 public:
  explicit HashedUpload(Service& service)
      : file_(std::make_shared<SpooledUpload>(service)), context_(EVP_MD_CTX_new()) {
    OFFPRINT_ASSERT(EVP_DigestInit_ex(context_.get(), EVP_md5(), nullptr) == 1);
  }
  void receive(std::string piece, std::shared_ptr<Client> client) override {
    EVP_DigestUpdate(context_.get(), piece.data(), piece.size());
    file_->receive(std::move(piece), std::move(client));
  }
  bool busy() const override { return file_->busy(); }

  Result<std::string> path() const { return file_->path(); }
  // Once, when everything came.
  std::string etag() {
    std::uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), digest, &size);
    std::string hex;
    for (unsigned i = 0; i < size; ++i) {
      hex += "0123456789abcdef"[digest[i] >> 4];
      hex += "0123456789abcdef"[digest[i] & 15];
    }
    return hex;
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  const std::shared_ptr<SpooledUpload> file_;
  const std::unique_ptr<EVP_MD_CTX, Free> context_;
};

bool is_etag(std::string_view text) {
  return text.size() == 32 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string filename_of(const database::DatabaseInfo& info, std::string_view etag) {
  return uuid_of(info) + "." + std::string(etag) + ".sql";
}

void append_strings(std::string& to, std::string_view name, const std::string& text) {
  to += ",\"";
  to += name;
  to += "\":[";
  if (!text.empty()) append_json_string(to, text);
  to += ']';
}

// The answer to `ingest` and `poll`: D1's account of an import.
std::string status_json(const Service& service, const database::DatabaseName& name,
                        const Import& import) {
  Import::Status status = import.status();
  std::string json =
      R"({"success":true,"type":"import","at_bookmark":")" + import.at_bookmark + R"(","status":)";
  switch (status.state) {
    case Import::State::kFailed:
      json += "\"error\"";
      append_strings(json, "errors", error_message(*status.error));
      append_strings(json, "messages", "Nothing of the file was kept.");
      return json + "}";
    case Import::State::kComplete: {
      json += "\"complete\"";
      append_strings(json, "errors", {});
      append_strings(json, "messages", {});
      json += R"(,"result":{"final_bookmark":")" + status.result.bookmark + R"(","num_queries":)";
      append_unsigned(json, status.result.queries);
      json += ",\"meta\":";
      QueryResult result;
      result.changes = status.result.changes;
      result.rows_written = static_cast<std::uint64_t>(status.result.changes);
      result.changed_db = status.result.bookmark != import.at_bookmark;
      result.duration_ms = status.result.duration_ms;
      append_meta(json, service, name, result, database_size(service, name));
      return json + "}}";
    }
    default:
      json += "\"active\"";
      append_strings(json, "errors", {});
      append_strings(json, "messages",
                     "Processed " + std::to_string(status.queries) + " queries, " +
                         std::to_string(status.bytes_done) + " of " +
                         std::to_string(status.bytes_total) + " bytes.");
      return json + "}";
  }
}

// An answer that waits a moment for the import, so that clients may ask again at once.
class ImportStatus final : public BodyStream {
 public:
  ImportStatus(const Service& service, const database::DatabaseName& name,
               std::shared_ptr<Import> import)
      : service_(service), name_(name), import_(std::move(import)) {}
  void start(std::shared_ptr<Client> client) override { import_->tell(std::move(client)); }
  State fill(std::string& to) override {
    bool waits = !import_->finished() && !stopping_ && SteadyClock::now() < until_;
    if (waits) return State::kWait;
    to += rest_result(status_json(service_, name_, *import_)).body;
    return State::kEnd;
  }
  void stop() override { stopping_ = true; }

 private:
  const Service& service_;
  const database::DatabaseName name_;
  const std::shared_ptr<Import> import_;
  const Deadline until_ = SteadyClock::now() + kWaitMax;
  bool stopping_ = false;
};

Response status_response(const Service& service, const database::DatabaseName& name,
                         std::shared_ptr<Import> import) {
  Response response;
  response.stream = std::make_unique<ImportStatus>(service, name, std::move(import));
  return response;
}

struct Action {
  std::string action, etag, bookmark;
};

Result<Action> parse_action(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto object, reader.parse_object(body));
  OFFPRINT_TRY_ASSIGN(auto word, json_string_field(object, "action"));
  OFFPRINT_TRY_ASSIGN(auto etag, json_string_field(object, "etag"));
  OFFPRINT_TRY_ASSIGN(auto bookmark, json_string_field(object, "current_bookmark"));
  Action action;
  action.action = word.value_or("");
  action.etag = etag.value_or("");
  action.bookmark = bookmark.value_or("");
  if (action.action != "init" && action.action != "ingest" && action.action != "poll")
    return fail(Code::kInvalid, "'action' must be init, ingest or poll");
  if (action.action != "poll" && !is_etag(action.etag))
    return fail(Code::kInvalid, "'etag' must be the file's MD5 in lower-case hexadecimal");
  return action;
}

Response upload_address(const Service& service, const database::DatabaseInfo& info,
                        const HttpRequest& request, const std::string& etag) {
  std::string target = std::string(kUploadPath) + "/" + uuid_of(info) + "/" + etag;
  target = sign_target(key_of(service), std::move(target), unix_time_ms() + kLinkLifetimeMs);
  std::string result = "{\"filename\":";
  append_json_string(result, filename_of(info, etag));
  result += ",\"upload_url\":";
  append_json_string(result, absolute_url(request, target));
  return rest_result(result + "}");
}

Result<> run_import(Service& service, const database::DatabaseName& name, Import& import,
                    Jobs::Job& job) {
  auto& upload = static_cast<HashedUpload&>(*import.upload);
  OFFPRINT_TRY_ASSIGN(std::string path, upload.path());
  std::error_code ignored;
  std::uint64_t size = std::filesystem::file_size(path, ignored);
  database::ImportOptions options;
  options.scratch_directory = service.options.spool_directory;
  options.watcher = [&](const database::LoadProgress& progress) {
    import.progress(progress.bytes_done, size, progress.statements);
    return job.update([&](Jobs::Status& status) {
      status.bytes_done = progress.bytes_done;
      status.bytes_total = size;
      status.statements = progress.statements;
      status.rows = progress.rows;
    });
  };
  OFFPRINT_TRY_ASSIGN(auto imported, database::import_sql(service.store, name, path, options));
  job.update([&](Jobs::Status& status) {
    status.statements = imported.statements;
    status.rows = imported.rows;
    status.broken_references = imported.broken_references;
    status.bookmark = imported.bookmark.text();
  });
  return {};
}

Result<ImportResult> result_of(const Jobs::Status& job) {
  if (job.state != Jobs::Status::State::kDone)
    return fail(job.error.value_or(Error(Code::kUnavailable, "the import was ended")));
  ImportResult result;
  result.queries = job.statements;
  result.changes = static_cast<std::int64_t>(job.rows);
  result.duration_ms = static_cast<double>(unix_time_ms() - job.started_at_ms);
  result.bookmark = job.bookmark;
  return result;
}

// Begins it unless it runs already; then says how it stands.
Response ingest(Service& service, const database::DatabaseInfo& info,
                const database::DatabaseName& name, const std::shared_ptr<Import>& import) {
  Result<bool> begun = service.d1_imports.begin(import, info.bookmark.text());
  if (!begun) return rest_error(begun.error());
  if (*begun) {
    Jobs::Status about;
    about.kind = "import";
    about.database = name.text();
    auto started = service.jobs.start(
        std::move(about),
        [&service, name, import](Jobs::Job& job) {
          return run_import(service, name, *import, job);
        },
        [&service, import](const Jobs::Status& ended) {
          service.d1_imports.finish(import, result_of(ended));
        });
    if (!started) service.d1_imports.finish(import, fail(started.error()));
  }
  return status_response(service, name, import);
}

}  // namespace

void handle_import_action(Service& service, const database::DatabaseInfo& info,
                          HttpRequest& request, Responder responder) {
  Result<Action> action = parse_action(request.body);
  if (!action) return responder.respond(rest_error(action.error()));
  auto name = database::DatabaseName::parse(info.name);
  if (!name) return responder.respond(rest_error(name.error()));
  if (action->action == "poll") {
    auto import = service.d1_imports.begun_at(info.id, action->bookmark);
    if (import) return responder.respond(status_response(service, *name, std::move(import)));
    return responder.respond(rest_error(
        404, RestCode::kNotFound,
        "no import is known that began at this bookmark (they are forgotten after an hour and "
        "with the server's restart); when the database still has it, nothing was imported"));
  }
  auto import = service.d1_imports.unfinished(info.id, action->etag);
  if (import) return responder.respond(ingest(service, info, *name, import));
  if (action->action == "init")
    return responder.respond(upload_address(service, info, request, action->etag));
  responder.respond(rest_error(404, RestCode::kNotFound,
                               "no file with this etag waits here: begin with init again"));
}

std::shared_ptr<BodyReceiver> receive_upload(Service& service, const HttpRequest& request) {
  bool is_upload = request.method == Method::kPut && request.target.starts_with(kUploadPath) &&
                   is_signed_target(key_of(service), request.target, unix_time_ms());
  if (!is_upload) return nullptr;
  return std::make_shared<HashedUpload>(service);
}

void handle_upload(Service& service, const Address& address, std::shared_ptr<BodyReceiver> receiver,
                   Responder responder) {
  auto upload = std::static_pointer_cast<HashedUpload>(std::move(receiver));
  if (!upload) {
    return responder.respond(rest_error(403, RestCode::kUnauthorized,
                                        "the address has expired or is not complete; init again"));
  }
  Result<database::DatabaseInfo> info = find_database(service, address.segments[4]);
  if (!info) return responder.respond(rest_error(info.error()));
  if (auto path = upload->path(); !path) return responder.respond(rest_error(path.error()));
  std::string etag = upload->etag();
  if (etag != address.segments[5]) {
    return responder.respond(rest_error(400, RestCode::kMalformed,
                                        "the file's MD5 is " + etag + ", not what init was told"));
  }
  Result<> added =
      service.d1_imports.add(std::make_shared<Import>(info->id, etag, std::move(upload)));
  if (!added) return responder.respond(rest_error(added.error()));
  Response response = rest_result("null");
  response.headers = "ETag: \"" + etag + "\"\r\n";
  responder.respond(std::move(response));
}

}  // namespace offprint::server::d1
