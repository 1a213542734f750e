#include "replica/copy_fetch.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "ltx/checksum.h"
#include "replica/http_client.h"
#include "replica/stream_format.h"

namespace offprint::replica {
namespace {

constexpr int kWaitMs = 200;
constexpr std::size_t kErrorBodyMax = 4096;

Result<PageHashes> hashes_of(database::Store& store, const database::DatabaseName& name) {
  OFFPRINT_TRY_ASSIGN(auto snapshot, store.snapshot(name));
  PageHashes hashes;
  hashes.page_size = snapshot->page_size();
  for (PageNo page = 1; page <= snapshot->page_count(); ++page) {
    OFFPRINT_TRY_ASSIGN(ByteView image, snapshot->page(page));
    bool lock = page == ltx::lock_page(hashes.page_size);
    hashes.hashes.push_back(lock ? 0 : ltx::page_checksum(page, image).value);
  }
  return hashes;
}

// Takes the frames of the answer.
class PagesTaker {
 public:
  PagesTaker(database::Store& store, const database::DatabaseName& name)
      : store_(store), name_(name) {}

  Result<> take(const Frame& frame) {
    switch (frame.kind) {
      case FrameKind::kSnapshotBegin: {
        OFFPRINT_TRY_ASSIGN(SnapshotBegin begin, parse_snapshot_begin(frame.payload));
        page_size_ = begin.page_size;
        OFFPRINT_TRY_ASSIGN(
            writer_, store_.begin_copy(name_, {begin.position, begin.page_size, begin.page_count,
                                               !begin.difference}));
        return {};
      }
      case FrameKind::kPages: {
        if (!writer_) return fail(Code::kCorrupt, "pages outside of a snapshot");
        PagesReader pages(frame.payload, page_size_);
        for (;;) {
          OFFPRINT_TRY_ASSIGN(auto page, pages.next());
          if (!page) return {};
          OFFPRINT_TRY(writer_->page(page->number, page->image));
        }
      }
      case FrameKind::kSnapshotEnd:
        if (!writer_) return fail(Code::kCorrupt, "the end of no snapshot");
        OFFPRINT_TRY(writer_->finish());
        finished_ = true;
        return {};
      case FrameKind::kEnd: {
        OFFPRINT_TRY_ASSIGN(End end, parse_end(frame.payload));
        if (end.reason == EndReason::kDropped) return fail(Code::kNotFound, end.text);
        if (end.reason != EndReason::kDone) return fail(Code::kUnavailable, end.text);
        return {};
      }
      default:
        return {};
    }
  }
  bool finished() const { return finished_; }

 private:
  database::Store& store_;
  const database::DatabaseName& name_;
  std::uint32_t page_size_ = 0;
  std::unique_ptr<database::CopyWriter> writer_;
  bool finished_ = false;
};

Result<> refused(int status, const std::string& text) {
  Code code = status == 404   ? Code::kNotFound
              : status == 401 ? Code::kUnauthorized
              : status == 403 ? Code::kForbidden
                              : Code::kUnavailable;
  return fail(code, fmt::format("the primary answers {}: {}", status, text));
}

}  // namespace

Result<> fetch_copy(const CopyFetchOptions& options, database::Store& store,
                    const database::DatabaseName& name, const std::atomic<bool>& stop) {
  PageHashes hashes;
  if (!options.whole && store.info(name)) {
    // A file that cannot be read is replaced.
    if (auto ours = hashes_of(store, name)) hashes = *std::move(ours);
  }
  OFFPRINT_TRY_ASSIGN(auto http, HttpClient::create());
  HttpClient::Request request;
  request.url =
      options.url + (options.path ? options.path(name) : fmt::format("/db/{}/pages", name.text()));
  request.ca_file = options.ca_file;
  request.connect_timeout_ms = options.connect_timeout_ms;
  request.headers = {fmt::format("{}: {}", kVersionHeader, kStreamVersion),
                     fmt::format("Content-Type: {}", kPageHashesContentType)};
  if (!options.token.empty()) request.headers.push_back("Authorization: Bearer " + options.token);
  request.body = encode_page_hashes(hashes);
  OFFPRINT_TRY(http->start(std::move(request)));
  FrameReader frames;
  PagesTaker pages(store, name);
  std::string refusal;
  Deadline silence = SteadyClock::now() + std::chrono::milliseconds(options.answer_timeout_ms);
  for (;;) {
    OFFPRINT_TRY_ASSIGN(HttpClient::Event event, http->wait(kWaitMs));
    if (stop.load()) return fail(Code::kUnavailable, "stopped");
    if (event == HttpClient::Event::kData) {
      silence = SteadyClock::now() + std::chrono::milliseconds(options.answer_timeout_ms);
      if (http->status() == 200) {
        frames.feed(http->received());
      } else if (refusal.size() < kErrorBodyMax) {
        refusal += as_text(http->received());
      }
      http->received().clear();
      for (;;) {
        OFFPRINT_TRY_ASSIGN(auto frame, frames.next());
        if (!frame) break;
        OFFPRINT_TRY(pages.take(*frame));
      }
    } else if (event == HttpClient::Event::kEnd) {
      if (http->status() != 200) return refused(http->status(), refusal);
      if (pages.finished()) return {};
      return fail(Code::kUnavailable, "the primary broke off");
    } else if (SteadyClock::now() > silence) {
      return fail(Code::kUnavailable, "nothing heard from the primary");
    }
  }
}

}  // namespace offprint::replica
