#include "server/upload.h"

#include <cerrno>
#include <cstdlib>

#include <unistd.h>

#include "server/errors.h"

namespace offprint::server {

SpooledUpload::~SpooledUpload() {
  if (file_ != nullptr) std::fclose(file_);
  if (path_.empty()) return;
  // Reading the file as a database may have left SQLite's own files beside it.
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) ::unlink((path_ + suffix).c_str());
}

void SpooledUpload::receive(std::string piece, std::shared_ptr<Client> client) {
  {
    std::lock_guard lock(mutex_);
    busy_ = true;
  }
  service_.store.post_blocking(
      [self = shared_from_this(), piece = std::move(piece), client = std::move(client)] {
        Result<> written = self->write(piece);
        {
          std::lock_guard lock(self->mutex_);
          self->busy_ = false;
          if (!written && !self->failure_) self->failure_ = written.error();
        }
        client->wake();
      });
}

bool SpooledUpload::busy() const {
  std::lock_guard lock(mutex_);
  return busy_;
}

Result<> SpooledUpload::write(const std::string& piece) {
  if (file_ == nullptr) {
    std::string path = service_.options.spool_directory + "/upload-XXXXXX";
    int descriptor = ::mkstemp(path.data());
    if (descriptor < 0) return fail(io_error("create " + path, errno));
    path_ = path;
    file_ = ::fdopen(descriptor, "wb");
  }
  bool written =
      std::fwrite(piece.data(), 1, piece.size(), file_) == piece.size() && std::fflush(file_) == 0;
  if (!written) return fail(io_error("write " + path_, errno));
  return {};
}

Result<std::string> SpooledUpload::path() const {
  std::lock_guard lock(mutex_);
  if (failure_) return fail(*failure_);
  if (path_.empty())
    return fail(Code::kInvalid, "the body is empty; it must be an SQLite file or a script");
  return path_;
}

void handle_import(Service& service, const database::DatabaseName& name,
                   std::shared_ptr<BodyReceiver> receiver, Responder responder) {
  auto upload = std::static_pointer_cast<SpooledUpload>(std::move(receiver));
  respond_from_helper(service, std::move(responder), [&service, name, upload] {
    Result<std::string> path = upload->path();
    if (!path) return structured_error(path.error());
    Result<Bookmark> bookmark = service.store.import_file(name, *path);
    if (!bookmark) return structured_error(bookmark.error());
    Response response;
    response.headers = answer_headers(service, name, *bookmark);
    response.body = "{\"bookmark\":\"" + bookmark->text() + "\"}\n";
    return response;
  });
}

}  // namespace offprint::server
