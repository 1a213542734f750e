#include "server/instances.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "server/access.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/json_writer.h"
#include "server/kept_request.h"

namespace offprint::server {
namespace {

constexpr std::size_t kPatternSizeMax = 1'000;

using Lease = InstanceHost::Lease;

// Words beside a publication's parameters that cannot be names of them.
bool is_of_action(std::string_view parameter) {
  constexpr std::string_view kWords[] = {"from", "format", "table", "schema", "data"};
  return std::ranges::find(kWords, parameter) != std::end(kWords);
}

// Cut when its instance goes on no more: whoever connects again is told why.
class LeasedStream final : public BodyStream {
 public:
  LeasedStream(std::unique_ptr<BodyStream> stream, std::unique_ptr<Lease> lease)
      : stream_(std::move(stream)), lease_(std::move(lease)) {}
  void start(std::shared_ptr<Client> client) override { stream_->start(std::move(client)); }
  void stop() override { stream_->stop(); }
  void last_words(std::string& to) override { stream_->last_words(to); }
  // Asked at least once a second.
  State fill(std::string& to) override {
    return lease_->goes_on() ? stream_->fill(to) : State::kFailed;
  }

 private:
  const std::unique_ptr<BodyStream> stream_;
  const std::unique_ptr<Lease> lease_;
};

class LeasedClient final : public Client {
 public:
  LeasedClient(std::shared_ptr<Client> client, InstanceHost& host, InstanceAddress address,
               database::DatabaseName name)
      : client_(std::move(client)),
        host_(host),
        address_(std::move(address)),
        name_(std::move(name)) {}
  void respond(Response response) override {
    if (response.stream) {
      response.stream =
          std::make_unique<LeasedStream>(std::move(response.stream), host_.lease(address_, name_));
    }
    client_->respond(std::move(response));
  }
  void wake() override { client_->wake(); }
  std::string peer_address() const override { return client_->peer_address(); }

 private:
  const std::shared_ptr<Client> client_;
  InstanceHost& host_;
  const InstanceAddress address_;
  const database::DatabaseName name_;
};

class PublicationHost final : public InstanceHost {
 public:
  explicit PublicationHost(Service& service) : service_(service) {}

  std::optional<database::DatabaseName> find_open(const InstanceAddress& instance) override {
    if (service_.publications == nullptr) return std::nullopt;
    return service_.publications->find_open(instance.source, instance.publication,
                                            instance.parameters);
  }
  void open(const InstanceAddress& instance, std::size_t size_bytes,
            std::function<void(Opened)> done) override {
    auto refuse = [&](const Error& error) { done(structured_error(error)); };
    if (service_.publications == nullptr)
      return refuse(not_primary("publications are kept by the primary"));
    auto work = [this, instance, done] {
      auto name =
          service_.publications->open(instance.source, instance.publication, instance.parameters);
      if (name)
        done(*std::move(name));
      else
        done(structured_error(name.error()));
    };
    if (auto posted = service_.publications->post(instance.source, size_bytes, std::move(work));
        !posted)
      refuse(posted.error());
  }
  std::unique_ptr<Lease> lease(const InstanceAddress& instance,
                               const database::DatabaseName& name) override {
    return service_.publications->lease(instance.source, name);
  }
  Result<std::string> address_of(const InstanceAddress& instance,
                                 const database::DatabaseName&) override {
    return service_.publications->address_of(instance.source, instance.publication,
                                             instance.parameters);
  }

 private:
  Service& service_;
};

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

Result<InstanceAddress> parse_instance_text(const std::string& text) {
  OFFPRINT_TRY_ASSIGN(Address address, parse_address("/db/" + text));
  auto instance = parse_instance_address(address);
  if (!instance) return fail(Code::kInvalid, "'" + text + "' is no instance of a publication");
  return *std::move(instance);
}

std::string instance_text(const InstanceAddress& instance) {
  std::string text = fmt::format("{}/pub/{}", instance.source.text(), instance.publication.name);
  if (instance.publication.version) text += fmt::format("@v{}", *instance.publication.version);
  char separator = '?';
  for (const auto& [name, value] : instance.parameters) {
    if (is_of_action(name)) continue;
    text += fmt::format("{}{}={}", std::exchange(separator, '&'), publication::encoded(name),
                        publication::encoded(value));
  }
  return text;
}

Response unavailable(std::string why) {
  return structured_error(Error(Code::kUnavailable, std::move(why)));
}

Response much_waits() {
  return unavailable(
      "PUBLICATION_BUSY: much waits for what the primary publishes; ask again later");
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

void at_instance(InstanceHost& host, const InstanceAddress& instance, HttpRequest& request,
                 Responder responder, InstanceAnswer answer) {
  auto go_on = [&host, instance, answer = std::move(answer)](const database::DatabaseName& name,
                                                             std::shared_ptr<const Access> allowed,
                                                             HttpRequest& asked, Responder later) {
    asked.access = allowed->for_instance(instance, name);
    Responder leased(std::make_shared<LeasedClient>(later.release(), host, instance, name));
    answer({name, instance.action}, asked, std::move(leased));
  };
  auto allowed = request.access ? request.access : Access::unlimited();
  if (auto opened = host.find_open(instance))
    return go_on(*opened, allowed, request, std::move(responder));
  auto later = std::make_shared<Responder>(std::move(responder));
  auto kept = std::make_shared<KeptRequest>(request);
  const std::size_t size_bytes = kept->request.body.size();
  host.open(instance, size_bytes, [later, kept, allowed, go_on](InstanceHost::Opened opened) {
    if (auto* refusal = std::get_if<Response>(&opened)) return later->respond(std::move(*refusal));
    go_on(std::get<database::DatabaseName>(opened), allowed, kept->request, std::move(*later));
  });
}

std::unique_ptr<InstanceHost> make_publication_host(Service& service) {
  return std::make_unique<PublicationHost>(service);
}

void handle_instance_address(Service& service, InstanceHost& host, const InstanceAddress& instance,
                             HttpRequest& request, Responder responder) {
  at_instance(
      host, instance, request, std::move(responder),
      [&service, &host, instance](const DatabaseAddress& target, HttpRequest&, Responder later) {
        respond_from_helper(service, std::move(later), [&host, instance, name = target.name] {
          auto address = host.address_of(instance, name);
          if (!address) return structured_error(address.error());
          Response response;
          response.body = "{\"address\":";
          append_json_string(response.body, *address);
          response.body += "}\n";
          return response;
        });
      });
}

}  // namespace offprint::server
