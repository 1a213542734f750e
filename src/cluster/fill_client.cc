#include "cluster/fill_client.h"

#include <chrono>
#include <optional>
#include <utility>

#include "cluster/group_index.h"
#include "cluster/peer_call.h"
#include "database/folder_fill.h"

namespace offprint::cluster {
namespace {

// The primary fills one node after the other.
constexpr std::chrono::minutes kSilenceMax{10};

class FillClient {
 public:
  FillClient(FileSystem& files, const FillRequest& request) : files_(files), request_(request) {}

  Result<std::uint64_t> run() {
    PeerCall::Options caller;
    caller.address = request_.address;
    caller.cluster = request_.cluster;
    caller.node = request_.node;
    caller.secret = request_.secret;
    caller.cancelled = request_.cancelled;
    OFFPRINT_TRY_ASSIGN(auto call, PeerCall::open(std::move(caller)));
    OFFPRINT_TRY_ASSIGN(database::FolderFill fill,
                        database::FolderFill::begin(files_, request_.directory));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(PeerFrame frame, call->next(kSilenceMax));
      auto* part = std::get_if<FillFrame>(&frame);
      if (part == nullptr) return fail(Code::kCorrupt, "what came is no part of a fill");
      OFFPRINT_TRY_ASSIGN(bool is_done, take(fill, *part));
      if (is_done) return bytes_;
    }
  }

 private:
  // Whether that was all.
  Result<bool> take(database::FolderFill& fill, const FillFrame& part) {
    if (const auto* refusal = std::get_if<FillRefusal>(&part))
      return fail(Code::kUnavailable, request_.address + ": " + refusal->why);
    if (const auto* begin = std::get_if<FillBegin>(&part)) {
      begins_ = {journal_group(0), begin->lsn, begin->epoch, begin->promised};
      return false;
    }
    if (!begins_) return fail(Code::kCorrupt, "a fill did not begin");
    if (const auto* pages = std::get_if<FillPages>(&part)) {
      bytes_ += pages->images.size();
      OFFPRINT_TRY(fill.pages(pages->images));
    } else if (const auto* database = std::get_if<FillDatabase>(&part)) {
      OFFPRINT_TRY(fill.database(database->id, database->state));
    } else {
      OFFPRINT_TRY(
          fill.finish(std::get<FillEnd>(part).databases, *begins_, as_bytes(request_.mark)));
      return true;
    }
    return false;
  }

  FileSystem& files_;
  const FillRequest& request_;
  std::optional<database::LogBeginning> begins_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

Result<std::uint64_t> fetch_fill(FileSystem& files, const FillRequest& request) {
  return FillClient(files, request).run();
}

}  // namespace offprint::cluster
