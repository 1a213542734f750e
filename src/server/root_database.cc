#include "server/root_database.h"

#include <algorithm>
#include <memory>

#include "server/errors.h"
#include "server/gate.h"
#include "server/kept_request.h"

namespace offprint::server {
namespace {

// "orders" of "orders.example.com:8080"; empty for an address, or a host without a dot.
std::string first_label(std::string_view host) {
  std::size_t dot = host.find('.');
  if (dot == std::string_view::npos || host.starts_with('[')) return {};
  std::string_view name = host.substr(0, host.find(':'));
  if (name.find_first_not_of("0123456789.") == std::string_view::npos) return {};
  std::string label(host.substr(0, dot));
  std::transform(label.begin(), label.end(), label.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return label;
}

}  // namespace

Result<database::DatabaseName> root_database(const Service& service, const HttpRequest& request) {
  std::string_view space = request.header("x-namespace");
  if (!space.empty()) return database::DatabaseName::parse(space);
  std::string label;
  if (service.options.host_label) label = first_label(request.header("Host"));
  return database::DatabaseName::parse(label.empty() ? kDefaultDatabase : label);
}

void at_root_database(Service& service, HttpRequest& request, Responder responder,
                      RootAnswer answer) {
  Result<database::DatabaseName> name = root_database(service, request);
  if (!name) return responder.respond(plain_error(name.error()));
  bool may_create = access_of(service, request).allows(*name, database::Verb::kSchemaAdd);
  if (name->text() != kDefaultDatabase || !may_create || service.store.info(*name))
    return answer(*name, request, std::move(responder));
  auto later = std::make_shared<Responder>(std::move(responder));
  auto kept = std::make_shared<KeptRequest>(request);
  service.store.post_blocking([&service, later, kept, answer, name = *name] {
    Result<database::DatabaseInfo> created = service.store.create(name, {});
    if (!created && created.error().code() != Code::kConflict)
      return later->respond(plain_error(created.error()));
    answer(name, kept->request, std::move(*later));
  });
}

}  // namespace offprint::server
