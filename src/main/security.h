#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "main/settings.h"
#include "server/http_server.h"
#include "server/service.h"

// Who may talk to a server, and how: keys of tokens, certificates.
namespace offprint {

struct SecurityOptions {
  std::vector<std::string> auth_keys;  // files
  std::string audience;
  std::string tls_cert;
  std::string tls_key;

  bool asks_for_tokens() const { return !auth_keys.empty(); }
  bool has_tls() const { return !tls_cert.empty(); }
};

void add_security_settings(Settings& settings, SecurityOptions& options);

// What a server needs for them. Outlives the HTTP server.
class Security {
 public:
  // kInvalid: files that cannot be used, or half of a pair. Blocks.
  static Result<std::unique_ptr<Security>> load(const SecurityOptions& options,
                                                database::Store& store);
  ~Security();

  void apply(server::Service& service) const;
  const std::shared_ptr<server::TlsCredentials>& tls() const { return tls_; }
  // Certificates that have changed are taken, and what another node of the cluster has revoked;
  // what goes wrong is logged. Blocks on the disk.
  void look_for_changes();

 private:
  Security();
  std::shared_ptr<server::TlsCredentials> tls_;
  std::unique_ptr<server::Revocations> revocations_;
  std::unique_ptr<server::Authenticator> authenticator_;
};

}  // namespace offprint
