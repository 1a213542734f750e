#pragma once

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>

#include "database/name.h"
#include "server/http_message.h"
#include "server/service.h"

namespace offprint::server {

// A request body on its way into a temporary file, written by helper threads and removed with this
// object.
class SpooledUpload final : public BodyReceiver,
                            public std::enable_shared_from_this<SpooledUpload> {
 public:
  explicit SpooledUpload(Service& service) : service_(service) {}
  ~SpooledUpload() override;
  void receive(std::string piece, std::shared_ptr<Client> client) override;
  bool busy() const override;

  // Once nothing is being written: the file's path, or why there is none. Thread: any.
  Result<std::string> path() const;

 private:
  Result<> write(const std::string& piece);

  Service& service_;
  mutable std::mutex mutex_;
  bool busy_ = false;             // guarded by mutex_
  std::optional<Error> failure_;  // guarded by mutex_
  std::string path_;              // changed by the writing helper only
  std::FILE* file_ = nullptr;     // the same
};

// POST …/import: the body is an SQLite file; it becomes the content of a database that was never
// written (made when absent), as one transaction.
void handle_import(Service& service, const database::DatabaseName& name,
                   std::shared_ptr<BodyReceiver> receiver, Responder responder);

}  // namespace offprint::server
