#include "server/service.h"

#include "server/errors.h"
#include "server/gate.h"
#include "server/moment.h"

namespace offprint::server {

Result<ReadMode> read_mode(const Service& service, const database::DatabaseName& name,
                           const HttpRequest& request) {
  std::string_view word = request.header("Offprint-Read");
  std::string_view text = request.header("Offprint-Bookmark");
  ReadMode mode;
  mode.rights = access_of(service, request).sql_rights(name);
  mode.primary = word == "primary";
  if (request.header("Offprint-Break") == "yes") {
    mode.may_break = access_of(service, request).allows(name, database::Verb::kPublish);
    if (!mode.may_break)
      return fail(Code::kForbidden,
                  "TOKEN_FORBIDS: breaking what is published needs publish on the database");
  }
  if (!word.empty() && word != "primary" && word != "any") text = word;
  if (std::string_view at = request.header("Offprint-At"); !at.empty()) {
    OFFPRINT_TRY_ASSIGN(mode.as_of, parse_moment(at));
    return mode;
  }
  // Who reads what he has just written, through another node, shall find it.
  const bool says_nothing = word.empty() && text.empty() && !name.is_instance();
  if (says_nothing && service.cluster != nullptr) mode.primary = !service.options.reads_anywhere;
  if (text.empty()) return mode;
  mode.at_least = Bookmark::parse(text);
  if (!mode.at_least) return fail(Code::kInvalid, "'" + std::string(text) + "' is no bookmark");
  return mode;
}

Standing standing(const Service& service, const database::DatabaseName& name) {
  if (!service.has_copies()) return {};
  return {false, service.copy_age_ms(name)};
}

std::string answer_headers(const Service& service, const database::DatabaseName& name,
                           const Bookmark& bookmark) {
  std::string text;
  if (bookmark.lineage != Lineage()) {  // of no database: it was not found
    text += "Offprint-Bookmark: ";
    text += bookmark.text();
    text += "\r\n";
  }
  text += "Offprint-Served-By: ";
  text += service.options.node_name;
  text += "\r\n";
  if (Standing here = standing(service, name); !here.primary)
    text += "Offprint-Age-Ms: " + std::to_string(here.age_ms) + "\r\n";
  return text;
}

Error not_primary(std::string_view why) {
  return Error(Code::kNotPrimary, "NOT_PRIMARY: " + std::string(why));
}

void respond_from_job(Service& service, const char* kind, const database::DatabaseName& name,
                      Responder responder, std::function<Result<Response>()> make) {
  Jobs::Status about;
  about.kind = kind;
  about.database = name.text();
  auto later = std::make_shared<Responder>(std::move(responder));
  auto answer = std::make_shared<std::optional<Response>>();
  auto work = [answer, make = std::move(make)](Jobs::Job&) -> Result<> {
    OFFPRINT_TRY_ASSIGN(*answer, make());
    return {};
  };
  auto ended = [later, answer](const Jobs::Status& status) {
    later->respond(*answer ? std::move(**answer)
                           : structured_error(status.error.value_or(
                                 Error(Code::kUnavailable, "the work was cancelled"))));
  };
  Result<std::string> job = service.jobs.start(about, work, ended);
  if (!job) later->respond(structured_error(job.error()));
}

void respond_from_helper(const Service& service, Responder responder,
                         std::function<Response()> make) {
  // std::function wants something that can be copied.
  auto shared = std::make_shared<Responder>(std::move(responder));
  service.store.post_blocking([shared, make = std::move(make)] { shared->respond(make()); });
}

}  // namespace offprint::server
