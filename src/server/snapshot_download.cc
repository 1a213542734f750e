#include "server/snapshot_download.h"

#include <mutex>

#include "base/log.h"
#include "server/errors.h"

namespace offprint::server {
namespace {

constexpr std::size_t kPieceBytes = 256 << 10;

// Read ahead of the client by at most one piece; each piece is a helper thread's job of its own, so
// a slow client occupies none.
class SnapshotStream final : public BodyStream {
 public:
  SnapshotStream(Service& service, std::unique_ptr<database::Snapshot> snapshot)
      : shared_(std::make_shared<Shared>(service, std::move(snapshot))) {}

  void start(std::shared_ptr<Client> client) override {
    shared_->client = std::move(client);
    read_next();
  }

  State fill(std::string& to) override {
    bool finished;
    {
      std::lock_guard lock(shared_->mutex);
      if (shared_->failed) return State::kFailed;
      if (shared_->reading) return State::kWait;
      to += shared_->piece;
      shared_->piece.clear();
      finished = shared_->finished;
    }
    if (finished) return State::kEnd;
    read_next();
    return State::kWait;
  }

 private:
  // Outlives the stream while a helper reads.
  struct Shared {
    Shared(Service& s, std::unique_ptr<database::Snapshot> from)
        : service(s), snapshot(std::move(from)) {}
    Service& service;
    std::unique_ptr<database::Snapshot> snapshot;
    PageNo next = 1;  // only the reading helper uses it
    std::shared_ptr<Client> client;
    std::mutex mutex;
    std::string piece;      // guarded by mutex
    bool reading = false;   // guarded by mutex
    bool finished = false;  // guarded by mutex
    bool failed = false;    // guarded by mutex
  };

  void read_next() {
    {
      std::lock_guard lock(shared_->mutex);
      shared_->reading = true;
    }
    shared_->service.store.post_blocking([shared = shared_] { read_piece(*shared); });
  }

  static void read_piece(Shared& shared) {
    std::string piece;
    bool failed = false;
    while (piece.size() < kPieceBytes && shared.next <= shared.snapshot->page_count()) {
      Result<ByteView> page = shared.snapshot->page(shared.next);
      if (!page) {
        log::error("snapshot: {}", page.error().message());
        failed = true;
        break;
      }
      piece += as_text(*page);
      ++shared.next;
    }
    {
      std::lock_guard lock(shared.mutex);
      shared.piece = std::move(piece);
      shared.finished = shared.next > shared.snapshot->page_count();
      shared.failed = failed;
      shared.reading = false;
    }
    shared.client->wake();
  }

  std::shared_ptr<Shared> shared_;
};

}  // namespace

void handle_snapshot(Service& service, const database::DatabaseName& name, Responder responder) {
  respond_from_helper(service, std::move(responder), [&service, name] {
    Result<std::unique_ptr<database::Snapshot>> snapshot = service.store.snapshot(name);
    if (!snapshot) return structured_error(snapshot.error());
    Response response;
    response.content_type = "application/vnd.sqlite3";
    response.headers = answer_headers(service, name, (*snapshot)->position().bookmark());
    response.stream_length = std::uint64_t{(*snapshot)->page_size()} * (*snapshot)->page_count();
    response.stream = std::make_unique<SnapshotStream>(service, *std::move(snapshot));
    return response;
  });
}

}  // namespace offprint::server
