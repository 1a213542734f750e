#include "server/tls.h"

#include <algorithm>
#include <cerrno>
#include <climits>

#include <sys/socket.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

namespace offprint::server {
namespace {

std::string openssl_error() {
  char text[256] = "unknown error";
  if (unsigned long code = ERR_get_error(); code != 0) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

// A socket as OpenSSL sees it. Its own kind writes without MSG_NOSIGNAL.
int socket_of(BIO* bio) {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio)));
}

int bio_read(BIO* bio, char* to, int size) {
  BIO_clear_retry_flags(bio);
  ssize_t got = ::recv(socket_of(bio), to, static_cast<std::size_t>(size), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
    BIO_set_retry_read(bio);
  return static_cast<int>(got);
}

int bio_write(BIO* bio, const char* from, int size) {
  BIO_clear_retry_flags(bio);
  ssize_t sent =
      ::send(socket_of(bio), from, static_cast<std::size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
    BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

long bio_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

const BIO_METHOD* socket_method() {
  static const BIO_METHOD* method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "offprint socket");
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_ctrl(made, bio_control);
    return made;
  }();
  return method;
}

// HTTP/1.1 is all that is spoken here.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size,
                    const unsigned char* in, unsigned in_size, void*) {
  static constexpr unsigned char kOurs[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kOurs, sizeof kOurs - 1, in, in_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

Result<std::shared_ptr<SSL_CTX>> load_context(const std::string& certificate,
                                              const std::string& key) {
  ERR_clear_error();
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!context) return fail(Code::kInternal, "SSL_CTX_new: " + openssl_error());
  SSL_CTX* raw = context.get();
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                               SSL_OP_NO_COMPRESSION | SSL_OP_PRIORITIZE_CHACHA);
  // Only ciphers with forward secrecy and authentication.
  SSL_CTX_set_cipher_list(raw, "ECDHE+AESGCM:ECDHE+CHACHA20");
  // An idle connection keeps no buffers.
  SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);  // tickets do, and take no memory
  SSL_CTX_set_alpn_select_cb(raw, choose_protocol, nullptr);
  if (SSL_CTX_use_certificate_chain_file(raw, certificate.c_str()) != 1)
    return fail(Code::kInvalid, fmt::format("certificate {}: {}", certificate, openssl_error()));
  if (SSL_CTX_use_PrivateKey_file(raw, key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(raw) != 1) {
    return fail(Code::kInvalid,
                fmt::format("key {} for certificate {}: {}", key, certificate, openssl_error()));
  }
  return context;
}

}  // namespace

// --- credentials -------------------------------------------------------------------------------

TlsCredentials::TlsCredentials(std::string certificate_path, std::string key_path)
    : certificate_path_(std::move(certificate_path)), key_path_(std::move(key_path)) {}
TlsCredentials::~TlsCredentials() = default;

Result<std::shared_ptr<TlsCredentials>> TlsCredentials::load(std::string certificate_path,
                                                             std::string key_path) {
  std::shared_ptr<TlsCredentials> made(
      new TlsCredentials(std::move(certificate_path), std::move(key_path)));
  made->seen_ = made->files_state();
  OFFPRINT_TRY_ASSIGN(made->context_, load_context(made->certificate_path_, made->key_path_));
  return made;
}

// What changes when a file is written or replaced.
std::string TlsCredentials::files_state() const {
  std::string state;
  for (const std::string& path : {certificate_path_, key_path_}) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) {
      state += "absent;";
      continue;
    }
    state += fmt::format("{}.{}.{}.{};", status.st_mtim.tv_sec, status.st_mtim.tv_nsec,
                         status.st_size, status.st_ino);
  }
  return state;
}

Result<bool> TlsCredentials::reload_if_changed() {
  std::string state = files_state();
  if (state == seen_) return false;
  seen_ = std::move(state);
  OFFPRINT_TRY_ASSIGN(auto context, load_context(certificate_path_, key_path_));
  std::lock_guard lock(mutex_);
  context_ = std::move(context);
  return true;
}

std::shared_ptr<SSL_CTX> TlsCredentials::context() const {
  std::lock_guard lock(mutex_);
  return context_;
}

// --- one connection ----------------------------------------------------------------------------

void TlsSession::Free::operator()(SSL* ssl) const { SSL_free(ssl); }

TlsSession::TlsSession(std::shared_ptr<SSL_CTX> context, int socket)
    : context_(std::move(context)), ssl_(SSL_new(context_.get())) {
  BIO* bio = BIO_new(socket_method());
  if (!ssl_ || bio == nullptr) throw std::bad_alloc();
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(socket)));
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  SSL_set_accept_state(ssl_.get());
}

TlsSession::~TlsSession() = default;

TlsSession::State TlsSession::handshake() {
  ERR_clear_error();
  int result = SSL_do_handshake(ssl_.get());
  established_ = result == 1;
  if (established_) return State::kDone;
  outcome(result);
  return errno == EAGAIN ? State::kWait : State::kFailed;
}

ssize_t TlsSession::receive(char* to, std::size_t size) {
  ERR_clear_error();
  int result = SSL_read(ssl_.get(), to, static_cast<int>(std::min<std::size_t>(size, INT_MAX)));
  return result > 0 ? result : outcome(result);
}

ssize_t TlsSession::send(const char* from, std::size_t size) {
  ERR_clear_error();
  int result = SSL_write(ssl_.get(), from, static_cast<int>(std::min<std::size_t>(size, INT_MAX)));
  if (result > 0) return result;
  if (outcome(result) < 0) return -1;
  errno = EPIPE;  // the peer has said its goodbye
  return -1;
}

ssize_t TlsSession::outcome(int result) {
  int system = errno;
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      need_ = Need::kRead;
      errno = EAGAIN;
      return -1;
    case SSL_ERROR_WANT_WRITE:
      need_ = Need::kWrite;
      errno = EAGAIN;
      return -1;
    case SSL_ERROR_ZERO_RETURN:
      return 0;
    case SSL_ERROR_SYSCALL:
      established_ = false;
      errno = system != 0 && system != EAGAIN ? system : ECONNRESET;
      return -1;
    default:
      established_ = false;  // after a fatal error nothing may be sent, not even a goodbye
      errno = EPROTO;
      return -1;
  }
}

void TlsSession::say_goodbye() {
  if (!established_) return;
  ERR_clear_error();
  (void)SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

}  // namespace offprint::server
