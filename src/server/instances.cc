#include "server/instances.h"

#include <algorithm>
#include <memory>

#include "server/access.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/kept_request.h"

namespace offprint::server {
namespace {

constexpr std::size_t kPatternSizeMax = 1'000;

}  // namespace

std::optional<Result<InstanceAddress>> parse_instance_address(const Address& address) {
  const auto& segments = address.segments;
  if (segments.empty() || segments[0] != "db") return std::nullopt;
  std::size_t at = 0;
  for (std::size_t i = 2; i <= 3 && i < segments.size() && at == 0; ++i) {
    if (segments[i] == "pub") at = i;
  }
  if (at == 0) return std::nullopt;
  return [&]() -> Result<InstanceAddress> {
    OFFPRINT_TRY_ASSIGN(auto source, database::DatabaseName::parse(
                                         at == 2 ? segments[1] : segments[1] + "/" + segments[2]));
    if (at + 1 >= segments.size())
      return fail(Code::kInvalid, "a publication's address is /db/NAME/pub/PUBLICATION");
    OFFPRINT_TRY_ASSIGN(auto publication, publication::PublicationName::parse(segments[at + 1]));
    return InstanceAddress{std::move(source), std::move(publication), address.path_from(at + 2),
                           address.parameters};
  }();
}

bool is_instance_pattern(std::string_view text) {
  const std::size_t at = text.find("/pub/");
  if (at == std::string_view::npos || text.size() > kPatternSizeMax) return false;
  if (!database::DatabaseName::parse(text.substr(0, at))) return false;
  std::string_view rest = text.substr(at + 5);
  if (rest == "*") return true;
  std::string_view name = rest.substr(0, rest.find('?'));
  return !name.empty() && publication::PublicationName::parse(name) &&
         parse_parameters(rest.substr(std::min(name.size() + 1, rest.size())), 100);
}

bool grant_matches(std::string_view pattern, const InstanceAddress& instance) {
  const std::size_t at = pattern.find("/pub/");
  if (at == std::string_view::npos || pattern.substr(0, at) != instance.source.text()) return false;
  std::string_view rest = pattern.substr(at + 5);
  if (rest == "*") return true;
  std::string_view text = rest.substr(0, rest.find('?'));
  auto name = publication::PublicationName::parse(text);
  if (!name || name->name != instance.publication.name) return false;
  if (name->version && name->version != instance.publication.version) return false;
  auto wanted = parse_parameters(rest.substr(std::min(text.size() + 1, rest.size())), 100);
  if (!wanted) return false;
  // The first of a name counts, as it does for who opens the instance.
  return std::ranges::all_of(*wanted, [&](const auto& parameter) {
    auto given = std::ranges::find(instance.parameters, parameter.first,
                                   &std::pair<std::string, std::string>::first);
    return given != instance.parameters.end() && given->second == parameter.second;
  });
}

void at_instance(Service& service, const InstanceAddress& instance, HttpRequest& request,
                 Responder responder, InstanceAnswer answer) {
  if (service.publications == nullptr) {
    return responder.respond(structured_error(not_primary("publications are kept by the primary")));
  }
  auto go_on = [instance, answer = std::move(answer)](const database::DatabaseName& name,
                                                      std::shared_ptr<const Access> allowed,
                                                      HttpRequest& asked, Responder later) {
    asked.access = allowed->for_instance(instance, name);
    answer({name, instance.action}, asked, std::move(later));
  };
  auto allowed = request.access ? request.access : Access::unlimited();
  if (auto open = service.publications->find_open(instance.source, instance.publication,
                                                  instance.parameters))
    return go_on(*open, allowed, request, std::move(responder));
  auto later = std::make_shared<Responder>(std::move(responder));
  auto kept = std::make_shared<KeptRequest>(request);
  service.store.post_blocking([&service, later, kept, allowed, instance, go_on] {
    auto name =
        service.publications->open(instance.source, instance.publication, instance.parameters);
    if (!name) return later->respond(structured_error(name.error()));
    go_on(*name, allowed, kept->request, std::move(*later));
  });
}

}  // namespace offprint::server
