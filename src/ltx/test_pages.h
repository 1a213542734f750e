#pragma once

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>
#include <vector>

#include "ltx/checksum.h"
#include "ltx/codec.h"
#include "ltx/reference_writer.h"

// Pages and files for tests, from a seed.
namespace offprint::ltx {

using Pages = std::vector<std::pair<PageNo, Bytes>>;

// 00 01 … ff twice.
inline Bytes ramp_page() {
  Bytes page(512);
  for (std::size_t i = 0; i < page.size(); ++i) page[i] = static_cast<std::uint8_t>(i);
  return page;
}

// Zeros, noise, text, or a bit of each: from what shrinks to nothing to what does not shrink at
// all.
inline Bytes random_page(std::mt19937_64& random, std::uint32_t page_size) {
  Bytes page(page_size);
  const std::uint64_t kind = random() % 4;
  const std::size_t noise = kind == 0 ? 0 : kind == 1 ? page_size : random() % page_size;
  for (std::size_t i = 0; i < noise; ++i) {
    page[i] = static_cast<std::uint8_t>(kind == 2 ? 'a' + (i * i / 7) % 20 : random());
  }
  store_be<std::uint32_t>(page.data() + random() % (page_size - 4),
                          static_cast<std::uint32_t>(random()));
  return page;
}

// A database as a test sees it: its pages, without the lock page.
using Model = std::map<PageNo, Bytes>;

inline Checksum checksum_of(const Model& model) {
  std::uint64_t value = std::uint64_t{1} << 63;
  for (const auto& [number, content] : model)
    value ^= reference::page_crc(number, content) & ~(std::uint64_t{1} << 63);
  return Checksum{value};
}

struct RandomFile {
  Header header;
  Pages pages;
  Checksum post_apply;
};

// A snapshot, a change or a deletion, tracked or not, with every header field used where it may be.
inline RandomFile random_file(std::mt19937_64& random, std::uint32_t page_size) {
  RandomFile file;
  Header& header = file.header;
  const bool snapshot = random() % 3 == 0;
  const bool tracked = random() % 3 != 0;
  const bool deletion = tracked && random() % 8 == 0;
  header.flags = tracked ? 0 : kNoChecksumFlag;
  header.page_size = page_size;
  header.page_count = deletion ? 0 : static_cast<std::uint32_t>(1 + random() % 20);
  header.min_txid.value = snapshot ? 1 : 2 + (random() >> (1 + random() % 63));
  header.max_txid.value = header.min_txid.value + random() % 3;
  header.timestamp_ms = static_cast<std::int64_t>(random());
  header.node_id = random();
  if (tracked && !snapshot) header.pre_apply = Checksum{kChecksumFlag | random()};
  if (random() % 2 == 0) {
    header.wal_offset = static_cast<std::int64_t>(1 + (random() >> 2));
    header.wal_size = static_cast<std::int64_t>(random() >> 2);
    header.wal_salt1 = static_cast<std::uint32_t>(random());
    header.wal_salt2 = static_cast<std::uint32_t>(random());
  }
  Model model;
  for (PageNo number = 1; number <= header.page_count; ++number) {
    if (!snapshot && random() % 2 == 0) continue;
    model[number] = random_page(random, page_size);
    file.pages.emplace_back(number, model[number]);
  }
  if (tracked) {
    file.post_apply = deletion   ? kEmptyDatabase
                      : snapshot ? checksum_of(model)
                                 : Checksum{kChecksumFlag | random()};
  }
  return file;
}

inline Bytes encode(const Header& header, const Pages& pages, Checksum post_apply,
                    PageEncoding encoding = PageEncoding::kBlock) {
  Bytes out;
  BytesSink sink(out);
  Encoder encoder(sink, encoding);
  EXPECT_TRUE(encoder.begin(header));
  for (const auto& [number, content] : pages) {
    const auto written = encoder.page(number, content);
    EXPECT_TRUE(written) << written.error().message();
  }
  const auto trailer = encoder.finish(post_apply);
  EXPECT_TRUE(trailer) << trailer.error().message();
  return out;
}

// The same by the reference writer, pages as LZ4 frames or as blocks.
inline Bytes reference_file(const RandomFile& made, bool as_frames) {
  reference::File file{made.header, {}, made.post_apply.value, {}, {}};
  for (const auto& [number, content] : made.pages) {
    file.frames.push_back(as_frames ? reference::lz4_frame(number, content)
                                    : reference::block_frame(number, content));
  }
  return file.bytes();
}

}  // namespace offprint::ltx
