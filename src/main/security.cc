#include "main/security.h"

#include "base/log.h"
#include "server/authenticator.h"
#include "server/revocations.h"
#include "server/tls.h"

namespace offprint {

void add_security_settings(Settings& settings, SecurityOptions& options) {
  settings.add("auth_keys", options.auth_keys,
               "file with public keys of tokens (`offprint token keygen`); with it every request "
               "needs a token; can be repeated");
  settings.add("audience", options.audience, "tokens must be made for this audience (claim aud)");
  settings.add("tls_cert", options.tls_cert,
               "PEM file with the certificate and its chain: https instead of http; taken again "
               "when it changes");
  settings.add("tls_key", options.tls_key, "PEM file with the certificate's key");
}

Security::Security() = default;
Security::~Security() = default;

Result<std::unique_ptr<Security>> Security::load(const SecurityOptions& options,
                                                 database::Store& store) {
  std::unique_ptr<Security> made(new Security);
  if (options.tls_cert.empty() != options.tls_key.empty())
    return fail(Code::kInvalid, "--tls-cert and --tls-key are given together");
  if (options.has_tls()) {
    OFFPRINT_TRY_ASSIGN(made->tls_,
                        server::TlsCredentials::load(options.tls_cert, options.tls_key));
  }
  if (!options.asks_for_tokens()) {
    if (!options.audience.empty()) return fail(Code::kInvalid, "--audience needs --auth-keys");
    return made;
  }
  server::Authenticator::Options auth;
  OFFPRINT_TRY_ASSIGN(auth.keys, server::load_verifying_keys(options.auth_keys));
  auth.audience = options.audience;
  OFFPRINT_TRY_ASSIGN(made->revocations_, server::Revocations::load(store));
  made->authenticator_ =
      std::make_unique<server::Authenticator>(std::move(auth), made->revocations_.get());
  return made;
}

void Security::apply(server::Service& service) const {
  service.authenticator = authenticator_.get();
  service.revocations = revocations_.get();
}

void Security::look_for_changes() {
  if (revocations_) {
    if (auto taken = revocations_->take_kept(); !taken)
      log::error("revoked tokens: {}", taken.error().message());
  }
  if (!tls_) return;
  Result<bool> reloaded = tls_->reload_if_changed();
  if (!reloaded) {
    log::error("the certificate in use is kept: {}", reloaded.error().message());
  } else if (*reloaded) {
    log::info("a new certificate is in use");
  }
}

}  // namespace offprint
