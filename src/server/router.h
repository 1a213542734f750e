#pragma once

#include <memory>
#include <string>

#include "server/address.h"
#include "server/http_message.h"
#include "server/instances.h"
#include "server/service.h"

namespace offprint::server {

// Every address of the server, and who answers it. docs/protocol/http.md.
class Router final : public HttpHandler {
 public:
  // `service` must outlive it.
  // `instances`: of a node that does not make all that it has of publications by itself; must
  // outlive this, too.
  explicit Router(Service& service, InstanceHost* instances = nullptr)
      : service_(service),
        publications_(make_publication_host(service)),
        instances_(instances != nullptr ? *instances : *publications_) {}
  BodyPlan plan_body(const HttpRequest& request) override;
  void handle(HttpRequest& request, std::shared_ptr<BodyReceiver> receiver,
              Responder responder) override;

 private:
  void route(HttpRequest& request, std::shared_ptr<BodyReceiver> receiver, Responder responder);
  void route_instance(HttpRequest& request, const Result<InstanceAddress>& instance,
                      Address address, Responder responder);
  void route_database(HttpRequest& request, const DatabaseAddress& target, const Address& address,
                      std::shared_ptr<BodyReceiver> receiver, Responder responder);
  void route_feed(HttpRequest& request, const DatabaseAddress& target, const Address& address,
                  Responder responder);
  void route_import(const database::DatabaseName& name, const Address& address,
                    std::shared_ptr<BodyReceiver> receiver, Responder responder);
  void route_root(HttpRequest& request, const Address& address, Responder responder);
  void route_alias(HttpRequest& request, const std::string& action, Responder responder);
  void route_management(HttpRequest& request, const Address& address, Responder responder);
  bool origin_is_allowed(const HttpRequest& request, std::string_view origin) const;

  Service& service_;
  const std::unique_ptr<InstanceHost> publications_;
  InstanceHost& instances_;
};

}  // namespace offprint::server
