#include "ltx/merge.h"

namespace offprint::ltx {
namespace {

bool tracks(const CompactOptions& options) { return (options.flags & kNoChecksumFlag) == 0; }

Header merged_header(const Merge& merge, const CompactOptions& options) {
  Header header;
  header.flags = options.flags;
  header.page_size = merge.first().page_size;
  header.page_count = merge.last().page_count;
  header.min_txid = merge.first().min_txid;
  header.max_txid = merge.last().max_txid;
  header.timestamp_ms = merge.last().timestamp_ms;
  if (tracks(options)) header.pre_apply = merge.first().pre_apply;
  header.wal_offset = options.wal_offset;
  header.wal_salt1 = options.wal_salt1;
  header.wal_salt2 = options.wal_salt2;
  header.node_id = options.node_id;
  return header;
}

}  // namespace

Result<Trailer> compact(Merge& merge, const CompactOptions& options, ByteSink& output) {
  if (tracks(options) && !(merge.first().tracks_checksum() && merge.last().tracks_checksum()))
    return fail(Code::kInvalid, "checksums asked for that the files do not track");

  Encoder encoder(output, options.encoding);
  OFFPRINT_TRY(encoder.begin(merged_header(merge, options)));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(const auto page, merge.next());
    if (!page) break;
    OFFPRINT_TRY(encoder.page(page->number, page->content));
  }
  OFFPRINT_TRY(merge.finish());
  auto trailer =
      encoder.finish(tracks(options) ? merge.trailer(merge.size() - 1).post_apply : Checksum{});
  // The inputs were sound each by itself: together they are not.
  if (!trailer && trailer.error().code() == Code::kInvalid)
    return fail(Code::kCorrupt, trailer.error().message());
  return trailer;
}

Result<Trailer> compact(std::span<ByteSource* const> inputs, const CompactOptions& options,
                        ByteSink& output) {
  std::vector<MergeInput> named;
  for (ByteSource* source : inputs) named.push_back({source, ""});
  Merge merge;
  OFFPRINT_TRY(merge.open(named));
  return compact(merge, options, output);
}

}  // namespace offprint::ltx
