#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include <sys/types.h>

#include <openssl/types.h>

#include "base/result.h"

namespace offprint::server {

// The server's certificate and key, which may be replaced while it runs. TLS 1.2 and newer.
// Thread: any.
class TlsCredentials {
 public:
  // PEM files: the certificate with its chain, and its key. kInvalid: they cannot be read, or do
  // not belong together. Blocks on the disk.
  static Result<std::shared_ptr<TlsCredentials>> load(std::string certificate_path,
                                                      std::string key_path);
  ~TlsCredentials();

  // Takes the files again when they have changed since they were looked at; connections that are
  // open keep what they have. True: new ones are in use. An error leaves the old ones in use, and
  // is told once for each change. Blocks on the disk.
  Result<bool> reload_if_changed();

  std::shared_ptr<SSL_CTX> context() const;

 private:
  TlsCredentials(std::string certificate_path, std::string key_path);
  std::string files_state() const;

  const std::string certificate_path_;
  const std::string key_path_;
  std::string seen_;  // files_state() when they were read; only used by the one who reloads
  mutable std::mutex mutex_;
  std::shared_ptr<SSL_CTX> context_;  // guarded by mutex_
};

// One connection's TLS over a non-blocking socket, which must outlive it. Thread: one.
class TlsSession {
 public:
  TlsSession(std::shared_ptr<SSL_CTX> context, int socket);
  ~TlsSession();

  enum class Need { kNothing, kRead, kWrite };  // what the socket has to be ready for
  enum class State { kDone, kWait, kFailed };
  // Until it is kDone nothing can be read or written. After kWait: again, once need() is met.
  State handshake();
  // As recv() and send(): bytes, 0 at the end, -1 with errno EAGAIN (see need()) or another.
  ssize_t receive(char* to, std::size_t size);
  ssize_t send(const char* from, std::size_t size);
  Need need() const { return need_; }
  // Tells the peer that nothing more comes.
  void say_goodbye();

 private:
  ssize_t outcome(int result);

  struct Free {
    void operator()(SSL* ssl) const;
  };
  std::shared_ptr<SSL_CTX> context_;
  std::unique_ptr<SSL, Free> ssl_;
  Need need_ = Need::kNothing;
  bool established_ = false;
};

}  // namespace offprint::server
