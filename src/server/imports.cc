#include "server/imports.h"

#include <sys/stat.h>

#include "database/row_import.h"
#include "database/sql_import.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/row_file.h"
#include "server/upload.h"

namespace offprint::server {
namespace {

std::uint64_t size_of(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

// Imports the file at `path`.
using Import = std::function<Result<database::ImportResult>(const std::string& path,
                                                            database::LoadWatcher watcher)>;

Jobs::Work import_work(std::shared_ptr<SpooledUpload> upload, Import import) {
  return [upload = std::move(upload), import = std::move(import)](Jobs::Job& job) -> Result<> {
    OFFPRINT_TRY_ASSIGN(std::string path, upload->path());
    std::uint64_t total = size_of(path);
    auto watcher = [&](const database::LoadProgress& progress) {
      return job.update([&](Jobs::Status& status) {
        status.bytes_done = progress.bytes_done;
        status.bytes_total = total;
        status.statements = progress.statements;
        status.rows = progress.rows;
      });
    };
    OFFPRINT_TRY_ASSIGN(auto done, import(path, watcher));
    job.update([&](Jobs::Status& status) {
      status.bytes_total = total;
      status.statements = done.statements;
      status.rows = done.rows;
      status.broken_references = done.broken_references;
      status.bookmark = done.bookmark.text();
    });
    return {};
  };
}

Response job_answer(const Service& service, const database::DatabaseName& name,
                    const Jobs::Status& status) {
  if (status.error) return structured_error(*status.error);
  Response response;
  auto bookmark = Bookmark::parse(status.bookmark);
  response.headers = answer_headers(service, name, bookmark.value_or(Bookmark{}));
  response.body = job_json(status) + "\n";
  return response;
}

void start_import(Service& service, const database::DatabaseName& name, const Address& address,
                  std::shared_ptr<BodyReceiver> receiver, Responder responder, Import import) {
  auto upload = std::static_pointer_cast<SpooledUpload>(std::move(receiver));
  Jobs::Status about;
  about.kind = "import";
  about.database = name.text();
  bool at_once = address.parameter("async").value_or("0") == "1";
  auto later = std::make_shared<Responder>(std::move(responder));
  Jobs::Ended ended;
  if (!at_once) {
    ended = [&service, name, later](const Jobs::Status& status) {
      later->respond(job_answer(service, name, status));
    };
  }
  Result<std::string> id =
      service.jobs.start(about, import_work(std::move(upload), std::move(import)), ended);
  if (!id) return later->respond(structured_error(id.error()));
  if (!at_once) return;
  Response response;
  response.status = 202;
  response.headers = "Location: /v1/jobs/" + *id + "\r\n";
  response.body = "{\"job\":\"" + *id + "\"}\n";
  later->respond(std::move(response));
}

Result<database::RowImportOptions> row_import_options(const Address& address) {
  using OnConflict = database::RowImportOptions::OnConflict;
  database::RowImportOptions options;
  OFFPRINT_TRY_ASSIGN(RowFile file, RowFile::parse(address));
  options.reader = [file](std::FILE* from) { return file.open(from); };
  options.table = address.parameter("table").value_or("");
  if (options.table.empty()) return fail(Code::kInvalid, "'table' is missing");
  OFFPRINT_TRY_ASSIGN(options.create, address.flag("create", false));
  std::string_view on_conflict = address.parameter("on_conflict").value_or("abort");
  if (on_conflict == "ignore") {
    options.on_conflict = OnConflict::kIgnore;
  } else if (on_conflict == "replace") {
    options.on_conflict = OnConflict::kReplace;
  } else if (on_conflict != "abort") {
    return fail(Code::kInvalid, "'on_conflict' must be abort, ignore or replace");
  }
  return options;
}

}  // namespace

void handle_import_sql(Service& service, const database::DatabaseName& name, const Address& address,
                       std::shared_ptr<BodyReceiver> receiver, Responder responder) {
  auto import = [&service, name](const std::string& path, database::LoadWatcher watcher) {
    database::ImportOptions options;
    options.scratch_directory = service.options.spool_directory;
    options.watcher = std::move(watcher);
    return database::import_sql(service.store, name, path, options);
  };
  start_import(service, name, address, std::move(receiver), std::move(responder), import);
}

void handle_import_rows(Service& service, const database::DatabaseName& name,
                        const Address& address, std::shared_ptr<BodyReceiver> receiver,
                        Responder responder) {
  Result<database::RowImportOptions> parsed = row_import_options(address);
  if (!parsed) return responder.respond(structured_error(parsed.error()));
  auto import = [&service, name, parsed = *std::move(parsed)](const std::string& path,
                                                              database::LoadWatcher watcher) {
    database::RowImportOptions options = parsed;
    options.watcher = std::move(watcher);
    return database::import_rows(service.store, name, path, options);
  };
  start_import(service, name, address, std::move(receiver), std::move(responder), import);
}

namespace {

bool is_allowed(const Access& access, const Jobs::Status& status) {
  auto name = database::DatabaseName::parse(status.database);
  return name && access.allows(*name, database::Verb::kAdmin);
}

}  // namespace

void handle_jobs(Service& service, const HttpRequest& request, const Address& address,
                 Responder responder) {
  bool is_get = request.is_get();
  const Access& access = access_of(service, request);
  Response response;
  if (address.segments.size() == 2 && is_get) {
    response.body = "{\"jobs\":[";
    bool first = true;
    for (const Jobs::Status& status : service.jobs.list()) {
      if (!is_allowed(access, status)) continue;
      if (!std::exchange(first, false)) response.body += ',';
      response.body += job_json(status);
    }
    response.body += "]}\n";
    return responder.respond(std::move(response));
  }
  bool is_delete = request.method == Method::kDelete;
  if (address.segments.size() != 3 || (!is_get && !is_delete)) {
    response = structured_error(
        Error(Code::kInvalid, "METHOD_NOT_ALLOWED: GET /v1/jobs, GET or DELETE /v1/jobs/ID"));
    response.status = 405;
    return responder.respond(std::move(response));
  }
  auto status = service.jobs.find(address.segments[2]);
  if (!status || !is_allowed(access, *status))
    return responder.respond(structured_error(Error(Code::kNotFound, "no such job")));
  if (is_delete) {
    service.jobs.cancel(status->id);
    status = service.jobs.find(status->id).value_or(*status);
    response.status = 202;
  }
  response.body = job_json(*status) + "\n";
  responder.respond(std::move(response));
}

}  // namespace offprint::server
