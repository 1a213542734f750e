#include "server/stream_delta.h"

#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "database/undo.h"
#include "ltx/codec.h"
#include "ltx/page_delta.h"
#include "replica/transaction_delta.h"

namespace offprint::server {
namespace {

struct Images {
  PageNo number = 0;
  Bytes before, after;
};

// kTooLarge, kCorrupt.
Result<Bytes> make(Epoch epoch, ByteView file, ByteView undo_bytes) {
  OFFPRINT_TRY_ASSIGN(database::Undo undo, database::read_undo(undo_bytes));
  std::unordered_map<PageNo, ByteView> former;
  for (const database::Undo::Page& page : undo.pages) {
    if (!page.is_gone) former.emplace(page.number, page.delta);
  }
  ltx::BytesSource source(file);
  ltx::Decoder decoder(source);
  OFFPRINT_TRY_ASSIGN(ltx::Header header, decoder.begin());
  std::vector<Images> images;
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
    if (!page) break;
    if (images.size() * header.page_size >= replica::kDeltaImagesMax)
      return fail(Code::kTooLarge, "more than a delta may hold");
    Images one{page->number, {}, Bytes(page->content.begin(), page->content.end())};
    if (auto delta = former.find(page->number); delta != former.end()) {
      one.before.resize(header.page_size);
      OFFPRINT_TRY(ltx::apply_page_delta(one.after, delta->second, one.before));
    }
    images.push_back(std::move(one));
  }
  OFFPRINT_TRY_ASSIGN(ltx::Trailer trailer, decoder.finish());
  std::vector<replica::DeltaPage> pages;
  pages.reserve(images.size());
  for (const Images& one : images) pages.push_back({one.number, one.before, one.after});
  replica::DeltaHead head{epoch,
                          header.max_txid,
                          header.timestamp_ms,
                          header.page_size,
                          header.page_count,
                          header.pre_apply,
                          trailer.post_apply};
  auto delta = replica::encode_delta(head, pages);
  if (!delta) return fail(Code::kTooLarge, "more than a delta may hold");
  return *std::move(delta);
}

}  // namespace

std::optional<Bytes> make_delta(Epoch epoch, ByteView ltx, ByteView undo) {
  Result<Bytes> made = make(epoch, ltx, undo);
  if (made) return *std::move(made);
  if (made.error().code() != Code::kTooLarge)
    log::warn("a transaction is sent whole instead of as a delta: {}", made.error().message());
  return std::nullopt;
}

}  // namespace offprint::server
