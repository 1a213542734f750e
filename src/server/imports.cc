#include "server/imports.h"

#include <sys/stat.h>

#include "database/sql_import.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/upload.h"

namespace offprint::server {
namespace {

std::uint64_t size_of(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

Jobs::Work import_work(Service& service, const database::DatabaseName& name,
                       std::shared_ptr<SpooledUpload> upload) {
  return [&service, name, upload](Jobs::Job& job) -> Result<> {
    OFFPRINT_TRY_ASSIGN(std::string path, upload->path());
    std::uint64_t total = size_of(path);
    database::ImportOptions options;
    options.scratch_directory = service.options.spool_directory;
    options.watcher = [&](const database::LoadProgress& progress) {
      return job.update([&](Jobs::Status& status) {
        status.bytes_done = progress.bytes_done;
        status.bytes_total = total;
        status.statements = progress.statements;
        status.rows = progress.rows;
      });
    };
    OFFPRINT_TRY_ASSIGN(auto done, database::import_sql(service.store, name, path, options));
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

}  // namespace

void handle_import_sql(Service& service, const database::DatabaseName& name, const Address& address,
                       std::shared_ptr<BodyReceiver> receiver, Responder responder) {
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
      service.jobs.start(about, import_work(service, name, std::move(upload)), ended);
  if (!id) return later->respond(structured_error(id.error()));
  if (!at_once) return;
  Response response;
  response.status = 202;
  response.headers = "Location: /v1/jobs/" + *id + "\r\n";
  response.body = "{\"job\":\"" + *id + "\"}\n";
  later->respond(std::move(response));
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
