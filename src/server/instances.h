#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "database/name.h"
#include "publication/publications.h"
#include "server/address.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// /db/DB/pub/PUB@vN/ACTION?parameter=value: an instance of a publication, and what is asked of it.
struct InstanceAddress {
  database::DatabaseName source;
  publication::PublicationName publication;
  std::string action;  // as of a database: "stream", "query", "" …
  std::vector<std::pair<std::string, std::string>> parameters;  // of the address
};
// Nothing: no such address. kInvalid: what is wrong in it.
std::optional<Result<InstanceAddress>> parse_instance_address(const Address& address);
// "orders/pub/shop@v2?tenant=7". kInvalid.
Result<InstanceAddress> parse_instance_text(const std::string& text);

// That text: without what is no parameter of the publication but of what is asked of the instance.
std::string instance_text(const InstanceAddress& instance);

// The action that asks for its address; for those who may subscribe.
inline constexpr std::string_view kInstanceAddress = "address";

// What tokens may name: "shop/orders/pub/*" (all publications of a database) or
// "orders/pub/shop@v2?tenant=7", also without the version (any) or parameters (any).
bool is_instance_pattern(std::string_view text);
bool grant_matches(std::string_view pattern, const InstanceAddress& instance);

// Who has the instances that a node answers for. Thread: any.
class InstanceHost {
 public:
  using Lease = publication::Publications::Lease;
  // The database that an instance is here, or the answer why there is none.
  using Opened = std::variant<database::DatabaseName, Response>;
  virtual ~InstanceHost() = default;

  // From memory: one that was opened by just this address before. Quick.
  virtual std::optional<database::DatabaseName> find_open(const InstanceAddress& instance) = 0;
  // Has it made where it is not here. `done` is called once, on any thread, perhaps before
  // this returns. `size_bytes`: what it keeps in memory until then.
  virtual void open(const InstanceAddress& instance, std::size_t size_bytes,
                    std::function<void(Opened)> done) = 0;
  // Somebody uses it for longer than a request, as a stream does.
  virtual std::unique_ptr<Lease> lease(const InstanceAddress& instance,
                                       const database::DatabaseName& name) = 0;
  // Its address in the one form that all have who mean it; of one that is open. May block.
  virtual Result<std::string> address_of(const InstanceAddress& instance,
                                         const database::DatabaseName& name) = 0;
};

// Why an instance is not answered for now. much_waits(): requests of too many clients wait for the
// primary.
Response unavailable(std::string why);
Response much_waits();

// Of a node that makes them itself: service.publications, which may be null.
std::unique_ptr<InstanceHost> make_publication_host(Service& service);

// Finds or makes the instance, and gives the request on to `answer` as one to its database, with
// rights on that alone, for reading.
using InstanceAnswer =
    std::function<void(const DatabaseAddress& target, HttpRequest& request, Responder responder)>;
void at_instance(InstanceHost& host, const InstanceAddress& instance, HttpRequest& request,
                 Responder responder, InstanceAnswer answer);

// GET …/address: {"address":"orders/pub/shop@v2?tenant=7"}, for nodes that relay it.
void handle_instance_address(Service& service, InstanceHost& host, const InstanceAddress& instance,
                             HttpRequest& request, Responder responder);

}  // namespace offprint::server
