#include "server/piece_stream.h"

#include <algorithm>
#include <mutex>

#include "base/clock.h"
#include "base/log.h"

namespace offprint::server {
namespace {

// While there are writes, a body is made and sent a third of the time: beside a whole one their p99
// stays below twice what it is (ScaleTest.ALargeDatabaseIsOpenedFollowedAndExported).
constexpr int kRest = 2;                          // times what the last piece took
constexpr std::chrono::milliseconds kRestMax{5};  // for slow clients

class PieceStream final : public BodyStream {
 public:
  PieceStream(Service& service, PieceSource source)
      : shared_(std::make_shared<Shared>(service, std::move(source))) {}
  // The source may be in use by a helper: it goes with that one's piece.
  ~PieceStream() override {
    std::lock_guard lock(shared_->mutex);
    shared_->abandoned = true;
  }

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
    Shared(Service& s, PieceSource from) : service(s), source(std::move(from)) {}
    Service& service;
    const PieceSource source;
    std::shared_ptr<Client> client;
    std::mutex mutex;
    std::string piece;                                   // guarded by mutex
    SteadyClock::time_point began = SteadyClock::now();  // the last piece; guarded by mutex
    bool reading = false;                                // guarded by mutex
    bool finished = false;                               // guarded by mutex
    bool failed = false;                                 // guarded by mutex
    bool abandoned = false;                              // guarded by mutex
  };

  void read_next() {
    std::chrono::nanoseconds took;
    {
      std::lock_guard lock(shared_->mutex);
      shared_->reading = true;
      took = SteadyClock::now() - shared_->began;
    }
    auto rest = std::min<std::chrono::nanoseconds>(took * kRest, kRestMax);
    shared_->service.store.post_piece(rest, [shared = shared_] { read_piece(*shared); });
  }

  static void read_piece(Shared& shared) {
    {
      std::lock_guard lock(shared.mutex);
      if (shared.abandoned) return;
      shared.began = SteadyClock::now();
    }
    std::string piece;
    Result<bool> more = shared.source(piece);
    if (!more) log::warn("an answer was cut off: {}", more.error().message());
    {
      std::lock_guard lock(shared.mutex);
      shared.piece = std::move(piece);
      shared.finished = more && !*more;
      shared.failed = !more;
      shared.reading = false;
    }
    shared.client->wake();
  }

  std::shared_ptr<Shared> shared_;
};

}  // namespace

std::unique_ptr<BodyStream> make_piece_stream(Service& service, PieceSource source) {
  return std::make_unique<PieceStream>(service, std::move(source));
}

}  // namespace offprint::server
